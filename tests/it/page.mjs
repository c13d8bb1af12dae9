// What the status page does in a browser. Each scenario is a test of its own in page.rs, which says what
// the exporter at URL watches. Usage: node page.mjs SCENARIO URL
import assert from "node:assert/strict";
import { createRequire } from "node:module";

const tools = createRequire(new URL("../tools/package.json", import.meta.url));
const { chromium } = tools("playwright-core");
const [scenario, url] = process.argv.slice(2);

const browser = await chromium.launch({
    executablePath: "/usr/bin/chromium",
    args: ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-dev-shm-usage"],
});

/** A page that fails the test with whatever the browser complains of. `plays` prepares it before it is loaded. */
const opened = async (path = "/", options = {}, plays = async () => {}) => {
    const context = await browser.newContext({ viewport: { width: 1400, height: 900 }, ...options });
    const page = await context.newPage();
    const complaints = [];
    page.on("pageerror", (error) => complaints.push(error.message));
    page.on("console", (line) => ["error", "warning"].includes(line.type()) && complaints.push(line.text()));
    page.on("dialog", (dialog) => (complaints.push(dialog.message()), dialog.dismiss()));
    page.fine = () => assert.deepEqual(complaints, []);
    await plays(page);
    await page.goto(new URL(path, url).href);
    if (options.javaScriptEnabled !== false) await page.locator("[aria-sort]").waitFor();
    return page;
};

