// A browser for the scenarios of the pages. Usage of each: node FILE SCENARIO URL, where the exporter listens at URL.
import assert from "node:assert/strict";
import { createRequire } from "node:module";

const tools = createRequire(new URL("../tools/package.json", import.meta.url));
const { chromium } = tools("playwright-core");
const [scenario, address] = process.argv.slice(2);

/** Where the exporter listens. */
export const url = address;

/** The screens of a phone, a tablet and a desk. */
export const SCREENS = [{ width: 360, height: 640 }, { width: 768, height: 1024 }, { width: 1400, height: 900 }];
export const [PHONE, , DESK] = SCREENS;

const browser = await chromium.launch({
    executablePath: "/usr/bin/chromium",
    args: ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-dev-shm-usage"],
});

/** Runs the scenario that the command line names. */
export const played = async (scenarios) => {
    try {
        await scenarios[scenario]();
    } finally {
        await browser.close();
    }
};

/**
 * Opens a page. `prepare` is called before it is loaded, and `mayBeMissing` says that it may answer 404.
 *
 * `page.fine()` closes it, and fails if the browser complained or ran what others wrote.
 */
export const opened = async (path, { prepare = async () => {}, mayBeMissing = false, ...options } = {}) => {
    const context = await browser.newContext({ viewport: DESK, timezoneId: "Asia/Kolkata", ...options });
    const page = await context.newPage();
    const complaints = [];
    const isExpected = (line) => mayBeMissing && line.text().includes("status of 404");
    page.on("pageerror", (error) => complaints.push(error.message));
    page.on("console", (line) => ["error", "warning"].includes(line.type()) && !isExpected(line) && complaints.push(line.text()));
    page.on("dialog", (dialog) => (complaints.push(dialog.message()), dialog.dismiss()));
    page.fine = async () => {
        assert.deepEqual(complaints, []);
        assert.equal(await page.evaluate(() => window.ran), undefined);
        await context.close();
    };
    await prepare(page);
    await page.goto(new URL(path, url).href);
    return page;
};

/** Clicks a link to another page, and waits until that page is loaded. A click alone waits only until it is asked for. */
export const followed = async (link) => {
    await Promise.all([link.page().waitForEvent("load"), link.click()]);
};

/** Waits until the page has refreshed itself once more. */
export const refreshed = async (page) => {
    const before = await page.evaluate(() => Number(document.body.dataset.refreshes ?? 0));
    await page.waitForFunction((count) => Number(document.body.dataset.refreshes ?? 0) > count, before, { timeout: 30_000 });
};

/** The rules of axe that the page breaks. */
export const violations = async (page) => {
    if (!(await page.evaluate(() => "axe" in window))) await page.evaluate(tools("axe-core").source);
    const { violations: found } = await page.evaluate(() => window.axe.run(document, { resultTypes: ["violations"] }));
    return found.map(({ id, nodes }) => `${id}: ${nodes.map((node) => `${node.html} ${node.failureSummary}`).join("; ")}`);
};

/** The text of an element on one line. */
export const text = async (of) => (await of.innerText()).replaceAll(/\s+/g, " ");
