// Writes the dashboard as JSON. Usage: node write.js FILE

import { writeFileSync } from "node:fs";

import { board } from "./dashboard.js";

const file = process.argv[2];
if (file === undefined) {
    throw new Error("which file is to be written?");
}
writeFileSync(file, `${JSON.stringify(board.build(), null, 2)}\n`);
