// Buttons that copy a block of commands.

/** Adds a button to each block that has none. A browser offers no clipboard to pages without TLS. */
export const copyButtons = () => {
    if (!navigator.clipboard) return;
    for (const button of document.querySelectorAll(".copy")) {
        if (button.nextElementSibling?.localName !== "pre") button.remove();
    }
    for (const block of document.querySelectorAll("pre")) {
        if (block.previousElementSibling?.classList.contains("copy")) continue;
        const button = document.createElement("button");
        button.type = "button";
        button.className = "copy";
        button.dataset.added = "";
        button.textContent = "Copy";
        button.addEventListener("click", async () => {
            await navigator.clipboard.writeText(block.textContent ?? "");
            button.textContent = "Copied";
            setTimeout(() => (button.textContent = "Copy"), 2000);
        });
        block.before(button);
    }
};
