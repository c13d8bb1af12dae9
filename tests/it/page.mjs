// What the status page does in a browser. Each scenario is a test of its own in page.rs, which says what
// the exporter at URL watches. Usage: node page.mjs SCENARIO URL
import assert from "node:assert/strict";

import { SCREENS, followed, opened, played, refreshed, text, url, violations } from "./browser.mjs";

const names = (page) => page.locator("#toggles tbody tr").evaluateAll((found) => found.map((row) => row.dataset.key));
const cards = (page) => page.locator("#problems article").evaluateAll((found) => found.map((card) => card.dataset.key));

const scenarios = {
    /** The first screen says what is wrong, whose, since when and what to do, with and without the script. */
    async trouble() {
        for (const javaScriptEnabled of [false, true]) {
            for (const viewport of SCREENS) {
                const page = await opened("/", { javaScriptEnabled, viewport });
                assert.equal(await page.locator("#banner").innerText(), "6 problems. 8 toggles and 1 agent are watched.");
                assert.equal(await page.title(), "6 problems – cekura-exporter");
                assert.match(await page.locator("link[rel=icon]").getAttribute("href"), /trouble\.svg$/);
                const card = page.locator("#problems article[data-key='toggle/b-failed']");
                const said = await text(card);
                assert.match(said, /^✖ failed b-failed Turning mocks on failed\. Tests may reach the real systems\. No Room, see <url> Since .*\. Agent 1, API default\. What to do$/);
                const first = page.locator("#problems article").first();
                const [box, button] = [await first.boundingBox(), await first.getByRole("link", { name: "What to do" }).boundingBox()];
                assert.ok(box.y + box.height <= viewport.height, `the first problem ends at ${box.y + box.height} of ${viewport.height}`);
                assert.ok(button.height >= 24, "the button is large enough for a finger");
                assert.deepEqual((await cards(page)).toSorted(), ["api/other", ...["b-failed", "e-on", "f-off", "g-nothing", "h-tools"].map((name) => `toggle/${name}`)]);
                await page.fine();
            }
        }
        const page = await opened("/");
        await followed(page.getByRole("link", { name: "What to do" }).first());
        assert.equal(await page.locator(":target").count(), 1);
    },

    /** Where all is well, the page says so. */
    async well() {
        const page = await opened("/");
        assert.equal(await page.locator("#banner").innerText(), "All well: 1 toggle and 1 agent, no problem.");
        assert.equal(await page.title(), "All well – cekura-exporter");
        assert.match(await page.locator("link[rel=icon]").getAttribute("href"), /well\.svg$/);
        assert.equal(await page.locator("#problems").count(), 0);
        await page.fine();
    },

    /** What is asked for is in the address, and the address is enough to show it again. */
    async filters() {
        const page = await opened("/");
        const all = await names(page);
        await page.getByRole("searchbox").fill("DONE");
        await page.waitForFunction(() => location.search === "?q=DONE" && document.querySelectorAll("#toggles tbody tr").length === 2);
        assert.deepEqual(await names(page), ["a-done", "d-done"]);
        assert.ok(await page.getByRole("searchbox").evaluate((input) => input === document.activeElement), "the focus stays");
        await page.reload();
        assert.deepEqual([await names(page), await page.getByRole("searchbox").inputValue()], [["a-done", "d-done"], "DONE"]);
        await followed(page.getByRole("link", { name: "Show all" }));
        assert.deepEqual(await names(page), all);

        const back = await opened("/");
        await back.getByRole("searchbox").fill("DONE");
        await back.waitForFunction(() => document.querySelectorAll("#toggles tbody tr").length === 2);
        await back.goBack();
        await back.waitForFunction((count) => document.querySelectorAll("#toggles tbody tr").length === count, all.length);
        assert.equal(await back.getByRole("searchbox").inputValue(), "");
        await back.fine();

        const plain = await opened("/?q=DONE", { javaScriptEnabled: false });
        for (const of of [page, plain]) {
            await of.goto(url);
            await followed(of.getByRole("link", { name: "1 failed" }));
            assert.equal(new URL(of.url()).search, "?standing=failed");
            assert.deepEqual(await names(of), ["b-failed"]);
            assert.equal(await of.locator(".chip[aria-current]").innerText(), "✖ 1 failed");
            await of.getByRole("searchbox").fill("done");
            await of.getByRole("button", { name: "Search" }).click();
            await of.getByText("No toggle is like that.").waitFor();
            assert.equal(new URL(of.url()).searchParams.get("standing"), "failed");
            await of.goto(url);
            await followed(of.locator("#toggles th a", { hasText: /^Toggle$/ }));
            assert.deepEqual(await names(of), all.toSorted());
            await followed(of.locator("#toggles th a", { hasText: /^Toggle$/ }));
            assert.deepEqual(await names(of), all.toSorted().toReversed());
            assert.equal(await of.locator("th[aria-sort]").getAttribute("aria-sort"), "descending");
            assert.equal(new URL(of.url()).search, "?sort=-name");
        }
        assert.deepEqual(await page.locator(".chip").allInnerTexts(), ["8 in all", "✖ 1 failed", "≠ 4 mismatch", "△ 1 poll errors", "✔ 2 completed"]);
        // What is too much is looked for in part, and what is asked for twice once.
        for (const odd of [`/?q=${"done+".repeat(20)}${"x".repeat(300)}`, "/?q=done&q=failed&status=completed&status=failed"]) {
            assert.deepEqual(await names(await opened(odd)), ["a-done", "d-done"], odd);
        }
        await page.fine();
        await plain.fine();
    },

    /** A toggle fails while the page is open. */
    async follows() {
        const page = await opened("/");
        assert.equal(await page.title(), "All well – cekura-exporter");
        // The clock that counts is that of the exporter.
        const early = await opened("/", {
            prepare: (page) =>
                page.addInitScript(() => {
                    const now = Date.now;
                    Date.now = () => now() + 40 * 60e3;
                }),
        });
        await refreshed(early);
        assert.match(await early.locator("tr[data-key=a] [data-of=Run] time").innerText(), /\((now|\d+s ago)\)$/);
        // This tells page.rs to let it fail.
        assert.equal((await fetch(new URL("/api/v1/toggles/seen", url))).status, 404);
        await page.locator("#problems article[data-key='toggle/a']").waitFor();
        assert.match(await text(page.locator("#problems article")), /^✖ failed a The toggle failed\. Mocks may be in the wrong state\. no room Since .* \(.*\)\. Agent 1, API default\. What to do$/);
        assert.equal(await page.title(), "1 problem – cekura-exporter");
        assert.match(await page.locator("link[rel=icon]").getAttribute("href"), /trouble\.svg$/);
        assert.match(await page.locator("tr[data-key=a] [data-of=Run]").innerText(), /finished .*, after \d+s$/);
        assert.equal(await page.evaluate(() => performance.getEntriesByType("navigation").length), 1);
        await page.fine();
    },

    /** Times are told in the reader's zone with their age, which grows, and in UTC at hand. */
    async times() {
        const page = await opened("/");
        const time = page.locator("tr[data-key=a] [data-of=Run] time").first();
        const [at, title] = await time.evaluate((found) => [found.dateTime, found.title]);
        assert.equal(title, `${at.slice(0, 19).replace("T", " ")} UTC`);
        const local = new Intl.DateTimeFormat("en", { timeZone: "Asia/Kolkata", timeStyle: "medium", hourCycle: "h23" }).format(new Date(at));
        const told = await time.innerText();
        assert.ok(told.startsWith(local), `${told} is not ${local}`);
        await page.waitForFunction(([before]) => document.querySelector("tr[data-key=a] [data-of=Run] time").textContent !== before, [told]);
        const plain = await opened("/", { javaScriptEnabled: false });
        assert.equal(await plain.locator("tr[data-key=a] [data-of=Run] time").first().innerText(), title);
        await page.fine();
    },

    /** A refresh takes neither focus nor place, and moves nothing that is read. */
    async keeps() {
        const page = await opened("/", { viewport: { width: 1400, height: 500 }, reducedMotion: "reduce" });
        const link = page.locator("tr[data-key=d-done] th a");
        await link.focus();
        await link.evaluate((element) => (element.marked = true));
        // Where the reader is: how far the row is from the top of the window.
        const place = () => link.evaluate((element) => Math.round(element.getBoundingClientRect().top));
        const before = await place();
        assert.ok(await page.evaluate(() => scrollY > 0), "it is scrolled");
        await refreshed(page);
        assert.ok(await link.evaluate((element) => element === document.activeElement && element.marked), "it is the same element");
        assert.equal(await place(), before);
        // The order turned round, and another page of the same toggles.
        await page.route("**/*", async (route) => {
            // What it has is never the newest.
            const headers = { ...route.request().headers() };
            delete headers["if-none-match"];
            const answer = await route.fetch({ headers });
            const html = await answer.text();
            const reversed = html.replace(/(<tbody role="rowgroup">\n)([\s\S]*)(<\/tbody>)/, (_, begins, rows, ends) => begins + rows.trim().split("\n").toReversed().join("\n") + "\n" + ends);
            await route.fulfill({ response: answer, body: reversed });
        });
        const order = await names(page);
        await page.waitForFunction((first) => document.querySelector("#toggles tbody tr").dataset.key === first, order.at(-1));
        assert.deepEqual(await names(page), order.toReversed());
        assert.ok(await link.evaluate((element) => element === document.activeElement && element.marked), "it is the same element");
        await page.fine();
    },

    /** It asks for what is new only, not while nobody looks, and says when it cannot. */
    async refreshes() {
        const page = await opened("/");
        const seen = [];
        page.on("response", (answer) => answer.url() === page.url() && seen.push(answer.status()));
        // It is another page with each minute, because a toggle may stand in another way then.
        await page.waitForResponse((answer) => answer.url() === page.url() && answer.status() === 304);
        const hide = (hidden) =>
            page.evaluate((is) => {
                Object.defineProperty(document, "hidden", { configurable: true, get: () => is });
                document.dispatchEvent(new Event("visibilitychange"));
            }, hidden);
        await hide(true);
        await page.clock.install();
        const asked = seen.length;
        await page.clock.fastForward(60_000);
        assert.equal(seen.length, asked, "it asks although it is hidden");
        await hide(false);
        await page.waitForResponse((answer) => answer.url() === page.url());
        await page.fine();

        const cut = await opened("/");
        const says = (words) => cut.getByRole("alert").filter({ hasText: words }).waitFor({ timeout: 60_000 });
        const again = async () => {
            await cut.unroute("**/*");
            await cut.getByRole("alert").waitFor({ state: "hidden" });
        };
        await cut.route("**/*", (route) => route.abort());
        await says(/^The exporter does not answer: it cannot be reached\. What is shown here is from .*ago\)$/);
        await again();
        await cut.route("**/*", (route) => route.fulfill({ status: 503, json: { error: "no" } }));
        await says("it answered 503");
        await again();
        // Neither does one that never answers stop it for ever.
        await cut.route("**/*", () => {});
        await says("it takes too long to answer");
        await again();
    },

    /** For everybody: no rule of axe is broken, nothing is wider than the screen, and the keyboard reaches all. */
    async accessible() {
        for (const colorScheme of ["light", "dark"]) {
            for (const viewport of SCREENS) {
                const page = await opened("/", { colorScheme, viewport });
                assert.deepEqual(await violations(page), [], `${colorScheme} ${viewport.width}`);
                const wide = await page.evaluate(() => document.documentElement.scrollWidth);
                assert.ok(wide <= viewport.width, `it is ${wide} wide on ${viewport.width}`);
                await page.fine();
            }
        }
        const page = await opened("/");
        await page.keyboard.press("Tab");
        assert.equal(await page.evaluate(() => document.activeElement.textContent), "Skip to the content");
        await page.keyboard.press("Enter");
        await page.keyboard.press("Tab");
        assert.ok(await page.evaluate(() => document.activeElement.closest("#problems") !== null), "after the bar comes the trouble");
    },

    /** Nothing that others wrote is taken for anything but text. */
    async escapes() {
        const written = "<script>window.ran=1</script><img src=x onerror=window.ran=1>\"'&amp;";
        for (const javaScriptEnabled of [false, true]) {
            const page = await opened("/", { javaScriptEnabled });
            if (javaScriptEnabled) await refreshed(page);
            const shown = await page.locator("main").innerText();
            for (const field of ["message", "error", "detail", "label"]) assert.ok(shown.includes(`${field} ${written}`), `${field}: ${shown}`);
            assert.equal(await page.locator("main img, main script").count(), 0);
            assert.ok(!(await page.content()).includes("mock.invalid"));
            await page.fine();
        }
        const page = await opened(`/?q=${encodeURIComponent("\"><script>window.ran=1</script>")}`);
        await page.getByText("No toggle is like that.").waitFor();
        assert.equal(await page.evaluate(() => window.ran), undefined);
        await page.fine();
    },

    /** Of ten thousand the worst are shown, and the others when they are asked for. */
    async many() {
        for (const javaScriptEnabled of [false, true]) {
            const page = await opened("/", { javaScriptEnabled });
            assert.equal((await names(page))[0], "z-failed");
            assert.equal(await page.locator("#shown").innerText(), "The first 500 of 10000 toggles.");
            await followed(page.getByRole("link", { name: "Show more" }));
            assert.equal(new URL(page.url()).search, "?more=1");
            assert.equal((await names(page)).length, 1000);
            if (javaScriptEnabled) {
                await refreshed(page);
                assert.equal((await names(page)).length, 1000);
                await page.getByRole("searchbox").fill("w00042");
                await page.waitForFunction(() => document.querySelectorAll("#toggles tbody tr").length === 1);
            }
            await page.fine();
        }
    },
};

await played(scenarios);
