// Keeps the status page up to date. Rows are written as page/row.rs and page/agents.rs write them: a test compares the two.
// All text comes from others, so it is only ever set as text.
"use strict";

/**
 * @typedef {{name: string, agent_id: number, progress_id: string, api: string, source: string, expect: ?string,
 *   labels: Object<string, string>, status: string, raw_status: ?string, problem: ?string, mock_enabled: ?boolean, mismatch: ?boolean,
 *   mcp_endpoints: ?number, mcp_tools: ?number, message: ?string, error: ?string, up: ?boolean,
 *   poll_error: ?string, poll_error_detail: ?string, started_at: string, finished_at: ?string,
 *   last_success_at: ?string, next_poll_at: ?string, polls: number, poll_failures: number, replica?: string}} Toggle
 * @typedef {{at: string, event: string, from?: string, to?: string, text?: ?string, mismatch?: boolean,
 *   duration_seconds?: ?number, reason?: string, detail?: ?string, lasted_seconds?: number, status?: string,
 *   progress_id?: string}} Happened
 * @typedef {{name: string, requests_per_second: number, max_in_flight: number, in_flight: number, waiting: number,
 *   paused_until: ?string, up: ?boolean, polled: number, failing: Object<string, number>,
 *   agents: {asked: number, failing: Object<string, number>}}} Api
 * @typedef {{api: string, agent_id: number, source: ?string, provider: ?string, labels: Object<string, string>,
 *   mocks_live: ?boolean, mocks_live_since: ?string, should_be: ?string, mocks_drift: ?boolean, expect: ?string,
 *   mock_enabled: ?boolean, told_by: ?string, told_at: ?string, mcp_endpoints: ?number, tool_endpoints: ?number,
 *   up: ?boolean, poll_error: ?string, poll_error_detail: ?string, last_success_at: ?string, next_poll_at: ?string,
 *   polls: ?number, poll_failures: ?number, replica?: string}} Agent
 * @typedef {{version: string, revision: string, started_at: string, statuses: Object<string, number>,
 *   standings: Object<string, number>, apis: Api[]}} Overview
 */

const REFRESH_MS = 5000;
const PATIENCE_MS = 15000;
const ROWS = 500;
const MAX_FETCHED = 10000;
const MAX_TEXT = 256;
const MAX_WORDS = 16;
const SHORT_TEXT = 80;
const STUCK_MS = 30 * 60e3;
const SILENT_MS = 15 * 60e3;

/** How a toggle stands, the worst first, with the shape and the word of its badge. */
const STANDINGS = /** @type {const} */ ({
    failed: ["✖", "failed"],
    mismatched: ["≠", "mismatch"],
    stuck: ["◷", "stuck"],
    silent: ["○", "silent"],
    failing: ["△", "polls fail"],
    unknown: ["?", "unknown"],
    in_progress: ["▸", "in progress"],
    completed: ["✔", "completed"],
});
/** @typedef {keyof typeof STANDINGS} Standing */
const WORST_FIRST = /** @type {Standing[]} */ (Object.keys(STANDINGS));

/** How an agent stands, the worst first, with the shape and the word of its badge, and how a summary tells of it. */
const AGENT_STANDINGS = /** @type {const} */ ({
    drifted: ["≠", "drifted", "drifted"],
    on: ["●", "on", "on without being expected"],
    failing: ["△", "polls fail", "not answering"],
    well: ["✔", "as expected", ""],
    unjudged: ["?", "not judged", ""],
});
/** @typedef {keyof typeof AGENT_STANDINGS} AgentStanding */
const AGENTS_WORST_FIRST = /** @type {AgentStanding[]} */ (Object.keys(AGENT_STANDINGS));

/** @template {HTMLElement} E @param {string} id @param {new () => E} kind @returns {E} */
const byId = (id, kind) => {
    const found = document.getElementById(id);
    if (!(found instanceof kind)) throw new Error(`the page has no ${id}`);
    return found;
};
const table = byId("toggles", HTMLTableElement);
const form = byId("filter", HTMLFormElement);
const words = /** @type {HTMLInputElement} */ (form.elements.namedItem("q"));
const statusChoice = /** @type {HTMLSelectElement} */ (form.elements.namedItem("status"));
const shown = byId("shown", HTMLElement);
const more = byId("more", HTMLButtonElement);
const moreAgents = byId("more-agents", HTMLButtonElement);
const trouble = byId("trouble", HTMLElement);

/** @param {string} tag @param {Object<string, string>} attributes @param {...(Node|string)} children */
const element = (tag, attributes = {}, ...children) => {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    made.append(...children);
    return made;
};
/** Replaces what has changed of these elements, and leaves the others: nothing is laid out anew and no focus lost
 * for what stays as it was. @param {Element} parent @param {Element[]} wanted */
