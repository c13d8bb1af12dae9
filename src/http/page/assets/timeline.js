// The times in a timeline, told in the reader's zone. The server writes them in UTC.

/** @type {Record<string, Intl.DateTimeFormat>} */
const FORMS = {
    second: new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" }),
    minute: new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" }),
    day: new Intl.DateTimeFormat(undefined, { month: "short", day: "numeric" }),
    full: new Intl.DateTimeFormat(undefined, { month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" }),
};

/** Tells the times of all timelines on the page. */
export const tellTimeline = () => {
    for (const told of document.querySelectorAll("svg [data-at]")) {
        const form = FORMS[told.getAttribute("data-form") ?? ""];
        const text = form?.format(new Date(told.getAttribute("data-at") ?? "")) ?? told.textContent;
        if (told.textContent !== text) told.textContent = text;
    }
};
