// What the runbooks do in a browser. Each scenario is a test of its own in runbooks_page.rs, which says what the exporter
// at URL watches. Usage: node runbooks_page.mjs SCENARIO URL
import assert from "node:assert/strict";

import { DESK, PHONE, opened, played, refreshed, url, violations } from "./browser.mjs";

const SECTION = "cekuratogglefailed";
const FILLED = `/runbooks?toggle=payments-x#${SECTION}`;

/** Where an element is in the window. */
const box = (locator) => locator.evaluate((element) => element.getBoundingClientRect().toJSON());
const heading = (page, id) => page.locator(`#${id} > .heading`);
const barEnd = async (page) => (await box(page.locator("header"))).bottom;

/** The heading of this section is in sight, right below the bar. */
const isRead = async (page, id) => {
    const name = heading(page, id).locator("h2");
    await page.waitForFunction(
        (element) => {
            const { top, bottom } = element.getBoundingClientRect();
            const bar = document.querySelector("header").getBoundingClientRect().bottom;
            return top >= bar && bottom < bar + 100;
        },
        await name.elementHandle(),
    );
};

/** What of the page reaches beyond its right edge. */
const wide = (page) =>
    page.evaluate(() =>
        [...document.querySelectorAll("main, main *")]
            .filter((element) => element.getBoundingClientRect().right > innerWidth + 0.5 && !element.closest("pre, .text"))
            .map((element) => element.outerHTML.slice(0, 80)),
    );

