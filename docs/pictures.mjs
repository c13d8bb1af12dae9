// Takes the pictures of the status page. Usage: node pictures.mjs URL FOLDER
import { createRequire } from "node:module";

const { chromium } = createRequire(new URL("../tests/tools/package.json", import.meta.url))("playwright-core");
const [url, folder] = process.argv.slice(2);

const browser = await chromium.launch({ executablePath: "/usr/bin/chromium", args: ["--no-sandbox", "--disable-gpu"] });
const taken = async (name, options, path = "") => {
    const page = await browser.newPage(options);
    await page.goto(url + path);
    // The script has told the times in this zone.
    await page.locator("time[title]").first().waitFor();
    await page.screenshot({ path: `${folder}/${name}.png` });
};
await taken("status", { viewport: { width: 1280, height: 800 } });
await taken("status-dark", { viewport: { width: 1280, height: 800 }, colorScheme: "dark" }, "toggles/payments-enable");
await taken("status-phone", { viewport: { width: 360, height: 800 } });
await browser.close();
