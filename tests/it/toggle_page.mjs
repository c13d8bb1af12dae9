// What the page of one toggle does in a browser. Each scenario is a test of its own in toggle_page.rs, which says what
// the exporter at URL watches. Usage: node toggle_page.mjs SCENARIO URL
import assert from "node:assert/strict";

import { PHONE, SCREENS, followed, opened as openedAt, played, refreshed, text, url, violations } from "./browser.mjs";

const WRITTEN = "<script>window.ran=1</script><img src=x onerror=window.ran=1>\"'&amp;";
const NAMES = ["failed", "mismatched", "unanswered", "odd", "completed", "busy", "nobody"];

/** The page of a toggle, which may be gone. */
const opened = (name, options) => openedAt(`/toggles/${name}`, { mayBeMissing: true, ...options });

/** The values of all facts by their names. */
const facts = (page) =>
    page.locator("dl.facts").evaluateAll((lists) =>
        Object.fromEntries(lists.flatMap((list) => [...list.querySelectorAll("dt")].map((name) => [name.innerText, name.nextElementSibling.innerText.replaceAll(/\s+/g, " ")]))),
    );
const changed = async (method, name, json) => {
    const answer = await fetch(new URL(`/api/v1/toggles/${name}`, url), { method, headers: { "content-type": "application/json" }, body: json && JSON.stringify(json) });
    assert.ok(answer.ok, `${answer.status}`);
};

