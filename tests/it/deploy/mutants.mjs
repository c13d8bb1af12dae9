// Changes the alert rules in one place at a time, and says which of these mutants no scenario of the tests
// notices. Each of those has to be in the list, with a reason; it ends with 1 if one is not, or if the
// list has one that is noticed or that there is not.
//
// Usage: node mutants.mjs [--every N] [--only TEXT]
//   --every N     tries one of N mutants, for a quick look; what is in the list but is not tried is left alone
//   --only TEXT   tries those with this text in their names

import { execFile, execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { availableParallelism, tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { parseArgs, promisify } from "node:util";

const top = fileURLToPath(new URL("../../..", import.meta.url));
const project = createRequire(join(top, "deploy/grafana/package.json"));
const { parser } = await import(pathToFileURL(project.resolve("@prometheus-io/lezer-promql")));

const rulesFile = "deploy/prometheus/rules.yaml";
const testFiles = ["rules_test", "rules_day_test", "rules_replicas_test"].map((name) => `deploy/prometheus/${name}.yaml`);
const listFile = "tests/it/deploy/mutants.txt";

const { values: options } = parseArgs({ options: { every: { type: "string", default: "1" }, only: { type: "string", default: "" } } });

const yaml = (file) => {
    const python = join(top, "target/tools/python/bin/python3");
    const script = join(top, "tests/it/deploy/yaml_to_json.py");
    return JSON.parse(execFileSync(python, [script, join(top, file)], { encoding: "utf8", maxBuffer: 1 << 26 }));
};

// --- What can be changed

const operators = {
    ">": [">=", "<"],
    ">=": [">", "<="],
    "<": ["<=", ">"],
    "<=": ["<", ">="],
    "==": ["!=", ">=", "<="],
    "*": ["/"],
    "/": ["*"],
    "-": ["+"],
    and: ["or", "unless"],
    or: ["and", "unless"],
    unless: ["and", "or"],
};
const names = {
    max: ["min", "sum"],
    min: ["max", "sum"],
    sum: ["max", "count"],
    count: ["sum"],
    by: ["without"],
    without: ["by"],
    on: ["ignoring"],
    ignoring: ["on"],
    last_over_time: ["min_over_time", "max_over_time"],
    max_over_time: ["min_over_time", "last_over_time"],
    min_over_time: ["max_over_time", "last_over_time"],
    rate: ["increase"],
    increase: ["changes"],
    changes: ["increase"],
};
const negated = { "=": "!=", "!=": "=", "=~": "!~", "!~": "=~" };
const units = [["d", 86400], ["h", 3600], ["m", 60], ["s", 1]];

const seconds = (duration) =>
    [...duration.matchAll(/(\d+)([dhms])/g)].reduce((sum, [, n, unit]) => sum + n * Object.fromEntries(units)[unit], 0);
const duration = (total) => {
    const [unit, length] = units.find(([, length]) => total % length === 0 && total >= length);
    return `${total / length}${unit}`;
};
const neighbours = (text) => [duration(seconds(text) / 2), duration(seconds(text) * 2)];

// A list in parentheses or braces, less one of its items each time.
const withoutOne = (open, items, close) =>
    items.map((_, left) => open + items.filter((_, index) => index !== left).join(", ") + close);

const children = (node) => {
    const all = [];
    for (let child = node.firstChild; child; child = child.nextSibling) all.push(child);
    return all;
};

// What the text of a node becomes in each of its mutants.
const replacements = (node, text) => {
    const of = (node) => text.slice(node.from, node.to);
    const own = of(node);
    switch (node.name) {
        case "NumberDurationLiteral": {
            const number = Number(own);
            return number === 0 ? ["1"] : [`${number / 2}`, `${number * 2}`];
        }
        case "NumberDurationLiteralInDurationContext":
            return neighbours(own);
        case "OffsetExpr":
            return [of(node.firstChild)];
        case "FunctionIdentifier":
        case "AggregateOp":
        case "By":
        case "Without":
        case "On":
        case "Ignoring":
            return names[own] ?? [];
        case "GroupingLabels":
            return withoutOne("(", children(node).map(of), ")");
        case "LabelMatchers":
            return withoutOne("{", children(node).map(of), "}");
        case "UnquotedLabelMatcher": {
            const [label, operator, value] = children(node).map(of);
            const words = value.slice(1, -1).split("|");
            const fewer = words.length > 1 ? withoutOne('"', words, '"').map((list) => list.replaceAll(", ", "|")) : [];
            return [label + negated[operator] + value, ...fewer.map((list) => label + operator + list)];
        }
        case "BinaryExpr": {
            const [left, right] = [node.firstChild, node.lastChild];
            const operator = children(node)[1];
            const changed = (operators[of(operator)] ?? []).map(
                (other) => text.slice(node.from, operator.from) + other + text.slice(operator.to, node.to),
            );
            const oneSide = ["and", "or", "unless"].includes(of(operator)) ? [of(left), of(right)] : [];
            const matching = node.getChild("MatchingModifierClause");
            const plain = matching ? [text.slice(node.from, matching.from) + text.slice(matching.to, node.to)] : [];
            return [...changed, ...oneSide, ...plain];
        }
        default:
            return [];
    }
};

// What differs between two texts, with some of what stands around it.
const difference = (before, after) => {
    let from = 0;
    while (before[from] === after[from]) from += 1;
    let [end, other] = [before.length, after.length];
    while (end > from && other > from && before[end - 1] === after[other - 1]) [end, other] = [end - 1, other - 1];
    // Whole words and operators.
    while (/[\w=<>!~]/.test(before[from - 1] ?? "")) from -= 1;
    while (/[\w=<>!~]/.test(before[end] ?? "")) [end, other] = [end + 1, other + 1];
    const squeezed = (text) => text.replace(/\s+/g, " ");
    const cut = (text) => (text.length > 70 ? `${text.slice(0, 35)} … ${text.slice(-30)}` : text);
    const [old, now] = [before.slice(from, end), after.slice(from, other)].map(squeezed).map(cut);
    return `${squeezed(before.slice(Math.max(0, from - 40), from))}«${old} → ${now}»${squeezed(before.slice(end, end + 25))}`.trim();
};

const mutantsOf = (rule) => {
    const found = [];
    const tree = parser.parse(rule.expr);
    tree.iterate({
        enter: (node) => {
            if (node.type.isError) throw new Error(`not PromQL: ${rule.expr}`);
            for (const text of replacements(node.node, rule.expr)) {
                const expr = rule.expr.slice(0, node.from) + text + rule.expr.slice(node.to);
                found.push({ what: difference(rule.expr, expr), rule: { ...rule, expr } });
            }
        },
    });
    for (const key of ["for", "keep_firing_for"].filter((key) => key in rule)) {
        const { [key]: was, ...without } = rule;
        found.push({ what: `${key}: «${was} → »`, rule: without });
        for (const now of neighbours(was)) found.push({ what: `${key}: «${was} → ${now}»`, rule: { ...rule, [key]: now } });
    }
    return found;
};

// --- Rules and scenarios

const metricsOf = (expr) => {
    const found = new Set();
    parser.parse(expr).iterate({
        enter: (node) => {
            if (node.name === "Identifier" && node.node.parent?.name === "VectorSelector") found.add(expr.slice(node.from, node.to));
        },
    });
    return [...found];
};

const rules = yaml(rulesFile).groups.flatMap((group) => group.rules);
// The scraped metrics that each rule is made from, recorded ones followed.
const recorded = new Map();
const sources = rules.map((rule) => {
    const all = new Set(metricsOf(rule.expr).flatMap((metric) => recorded.get(metric) ?? [metric]));
    if (rule.record) recorded.set(rule.record, [...all]);
    return all;
});
const seen = new Map();
const rulesByName = rules.map((rule, index) => {
    const name = rule.record ?? rule.alert;
    seen.set(name, (seen.get(name) ?? 0) + 1);
    return { rule, index, name: seen.get(name) > 1 ? `${name} (${seen.get(name)})` : name };
});

const scenarios = testFiles.flatMap((file) => {
    const { tests, evaluation_interval } = yaml(file);
    return tests.map((test) => {
        const metrics = new Set(test.input_series.map(({ series }) => series.split("{")[0]));
        // Rules that no series of the scenario is for have nothing to say in it.
        const concerned = new Set(rules.map((_, index) => index).filter((index) => [...sources[index]].some((metric) => metrics.has(metric))));
        return { test, evaluation_interval, concerned };
    });
});

// --- Trying them

const folder = mkdtempSync(join(tmpdir(), "mutants-"));
process.on("exit", () => rmSync(folder, { recursive: true, force: true }));
let runs = 0;

// What promtool says of a scenario with these rules in the place of some; empty if it is as expected.
const complaint = async (scenario, changed) => {
    runs += 1;
    const [rulesPath, testPath] = [join(folder, `rules-${runs}.json`), join(folder, `test-${runs}.json`)];
    const group = { name: "cekura-exporter", rules: rules.map((rule, index) => changed.get(index) ?? rule).filter((_, index) => scenario.concerned.has(index)) };
    writeFileSync(rulesPath, JSON.stringify({ groups: [group] }));
    writeFileSync(testPath, JSON.stringify({ rule_files: [rulesPath], evaluation_interval: scenario.evaluation_interval, tests: [scenario.test] }));
    try {
        await promisify(execFile)("promtool", ["test", "rules", testPath], { maxBuffer: 1 << 26, env: { ...process.env, GOMAXPROCS: "1" } });
        return "";
    } catch (error) {
        return `${error.stdout}${error.stderr}` || String(error);
    } finally {
        rmSync(rulesPath);
        rmSync(testPath);
    }
};

const eachInParallel = async (items, work) => {
    const left = [...items].reverse();
    const worker = async () => {
        for (let item = left.pop(); item !== undefined; item = left.pop()) await work(item);
    };
    await Promise.all(Array.from({ length: availableParallelism() }, worker));
};

await eachInParallel(scenarios, async (scenario) => {
    const said = await complaint(scenario, new Map());
    if (said) throw new Error(`without any change:\n${said}`);
});

const all = rulesByName.flatMap(({ rule, index, name }) => {
    const relevant = scenarios.filter((scenario) => scenario.concerned.has(index));
    return mutantsOf(rule).map(({ what, rule }) => ({ name: `${name}: ${what}`, index, changed: new Map([[index, rule]]), relevant }));
});
const times = new Map();
for (const mutant of all) {
    const { name } = mutant;
    times.set(name, (times.get(name) ?? 0) + 1);
    if (times.get(name) > 1) mutant.name = `${name} (${times.get(name)})`;
}

const listed = new Set();
let reason = "";
for (const line of readFileSync(join(top, listFile), "utf8").split("\n")) {
    if (line.startsWith("#")) reason = line;
    else if (!line) reason = "";
    else if (!reason) throw new Error(`${listFile} gives no reason for ${line}`);
    else listed.add(line);
}

const tried = all.filter(({ name }, index) => index % Number(options.every) === 0 && name.includes(options.only));
const [invalid, killed, survived] = [[], [], []];
const kills = new Map();
await eachInParallel(tried, async (mutant) => {
    // Those first that noticed most of the other mutants of this rule.
    if (!kills.has(mutant.index)) kills.set(mutant.index, new Map(mutant.relevant.map((scenario) => [scenario, 0])));
    const noticed = kills.get(mutant.index);
    const order = [...mutant.relevant].sort((a, b) => noticed.get(b) - noticed.get(a));
    for (const scenario of order) {
        const said = await complaint(scenario, mutant.changed);
        if (said.includes("could not parse expression")) return invalid.push(mutant.name);
        if (said) {
            noticed.set(scenario, noticed.get(scenario) + 1);
            return killed.push(mutant.name);
        }
    }
    survived.push(mutant.name);
});

const problems = [
    ["No scenario notices, and the list has no reason", survived.filter((name) => !listed.has(name))],
    ["The list has them, but a scenario notices", [...killed, ...invalid].filter((name) => listed.has(name))],
    ["The list has them, but they are none", [...listed].filter((name) => !all.some((mutant) => mutant.name === name))],
];
for (const [what, names] of problems) {
    if (names.length) console.log(`${what}:\n${names.sort().map((name) => `  ${name}`).join("\n")}`);
}
const reasons = survived.filter((name) => listed.has(name)).length;
console.log(
    `${tried.length - invalid.length} mutants of ${all.length}: ${killed.length} noticed, ${survived.length} not, of which ${reasons} with a reason; ${runs} runs in ${Math.round(performance.now() / 1000)} s`,
);
process.exitCode = problems.some(([, names]) => names.length) ? 1 : 0;