const become = (parent, wanted) => {
    wanted.forEach((child, place) => {
        const before = parent.children[place];
        if (!before) parent.append(child);
        else if (!before.isEqualNode(child)) before.replaceWith(child);
    });
    while (parent.children.length > wanted.length) parent.lastElementChild?.remove();
};
/** @param {Element} shows @param {string} text */
const say = (shows, text) => {
    if (shows.textContent !== text) shows.textContent = text;
};
/** @param {...(Node|string)} children */
const moreOf = (...children) => element("span", { class: "more" }, ...children);
/** @param {number} count @param {string} what */
const counted = (count, what) => `${count} ${what}${count === 1 ? "" : "s"}`;
/** @param {string} text */
const spaced = (text) => text.replaceAll("_", " ");

/** @param {number} seconds */
const duration = (seconds) => {
    if (seconds < 1) return `${Math.round(seconds * 1000)}ms`;
    let rest = Math.floor(seconds);
    let text = "";
    for (const [unit, size] of /** @type {[string, number][]} */ ([["d", 86400], ["h", 3600], ["m", 60], ["s", 1]])) {
        if (rest >= size) text += `${Math.floor(rest / size)}${unit}`;
        rest %= size;
    }
    return text;
};

/** @param {string} at @param {number} now */
const ago = (at, now) => {
    const seconds = (now - Date.parse(at)) / 1000;
    const size = Math.abs(seconds);
    if (size < 1) return "now";
    const text = size < 60 ? `${Math.floor(size)}s` : size < 3600 ? `${Math.floor(size / 60)}m` : duration(Math.floor(size / 60) * 60);
    return seconds < 0 ? `in ${text}` : `${text} ago`;
};

/** How far the exporter's clock is before that of the browser, in milliseconds. */
let ahead = 0;
const clock = () => Date.now() + ahead;
/** Takes over the exporter's clock, which tells full seconds, if the two do not agree. @param {Response} answer */
const setClock = (answer) => {
    const told = Date.parse(answer.headers.get("date") ?? "") - Date.now();
    if (Math.abs(told - ahead) > 2000) ahead = told;
};

/** @param {string} at */
const time = (at) => {
    const made = element("time", { datetime: at, title: at });
    made.textContent = ago(at, clock());
    return made;
};

/** The rows that are in sight. @type {Set<Element>} */
const inSight = new Set();
const sight = new IntersectionObserver((seen) => {
    for (const { target, isIntersecting } of seen) {
        if (isIntersecting) inSight.add(target);
        else inSight.delete(target);
    }
    age();
});

/** Tells the age of every time in sight anew: telling all of 500 rows each second keeps the browser busy. */
const age = () => {
    const now = clock();
    for (const made of document.querySelectorAll("time")) {
        const row = made.closest("tbody tr");
        if (row && !inSight.has(row)) continue;
        const text = ago(made.dateTime, now);
        if (!made.title) made.title = made.dateTime;
        say(made, text);
    }
};

/** @param {Toggle} t @param {number} now @returns {Standing} */
const standing = (t, now) => {
    const since = (/** @type {string} */ at) => now - Date.parse(at);
    const goesOn = t.finished_at === null;
    // As the alerts do: a retry that hangs or is not answered mends nothing.
    if (t.problem !== null) return t.problem === "mismatch" ? "mismatched" : "failed";
    if (goesOn && t.up && since(t.started_at) > STUCK_MS) return "stuck";
    if (goesOn && !t.up && since(t.last_success_at ?? t.started_at) > SILENT_MS) return "silent";
    if (t.poll_error !== null) return "failing";
    return /** @type {Standing} */ (t.status);
};

/** An agent may be somebody else's. An id that was never answered and is refused has most likely expired. @param {Toggle} t */
const notAnswering = (t) =>
    ["unauthorized", "forbidden"].includes(t.poll_error ?? "") ? "cekuratoggleforbidden"
    : t.last_success_at === null && ["bad_request", "not_found"].includes(t.poll_error ?? "") ? "cekuratoggleexpiredid"
    : "cekuratogglenotanswering";

/** @param {Standing} is @param {Toggle} t */
const runbook = (is, t) => ({
    failed: "cekuratogglefailed",
    mismatched: t.expect === "disabled" ? "cekuratogglemocksnotoff" : "cekuratogglemocksnoton",
    stuck: "cekuratogglestuck",
    silent: notAnswering(t),
    failing: notAnswering(t),
    unknown: null,
    in_progress: null,
    completed: null,
})[is];

/** @param {Toggle} t */
const meaning = (t) => {
    const [saidOf, who, does] = t.expect === "enabled" ? ["Mocks are off", "tests", "reach the real systems"] : ["Mocks are on", "real callers", "talk to mocks"];
    return t.mock_enabled === null ? `Nothing was said of mocks: assume that ${who} ${does}.` : `${saidOf}: ${who} may ${does}.`;
};

/** @param {string} is @param {readonly string[]} shows the shape and the word */
const badge = (is, [shape, word]) => element("span", { class: `badge ${is}` }, element("span", { "aria-hidden": "true" }, shape), ` ${word}`);

/** @param {string} section @param {Toggle} t */
const whatToDo = (section, t) => element("a", { class: "more", href: `runbooks?toggle=${t.name}#${section}` }, "what to do");

