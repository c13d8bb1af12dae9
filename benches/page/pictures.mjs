// Takes pictures of the pages, to be looked at: 360, 768 and 1400 pixels wide, in light and dark, and a sheet of the six
// for each page. It starts the program itself, against an API that it plays. It tells what is wider than the screen and
// what the browser complains of. Usage: node pictures.mjs PROGRAM FOLDER [SCENE...]
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as pause } from "node:timers/promises";

const { chromium } = createRequire(new URL("../../tests/tools/package.json", import.meta.url))("playwright-core");
const [program, folder, ...wanted] = process.argv.slice(2);
const WIDTHS = { 360: 640, 768: 1024, 1400: 900 };

const task = (status, mock_enabled, more = {}) => ({ status, mock_enabled, mcp_endpoints: [], message: null, error: null, ...more });
/** What is answered to polls, by the beginning of the progress id: what the status code is, and the body. */
const TASKS = {
    on: [200, task("completed", true, { mcp_endpoints: [{ mock_index: 0, url: "https://mock.invalid/0", tool_names: ["find_slot", "book", "cancel"] }] })],
    off: [200, task("completed", false)],
    failed: [200, task("failed", null, { message: "Reading the assistant.", error: "The voice provider answered 404 for assistant 5f1c20aa: it does not exist in this workspace." })],
    running: [200, task("in_progress", null, { message: "Updating 3 tools." })],
    down: [503, { detail: "upstream connect error or disconnect/reset before headers. reset reason: connection failure" }],
};

/** An API: agents whose id is odd have mocks on. */
const api = createServer((request, response) => {
    const { pathname, searchParams } = new URL(request.url, "http://api");
    const [, agent] = pathname.match(/\/v1\/aiagents\/(\d+)\/tools\/mock-status\/$/) ?? [];
    const enabled = Number(agent) % 2 === 1;
    const kind = pathname.startsWith("/down/") ? "down" : (searchParams.get("progress_id")?.split("-")[0] ?? "");
    const endpoints = enabled ? [{ mock_index: 0, url: "https://mock.invalid/mcp", tool_names: ["book"] }] : [];
    const [status, body] =
        agent && kind !== "down"
            ? [200, { mock_enabled: enabled, provider: "vapi", assistant_id: "a", mcp_endpoints: endpoints, tool_endpoints: [] }]
            : (TASKS[kind] ?? [400, { detail: "Invalid progress_id." }]);
    response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(body));
});
api.listen(0, "127.0.0.1");
await once(api, "listening");

const watch = (name, agent_id, progress_id, more = {}) => ({ name, agent_id, progress_id, labels: { team: name.split("-")[0] }, ...more });
const WELL = [
    watch("bookings-enable", 4301, "on-7c1e", { expect: "enabled" }),
    watch("payments-disable", 4402, "off-11d0", { expect: "disabled" }),
    watch("payments-enable", 4403, "on-90aa", { expect: "enabled" }),
    watch("reminders-enable", 4505, "running-4b02", { expect: "enabled" }),
    watch("support-disable", 4606, "off-3e77", { expect: "disabled" }),
    watch("travel-enable", 4701, "on-d2d2", { expect: "enabled" }),
];
const AGENTS = [
    { agent_id: 4301, expect: "enabled", labels: { team: "bookings" } },
    { agent_id: 4402, expect: "disabled", labels: { team: "payments" } },
    { agent_id: 4606, expect: "disabled", labels: { team: "support" } },
    { agent_id: 4808, labels: { team: "surveys" } },
];
const TROUBLE = [
    watch("payments-disable", 4402, "failed-6a10", { expect: "disabled", labels: { team: "payments", stage: "production" } }),
    watch("bookings-enable", 4301, "off-51ce", { expect: "enabled", labels: { team: "bookings", stage: "staging" } }),
];
const many = () => [
    ...Array.from({ length: 9990 }, (_, at) => watch(`load-${String(at).padStart(5, "0")}`, 10_000 + at, at % 3 ? `on-${at}` : `running-${at}`, { expect: "enabled" })),
    ...Array.from({ length: 10 }, (_, at) => watch(`release-${at}`, 30_000 + at, "failed-x", { expect: "disabled" })),
];

