// Keeps a page up to date: it asks for the page again, and takes over what has changed.
import { now, setClock } from "./times.js";

const INTERVAL = 5000;
const PATIENCE = 15000;

/** What the exporter did not do as it should. */
class Trouble extends Error {}

/** When the page was last up to date, by the exporter's clock. */
let upToDate = now();
let etag = "";
let refreshes = 0;
/** @type {ReturnType<typeof setTimeout>|undefined} */
let next;
/** @type {AbortController|undefined} */
let asking;

/** What tells elements of one parent apart, whatever their order is. @param {Node} node */
const keyOf = (node) => (node instanceof Element ? node.getAttribute("data-key") ?? node.id : "");

/** The first of a node and those behind it that the server wrote. What the script added stays where it is.
 * @param {ChildNode|null} node */
const written = (node) => {
    while (node instanceof HTMLElement && node.dataset.added !== undefined) node = node.nextSibling;
    return node;
};

/** @param {Element} before @param {Element} wanted */
const takeAttributes = (before, wanted) => {
    for (const { name } of [...before.attributes]) {
        // What the reader opened stays open.
        if (!wanted.hasAttribute(name) && name !== "open") before.removeAttribute(name);
    }
    for (const { name, value } of wanted.attributes) {
        if (name !== "open" && before.getAttribute(name) !== value) before.setAttribute(name, value);
    }
};

/** Makes an element like another one. Elements with the same key stay the same, so no focus and no place is lost.
 * @param {Element} before @param {Element} wanted */
export const become = (before, wanted) => {
    if (before instanceof HTMLTimeElement && wanted instanceof HTMLTimeElement) {
        // Its text is told anew in any case.
        if (before.dateTime !== wanted.dateTime) {
            before.dateTime = wanted.dateTime;
            before.title = "";
        }
        return;
    }
    takeAttributes(before, wanted);
    const keyed = new Map([...before.childNodes].filter((node) => keyOf(node)).map((node) => [keyOf(node), node]));
    const wantedKeys = new Set([...wanted.childNodes].map(keyOf));
    for (const [key, node] of keyed) if (!wantedKeys.has(key)) node.remove();
    let place = written(before.firstChild);
    for (const child of [...wanted.childNodes]) {
        const key = keyOf(child);
        const known = key ? keyed.get(key) : place && !keyOf(place) && place.nodeName === child.nodeName ? place : undefined;
        if (!known) {
            before.insertBefore(child, place);
            continue;
        }
        if (known === place) place = written(place.nextSibling);
        else before.insertBefore(known, place);
        if (known instanceof Element && child instanceof Element) become(known, child);
        else if (known.nodeValue !== child.nodeValue) known.nodeValue = child.nodeValue;
    }
    while (place) {
        const gone = place;
        place = written(place.nextSibling);
        gone.remove();
    }
};

/** @param {string} path @param {AbortSignal} stop */
const ask = async (path, stop) => {
    try {
        const headers = /** @type {Record<string, string>} */ (etag ? { "If-None-Match": etag } : {});
        return await fetch(path, { headers, signal: AbortSignal.any([stop, AbortSignal.timeout(PATIENCE)]) });
    } catch (problem) {
        if (stop.aborted) return null;
        throw new Trouble(problem instanceof DOMException && problem.name === "TimeoutError" ? "it takes too long to answer" : "it cannot be reached");
    }
};

/** Shows what the exporter says now. @param {string} html */
const show = (html) => {
    const page = new DOMParser().parseFromString(html, "text/html");
    const focused = document.activeElement;
    for (const part of ["main", "header", "footer"]) {
        const [before, wanted] = [document.querySelector(part), page.querySelector(part)];
        if (before && wanted) become(before, wanted);
    }
    // An element that was moved has lost the focus.
    if (focused instanceof HTMLElement && focused.isConnected && focused !== document.activeElement) focused.focus({ preventScroll: true });
    document.title = page.title;
    const [icon, wanted] = [document, page].map((of) => of.querySelector("link[rel=icon]"));
    if (icon && wanted) takeAttributes(icon, wanted);
};

/** @param {string} why */
const showOffline = (why) => {
    const offline = document.getElementById("offline");
    if (!offline) return;
    const at = new Date(upToDate).toISOString();
    offline.textContent = `The exporter does not answer: ${why}. What is shown here is from `;
    const time = document.createElement("time");
    time.dateTime = at;
    offline.append(time);
    offline.hidden = false;
};

/** Asks for the page again, and shows it. @param {() => void} shown called when something has changed */
export const refresh = async (shown) => {
    asking?.abort();
    asking = new AbortController();
    const { signal } = asking;
    clearTimeout(next);
    try {
        const answer = await ask(location.href, signal);
        if (!answer) return;
        setClock(answer);
        if (answer.status !== 304) {
            // A page that says what does not exist any more is a page, too.
            if (!answer.ok && answer.status !== 404) throw new Trouble(`it answered ${answer.status}`);
            const html = await answer.text();
            if (signal.aborted) return;
            show(html);
            etag = answer.headers.get("etag") ?? "";
        }
        upToDate = now();
        const offline = document.getElementById("offline");
        if (offline) offline.hidden = true;
        refreshes += 1;
        document.body.dataset.refreshes = String(refreshes);
    } catch (problem) {
        if (signal.aborted) return;
        showOffline(problem instanceof Trouble ? problem.message : `its answer cannot be shown, ${problem}`);
    }
    shown();
    if (!document.hidden) next = setTimeout(() => refresh(shown), INTERVAL);
};

/** Forgets what is shown, because the address is another one now. */
export const addressChanged = () => (etag = "");

/** Asks for the page again and again while somebody looks. @param {() => void} shown */
export const keepUpToDate = (shown) => {
    document.addEventListener("visibilitychange", () => {
        if (document.hidden) clearTimeout(next);
        else void refresh(shown);
    });
    setInterval(() => document.hidden || shown(), 1000);
    next = setTimeout(() => refresh(shown), INTERVAL);
};
