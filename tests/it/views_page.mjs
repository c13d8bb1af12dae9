// What the pages of agents, APIs, sources, replicas and the process do in a browser. Each scenario is a test of its own
// in views_page.rs, which says what the exporter at URL has. Usage: node views_page.mjs SCENARIO URL
import assert from "node:assert/strict";

import { followed, opened, played, refreshed, violations } from "./browser.mjs";

/** A page with the script, and one without. */
const both = async (path) => [await opened(path), await opened(path, { javaScriptEnabled: false })];

/** The text of an element, on one line and without times, which the script tells in another way. */
const text = async (page, selector) => {
    const told = await page.locator(selector).first().evaluate((element) => {
        const copy = element.cloneNode(true);
        for (const time of copy.querySelectorAll("time")) time.textContent = "TIME";
        for (const block of copy.querySelectorAll("dt, dd, p, li, h2, h3, td, th, .more, strong")) {
            block.before(" ");
            block.append(" ");
        }
        return copy.textContent;
    });
    return told.replaceAll(/\s+/g, " ").replaceAll(" ,", ",").trim();
};
const texts = async (page, selector) => (await page.locator(selector).allInnerTexts()).map((told) => told.replaceAll(/\s+/g, " ").trim());
const ids = (page) => page.locator("#agents tbody tr").evaluateAll((rows) => rows.map((row) => row.dataset.key.split("/")[1]));

/** What is wider than the screen. */
const tooWide = (page) => page.evaluate(() => {
    const width = document.documentElement.clientWidth;
    const isScrolled = (element) => element.closest("pre, .text, header nav, .skip, caption");
    const wide = [...document.querySelectorAll("body *")].filter((element) => !isScrolled(element) && element.getBoundingClientRect().right > width + 1);
    return wide.map((element) => element.outerHTML.slice(0, 120));
});

/** Follows a link, and comes back. */
const leadsTo = async (page, link, path) => {
    await page.locator(link).first().click();
    await page.waitForURL((to) => to.pathname + to.search + to.hash === path);
    await page.goBack();
};

