// Times in the reader's zone, and how long ago they were. The server writes them in UTC.

const MINUTE = 60;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

/** How far the exporter's clock is ahead of the browser's, in milliseconds. */
let ahead = 0;

/** Takes over the exporter's clock, which tells full seconds, if the two do not agree. @param {Response} answer */
export const setClock = (answer) => {
    const told = Date.parse(answer.headers.get("date") ?? "") - Date.now();
    if (Math.abs(told - ahead) > 2000) ahead = told;
};

/** The exporter's time. */
export const now = () => Date.now() + ahead;

/** @param {number} seconds */
const duration = (seconds) => {
    if (seconds < MINUTE) return `${seconds}s`;
    if (seconds < HOUR) return `${Math.floor(seconds / MINUTE)}m`;
    if (seconds < DAY) return `${Math.floor(seconds / HOUR)}h ${Math.floor((seconds % HOUR) / MINUTE)}m`;
    return `${Math.floor(seconds / DAY)}d ${Math.floor((seconds % DAY) / HOUR)}h`;
};

/** How long ago that was, or in how long it will be. @param {number} at @param {number} from */
export const ago = (at, from) => {
    const seconds = Math.trunc((from - at) / 1000);
    if (seconds === 0) return "now";
    return seconds > 0 ? `${duration(seconds)} ago` : `in ${duration(-seconds)}`;
};

const today = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
const another = new Intl.DateTimeFormat(undefined, { month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });

/** @param {Date} at @param {number} from */
const local = (at, from) => (at.toDateString() === new Date(from).toDateString() ? today : another).format(at);

/** The rows of tables that are in sight. @type {Set<Element>} */
const inSight = new Set();
/** @type {WeakSet<Element>} */
const observed = new WeakSet();
const sight = new IntersectionObserver((seen) => {
    for (const { target, isIntersecting } of seen) {
        if (isIntersecting) inSight.add(target);
        else inSight.delete(target);
    }
    tellTimes();
});

/** Tells the times on the page. Telling all of 500 rows each second would keep the browser busy, so a row that is not
 * in sight is told only once. */
export const tellTimes = () => {
    const from = now();
    for (const row of document.querySelectorAll("tbody tr")) {
        if (observed.has(row)) continue;
        observed.add(row);
        sight.observe(row);
    }
    for (const row of inSight) if (!row.isConnected) inSight.delete(row);
    for (const time of document.querySelectorAll("time")) {
        const row = time.closest("tbody tr");
        if (row && time.title && !inSight.has(row)) continue;
        const at = new Date(time.dateTime);
        // In UTC it is the title, for who talks to somebody in another zone.
        if (!time.title) time.title = `${time.dateTime.replace("T", " ").slice(0, 19)} UTC`;
        const text = `${local(at, from)} (${ago(at.getTime(), from)})`;
        if (time.textContent !== text) time.textContent = text;
    }
};