/** @param {Toggle} t @param {Standing} is */
const statusOf = (t, is) => {
    const parts = [badge(is, STANDINGS[is])];
    if (["stuck", "silent", "failing"].includes(is) && t.status !== "unknown") parts.push(moreOf(spaced(t.status)));
    if (["failed", "mismatched"].includes(is) && ["in_progress", "unknown"].includes(t.status))
        parts.push(moreOf(`an earlier run; this one is ${spaced(t.status)}`));
    if (t.raw_status !== null) parts.push(moreOf(`sent as ${t.raw_status}`));
    const section = runbook(is, t);
    if (section) parts.push(whatToDo(section, t));
    return parts;
};

/** @param {Toggle} t */
const mocksOf = (t) => {
    /** @type {(Node|string)[]} */
    const parts = [t.mock_enabled === null ? "not known" : t.mock_enabled ? "on" : "off"];
    if (t.expect) parts.push(moreOf(`expected ${t.expect === "enabled" ? "on" : "off"}`));
    if (t.mismatch) parts.push(element("strong", {}, meaning(t)));
    return parts;
};

/** @param {Toggle} t */
const runOf = (t) => {
    const parts = ["watched ", time(t.started_at)];
    if (t.finished_at) {
        const took = (Date.parse(t.finished_at) - Date.parse(t.started_at)) / 1000;
        parts.push(moreOf("finished ", time(t.finished_at), ...(took < 1 ? [] : [`, after ${duration(took)}`])));
    }
    return parts;
};

/** @param {Toggle|Agent} polled */
const pollsOf = (polled) => [
    ...(polled.last_success_at ? ["answered ", time(polled.last_success_at)] : ["no answer yet"]),
    // When another replica polls next, this one does not know.
    ...(polled.next_poll_at ? [moreOf("due ", time(polled.next_poll_at))] : polled.replica ? [] : [moreOf("no more polls")]),
    ...(polled.replica ? [moreOf("polled by ", polled.replica)] : []),
    moreOf(`${counted(polled.polls ?? 0, "poll")}, ${polled.poll_failures ?? 0} failed`),
];

/** @param {Toggle|Agent} polled */
const failureOf = ({ poll_error: reason, poll_error_detail: detail }) => reason && `Poll failed, ${spaced(reason)}${detail ? ": " : ""}${detail ?? ""}`;

/** A long text is scrolled, so it must be reachable with the keyboard. @param {?string} text */
const textOf = (text) => (text ? [element("p", [...text].length > SHORT_TEXT ? { class: "text", tabindex: "0" } : { class: "text" }, text)] : []);

/** @param {Toggle} t */
const textsOf = (t) => [failureOf(t), t.error, t.message].flatMap(textOf);

/** @param {Toggle} t */
const toolsOf = (t) =>
    t.mcp_endpoints === null || t.mcp_tools === null ? [] : [counted(t.mcp_endpoints, "endpoint"), moreOf(counted(t.mcp_tools, "tool"))];

/** @param {Object<string, string>} labels */
const labelsOf = (labels) => Object.entries(labels).map(([label, value]) => element("span", { class: "label" }, `${label}=${value}`));

/** @param {Toggle} t */
const nameOf = (t) => [element("a", { href: `api/v1/toggles/${t.name}` }, t.name), ...labelsOf(t.labels)];

/** The cells of a row. @param {Toggle} t @param {Standing} is @returns {[string, (Node|string)[]][]} */
const cells = (t, is) => [
    ["Status", statusOf(t, is)],
    ["Toggle", nameOf(t)],
    ["Agent", [String(t.agent_id), moreOf(t.api)]],
    ["Mocks", mocksOf(t)],
    ["Run", runOf(t)],
    ["Polls", pollsOf(t)],
    ["What it says", textsOf(t)],
    ["Tools", toolsOf(t)],
    ["Source", [t.source]],
];

/** @param {Agent} a @returns {AgentStanding} */
const agentStanding = (a) =>
    a.mocks_drift ? "drifted"
    // A custom provider reports mocks as on in any case.
    : a.mocks_live && a.should_be !== "enabled" && a.provider !== "custom" ? "on"
    : a.poll_error !== null ? "failing"
    : a.mocks_drift === false ? "well"
    : "unjudged";

/** @param {Agent} a */
const keyOf = (a) => `${a.api}/${a.agent_id}`;

/** @param {string} section @param {Agent} a */
const whatToDoWith = (section, a) => element("a", { class: "more", href: `runbooks?agent=${keyOf(a)}#${section}` }, "what to do");

/** @param {Agent} a */
const liveOf = (a) => {
    if (a.source === null) return ["not asked"];
    /** @type {(Node|string)[]} */
    const parts = [a.mocks_live === null ? "not known" : a.mocks_live ? "on" : "off"];
    if (a.mocks_live_since) parts.push(moreOf("since ", time(a.mocks_live_since)));
    if (a.mocks_drift) parts.push(element("strong", {}, a.mocks_live ? "Real callers may talk to mocks." : "Tests may reach the real systems."));
    return parts;
};