const scenarios = {
    /** The list with its chips and its search, and the page of each. */
    async agents() {
        for (const page of await both("/agents")) {
            assert.equal(await page.locator("#summary").innerText(), "7 agents: 2 drifted, 1 left on, 1 not answering.");
            assert.deepEqual(await ids(page), ["1", "2", "3", "4", "5", "6", "9"]);
            assert.deepEqual(await texts(page, "#chips a"), ["7 in all", "≠ 2 drifted", "● 1 left on", "△ 1 poll errors", "✔ 1 as expected", "? 2 not judged"]);
            await followed(page.locator("#chips a.drifted"));
            assert.ok(page.url().endsWith("/agents?standing=drifted"), page.url());
            assert.deepEqual(await ids(page), ["1", "2"]);
            await page.getByRole("searchbox").fill("voice");
            await page.keyboard.press("Enter");
            await page.waitForURL("**/agents?q=voice&standing=drifted");
            await page.locator("#shown", { hasText: /^1 agent\./ }).waitFor();
            assert.deepEqual(await ids(page), ["1"]);
            assert.equal(await page.locator("#shown").innerText(), "1 agent. Show all");
            await followed(page.getByRole("link", { name: "Show all" }));
            assert.ok(page.url().endsWith("/agents"), page.url());
            await leadsTo(page, '[data-key="default/3"] a.more', "/runbooks?agent=default/3#cekuraagentleftenabled");
            await followed(page.locator('[data-key="default/1"] th a'));
            assert.ok(page.url().endsWith("/agents/default/1"), page.url());
            assert.match(await page.title(), /^Agent 1: drifted – cekura-exporter$/);
            assert.equal(await text(page, "h1"), "≠ drifted Agent 1");
            const answer = await text(page, ".answer");
            assert.match(answer, /^Mocks are off and should be on\. Tests may reach the real systems\. Since TIME\. API default\. team=<b>Voice<\/b> What to do$/);
            await leadsTo(page, ".answer a.button", "/runbooks?agent=default/1#cekuraagentmocksdrifted");
            assert.match(await text(page, "dl.facts"), /^Mocks are off Should be on told by bookings-enable, TIME/);
            assert.match(await text(page, "#toggles"), /✔ completed bookings-enable .*watched TIME finished TIME/);
            await leadsTo(page, "dl.facts a", "/toggles/bookings-enable");
            await leadsTo(page, ".answer .whose a", "/apis#default");
            await page.fine();
        }
        for (const [id, sentence] of [
            [2, "Mocks are on and should be off. Real callers may talk to mocks."],
            [3, "Mocks are on, and nothing says that they should be. Real callers may talk to mocks."],
            [4, "Polls get no valid answer."],
            [5, "Mocks are off, as they should be."],
            [9, "The exporter does not ask the API about this agent, because no source lists it."],
        ]) {
            const page = await opened(`/agents/default/${id}`);
            assert.equal(await page.locator("#sentence").innerText(), sentence);
            await refreshed(page);
            assert.equal(await page.locator("#sentence").innerText(), sentence);
            await page.fine();
        }
    },

    async apis() {
        for (const page of await both("/apis")) {
            assert.equal(await page.locator("#summary").innerText(), "3 APIs, 1 down.");
            assert.match(await text(page, "#default"), /^✔ up default Last answer TIME, of (toggle|agent) .* Toggles 2 watched, 2 polled 2 completed Agents 6 asked, 1 not answered forbidden .* List of agents not answered since TIME forbidden: .*may not list agents.* Budget 10 requests per second, at most \d+ at a time/);
            assert.match(await text(page, "#slow"), /^✖ down slow This API is down: requests are rate limited\. Polls have failed since TIME\. What to do Last answer none yet Toggles 1 watched, 1 polled, 1 not answered rate limited .* Pause no polls before TIME/);
            assert.match(await text(page, "#unused"), /^\? not polled yet unused .* Pause none Base URL http:.* Key given by the configuration/);
            await leadsTo(page, "#slow a.button", "/runbooks?api=slow#cekuraapithrottled");
            await page.fine();
        }
    },

    async sources() {
        for (const page of await both("/sources")) {
            assert.equal(await page.locator("#summary").innerText(), "4 sources cannot be read, 1 definition refused.");
            assert.match(await text(page, "#configuration"), /^✖ refused Configuration The last reload failed TIME, so .*config\.yaml:1:1: apis: .*config\.yaml:2:1: odd: .*What to do File \/.*config\.yaml Loaded TIME Toggles 3 watched Agents 6 asked/);
            assert.match(await text(page, "#files"), /^✖ down Watch files What these files last defined is still watched\. What is new in them is not\. What to do Toggles 0 watched, 1 refused Agents 0 asked ✖ down here\/\*\.yaml .*odd\.yaml:1:.*Down since TIME Read 1 file with 1 toggle and 0 agents Files .*good\.yaml 1 toggle, 0 agents ✖ down there\/\*\.yaml/);
            assert.match(await text(page, "#registrations"), /^✔ enabled Registrations Toggles 0 watched$/);
            assert.match(await text(page, "#discovery"), /^✖ down Lists of agents No agent is asked because of these lists\. What to do ✖ down default forbidden: .*may not list agents/);
            assert.match(await text(page, "#refused"), /Toggle z-enable of \/.*good\.yaml: the configuration has a toggle of this name, too, and goes before\./);
            await page.fine();
        }
        // Each is a problem of the status page, too.
        for (const page of await both("/")) {
            const cards = await texts(page, "#problems .problem h2");
            for (const card of ["✖ refused Configuration", "✖ down Watch files here/*.yaml", "✖ down Watch files there/*.yaml", "✖ down List of agents of default", "✖ refused 1 definition"]) {
                assert.ok(cards.includes(card), `${card}: ${cards}`);
            }
            await leadsTo(page, '.problem a[href="sources#files"]', "/sources#files");
            await page.fine();
        }
    },

    async runtime() {
        for (const page of await both("/runtime")) {
            assert.equal(await page.locator("#summary").innerText(), "This exporter is healthy and ready.");
            const all = await text(page, "main");
            assert.match(all, /Process Version \d+\.\d+\.\d+ Revision .* Compiler rustc .* Started TIME Process id \d+ Listens at 127\.0\.0\.1:\d+ without TLS/);
            assert.match(all, /Flags in force --config\.file \/.*config\.yaml --web\.listen-address 127\.0\.0\.1:0 --web\.telemetry-path \/metrics --log\.level .*info/);
            assert.match(all, /apis: default: base_url: .*api_key: <secret>/);
            await page.fine();
        }
    },

    async replicas() {
        for (const page of await both("/replicas")) {
            assert.equal(await page.locator("#summary").innerText(), "2 replicas, and the database can be used.");
            const rows = await page.locator("#replicas tbody tr").evaluateAll((found) => found.map((row) => [...row.cells].map((cell) => cell.textContent)));
            const sum = (column) => rows.map((row) => Number(row[column])).reduce((a, b) => a + b);
            assert.deepEqual([rows.length, sum(2), sum(3)], [2, 64, 24]);
            assert.equal(rows.filter(([name]) => name.endsWith("this one")).length, 1);
            assert.deepEqual(await violations(await opened("/replicas")), []);
            await page.fine();
        }
    },

    async without_database() {
        for (const page of await both("/replicas")) {
            assert.equal(await page.locator("#summary").innerText(), "The database cannot be used.");
            assert.match(await text(page, "main"), /Since TIME, this replica has gone on with what it knows\. It refuses registrations\. the database .*What to do/);
            await page.fine();
        }
        const page = await opened("/");
        assert.ok((await texts(page, "#problems .problem h2")).includes("✖ down Database"));
        await leadsTo(page, '.problem a[href="replicas"]', "/replicas");
        await page.fine();
    },

    /** Nothing is wider than the screen, the keyboard reaches everything, and axe-core finds nothing. */
    async accessible() {
        for (const path of ["/agents", "/agents/default/1", "/agents/default/4", "/agents/default/9", "/agents/default/1000", "/apis", "/sources", "/runtime"]) {
            for (const width of [360, 768, 1400]) {
                for (const colorScheme of ["light", "dark"]) {
                    const page = await opened(path, { viewport: { width, height: 800 }, colorScheme, mayBeMissing: true });
                    for (const details of await page.locator("details").all()) await details.evaluate((element) => (element.open = true));
                    assert.deepEqual(await violations(page), [], `${path} ${width} ${colorScheme}`);
                    assert.deepEqual(await tooWide(page), [], `${path} ${width}`);
                    await page.fine();
                }
            }
        }
        const page = await opened("/sources");
        await page.keyboard.press("Tab");
        assert.equal(await page.evaluate(() => document.activeElement?.textContent), "Skip to the content");
        await page.keyboard.press("Enter");
        const reached = new Set();
        for (let i = 0; i < 60; i += 1) {
            await page.keyboard.press("Tab");
            reached.add(await page.evaluate(() => document.activeElement?.outerHTML));
        }
        const all = await page.locator("main a, main summary, main [tabindex='0']").evaluateAll((found) => found.map((element) => element.outerHTML));
        assert.deepEqual(all.filter((element) => !reached.has(element)), []);
        await page.fine();
    },

    /** What the reader opened stays open while a file is mended. */
    async refreshed() {
        const page = await opened("/sources");
        await page.locator('#files [data-key="here/*.yaml"] summary').click();
        await page.waitForFunction(() => document.querySelector("#summary")?.textContent === "3 sources cannot be read, 1 definition refused.", null, { timeout: 30_000 });
        const part = page.locator('#files [data-key="here/*.yaml"]');
        assert.equal(await part.locator("details").evaluate((element) => element.open), true);
        assert.match(await text(page, '#files [data-key="here/*.yaml"]'), /^✔ up here\/\*\.yaml Up since TIME Read 2 files/);
        await page.fine();
    },
};

await played(scenarios);
