// Measures the status page at URL in a browser: loads it LOADS times, and lets it refresh REFRESHES times
// after each. Prints what it took, in milliseconds, as JSON. Usage: node measure.mjs URL LOADS REFRESHES
import { createRequire } from "node:module";

const { chromium } = createRequire(new URL("../../tests/tools/package.json", import.meta.url))("playwright-core");
const [url, loads, refreshes] = process.argv.slice(2);

/** What the main thread did so far, in milliseconds. */
const spent = async (devtools) => {
    const { metrics } = await devtools.send("Performance.getMetrics");
    const of = (name) => metrics.find((metric) => metric.name === name).value * 1000;
    return { script: of("ScriptDuration"), layout: of("RecalcStyleDuration") + of("LayoutDuration"), main: of("TaskDuration") };
};

/** Waits until the page has refreshed itself so often since it was loaded. */
const refreshed = (page, times) =>
    page.waitForFunction((count) => Number(document.body.dataset.refreshes ?? 0) >= count, times, { timeout: 120_000 });

const browser = await chromium.launch({
    executablePath: "/usr/bin/chromium",
    args: ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-dev-shm-usage"],
});
const figures = { paint: [], script: [], reading: [], layout: [], main: [], rows: 0 };
try {
    for (let load = 0; load < Number(loads); load += 1) {
        const page = await browser.newPage({ viewport: { width: 1400, height: 900 } });
        const devtools = await page.context().newCDPSession(page);
        await devtools.send("Performance.enable");
        await page.goto(url);
        await refreshed(page, 1);
        figures.paint.push(await page.evaluate(() => performance.getEntriesByName("first-contentful-paint")[0].startTime));
        for (let refresh = 0; refresh < Number(refreshes); refresh += 1) {
            const before = await spent(devtools);
            await refreshed(page, refresh + 2);
            // The rows are drawn in the frame after.
            await page.evaluate(() => new Promise((drawn) => requestAnimationFrame(() => setTimeout(drawn))));
            const after = await spent(devtools);
            for (const of of ["script", "layout", "main"]) figures[of].push(after[of] - before[of]);
        }
        // A refresh reads the whole page. The browser may do that outside of what it counts as script.
        figures.reading.push(
            await page.evaluate(async () => {
                const text = await (await fetch(location.href)).text();
                const begun = performance.now();
                new DOMParser().parseFromString(text, "text/html");
                return performance.now() - begun;
            }),
        );
        figures.rows = await page.locator("#toggles tbody tr").count();
        await page.context().close();
    }
    console.log(JSON.stringify(figures));
} finally {
    await browser.close();
}