/** @param {Agent} a */
const shouldBeOf = (a) => {
    /** @type {(Node|string)[]} */
    const parts = [a.should_be === null ? "not known" : a.should_be === "enabled" ? "on" : "off"];
    if (a.told_at) {
        const teller = a.told_by === null ? "a toggle" : element("a", { href: `api/v1/toggles/${a.told_by}`, "data-toggle": a.told_by }, a.told_by);
        parts.push(moreOf("told by ", teller, ", ", time(a.told_at)));
    } else if (a.expect) parts.push(moreOf("as configured"));
    return parts;
};

/** @param {Agent} a */
const agentPollsOf = (a) => {
    if (a.source === null) return [];
    return [...pollsOf(a), ...textOf(failureOf(a)), ...(a.poll_error === null ? [] : [whatToDoWith("cekuraagentnotanswering", a)])];
};

/** The cells of a row. @param {Agent} a @param {AgentStanding} is @returns {[string, (Node|string)[]][]} */
const agentCells = (a, is) => [
    ["Status", [badge(is, AGENT_STANDINGS[is]), ...(is === "drifted" ? [whatToDoWith("cekuraagentmocksdrifted", a)] : [])]],
    ["Agent", [element("a", { href: `api/v1/agents/${keyOf(a)}` }, String(a.agent_id)), moreOf(a.api), ...labelsOf(a.labels)]],
    ["Mocks are", liveOf(a)],
    ["Should be", shouldBeOf(a)],
    ["Polls", agentPollsOf(a)],
    ["Endpoints", [...(a.mcp_endpoints === null ? [] : [`${a.mcp_endpoints} MCP`]), ...(a.tool_endpoints === null ? [] : [moreOf(counted(a.tool_endpoints, "tool"))])]],
    ["Source", a.source === null ? [] : [a.source, ...(a.provider === null ? [] : [moreOf(a.provider)])]],
];

/** Whether it contains the word in upper or lower case. @param {string} text @param {string} word */
const contains = (text, word) => lowered(text).includes(lowered(word));
/** @param {string} text */
const lowered = (text) => text.replaceAll(/[A-Z]+/g, (letters) => letters.toLowerCase());

/** Whether a text that is shown of it, or how it stands, contains the word. @param {Agent} a @param {string} word */
const agentContains = (a, word) =>
    [a.api, String(a.agent_id), agentStanding(a), a.source, a.provider, a.told_by, a.poll_error, a.poll_error_detail].some((text) => text !== null && contains(text, word)) ||
    Object.entries(a.labels).some(([label, value]) => contains(label, word) || contains(value, word) || (word.includes("=") && contains(`${label}=${value}`, word)));

/** The rows of a table by their names, with what they were made from. The cell in the column `heading` is the header
 * of its row. */
class Rows {
    /** @param {HTMLTableElement} table @param {string} heading */
    constructor(table, heading) {
        this.table = table;
        this.body = table.tBodies[0];
        this.heading = heading;
        /** @type {Map<string, {row: HTMLElement, from: string}>} */
        this.known = new Map();
        for (const row of this.body.rows) {
            this.known.set(row.dataset.name ?? "", { row, from: "" });
            sight.observe(row);
        }
    }

    /** @param {string} name @param {string} from what the row is made from @param {() => [string, (Node|string)[]][]} cells */
    row(name, from, cells) {
        const known = this.known.get(name);
        if (known?.from === from) return known.row;
        const row = known?.row ?? element("tr", { role: "row", "data-name": name });
        become(
            row,
            cells().map(([of, parts]) =>
                of === this.heading
                    ? element("th", { role: "rowheader", scope: "row", "data-of": of }, ...parts)
                    : element("td", { role: "cell", "data-of": of }, ...parts),
            ),
        );
        this.known.set(name, { row, from });
        sight.observe(row);
        return row;
    }

    /** Shows these rows in this order, and takes no focus and no place from who reads. @param {() => HTMLElement[]} made */
    show(made) {
        const focused = this.body.contains(document.activeElement) ? document.activeElement : null;
        const focusedRow = focused?.closest("tr")?.dataset.name;
        const focusedLink = focusedRow === undefined ? -1 : [...(focused?.closest("tr")?.querySelectorAll("a") ?? [])].findIndex((link) => link === focused);
        const wanted = made();
        const kept = new Set(wanted);
        for (const [name, { row }] of this.known) {
            if (!kept.has(row)) {
                row.remove();
                this.known.delete(name);
                sight.unobserve(row);
                inSight.delete(row);
            }
        }
        let place = this.body.firstElementChild;
        for (const row of wanted) {
            if (row === place) place = place.nextElementSibling;
            else this.body.insertBefore(row, place);
        }
        if (focusedRow !== undefined && document.activeElement !== focused) {
            const links = this.known.get(focusedRow)?.row.querySelectorAll("a") ?? [];
            (links[focusedLink] ?? links[0] ?? this.table).focus({ preventScroll: true });
        }
    }
}
const rows = new Rows(table, "Toggle");
const agentRows = new Rows(byId("agents", HTMLTableElement), "Agent");

/** @param {Toggle} t @param {number} now */
const rowOf = (t, now) => {
    const is = standing(t, now);
    return rows.row(t.name, is + JSON.stringify(t), () => cells(t, is));
};

