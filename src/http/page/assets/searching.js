// Searches while the reader types. Without this the form is sent by its button.
import { addressChanged, refresh } from "./refresh.js";

const PAUSE = 200;

/** @param {() => void} shown called when something has changed */
export const searchWhileTyping = (shown) => {
    const form = document.getElementById("filter");
    if (!(form instanceof HTMLFormElement)) return;
    /** @type {ReturnType<typeof setTimeout>|undefined} */
    let typing;
    /** What is searched for, as the address has it. */
    let searched = location.search;
    const search = () => {
        clearTimeout(typing);
        const query = new URLSearchParams();
        for (const [name, value] of new FormData(form)) if (typeof value === "string" && value) query.append(name, value);
        const text = query.toString();
        const address = text ? `?${text}` : location.pathname;
        // The first search is a step that can be taken back. The next ones only refine it.
        if (searched) history.replaceState(null, "", address);
        else history.pushState(null, "", address);
        searched = location.search;
        addressChanged();
        void refresh(shown);
    };
    form.addEventListener("input", () => {
        clearTimeout(typing);
        typing = setTimeout(search, PAUSE);
    });
    addEventListener("popstate", () => {
        if (location.search !== searched) location.reload();
    });
    form.addEventListener("submit", (event) => {
        event.preventDefault();
        search();
    });
};
