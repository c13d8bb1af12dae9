// Searches while the reader types. Without this the form is sent by its button.
import { addressChanged, refresh } from "./refresh.js";

const PAUSE = 200;

/** @param {() => void} shown called when something has changed */
export const searchWhileTyping = (shown) => {
    const form = document.getElementById("filter");
    if (!(form instanceof HTMLFormElement)) return;
    /** @type {ReturnType<typeof setTimeout>|undefined} */
    let typing;
    const search = () => {
        clearTimeout(typing);
        const query = new URLSearchParams();
        for (const [name, value] of new FormData(form)) if (typeof value === "string" && value) query.append(name, value);
        const text = query.toString();
        history.replaceState(null, "", text ? `?${text}` : location.pathname);
        addressChanged();
        void refresh(shown);
    };
    form.addEventListener("input", () => {
        clearTimeout(typing);
        typing = setTimeout(search, PAUSE);
    });
    form.addEventListener("submit", (event) => {
        event.preventDefault();
        search();
    });
};