/** @param {Agent} a */
const agentRowOf = (a) => agentRows.row(keyOf(a), JSON.stringify(a), () => agentCells(a, agentStanding(a)));

// ---- What is asked for: it is in the address, so it can be shared. ----

const asked = {
    text: words.value,
    status: statusChoice.value,
    sort: "status",
    toggle: /** @type {?string} */ (null),
};

const readAddress = () => {
    const query = new URLSearchParams(location.search);
    asked.text = query.get("q") ?? "";
    const status = query.get("status") ?? "";
    asked.status = [...statusChoice.options].some((option) => option.value === status) ? status : "";
    asked.sort = query.get("sort") ?? "status";
    if (!Object.hasOwn(ORDERS, asked.sort.replace(/^-/, ""))) asked.sort = "status";
    asked.toggle = query.get("toggle");
    words.value = asked.text;
    statusChoice.value = asked.status;
};

/** @param {"pushState"|"replaceState"} how */
const writeAddress = (how) => {
    const query = new URLSearchParams();
    if (asked.text) query.set("q", asked.text);
    if (asked.status) query.set("status", asked.status);
    if (asked.sort !== "status") query.set("sort", asked.sort);
    if (asked.toggle) query.set("toggle", asked.toggle);
    const text = query.toString();
    history[how](null, "", text ? `?${text}` : location.pathname);
};

/** What each sortable column is sorted by. @type {Object<string, (t: Toggle, now: number) => string | number>} */
const ORDERS = {
    status: (t, now) => WORST_FIRST.indexOf(standing(t, now)),
    name: (t) => t.name,
    agent: (t) => t.agent_id,
    run: (t) => Date.parse(t.started_at),
    polls: (t) => (t.last_success_at ? Date.parse(t.last_success_at) : 0),
};

/** The list comes sorted by name, and sorting leaves equals as they are. @param {Toggle[]} list @param {number} now */
const sorted = (list, now) => {
    const order = ORDERS[asked.sort.replace(/^-/, "")];
    const back = asked.sort.startsWith("-") ? -1 : 1;
    const keyed = list.map((t) => /** @type {const} */ ([order(t, now), t]));
    keyed.sort(([a], [b]) => (a < b ? -back : a > b ? back : 0));
    return keyed.map(([, t]) => t);
};

// ---- What is known. ----

/** @type {Toggle[]} */
let toggles = [];
let whole = true;
let any = true;
let room = ROWS;
let etag = "";
let etagOf = "";

/** The agents of which something is known. @type {Agent[]} */
let agents = [];
let agentRoom = ROWS;
let agentsEtag = "";

const drawAgents = () => {
    byId("agent-section", HTMLElement).hidden = agents.length === 0;
    const summary = byId("agent-summary", HTMLElement);
    summary.hidden = agents.length === 0;
    const stand = new Map(agents.map((a) => [a, agentStanding(a)]));
    const problems = AGENTS_WORST_FIRST.flatMap((is) => {
        const count = agents.filter((a) => stand.get(a) === is).length;
        return count && AGENT_STANDINGS[is][2] ? [`${count} ${AGENT_STANDINGS[is][2]}`] : [];
    });
    say(summary.children[0], counted(agents.length, "agent"));
    const text = problems.length ? `: ${problems.join(", ")}.` : ".";
    if (summary.lastChild?.textContent !== text) summary.lastChild?.replaceWith(text);

    const wanted = wordsAsked();
    const list = agents.filter((a) => wanted.every((word) => agentContains(a, word)));
    // Those without a problem are not told apart. The list comes sorted by API and id, and sorting leaves equals as they are.
    const rank = (/** @type {Agent} */ a) => Math.min(AGENTS_WORST_FIRST.indexOf(stand.get(a) ?? "unjudged"), AGENTS_WORST_FIRST.indexOf("well"));
    list.sort((a, b) => rank(a) - rank(b));
    const visible = list.slice(0, agentRoom);
    agentRows.show(() => visible.map(agentRowOf));
    moreAgents.hidden = visible.length === list.length;
    const said =
        list.length === 0 ? "No agent is like that."
        : visible.length < list.length ? `The first ${visible.length} of ${list.length} agents.`
        : `${counted(list.length, "agent")}.`;
    say(byId("shown-agents", HTMLElement), said);
};

const draw = () => {
    const now = clock();
    const list = sorted(toggles, now);
    const visible = list.slice(0, room);
    rows.show(() => visible.map((t) => rowOf(t, now)));
    more.hidden = visible.length === list.length;
    const said =
        list.length === 0 ? (any ? "No toggle is like that." : "Nothing is watched.")
        : visible.length < list.length ? `The first ${visible.length} of ${list.length} toggles.`
        : `${counted(list.length, "toggle")}.`;
    const text = whole ? said : `${said} Only the first ${MAX_FETCHED} by name were looked at: narrow the filter to see others.`;
    say(shown, text);
    for (const column of table.tHead?.rows[0].cells ?? []) {
        const { sort } = column.dataset;
        if (asked.sort === sort) column.setAttribute("aria-sort", "ascending");
        else if (asked.sort === `-${sort}`) column.setAttribute("aria-sort", "descending");
        else column.removeAttribute("aria-sort");
    }
    age();
};