/** What the exporter has in each scene, what its status page has once it is as it should be, and which pages are taken. */
const SCENES = {
    well: { watches: WELL, agents: AGENTS, until: ".banner.good", pages: { status: "" } },
    trouble: {
        watches: [...TROUBLE, ...WELL.filter(({ name }) => !TROUBLE.some((one) => one.name === name))],
        agents: [...AGENTS.slice(1), { agent_id: 4909, expect: "disabled", labels: { team: "claims" } }],
        until: ".problem >> nth=2",
        pages: {
            status: "",
            detail: "toggles/payments-disable",
            agents: "agents",
            agent: "agents/default/4909",
            apis: "apis",
            sources: "sources",
            runtime: "runtime",
            runbook: "runbooks?toggle=payments-disable#cekuratogglefailed",
            runbooks: "runbooks",
            "other-detail": "toggles/travel-enable",
        },
    },
    down: { base: "/down", watches: WELL, agents: AGENTS, until: ".problem", pages: { status: "", detail: "toggles/bookings-enable", apis: "apis" } },
    many: { watches: many(), agents: [], until: ".problem >> nth=9", pages: { status: "", found: "?q=release", failed: "?standing=failed" } },
    nothing: { watches: [], agents: [], until: "main", pages: { status: "" } },
};

/** Runs the program with the watches of a scene, and says where it listens. */
const started = async ({ base = "", watches, agents }) => {
    const place = mkdtempSync(join(tmpdir(), "pictures-"));
    const base_url = `http://127.0.0.1:${api.address().port}${base}`;
    const polling = { min_interval: "1s", max_interval: "5s", agent_interval: "2s", backoff_max: "5s" };
    const config = { apis: { default: { base_url, api_key: "sk-pictures", requests_per_second: 10_000 } }, polling, state_file: "state", registrations: { enabled: true }, agents, watches };
    writeFileSync(join(place, "config.yaml"), JSON.stringify(config));
    const child = spawn(program, ["--config.file=config.yaml", "--web.listen-address=127.0.0.1:0", "--log.format=json"], { cwd: place, stdio: ["ignore", "pipe", "inherit"] });
    const ended = once(child, "exit");
    const stop = async () => {
        child.kill();
        await ended;
        rmSync(place, { recursive: true });
    };
    for await (const line of createInterface(child.stdout)) {
        const { message, address } = JSON.parse(line);
        if (message !== "listening") continue;
        child.stdout.resume();
        return { url: `http://${address}/`, stop };
    }
    throw new Error("the program has ended");
};

const browser = await chromium.launch({ executablePath: "/usr/bin/chromium", args: ["--no-sandbox", "--disable-gpu"] });

const opened = async (address, options) => {
    const page = await browser.newPage({ reducedMotion: "reduce", ...options });
    const complaints = new Set();
    page.on("pageerror", (error) => complaints.add(error.message));
    page.on("console", (line) => ["error", "warning"].includes(line.type()) && complaints.add(line.text()));
    const answer = await page.goto(address);
    if (!answer.ok()) complaints.add(`it answers ${answer.status()}`);
    return { page, complaints };
};

/** Takes the pictures of one page, and a sheet of them. */
const taken = async (name, address) => {
    const cells = [];
    for (const colorScheme of ["light", "dark"]) {
        for (const [width, height] of Object.entries(WIDTHS)) {
            const { page, complaints } = await opened(address, { colorScheme, viewport: { width: Number(width), height } });
            await page.locator("time[title]").first().waitFor({ state: "attached", timeout: 3000 }).catch(() => complaints.add("no time is told"));
            const path = join(folder, `${name}-${width}-${colorScheme}.png`);
            await page.screenshot({ path });
            const widest = await page.evaluate(() => document.documentElement.scrollWidth);
            if (widest > width) complaints.add(`it is ${widest} pixels wide`);
            for (const complaint of complaints) console.log(`${name}, ${width}, ${colorScheme}: ${complaint}`);
            cells.push(`<img src="data:image/png;base64,${readFileSync(path).toString("base64")}" height="600">`);
            if (colorScheme === "light") await page.screenshot({ path: join(folder, `${name}-${width}-whole.png`), fullPage: true, clip: { x: 0, y: 0, width: Number(width), height: 6000 } }).catch(() => {});
            await page.close();
        }
    }
    const sheet = await browser.newPage({ viewport: { width: 1900, height: 1260 } });
    await sheet.setContent(`<body style="margin:8px;background:#888">${cells.join(" ")}</body>`);
    await sheet.screenshot({ path: join(folder, `sheet-${name}.png`) });
    await sheet.close();
};

mkdirSync(folder, { recursive: true });
try {
    for (const [scene, { until, pages, ...of }] of Object.entries(SCENES)) {
        const chosen = Object.entries(pages).filter(([page]) => !wanted.length || wanted.includes(scene) || wanted.includes(`${scene}-${page}`));
        if (!chosen.length) continue;
        const { url, stop } = await started(of);
        try {
            const { page } = await opened(url, {});
            // All was polled, and runs have an age.
            await page.locator(until).waitFor({ timeout: 60_000 });
            await pause(8000);
            await page.close();
            for (const [name, path] of chosen) await taken(`${scene}-${name}`, url + path);
        } finally {
            await stop();
        }
    }
} finally {
    await browser.close();
    api.close();
}