/** The rows of a table as people read them, without times, which grow. */
const rows = (page, table = "#toggles") =>
    page.locator(`${table} tbody tr`).evaluateAll((found) =>
        found.map((row) =>
            [...row.cells].map((cell) => {
                const copy = cell.cloneNode(true);
                for (const time of copy.querySelectorAll("time")) time.textContent = "TIME";
                return [cell.dataset.of, cell.tagName, copy.innerHTML.replaceAll(/ (datetime|title)="[^"]*"/g, "")];
            }),
        ),
    );
const names = (page, table = "#toggles") => page.locator(`${table} tbody tr`).evaluateAll((found) => found.map((row) => row.dataset.name));
const badges = (page, table = "#toggles") => page.locator(`${table} tbody .badge`).evaluateAll((found) => found.map((badge) => badge.innerText.trim()));

const refreshed = async (page) => {
    const before = await page.evaluate(() => Number(document.body.dataset.refreshes ?? 0));
    await page.waitForFunction((count) => Number(document.body.dataset.refreshes ?? 0) > count, before, { timeout: 30_000 });
};

const violations = async (page) => {
    await page.evaluate(tools("axe-core").source);
    const { violations: found } = await page.evaluate(() => window.axe.run(document, { resultTypes: ["violations"] }));
    return found.map(({ id, nodes }) => `${id}: ${nodes.map((node) => `${node.html} ${node.failureSummary}`).join("; ")}`);
};

/** A toggle as the API shows it, for pages whose API is played. */
const toggle = (name, more) => ({
    name, agent_id: 1, progress_id: "p", api: "default", source: "config", expect: null, labels: {}, status: "in_progress", raw_status: null,
    problem: null, mock_enabled: null, mismatch: null, mcp_endpoints: null, mcp_tools: null, message: null, error: null, up: true, poll_error: null,
    poll_error_detail: null, started_at: new Date().toISOString(), finished_at: null, last_success_at: new Date().toISOString(),
    next_poll_at: null, polls: 1, poll_failures: 0, ...more,
});

/** An agent as the API shows it, for pages whose API is played. */
const agent = (agent_id, more) => ({
    api: "default", agent_id, source: "config", provider: "vapi", labels: {}, mocks_live: false, should_be: null, mocks_drift: null,
    mocks_live_since: null, expect: null, mock_enabled: null, mock_enabled_since: null, told_by: null, told_at: null, mcp_endpoints: 0,
    tool_endpoints: 0, up: true, poll_error: null, poll_error_detail: null, last_success_at: new Date().toISOString(),
    next_poll_at: new Date().toISOString(), polls: 1, poll_failures: 0, ...more,
});

/** A page whose exporter knows these agents. */
const playedAgents = (page, list) => page.route("**/api/v1/agents", (route) => route.fulfill({ json: { agents: list() } }));

const scenarios = {
    /** The script writes what the server wrote, and in the same order. */
    async agrees() {
        const plain = await opened("/", { javaScriptEnabled: false });
        const page = await opened();
        const expected = await rows(plain);
        assert.ok(expected.length >= 8, `${expected.length} rows`);
        assert.deepEqual(await rows(page), expected);
        const line = (of) => of.locator("#api-list").innerHTML();
        const steady = (html) => html.replaceAll(/<time.*?<\/time>/g, "").replaceAll(/\d+ of \d+ requests|\d+ waiting/g, "").replaceAll(/\s+/g, " ").replaceAll("</li> <li>", "</li><li>").trim();
        assert.equal(steady(await line(page)), steady(await line(plain)));
        page.fine();
        plain.fine();
    },

    /** The agents: what is, what should be, who said so, and what to do. */
    async agents() {
        const plain = await opened("/", { javaScriptEnabled: false });
        const page = await opened();
        const order = ["default/1", "default/2", "default/3", "default/4", "default/5", "default/6", "default/8", "default/9"];
        const text = async (of, id) => (await of.locator(`#agents tr[data-name="default/${id}"]`).innerText()).replaceAll(/\s+/g, " ");
        for (const of of [plain, page]) {
            assert.deepEqual(await names(of, "#agents"), order);
            assert.deepEqual(await badges(of, "#agents"), ["≠ drifted", "≠ drifted", "● on", "△ polls fail", "✔ as expected", "? not judged", "✔ as expected", "? not judged"]);
            assert.equal(await of.locator("#agent-summary").innerText(), "8 agents: 2 drifted, 1 on without being expected, 1 not answering.");
            assert.match(await of.locator("#api-list").innerText(), /1 of 7 agents not answering, 1 forbidden;/);
            assert.match(await text(of, 1), /drifted what to do 1 default team=Voice off Tests may reach the real systems\. on told by bookings-enable, .* \d+ polls?, 0 failed 0 MCP 0 tools config vapi$/);
            assert.match(await text(of, 2), /on since .* Real callers may talk to mocks\. off as configured answered/);
            assert.match(await text(of, 3), /^● on 3 default on since .* not known answered/);
            assert.match(await text(of, 4), /not known not known no answer yet .* 1 poll, 1 failed Poll failed, forbidden: GET .*\/aiagents\/4\/tools\/mock-status\/: HTTP 403: This agent .* see <url>/);
            assert.match(await text(of, 9), /9 default team=Chat not asked on told by z-enable/);
            const links = await of.locator("#agents a.more").evaluateAll((found) => found.map((link) => link.getAttribute("href")));
            assert.deepEqual(links, ["runbooks?agent=default/1#cekuraagentmocksdrifted", "runbooks?agent=default/2#cekuraagentmocksdrifted", "runbooks?agent=default/4#cekuraagentnotanswering"]);
        }
        // An agent is asked again and again after a run of it finished.
        const steady = async (of) => (await rows(of, "#agents")).map((row) => row.map(([column, tag, html]) => [column, tag, html.replace(/\d+ polls?,/, "POLLS,")]));
        assert.deepEqual(await steady(page), await steady(plain));
        assert.equal(await page.title(), "2 in trouble · cekura-exporter");

        // The words of the filter, in both.
        for (const [words, found] of [["drifted", [1, 2]], ["VAPI as", []], ["vapi", [1, 5]], ["team=voice", [1]], ["bookings", [1]], ["forbidden", [4]], ["chat", [9]], ["unjudged custom", [6]]]) {
            const expected = found.map((id) => `default/${id}`);
            const query = `/?q=${encodeURIComponent(words)}`;
            const filtered = await opened(query);
            assert.deepEqual(await names(filtered, "#agents"), expected, words);
            assert.deepEqual(await names(await opened(query, { javaScriptEnabled: false }), "#agents"), expected, words);
            assert.equal(await filtered.locator("#shown-agents").innerText(), expected.length ? `${expected.length} agent${expected.length > 1 ? "s" : ""}.` : "No agent is like that.");
            await filtered.context().close();
        }

        // The toggle that told it is one click away.
        await page.locator("#agents a", { hasText: "bookings-enable" }).click();
        await page.getByRole("dialog", { name: "bookings-enable" }).waitFor();
        await page.keyboard.press("Escape");
        await page.locator("#agent-summary a").click();
        assert.ok(await page.locator("#agents").evaluate((table) => table.getBoundingClientRect().top < innerHeight));
        page.fine();
        plain.fine();
    },

    /** Agents come and go while the page is open. */
    async agentless() {
        const plain = await opened("/", { javaScriptEnabled: false });
        const page = await opened();
        for (const of of [plain, page]) {
            assert.ok(await of.locator("#agent-section").isHidden());
            assert.ok(await of.locator("#agent-summary").isHidden());
        }
        let list = [agent(7, { mocks_drift: true, should_be: "enabled", expect: "enabled" }), agent(8, { mocks_live: true, provider: "custom" }), agent(9, { mocks_live: true, should_be: "disabled" }), agent(10, { source: null, provider: null })];
        await playedAgents(page, () => list);
        await refreshed(page);
        assert.deepEqual(await names(page, "#agents"), ["default/7", "default/9", "default/8"], "one of which nothing is known is not shown");
        assert.equal(await page.locator("#agent-summary").innerText(), "3 agents: 1 drifted, 1 on without being expected.");
        const link = page.locator("#agents tr[data-name='default/7'] th a");
        await link.focus();
        list = [...Array.from({ length: 600 }, (_, at) => agent(100 + at, { mocks_drift: true, should_be: "enabled" })), ...list].toSorted((a, b) => a.agent_id - b.agent_id);
        await refreshed(page);
        assert.ok(await link.evaluate((element) => element === document.activeElement), "the focus stays");
        assert.equal(await page.locator("#shown-agents").innerText(), "The first 500 of 603 agents.");
        await page.getByRole("button", { name: "Show more agents" }).click();
        assert.equal((await names(page, "#agents")).length, 603);
        await page.getByRole("searchbox").fill("custom");
        await page.waitForFunction(() => document.querySelectorAll("#agents tbody tr").length === 1);
        list = [];
        await refreshed(page);
        assert.ok(await page.locator("#agent-section").isHidden());
        page.fine();
    },

    /** Agents break no rule of axe, in light and dark, and on a phone. */
    async agents_accessible() {
        for (const colorScheme of ["light", "dark"]) {
            for (const width of [1400, 360]) {
                const page = await opened("/", { colorScheme, viewport: { width, height: 800 } });
                assert.deepEqual(await violations(page), [], `${colorScheme} ${width}`);
                const wide = await page.evaluate(() => document.documentElement.scrollWidth);
                assert.ok(wide <= width, `it is ${wide} wide on ${width}`);
                const cut = await page.locator("#agents .badge").evaluateAll((found) => found.filter((badge) => badge.getBoundingClientRect().right > badge.closest("td").getBoundingClientRect().right).map((badge) => badge.innerText));
                assert.deepEqual(cut, [], `badges reach into the next column on ${width}`);
                page.fine();
            }
        }
    },

    /** Nothing that others wrote is taken for anything but text. */
    async escapes() {
        const written = "<script>window.ran=1</script><img src=x onerror=window.ran=1>\"'&amp;";
        for (const javaScriptEnabled of [false, true]) {
            const page = await opened("/", { javaScriptEnabled });
            const text = await page.locator("#toggles tbody").innerText();
            for (const field of ["message", "error", "detail", "label"]) assert.ok(text.includes(`${field} ${written}`), `${field}: ${text}`);
            assert.equal(await page.locator("#toggles img, #toggles script").count(), 0);
            assert.ok(!(await page.content()).includes("mock.invalid"));
            page.fine();
        }
        const page = await opened(`/?q=${encodeURIComponent("\"><script>window.ran=1</script>")}`);
        assert.equal(await page.locator("#shown").innerText(), "No toggle is like that.");
        await page.goto(url);
        for (const name of ["failed", "unanswered", "odd"]) {
            await page.locator(`tr[data-name=${name}] th a`).click();
            await page.locator("dialog h2", { hasText: name }).waitFor();
            const text = await page.locator("dialog").innerText();
            assert.ok(text.includes(written), text);
            assert.equal(await page.locator("dialog img, dialog script").count(), 0);
            await page.keyboard.press("Escape");
        }
        assert.equal(await page.evaluate(() => window.ran), undefined);
        page.fine();
    },

    /** What is asked for is in the address, and the address is enough to show it again. */
    async filters() {
        const page = await opened();
        const all = await names(page);
        await page.getByRole("searchbox").fill("DONE");
        await page.waitForFunction(() => location.search === "?q=DONE" && document.querySelectorAll("#toggles tbody tr").length === 2);
        assert.deepEqual(await names(page), ["a-done", "d-done"]);
        await page.reload();
        await page.locator("[aria-sort]").waitFor();
        assert.deepEqual([await names(page), await page.getByRole("searchbox").inputValue()], [["a-done", "d-done"], "DONE"]);
        const plain = await opened("/?q=DONE", { javaScriptEnabled: false });
        assert.deepEqual(await names(plain), ["a-done", "d-done"]);
        await plain.getByRole("searchbox").fill("");
        await plain.getByLabel("Status").selectOption("failed");
        await plain.getByRole("button", { name: "Filter" }).click();
        assert.deepEqual(await names(plain), ["b-failed"]);

        await page.getByRole("searchbox").fill("");
        await page.waitForFunction(() => location.search === "");
        await page.getByRole("button", { name: "Toggle" }).click();
        assert.deepEqual(await names(page), all.toSorted());
        await page.getByRole("button", { name: "Toggle" }).click();
        assert.deepEqual(await names(page), all.toSorted().toReversed());
        assert.equal(await page.locator("[data-sort=name]").getAttribute("aria-sort"), "descending");
        assert.equal(new URL(page.url()).search, "?sort=-name");
        await page.getByLabel("Status").selectOption("failed");
        await page.waitForFunction(() => document.querySelectorAll("#toggles tbody tr").length === 1);
        const shared = await opened(new URL(page.url()).search);
        assert.deepEqual(await names(shared), ["b-failed"]);
        page.fine();
        shared.fine();

        // What no order is called, and what is asked for twice.
        for (const sort of ["__proto__", "valueOf", "-toString", "none"]) {
            const odd = await opened(`/?sort=${sort}`);
            assert.equal(await odd.locator("[data-sort=status]").getAttribute("aria-sort"), "ascending", sort);
            assert.ok(await odd.getByRole("alert").isHidden(), sort);
            odd.fine();
        }
        // What is too much is looked for in part.
        const much = await opened(`/?q=${"done+".repeat(20)}${"x".repeat(300)}`);
        assert.deepEqual(await names(much), ["a-done", "d-done"]);
        assert.ok(await much.getByRole("alert").isHidden());
        much.fine();
        for (const javaScriptEnabled of [true, false]) {
            const twice = await opened("/?q=done&q=failed&status=completed&status=failed", { javaScriptEnabled });
            assert.deepEqual(await names(twice), ["a-done", "d-done"]);
        }
    },

    /** A toggle fails while the page is open. */
    async follows() {
        const page = await opened();
        assert.deepEqual(await badges(page), ["▸ in progress"]);
        // The clock that counts is that of the exporter.
        const early = await opened("/", {}, (page) =>
            page.addInitScript(() => {
                const now = Date.now;
                Date.now = () => now() + 40 * 60e3;
            }),
        );
        assert.deepEqual(await badges(early), ["▸ in progress"]);
        assert.match(await early.locator("tr[data-name=a] [data-of=Run]").innerText(), /^watched (now|\d+s ago)$/);
        // This tells page.rs to let it fail.
        assert.equal((await fetch(new URL("/api/v1/toggles/seen", url))).status, 404);
        await page.locator("tr[data-name=a] .badge.failed").waitFor();
        assert.deepEqual(await badges(page), ["✖ failed"]);
        assert.match(await page.locator("tr[data-name=a]").innerText(), /no room/);
        assert.match(await page.locator("tr[data-name=a] [data-of=Run]").innerText(), /finished .*, after \d+s$/);
        const plain = await opened("/", { javaScriptEnabled: false });
        assert.deepEqual(await rows(page), await rows(plain));
        assert.equal(await page.locator("[data-standing=failed]").innerText(), "1");
        assert.equal(await page.evaluate(() => performance.getEntriesByType("navigation").length), 1);
        page.fine();
    },

    /** Of the past, less may be known than of now. */
    async remembers() {
        for (const javaScriptEnabled of [false, true]) {
            const empty = await opened("/", { javaScriptEnabled });
            assert.equal(await empty.locator("#shown").innerText(), "Nothing is watched.");
        }
        const now = new Date().toISOString();
        const reads = async (one, events) => {
            const page = await opened("/", {}, async (page) => {
                await page.route("**/api/v1/toggles?*", (route) => route.fulfill({ json: { toggles: [one], next: null } }));
                await page.route("**/api/v1/toggles/t", (route) => route.fulfill({ json: one }));
                await page.route("**/api/v1/toggles/t/events", (route) => route.fulfill({ json: { events } }));
            });
            await page.locator("tr[data-name=t] th a").click();
            const dialog = page.getByRole("dialog", { name: "t" });
            await dialog.locator("svg rect").first().waitFor({ state: "attached" });
            const bands = await dialog.locator("svg rect").evaluateAll((found) => found.map((band) => [band.getAttribute("y"), band.getAttribute("class")]));
            const lane = (y) => bands.filter(([of]) => of === y).map(([, kind]) => kind);
            const texts = await page.locator("tr[data-name=t] .text").allInnerTexts();
            const told = await dialog.locator("ol li > span").allInnerTexts();
            assert.equal(told.length, events.length);
            for (const [event, text] of [["polls_recovered", "Polls succeed again; for 1m they failed, dns"], ["run_started", "Another run is watched, p"], ["poll_failed", "Poll failed, dns"], ["unrecognised_status", "A status that is not documented: odd"], ["status_changed", "From in progress to completed, not as expected after 1m1s: off"]]) {
                for (const [at, { event: of }] of events.entries()) if (of === event) assert.equal(told[at], text);
            }
            page.fine();
            await page.context().close();
            return { status: lane("4"), polls: lane("40"), texts };
        };
        const mismatch = toggle("t", { status: "completed", finished_at: now, mismatch: true, problem: "mismatch", expect: "enabled", mock_enabled: false });
        assert.deepEqual(await reads(mismatch, []), { status: ["unknown", "mismatched"], polls: ["answering"], texts: [] });
        const failing = toggle("t", { up: false, poll_error: "server_error", error: "", message: "why" });
        assert.deepEqual(await reads(failing, []), { status: ["in_progress"], polls: ["unknown", "failing"], texts: ["Poll failed, server error", "why"] });
        assert.deepEqual((await reads(toggle("t", { status: "unknown", up: null, last_success_at: null }), [])).polls, ["unknown"]);
        const past = [
            { at: now, event: "status_changed", from: "in_progress", to: "completed", duration_seconds: 61, mismatch: true, text: "off" },
            { at: now, event: "unrecognised_status", status: "odd" },
            { at: now, event: "poll_failed", reason: "dns", detail: null },
        ];
        assert.deepEqual(await reads(mismatch, past), { status: ["in_progress", "mismatched"], polls: ["unknown", "failing", "answering"], texts: [] });
        const again = [{ at: now, event: "run_started", progress_id: "p" }];
        assert.deepEqual((await reads(toggle("t", { status: "failed", problem: "failed", finished_at: now }), again)).status, ["unknown", "failed"]);
        const ago = (minutes) => new Date(Date.now() - minutes * 60e3).toISOString();
        const recovered = [{ at: now, event: "polls_recovered", reason: "dns", lasted_seconds: 60 }];
        assert.deepEqual((await reads(toggle("t", { started_at: ago(9) }), recovered)).polls, ["unknown", "failing", "answering"]);
    },

    /** It is another process than the one that wrote the page. */
    async restarts() {
        const page = await opened("/", {}, (page) =>
            page.route("**/api/v1/status", async (route) => {
                const json = await (await route.fetch()).json();
                json.statuses.completed = 1;
                await route.fulfill({ json: { ...json, version: "9.9.9", revision: "abc", started_at: new Date().toISOString() } });
            }),
        );
        assert.match(await page.locator("header p").innerText(), /^Version 9\.9\.9, revision abc, started (now|\ds ago)\./);
        assert.equal(await page.locator("#counts").innerText(), "1 toggle");
        page.fine();
    },

    /** The detail of a toggle: by mouse, by keyboard, by its address, and back. */
    async details() {
        const page = await opened();
        const link = page.locator("tr[data-name=b-failed] th a");
        await link.focus();
        await page.keyboard.press("Enter");
        const dialog = page.getByRole("dialog", { name: "b-failed" });
        await dialog.waitFor();
        assert.equal(new URL(page.url()).search, "?toggle=b-failed");
        assert.match(await dialog.innerText(), /From unknown to failed: No Room, see <url>/);
        const drawn = await dialog.locator("svg rect").evaluateAll((found) => found.map((band) => [band.getAttribute("class"), band.querySelector("title").textContent]));
        assert.ok(drawn.some(([kind, title]) => kind === "failed" && /^failed for \d/.test(title)), JSON.stringify(drawn));
        assert.ok(drawn.some(([kind]) => kind === "answering"), JSON.stringify(drawn));
        const last = dialog.getByText("events as JSON");
        await last.focus();
        await refreshed(page);
        await page.waitForResponse((answer) => answer.url().endsWith("/events"));
        await refreshed(page);
        assert.ok(await last.evaluate((element) => element === document.activeElement), "the focus stays in the dialog");
        await page.keyboard.press("Escape");
        await dialog.waitFor({ state: "hidden" });
        assert.ok(await link.evaluate((element) => element === document.activeElement), "the focus is where it was");
        assert.equal(new URL(page.url()).search, "");
        await page.goBack();
        await dialog.waitFor();
        await page.goBack();
        await dialog.waitFor({ state: "hidden" });

        // What is answered when it is closed already does not open it again.
        let answer = () => {};
        const answered = new Promise((resolve) => (answer = resolve));
        await page.route("**/b-failed/events", async (route) => (await answered, route.continue()));
        await link.click();
        await page.waitForRequest((request) => request.url().endsWith("/b-failed/events"));
        await page.goBack();
        answer();
        await refreshed(page);
        assert.ok(await dialog.isHidden(), "it opens again");
        const shared = await opened("/?toggle=c-later");
        await shared.getByRole("dialog", { name: "c-later" }).getByText(/^Poll failed, rate limited: GET .*: HTTP 429: not now$/).first().waitFor();
        const gone = await opened("/?toggle=nobody");
        await gone.getByText("No watch of that name is there any more.").waitFor();
        page.fine();
        shared.fine();
    },

    /** A refresh that turns the order around takes neither focus nor place, and moves nothing else. */
    async keeps() {
        const page = await opened("/", { viewport: { width: 1400, height: 300 } });
        let list = Array.from({ length: 40 }, (_, at) => toggle(`w${String(at).padStart(2, "0")}`, {}));
        await page.route("**/api/v1/toggles?*", (route) => route.fulfill({ json: { toggles: list, next: null } }));
        await refreshed(page);
        await page.evaluate(() => {
            window.shifts = [];
            const rect = ({ x, y, width, height }) => [x, y, width, height].map(Math.round).join(" ");
            const moved = ({ node, previousRect, currentRect }) => `${node?.nodeName} ${node?.textContent?.slice(0, 40)}: ${rect(previousRect)} -> ${rect(currentRect)}`;
            const told = (entry) => `${entry.value}: ${entry.sources.map(moved).join(", ")}`;
            new PerformanceObserver((seen) => window.shifts.push(...seen.getEntries().filter((entry) => entry.value > 0).map(told))).observe({ type: "layout-shift", buffered: false });
        });
        const link = page.locator("tr[data-name=w20] th a");
        await link.focus();
        // Where the reader is: how far the row is from the top of the window.
        const place = () => link.evaluate((element) => Math.round(element.getBoundingClientRect().top));
        const before = await place();
        assert.ok(await page.evaluate(() => scrollY > 0), "it is scrolled");
        list = list.map((one) => ({ ...one, polls: 2, message: "says more" }));
        await refreshed(page);
        assert.equal(await page.evaluate(() => document.activeElement.textContent), "w20");
        assert.equal(await place(), before);
        list = list.map((one) => (one.name > "w30" ? { ...one, status: "failed", problem: "failed" } : one));
        await refreshed(page);
        assert.equal((await names(page))[0], "w31");
        assert.equal(await page.evaluate(() => document.activeElement.textContent), "w20");
        assert.equal(await place(), before);
        const shifts = await page.evaluate(() => window.shifts);
        assert.deepEqual(shifts, [], "the layout shifted");
        page.fine();
    },

    /** Ages are told of what is in sight, and of what comes in sight at once. */
    async ages() {
        const page = await opened();
        const at = new Date().toISOString();
        const list = Array.from({ length: 200 }, (_, number) => toggle(`w${String(number).padStart(3, "0")}`, { started_at: at }));
        await page.route("**/api/v1/toggles?*", (route) => route.fulfill({ json: { toggles: list, next: null } }));
        await refreshed(page);
        const age = (name) => page.locator(`tr[data-name=${name}] td[data-of=Run] time`).innerText();
        const drawn = await age("w199");
        const grown = (name, than) =>
            page.waitForFunction(
                ([of, text]) => document.querySelector(`tr[data-name=${of}] td[data-of=Run] time`).textContent !== text,
                [name, than],
            );
        await grown("w000", drawn);
        await grown("w000", await age("w000"));
        assert.equal(await age("w199"), drawn, "what nobody sees need not grow older");
        await page.locator("tr[data-name=w199]").scrollIntoViewIfNeeded();
        await grown("w199", drawn);
        assert.match(await age("w199"), /^\d+s ago$/);
        page.fine();
    },

    /** Every standing has its word and its place, also those that take long to come by. */
    async stands() {
        const page = await opened();
        const ago = (minutes) => new Date(Date.now() - minutes * 60e3).toISOString();
        const list = [
            toggle("a-completed", { status: "completed", finished_at: ago(1), mismatch: false, expect: "enabled", mock_enabled: true }),
            toggle("b-busy", { started_at: ago(29) }),
            toggle("c-unknown", { status: "unknown", up: null, last_success_at: null }),
            toggle("d-failing", { up: false, poll_error: "timeout", started_at: ago(60), last_success_at: ago(14) }),
            toggle("e-silent", { up: false, poll_error: "timeout", started_at: ago(60), last_success_at: ago(16) }),
            toggle("f-never", { status: "unknown", up: false, poll_error: "dns", started_at: ago(16), last_success_at: null }),
            toggle("g-stuck", { started_at: ago(31) }),
            toggle("h-mismatch", { status: "completed", finished_at: ago(1), mismatch: true, problem: "mismatch", expect: "disabled", mock_enabled: true }),
            toggle("i-failed", { status: "failed", problem: "failed", finished_at: ago(1) }),
            toggle("l-retry", { problem: "failed", started_at: ago(1) }),
            toggle("m-refused", { status: "unknown", up: false, poll_error: "forbidden", started_at: ago(1), last_success_at: null }),
            toggle("k-expired", { status: "unknown", up: false, poll_error: "not_found", started_at: ago(16), last_success_at: null }),
            toggle("j-odd", { status: "unknown", started_at: ago(31) }),
        ];
        await page.route("**/api/v1/toggles?*", (route) => route.fulfill({ json: { toggles: list, next: null } }));
        await refreshed(page);
        assert.deepEqual(await names(page), ["i-failed", "l-retry", "h-mismatch", "g-stuck", "j-odd", "e-silent", "f-never", "k-expired", "d-failing", "m-refused", "c-unknown", "b-busy", "a-completed"]);
        assert.deepEqual(await badges(page), ["✖ failed", "✖ failed", "≠ mismatch", "◷ stuck", "◷ stuck", "○ silent", "○ silent", "○ silent", "△ polls fail", "△ polls fail", "? unknown", "▸ in progress", "✔ completed"]);
        assert.match(await page.locator("tr[data-name=h-mismatch]").innerText(), /Mocks are on: real callers may talk to mocks\./);
        assert.match(await page.locator("tr[data-name=l-retry]").innerText(), /an earlier run; this one is in progress/);
        const book = (name) => page.locator(`tr[data-name=${name}] a.more`).getAttribute("href");
        assert.deepEqual([await book("m-refused"), await book("f-never"), await book("k-expired")], ["runbooks?toggle=m-refused#cekuratoggleforbidden", "runbooks?toggle=f-never#cekuratogglenotanswering", "runbooks?toggle=k-expired#cekuratoggleexpiredid"]);
        const sections = await page.locator("#toggles a.more").evaluateAll((found) => found.map((link) => link.getAttribute("href")));
        for (const section of new Set(sections)) {
            await page.goto(new URL(section, url).href);
            assert.equal(await page.locator(":target").count(), 1, `${section} is in the runbooks`);
        }
    },

    /** It asks for what is new only, not while nobody looks, and says when it cannot. */
    async refreshes() {
        const page = await opened();
        const seen = [];
        page.on("response", (answer) => answer.url().includes("/api/v1/toggles?") && seen.push(answer.status()));
        await refreshed(page);
        await refreshed(page);
        assert.ok(seen.includes(304), `${seen}`);
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
        await page.waitForResponse((answer) => answer.url().includes("/api/v1/toggles?"));
        page.fine();

        const cut = await opened();
        await cut.route("**/api/v1/**", (route) => route.abort());
        await cut.getByRole("alert").filter({ hasText: "it cannot be reached. What is shown here is old." }).waitFor();
        await cut.unroute("**/api/v1/**");
        await cut.route("**/api/v1/toggles?*", (route) => route.fulfill({ status: 503, json: { error: "no" } }));
        await cut.getByRole("alert").filter({ hasText: "it answered 503" }).waitFor();
        await cut.unroute("**/api/v1/toggles?*");
        await cut.getByRole("alert").waitFor({ state: "hidden" });
        // Neither does one that never answers stop it for ever.
        await cut.route("**/api/v1/status", () => {});
        await cut.getByRole("alert").filter({ hasText: "it takes too long to answer" }).waitFor();
        await cut.unroute("**/api/v1/status");
        await cut.getByRole("alert").waitFor({ state: "hidden" });
        await cut.route("**/api/v1/status", (route) => route.fulfill({ body: "<html>" }));
        await cut.getByRole("alert").filter({ hasText: "its answer cannot be shown" }).waitFor();
    },

    /** What to do about a toggle is one click away, with its commands. */
    async helps() {
        const page = await opened("/", { viewport: { width: 360, height: 800 } });
        await page.locator("tr[data-name=b-failed] a.more").click();
        const section = page.locator(":target");
        assert.equal(await section.innerText(), "CekuraToggleFailed");
        assert.ok(await section.evaluate((element) => element.getBoundingClientRect().top < innerHeight));
        assert.match(await page.getByRole("note").innerText(), /for toggle b-failed: agent 1, API default, source config, expected to be enabled/);
        const commands = (await page.locator("pre").allInnerTexts()).join("");
        for (const part of [`exporter=${url}\n`, "/api/v1/toggles/b-failed\" \\\n  -d wait=50s", "/aiagents/1/toggle-mock-tools/"]) assert.ok(commands.includes(part), part);
        await page.getByRole("link", { name: "Toggle again" }).first().click();
        assert.equal(new URL(page.url()).search, "?toggle=b-failed");
        await page.getByRole("link", { name: "b-failed" }).click();
        await page.getByRole("dialog", { name: "b-failed" }).waitFor();
        page.fine();
    },

    /** For everybody: no rule of axe is broken, in light and dark, on a phone, with a dialog. */
    async accessible() {
        for (const colorScheme of ["light", "dark"]) {
            for (const width of [1400, 360]) {
                const page = await opened("/", { colorScheme, viewport: { width, height: 800 } });
                assert.deepEqual(await violations(page), [], `${colorScheme} ${width}`);
                const wide = await page.evaluate(() => document.documentElement.scrollWidth);
                assert.ok(wide <= width, `it is ${wide} wide on ${width}`);
                await page.locator("tbody th a").first().click();
                await page.getByRole("dialog").waitFor();
                assert.deepEqual(await violations(page), [], `${colorScheme} ${width}, dialog`);
                page.fine();
                for (const query of ["", "?toggle=b-failed", "?toggle=nobody"]) {
                    await page.goto(new URL(`/runbooks${query}`, url).href);
                    assert.deepEqual(await violations(page), [], `${colorScheme} ${width}, runbooks${query}`);
                    const wide = await page.evaluate(() => document.documentElement.scrollWidth);
                    assert.ok(wide <= width, `the runbooks are ${wide} wide on ${width}`);
                }
            }
        }
    },

    /** Ten thousand: the server shows the first, the script more. */
    async many() {
        const plain = await opened("/", { javaScriptEnabled: false });
        assert.equal((await names(plain)).length, 500);
        assert.equal(await plain.locator("#shown").innerText(), "The first 500 of 10000 toggles. The worst come first; narrow the filter to see others.");
        const page = await opened();
        assert.equal((await names(page))[0], "z-failed");
        assert.equal(await page.locator("#shown").innerText(), "The first 500 of 10000 toggles.");
        await page.getByRole("button", { name: "Show more" }).click();
        assert.equal((await names(page)).length, 1000);
        await refreshed(page);
        assert.equal((await names(page)).length, 1000);
        await page.getByRole("searchbox").fill("w00042");
        await page.waitForFunction(() => document.querySelectorAll("#toggles tbody tr").length === 1);
        page.fine();
    },
};

try {
    await scenarios[scenario]();
} finally {
    await browser.close();
}