/** How many failed, by reason. @param {Object<string, number>} failing */
const failuresOf = (failing) => Object.values(failing).reduce((sum, count) => sum + count, 0);
/** @param {Object<string, number>} failing */
const reasonsOf = (failing) => Object.entries(failing).map(([reason, count]) => `, ${count} ${spaced(reason)}`).join("");

/** @param {Api} api */
const apiOf = (api) => {
    const { asked, failing } = api.agents;
    const ofAgents = asked ? `; ${failuresOf(failing)} of ${counted(asked, "agent")} not answering${reasonsOf(failing)}` : "";
    const line = element("li", {}, element("b", {}, api.name), ` the last poll of ${failuresOf(api.failing)} of ${counted(api.polled, "toggle")} failed${reasonsOf(api.failing)}${ofAgents}; `);
    line.append(`${api.in_flight} of ${api.max_in_flight} requests under way, ${api.waiting} waiting, ${api.requests_per_second} a second allowed`);
    const warn = (/** @type {(Node|string)[]} */ what, /** @type {string} */ section) => {
        const link = element("a", { href: `runbooks?api=${api.name}#${section}` }, "what to do");
        line.append("; ", element("strong", {}, ...what), " ", link);
    };
    if (api.paused_until) warn(["paused until ", time(api.paused_until)], "cekuraapithrottled");
    const refused = ["unauthorized", "forbidden", "credentials"].reduce((sum, reason) => sum + (api.failing[reason] ?? 0) + (failing[reason] ?? 0), 0);
    if (api.up === false && 2 * refused > failuresOf(api.failing) + failuresOf(failing)) warn(["the key is missing or refused"], "cekuraapiunauthorized");
    else if (api.up === false) warn(["nothing is answered"], "cekuraapidown");
    line.append(".");
    return line;
};

/** @param {Overview} overview */
const drawOverview = (overview) => {
    const total = Object.values(overview.statuses).reduce((sum, count) => sum + count, 0);
    const heading = byId("counts", HTMLElement);
    say(heading, counted(total, "toggle"));
    any = total > 0;
    say(byId("build", HTMLElement), `Version ${overview.version}, revision ${overview.revision}`);
    const started = byId("started", HTMLElement);
    if (started.querySelector("time")?.dateTime !== overview.started_at) started.replaceChildren(time(overview.started_at));
    for (const counter of document.querySelectorAll("[data-standing]")) {
        const count = overview.standings[/** @type {HTMLElement} */ (counter).dataset.standing ?? ""] ?? 0;
        say(counter, String(count));
        counter.parentElement?.classList.toggle("none", count === 0);
    }
    const drifted = agents.filter((a) => a.mocks_drift).length;
    const bad = ["failed", "mismatched", "stuck", "silent"].reduce((sum, name) => sum + overview.standings[name], drifted);
    const title = bad ? `${bad} in trouble · cekura-exporter` : "cekura-exporter";
    if (document.title !== title) document.title = title;
    become(byId("api-list", HTMLElement), overview.apis.map(apiOf));
};

// ---- One toggle. ----

const dialog = document.createElement("dialog");
dialog.setAttribute("aria-labelledby", "detail-title");
document.body.append(dialog);
/** @param {Happened} e @returns {string} */
const told = (e) => {
    const colon = (/** @type {?string|undefined} */ text) => (text ? `: ${text}` : "");
    switch (e.event) {
        case "run_started": return `Another run is watched, ${e.progress_id}`;
        case "status_changed": return `From ${spaced(e.from ?? "")} to ${spaced(e.to ?? "")}${e.mismatch ? ", not as expected" : ""}${e.duration_seconds ? ` after ${duration(e.duration_seconds)}` : ""}${colon(e.text)}`;
        case "unrecognised_status": return `A status that is not documented${colon(e.status)}`;
        case "poll_failed": return `Poll failed, ${spaced(e.reason ?? "")}${colon(e.detail)}`;
        case "polls_recovered": return `Polls succeed again; for ${duration(e.lasted_seconds ?? 0)} they failed, ${spaced(e.reason ?? "")}`;
        default: return e.event;
    }
};

/** @param {string} tag @param {Object<string, string|number>} attributes */
const drawn = (tag, attributes) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, String(value));
    return made;
};

/** Stretches of time: what began at a time lasts until the next began. @param {[number, string][]} begun @param {number} end */
const stretches = (begun, end) => begun.map(([from, what], at) => /** @type {const} */ ([from, begun[at + 1]?.[0] ?? end, what]));