const scenarios = {
    /** The link of an alert leads to what to do, and the reader sees where that is and whose commands it has. */
    async reads() {
        for (const options of [{}, { javaScriptEnabled: false }, { viewport: PHONE }]) {
            const page = await opened(FILLED, options);
            assert.equal(await page.evaluate(() => getComputedStyle(document.documentElement).scrollBehavior), "auto", "it is there at once");
            await isRead(page, SECTION);
            assert.equal(await heading(page, SECTION).locator(".subject").innerText(), "payments-x");
            assert.match(await page.getByRole("note").innerText(), /^The commands are filled in for toggle payments-x: agent 77, /);
            const ground = (id) => heading(page, id).evaluate((element) => getComputedStyle(element).backgroundColor);
            assert.notEqual(await ground(SECTION), await ground("cekuraapidown"), "the section of the address is highlighted");
            // Further down in the section, its heading is still there.
            await page.evaluate(() => scrollBy(0, 600));
            const { top } = await box(heading(page, SECTION));
            assert.ok(Math.abs(top - (await barEnd(page))) < 3, `the heading is at ${top}`);
            // And at the next one, that one's.
            const next = page.locator("#cekuratogglemocksnoton");
            await next.evaluate((element) => scrollTo(0, element.getBoundingClientRect().top + scrollY + 100));
            await isRead(page, "cekuratogglemocksnoton");
            await page.fine();
        }
    },

    /** Look, Do and how it ends can be told apart: each has a heading and an edge of its own. */
    async parts() {
        const page = await opened(FILLED);
        const parts = page.locator(`#${SECTION} > .part`);
        assert.deepEqual(await parts.locator("h3").allInnerTexts(), ["What it means", "Look", "Do", "When it ends", "What it is not"]);
        const edges = await parts.evaluateAll((found) => found.map((part) => getComputedStyle(part)).map((style) => [style.borderLeftWidth, style.borderLeftColor]));
        assert.ok(edges.every(([width]) => parseFloat(width) >= 3), JSON.stringify(edges));
        assert.equal(new Set(edges.slice(1, 4).map(([, colour]) => colour)).size, 3, JSON.stringify(edges));
        await page.fine();
    },

    /** The contents are beside the text, and tell what is read. */
    async contents() {
        const page = await opened("/runbooks");
        assert.match(await page.getByRole("note").innerText(), /examples/);
        assert.equal(await page.locator(".subject").count(), 0);
        const contents = page.getByRole("navigation", { name: "Contents" });
        const links = await contents.locator("a").evaluateAll((found) => found.map((link) => link.getAttribute("href")));
        assert.deepEqual(links.toSorted(), (await page.locator("main section").evaluateAll((found) => found.map((section) => `#${section.id}`))).toSorted());
        const [list, text] = [await box(contents), await box(page.locator("main section").first())];
        assert.ok(list.right <= text.left, "they are beside the text");
        await contents.getByRole("link", { name: "CekuraApiThrottled" }).click();
        await isRead(page, "cekuraapithrottled");
        const { top } = await box(contents);
        assert.ok(top <= (await barEnd(page)) + 1 && top >= 0, "they stay in sight");
        const weight = (name) => contents.getByRole("link", { name }).evaluate((link) => Number(getComputedStyle(link).fontWeight));
        assert.ok((await weight("CekuraApiThrottled")) > (await weight("CekuraApiDown")), "what is read is told");
        // The last one can be reached by keyboard, and is in sight then.
        const last = contents.getByRole("link", { name: "Toggle again" });
        await last.focus();
        assert.ok((await box(last)).bottom <= DESK.height);
        await page.keyboard.press("Enter");
        await isRead(page, "toggle-again");
        await page.fine();
    },

    /** On a phone, the contents are folded, and one tap away. */
    async folds() {
        for (const javaScriptEnabled of [true, false]) {
            const page = await opened("/runbooks", { viewport: PHONE, javaScriptEnabled });
            const link = page.locator("#contents a", { hasText: "CekuraToggleStuck" });
            const shown = () => link.evaluate((element) => element.checkVisibility());
            assert.equal(await shown(), false);
            const summary = page.locator("#contents summary");
            await summary.focus();
            await page.keyboard.press("Enter");
            assert.equal(await shown(), true);
            await link.click();
            await isRead(page, "cekuratogglestuck");
            await heading(page, "cekuratogglestuck").getByRole("link", { name: "Contents" }).click();
            await page.waitForFunction(() => scrollY < 600);
            const { top, bottom } = await box(summary);
            assert.ok(top >= (await barEnd(page)) && bottom <= PHONE.height, `the contents are at ${top}`);
            await page.fine();
        }
    },

    /** Nothing is wider than the screen, and commands have all the width there is. */
    async fits() {
        for (const width of [360, 768, 1400]) {
            const page = await opened(FILLED, { viewport: { width, height: 800 } });
            assert.deepEqual(await wide(page), [], `on ${width}`);
            assert.ok((await page.evaluate(() => document.documentElement.scrollWidth)) <= width);
            const [part, block, button] = [await box(page.locator(`#${SECTION} .do`)), await box(page.locator(`#${SECTION} .do pre`).first()), await box(page.locator(`#${SECTION} .do .copy`).first())];
            assert.ok(part.right - block.right < 1, `commands end at ${block.right} of ${part.right} on ${width}`);
            assert.ok(button.top >= block.top && button.right <= block.right, "the button is on its block");
            if (width === 360) {
                const cut = await page.locator("main pre").evaluateAll((found) => found.filter((block) => block.scrollWidth > block.clientWidth).map((block) => block.innerText));
                assert.deepEqual(cut, [], "on a phone, nothing is scrolled sideways");
            }
            await page.fine();
        }
    },

    async accessible() {
        for (const colorScheme of ["light", "dark"]) {
            for (const width of [360, 768, 1400]) {
                const page = await opened(FILLED, { colorScheme, viewport: { width, height: 800 } });
                assert.deepEqual(await violations(page), [], `${colorScheme} ${width}`);
                await page.fine();
            }
        }
        // What has the focus is never below the heading that stays.
        const page = await opened(FILLED, { viewport: PHONE });
        const end = async () => (await box(heading(page, SECTION))).bottom;
        const links = page.locator(`#${SECTION} a, #${SECTION} pre, #${SECTION} button`);
        await page.locator(`#${SECTION} .is-not`).evaluate((element) => element.scrollIntoView({ block: "start" }));
        for (let index = (await links.count()) - 1; index > 0; index -= 1) {
            const link = links.nth(index);
            await link.focus();
            const { top, height } = await box(link);
            if (height < 200) assert.ok(top >= (await end()) - 1, `${await link.innerText()} is at ${top}, below ${await end()}`);
        }
        await page.fine();
    },

    /** A block is copied with one click, also when the page has been refreshed meanwhile. */
    async copies() {
        const page = await opened(FILLED, { permissions: ["clipboard-read", "clipboard-write"] });
        const block = page.locator(`#${SECTION} .do pre`).first();
        const button = page.locator(`#${SECTION} .do .copy`).first();
        await button.focus();
        await block.evaluate((element) => (element.marked = true));
        // The notice changes with the toggle, and with it the page.
        const answer = await fetch(new URL("/api/v1/toggles/payments-x", url), { method: "PUT", headers: { "content-type": "application/json" }, body: JSON.stringify({ agent_id: 78, progress_id: "second" }) });
        assert.equal(answer.status, 200);
        await page.getByText("agent 78").waitFor({ timeout: 30_000 });
        assert.equal(await block.evaluate((element) => element.marked), true, "the block is still the same");
        assert.equal(await page.evaluate(() => document.activeElement.className), "copy", "the focus stays");
        assert.equal(await page.locator(`#${SECTION} .copy`).count(), await page.locator(`#${SECTION} pre`).count());
        await page.keyboard.press("Enter");
        await page.locator(`#${SECTION} .copy`, { hasText: "Copied" }).waitFor();
        const copied = await page.evaluate(() => navigator.clipboard.readText());
        assert.equal(copied, await block.evaluate((element) => element.textContent));
        assert.match(copied, /\/aiagents\/78\//);
        await page.fine();
    },

    /** What has not changed is not sent again, although the foot tells the time. */
    async rests() {
        const page = await opened(FILLED);
        const codes = [];
        page.on("response", (answer) => answer.url().includes("/runbooks") && codes.push(answer.status()));
        for (let count = 0; count < 3; count += 1) await refreshed(page);
        assert.ok(codes.includes(304), codes.join());
        await page.fine();
    },

    /** On paper there is the text, without what is for a screen. */
    async prints() {
        const page = await opened(FILLED);
        await page.emulateMedia({ media: "print" });
        for (const of of ["#contents", `#${SECTION} .back`, `#${SECTION} .copy`, "header"]) assert.ok(await page.locator(of).first().isHidden(), of);
        assert.ok(await heading(page, SECTION).isVisible());
        assert.equal(await heading(page, SECTION).evaluate((element) => getComputedStyle(element).position), "static");
        assert.equal(await page.locator("main pre").first().evaluate((block) => getComputedStyle(block).whiteSpace), "pre-wrap");
        await page.fine();
    },
};

await played(scenarios);