const scenarios = {
    /** How it stands, what to do, and all that is known, with and without the script. */
    async tells() {
        for (const javaScriptEnabled of [false, true]) {
            const page = await opened("failed", { javaScriptEnabled });
            assert.equal(await page.title(), "failed: failed – cekura-exporter");
            assert.match(await page.locator("link[rel=icon]").getAttribute("href"), /^\.\.\/assets\/trouble\.svg$/);
            assert.equal(await text(page.locator("h1")), "✖ failed failed");
            const answer = await text(page.locator("#answer"));
            assert.match(answer, /^Turning mocks on failed\. Tests may reach the real systems\. Since .*\. Agent 77, API default\. team=label .* What to do Poll once now Error error .* Message message /);
            const known = await facts(page);
            for (const [name, value] of [["Mocks should be", /^on$/], ["Agent", /^77$/], ["API", /^default$/], ["Labels", /^team=label </], ["Task", /^failed$/], ["Source", /^configuration$/], ["Status", /^failed$/], ["Mocks, as answered", /^not said$/], ["Runs so far", /^0 completed, 1 failed$/], ["Polls", /^\d+, 0 of them failed$/], ["Next poll", /^none, because the run is finished$/], ["Finished", /\d{2}:\d{2}:\d{2}/], ["Took", /^\d+s$/], ["Last valid answer", /\d{2}:\d{2}:\d{2}/]]) {
                assert.match(known[name] ?? "", value, `${name}: ${JSON.stringify(known)}`);
            }
            const happened = await page.locator(".events li > span").allInnerTexts();
            assert.match(happened[0], /^From in progress to failed, after .*: error </);
            assert.equal(happened[1], "From unknown to in progress");
            const links = await page.locator("main a").evaluateAll((found) => found.map((link) => new URL(link.href).pathname + new URL(link.href).search));
            for (const link of ["/agents/default/77", "/apis", "/sources", "/runbooks?toggle=failed", "/api/v1/toggles/failed?pretty", "/api/v1/toggles/failed/events?pretty"]) assert.ok(links.includes(link), `${link}: ${links}`);
            const form = page.locator("form");
            assert.deepEqual(await form.evaluate(({ method, action }) => [method, new URL(action).pathname + new URL(action).search]), ["post", "/-/debug/poll?toggle=failed"]);
            await page.fine();

            const unanswered = await opened("unanswered", { javaScriptEnabled });
            assert.match(await text(unanswered.locator("#answer")), /^Polls get no valid answer\. Since .* Last poll bad request: GET .* detail </);
            assert.match((await facts(unanswered)).Failing, /^\d+ times in a row, since |^once, since /);
            const odd = await facts(await opened("odd", { javaScriptEnabled }));
            assert.match(odd.Status, /^unknown, sent as status </);
            assert.equal(odd["Mocks should be"], "on or off, nothing is expected");
            const completed = await opened("completed", { javaScriptEnabled });
            assert.match((await facts(completed)).Source, /^watch file .*\/?watches\/one\.yaml$/);
            assert.match(await text(completed.locator("#answer")), /^The task completed: mocks are on\. Since /);
            assert.match(await completed.locator("link[rel=icon]").getAttribute("href"), /well\.svg$/);
            assert.equal(await completed.locator("#commands").count(), 0);
            const mismatched = await opened("mismatched", { javaScriptEnabled });
            assert.match(await text(mismatched.locator("#answer")), /^The task completed, but mocks are on and should be off\. Real callers may talk to mocks\./);
            const nobody = await opened("nobody", { javaScriptEnabled });
            assert.match(await text(nobody.locator("main")), /^No such toggle There is no toggle nobody now\. .* see all agents and all toggles\.$/);
            await followed(nobody.getByRole("link", { name: "all toggles" }));
            assert.equal(new URL(nobody.url()).pathname, "/");
        }
        // Addresses from before.
        const moved = await opened("../?toggle=failed");
        assert.equal(new URL(moved.url()).pathname, "/toggles/failed");
        await moved.fine();
    },

    /** Who is woken with a phone reads the answer without scrolling. */
    async begins() {
        for (const viewport of SCREENS) {
            const page = await opened("failed", { viewport });
            for (const part of [page.locator("h1"), page.locator("#answer .sentence"), page.locator("#answer .whose"), page.getByRole("link", { name: "What to do" }), page.getByRole("button", { name: "Poll once now" })]) {
                const { y, height } = await part.boundingBox();
                assert.ok(y + height <= viewport.height, `${await part.innerText()} ends at ${y + height} of ${viewport.height}`);
            }
            const button = await page.getByRole("link", { name: "What to do" }).boundingBox();
            assert.ok(button.height >= 36, `a finger needs more than ${button.height}`);
            await followed(page.getByRole("link", { name: "What to do" }));
            assert.equal(new URL(page.url()).hash, "#cekuratogglefailed");
            assert.equal(await page.locator(":target").count(), 1);
        }
    },

    /** The timeline: what each part shows can be read in every way, in the reader's zone, and in UTC without the script. */
    async draws() {
        const page = await opened("failed");
        const parts = page.locator("#picture g");
        const titles = await parts.evaluateAll((found) => found.map((part) => part.querySelector("title").textContent));
        assert.deepEqual(titles.map((title) => title.replaceAll(/for \d+s/g, "for LONG").replaceAll(/\d{4}-.* UTC/g, "AT")), [
            "Task: in progress for LONG, from AT",
            "Task: failed, since AT",
            "Polls: answered for LONG, from AT",
            "Polls: no more polls, since AT",
        ]);
        const legend = await page.locator(".legend li").allInnerTexts();
        for (const word of ["failed", "in progress", "answered", "no more polls"]) assert.ok(legend.some((line) => line.endsWith(word)), `${legend}`);
        assert.ok((await page.locator("#picture .tick").count()) > 0);

        // By keyboard.
        const failed = page.locator("#picture g", { has: page.locator("rect.failed") });
        const words = failed.locator(".words");
        const hint = page.locator("#picture .hint");
        assert.ok((await hint.isVisible()) && !(await words.isVisible()));
        await page.locator("#picture g").first().focus();
        while (!(await failed.evaluate((part) => part === document.activeElement))) await page.keyboard.press("Tab");
        assert.ok((await words.isVisible()) && !(await hint.isVisible()));
        const at = await failed.locator("[data-at]").getAttribute("data-at");
        const local = new Intl.DateTimeFormat("en-US", { timeZone: "Asia/Kolkata", month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" }).format(new Date(at));
        assert.equal((await words.textContent()).trim(), `Task: failedsince ${local}`);
        // By mouse, when nothing has the focus.
        await page.evaluate(() => document.activeElement.blur());
        assert.ok(!(await words.isVisible()));
        await failed.locator("rect").hover();
        assert.ok(await words.isVisible());
        await page.fine();

        // By a finger, and without the script.
        const phone = await opened("failed", { viewport: PHONE, hasTouch: true, isMobile: true, javaScriptEnabled: false });
        const part = phone.locator("#picture g", { has: phone.locator("rect.failed") });
        await part.locator("rect").tap();
        assert.ok(await part.locator(".words").isVisible());
        const { x, width } = await part.locator(".words").boundingBox();
        assert.ok(x >= 0 && x + width <= 360, `the words end at ${x + width}`);
        assert.equal((await part.locator(".words").textContent()).trim(), `Task: failedsince ${at.slice(0, 19).replace("T", " ")} UTC`);
        const outside = await phone.locator("#picture *:not(g):not(title)").evaluateAll((found) => found.map((one) => [one.outerHTML, one.getBoundingClientRect()]).filter(([, { left, right }]) => left < 0 || right > 360).map(([html]) => html));
        assert.deepEqual(outside, [], "it reaches out of the screen");
        await phone.fine();
    },

    /** The runbook's commands are on the page, with the values of the toggle. */
    async helps() {
        for (const javaScriptEnabled of [false, true]) {
            const page = await opened("payments-x", { javaScriptEnabled, viewport: PHONE });
            const known = await facts(page);
            assert.match(known.Source, /^registered over HTTP .*\d{2}:\d{2}:\d{2}/);
            assert.ok(!(await page.locator("#commands pre").first().isVisible()));
            await page.locator("#commands summary").click();
            const commands = (await page.locator("#commands pre").allInnerTexts()).join("");
            for (const part of [`exporter=${url}\n`, "/api/v1/toggles/payments-x\" \\\n  -d wait=50s", "/aiagents/77/toggle-mock-tools/", "enabled=true expect=enabled", "\"labels\": {\"team\":\"Payments\"}"]) assert.ok(commands.includes(part), `${part}: ${commands}`);
            assert.ok(!commands.includes("bookings"));
            await followed(page.locator("#commands a", { hasText: "toggle again" }).first());
            assert.equal(new URL(page.url()).pathname + new URL(page.url()).search + new URL(page.url()).hash, "/runbooks?toggle=payments-x#toggle-again");
            await page.fine();
        }
        const page = await opened("payments-x");
        await page.context().grantPermissions(["clipboard-read", "clipboard-write"]);
        await page.locator("#commands summary").click();
        await page.locator("#commands .copy").first().click();
        const block = await page.locator("#commands pre").first().textContent();
        assert.equal(await page.evaluate(() => navigator.clipboard.readText()), block);
    },

    /** A refresh with changes takes no focus, closes nothing and moves nothing. */
    async keeps() {
        const page = await opened("payments-x");
        await page.locator("#commands summary").click();
        const copy = page.locator("#commands .copy").first();
        const part = page.locator("#picture g").last();
        const link = page.getByRole("link", { name: "its events" });
        for (const [focused, number] of [[copy, 1], [part, 2], [link, 3], [page.locator("#commands pre").first(), 4]]) {
            await focused.evaluate((element) => {
                element.focus();
                element.marked = true;
            });
            // What is shown changes: the labels, and so the commands.
            await changed("PUT", "payments-x", { agent_id: 77, progress_id: "first", expect: "enabled", labels: { team: `Payments${number}` } });
            await page.locator("#answer .label", { hasText: `team=Payments${number}` }).waitFor();
            assert.ok((await page.locator("#commands pre").allTextContents()).join("").includes(`Payments${number}`));
            assert.ok(await focused.evaluate((element) => element === document.activeElement && element.marked), `it is the same element: ${number}`);
            assert.ok(await page.locator("#commands").evaluate((details) => details.open));
            const copies = await page.locator("#commands pre").evaluateAll((blocks) => blocks.map((block) => block.previousElementSibling.className));
            assert.ok(copies.length > 1 && copies.every((name) => name === "copy"), `${copies}`);
            assert.equal(await page.locator(".copy").count(), copies.length);
        }
        await page.fine();
    },

    /** It completes, and is gone. */
    async follows() {
        const page = await opened("payments-x");
        assert.equal(await page.title(), "payments-x: failed – cekura-exporter");
        await changed("PUT", "payments-x", { agent_id: 77, progress_id: "second", expect: "enabled" });
        await page.locator("h1 .badge.completed").waitFor();
        assert.equal(await page.title(), "payments-x: completed – cekura-exporter");
        assert.match(await page.locator("link[rel=icon]").getAttribute("href"), /well\.svg$/);
        assert.equal(await page.locator("#commands").count(), 0);
        const happened = await page.locator(".events li > span").allInnerTexts();
        assert.match(happened.join("\n"), /^From unknown to completed\nAnother run is watched, task: second\nFrom unknown to failed.*: no room$/);
        assert.equal((await facts(page))["Runs so far"], "1 completed, 1 failed");
        await changed("DELETE", "payments-x");
        await page.getByText("There is no toggle payments-x now").waitFor();
        assert.ok(await page.locator("#offline").isHidden());
        assert.equal(await page.evaluate(() => performance.getEntriesByType("navigation").length), 1);
        await page.fine();
    },

    /** Nothing that others wrote is taken for anything but text, and none of it is hidden. */
    async escapes() {
        for (const javaScriptEnabled of [false, true]) {
            for (const [name, fields] of [["failed", ["message", "error", "label"]], ["unanswered", ["detail", "label"]], ["odd", ["status"]]]) {
                const page = await opened(name, { javaScriptEnabled });
                const shown = await text(page.locator("main"));
                for (const field of fields) assert.ok(shown.includes(`${field} ${WRITTEN}`), `${field}: ${shown}`);
                assert.equal(await page.locator("main img, main script").count(), 0);
                assert.ok(!(await page.content()).includes("mock.invalid"));
                if (javaScriptEnabled) assert.equal(await page.evaluate(() => window.ran), undefined);
                await page.fine();
            }
        }
        const odd = await opened(encodeURIComponent(WRITTEN));
        assert.ok((await text(odd.locator("main"))).includes(WRITTEN));
        assert.equal(await odd.evaluate(() => window.ran), undefined);
        await odd.fine();
    },

    /** No rule of axe is broken and nothing is wider than the screen, in light and dark, on every screen, in print. */
    async accessible() {
        for (const name of NAMES) {
            const page = await opened(name);
            if (await page.locator("#commands").count()) await page.locator("#commands summary").click();
            const looks = SCREENS.flatMap((viewport, at) => ["light", "dark"].filter((_, scheme) => name === "failed" || scheme === at % 2).map((colorScheme) => [viewport, colorScheme]));
            for (const [viewport, colorScheme] of looks) {
                await page.setViewportSize(viewport);
                await page.emulateMedia({ colorScheme });
                const where = `${name}, ${colorScheme}, ${viewport.width}`;
                assert.deepEqual(await violations(page), [], where);
                const wide = await page.evaluate(() => document.documentElement.scrollWidth);
                assert.ok(wide <= viewport.width, `it is ${wide} wide: ${where}`);
            }
            await page.fine();
        }
        // The keyboard reaches everything that a mouse can use, in the order in which it is read.
        const page = await opened("failed");
        await page.locator("#commands summary").click();
        await page.locator("#main").focus();
        const reached = [];
        while (true) {
            await page.keyboard.press("Tab");
            const [is, inside] = await page.evaluate(() => [document.activeElement.textContent.trim().slice(0, 30), document.activeElement.closest("main") !== null]);
            if (!inside) break;
            reached.push(is);
        }
        const usable = await page.locator("main").evaluate((main) => [...main.querySelectorAll("a, button, summary, [tabindex]")].map((one) => one.textContent.trim().slice(0, 30)));
        assert.deepEqual(reached, usable);
        await page.emulateMedia({ media: "print" });
        assert.ok(await page.locator("#answer .sentence").isVisible());
        await page.fine();
    },
};

await played(scenarios);