/** The status above, how polls went below. @param {Toggle} t @param {Happened[]} events the newest first */
const timeline = (t, events) => {
    const past = events.toReversed();
    const at = (/** @type {Happened} */ e) => Date.parse(e.at);
    const start = Math.min(Date.parse(t.started_at), past.length ? at(past[0]) : Infinity);
    const end = Math.max(clock(), start + 1);
    const changes = past.filter((e) => e.event === "status_changed" || e.event === "run_started");
    /** @type {[number, string][]} */
    const statuses = [[start, changes[0]?.from ?? "unknown"]];
    // Not all that happened is kept.
    if (!changes.length && t.finished_at) statuses.push([Date.parse(t.finished_at), ""]);
    for (const e of changes) statuses.push([at(e), e.event === "run_started" ? "unknown" : e.mismatch ? "mismatched" : (e.to ?? "unknown")]);
    /** @type {[number, string][]} */
    const polls = [[start, "unknown"]];
    for (const e of past) {
        if (e.event === "polls_recovered" && polls.length === 1) polls.push([Math.max(start, at(e) - (e.lasted_seconds ?? 0) * 1000), "failing"]);
        const what = e.event === "poll_failed" ? "failing" : e.event === "run_started" ? "unknown" : "answering";
        if (polls[polls.length - 1][1] !== what) polls.push([at(e), what]);
    }
    if (!past.length && t.poll_error && t.last_success_at) polls.push([Date.parse(t.last_success_at), ""]);
    // How it is now is known, whatever is kept.
    statuses[statuses.length - 1][1] = t.mismatch ? "mismatched" : t.status;
    polls[polls.length - 1][1] = t.poll_error ? "failing" : t.up ? "answering" : "unknown";

    const picture = drawn("svg", { class: "timeline", viewBox: "0 0 600 72", preserveAspectRatio: "none", role: "img" });
    const failures = past.filter((e) => e.event === "poll_failed").length;
    picture.setAttribute("aria-label", `From ${ago(new Date(start).toISOString(), clock())} until now: ${statuses.map(([, status]) => spaced(status)).join(", then ")}; polls began to fail ${counted(failures, "time")}. The list below tells the same.`);
    const x = (/** @type {number} */ moment) => ((moment - start) / (end - start)) * 600;
    const lane = (/** @type {[number, string][]} */ begun, /** @type {number} */ y, /** @type {number} */ height) => {
        for (const [from, to, what] of stretches(begun, end)) {
            const band = drawn("rect", { x: x(from), y, width: Math.max(x(to) - x(from), 1), height, class: what });
            const title = drawn("title", {});
            title.textContent = `${spaced(what)} for ${duration(Math.max(to - from, 1) / 1000)}`;
            band.append(title);
            picture.append(band);
        }
    };
    lane(statuses, 4, 28);
    lane(polls, 40, 28);
    for (const e of past.filter((event) => event.event === "run_started")) picture.append(drawn("line", { x1: x(at(e)), x2: x(at(e)), y1: 0, y2: 72 }));
    return picture;
};

const closing = () => element("button", { type: "button", class: "close" }, "Close");

/** @param {Toggle} t @param {Happened[]} events */
const drawDetail = (t, events) => {
    const scroll = dialog.scrollTop;
    const facts = dialog.querySelector("dl") ?? element("dl");
    const is = standing(t, clock());
    const shows = [];
    for (const [of, parts] of cells(t, is)) if (of !== "Toggle" && parts.length) shows.push(element("dt", {}, of), element("dd", {}, ...parts));
    become(facts, [...shows, element("dt", {}, "Task"), element("dd", {}, t.progress_id)]);
    const list = element("ol");
    for (const e of events) list.append(element("li", {}, time(e.at), element("span", {}, told(e))));
    become(dialog, [
        closing(),
        element("h2", { id: "detail-title" }, t.name),
        facts,
        element("h3", {}, "Status above, polls below"),
        timeline(t, events),
        element("h3", {}, "What happened"),
        events.length ? list : element("p", {}, "Nothing yet, since the exporter started."),
        element("p", {}, element("a", { href: `api/v1/toggles/${t.name}` }, "as JSON"), " ", element("a", { href: `api/v1/toggles/${t.name}/events` }, "events as JSON")),
    ]);
    if (!dialog.open) dialog.showModal();
    dialog.scrollTop = scroll;
};

/** @param {string} name */
const refreshDetail = async (name) => {
    const path = `api/v1/toggles/${encodeURIComponent(name)}`;
    const [toggle, happened] = await Promise.all([ask(path), ask(`${path}/events`)]);
    const gone = toggle.status === 404 || happened.status === 404;
    if (!gone) for (const answer of [toggle, happened]) expectGood(answer);
    const [t, events] = gone ? [null, null] : await Promise.all([toggle.json(), happened.json()]);
    // It may have been closed meanwhile.
    if (asked.toggle !== name) return;
    if (t) return drawDetail(t, events.events);
    become(dialog, [closing(), element("h2", { id: "detail-title" }, name), element("p", {}, "No watch of that name is there any more.")]);
    if (!dialog.open) dialog.showModal();
};

dialog.addEventListener("click", (event) => {
    if (event.target instanceof Element && event.target.closest(".close")) dialog.close();
});

dialog.addEventListener("close", () => {
    if (asked.toggle) {
        const link = /** @type {?HTMLElement|undefined} */ (rows.known.get(asked.toggle)?.row.querySelector("th a"));
        asked.toggle = null;
        writeAddress("pushState");
        (link ?? table).focus({ preventScroll: true });
    }
});

// ---- Keeping up. ----

let refreshes = 0;
let refreshing = false;
let again = false;
/** @type {ReturnType<typeof setTimeout>|undefined} */
let next;

/** What the exporter did not do as it should. */
class Trouble extends Error {}

/** @param {string} path @param {Record<string, string>} headers */
const ask = async (path, headers = {}) => {
    try {
        return await fetch(path, { headers, signal: AbortSignal.timeout(PATIENCE_MS) });
    } catch (problem) {
        throw new Trouble(problem instanceof DOMException && problem.name === "TimeoutError" ? "it takes too long to answer" : "it cannot be reached");
    }
};

/** @param {Response} answer */
const expectGood = (answer) => {
    if (!answer.ok) throw new Trouble(`it answered ${answer.status}`);
};

/** The exporter looks for no more than this. */
const wordsAsked = () => asked.text.slice(0, MAX_TEXT).split(/\s+/).filter((word) => word).slice(0, MAX_WORDS);

const fetchAgents = async () => {
    const answer = await ask("api/v1/agents", agentsEtag ? { "If-None-Match": agentsEtag } : {});
    if (answer.status === 304) return;
    expectGood(answer);
    const list = await answer.json();
    agents = list.agents.filter((/** @type {Agent} */ a) => a.source !== null || a.mock_enabled !== null);
    agentsEtag = answer.headers.get("etag") ?? "";
};

const fetchToggles = async () => {
    const query = new URLSearchParams({ limit: String(MAX_FETCHED), q: wordsAsked().join(" "), status: asked.status }).toString();
    const answer = await ask(`api/v1/toggles?${query}`, etagOf === query && etag ? { "If-None-Match": etag } : {});
    if (answer.status === 304) return;
    expectGood(answer);
    const list = await answer.json();
    toggles = list.toggles;
    whole = list.next === null;
    etag = answer.headers.get("etag") ?? "";
    etagOf = query;
};

const refresh = async () => {
    if (refreshing) {
        again = true;
        return;
    }
    refreshing = true;
    clearTimeout(next);
    try {
        const overview = ask("api/v1/status").then((answer) => {
            expectGood(answer);
            setClock(answer);
            return answer.json();
        });
        const [how] = await Promise.all([overview, fetchToggles(), fetchAgents()]);
        drawOverview(how);
        draw();
        drawAgents();
        refreshes += 1;
        document.body.dataset.refreshes = String(refreshes);
        if (asked.toggle) await refreshDetail(asked.toggle);
        byId("as-of", HTMLElement).replaceChildren(time(new Date(clock()).toISOString()));
        trouble.hidden = true;
    } catch (problem) {
        const why = problem instanceof Trouble ? problem.message : `its answer cannot be shown, ${problem}`;
        say(trouble, `The exporter does not say what is known now: ${why}. What is shown here is old.`);
        trouble.hidden = false;
    }
    refreshing = false;
    if (again) {
        again = false;
        await refresh();
    } else if (!document.hidden) next = setTimeout(refresh, REFRESH_MS);
};

for (const column of table.tHead?.rows[0].cells ?? []) {
    const { sort } = column.dataset;
    if (!sort) continue;
    const button = element("button", { type: "button" }, column.textContent ?? "");
    button.addEventListener("click", () => {
        asked.sort = asked.sort === sort ? `-${sort}` : sort;
        writeAddress("replaceState");
        draw();
    });
    column.replaceChildren(button);
}
const filter = () => {
    asked.text = words.value;
    asked.status = statusChoice.value;
    room = ROWS;
    agentRoom = ROWS;
    writeAddress("replaceState");
    void refresh();
};
/** @type {ReturnType<typeof setTimeout>|undefined} */
let typing;
words.addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(filter, 200);
});
statusChoice.addEventListener("change", filter);
form.addEventListener("submit", (event) => {
    event.preventDefault();
    filter();
});
more.addEventListener("click", () => {
    room += ROWS;
    draw();
});
moreAgents.addEventListener("click", () => {
    agentRoom += ROWS;
    drawAgents();
});
/** Shows a toggle instead of following a link to it. @param {MouseEvent} event @param {string|undefined} name */
const showToggle = (event, name) => {
    const plain = !(event.ctrlKey || event.metaKey || event.shiftKey || event.altKey);
    if (!plain || name === undefined) return;
    event.preventDefault();
    asked.toggle = name;
    writeAddress("pushState");
    void refresh();
};
rows.body.addEventListener("click", (event) => {
    const link = event.target instanceof Element ? event.target.closest("th a") : null;
    showToggle(event, link?.closest("tr")?.dataset.name);
});
agentRows.body.addEventListener("click", (event) => {
    const link = event.target instanceof Element ? event.target.closest("a") : null;
    showToggle(event, link?.dataset.toggle);
});
window.addEventListener("popstate", () => {
    readAddress();
    if (!asked.toggle && dialog.open) dialog.close();
    void refresh();
});
document.addEventListener("visibilitychange", () => {
    if (document.hidden) clearTimeout(next);
    else void refresh();
});
setInterval(() => document.hidden || age(), 1000);
readAddress();
void refresh();
