// Prints what the dashboard asks Prometheus, as JSON: for each query its panel, the expression with the
// variables filled in as Grafana does, the operands of its `or`s, the metrics and labels that it names,
// and whether it is PromQL. Usage: node dashboard.mjs DASHBOARD

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const project = createRequire(new URL("../../../deploy/grafana/package.json", import.meta.url));
const { parser } = await import(pathToFileURL(project.resolve("@prometheus-io/lezer-promql")));

const values = { job: ".*", api: ".*", toggle: ".*", __rate_interval: "30s", __range: "1h" };
const filled = (text) =>
    text.replace(/\$(\w+)/g, (_, name) => {
        if (!(name in values)) throw new Error(`there is no variable ${name}`);
        return values[name];
    });

// What stands on both sides of the outermost `or`s.
const operands = (node, expression) => {
    const or = node.name === "BinaryExpr" && node.getChild("Or");
    if (!or) return [expression.slice(node.from, node.to)];
    const [left, right] = [node.firstChild, node.lastChild];
    return [...operands(left, expression), ...operands(right, expression)];
};

const asked = (expression) => {
    const tree = parser.parse(expression);
    const found = { expression, metrics: [], labels: [], errors: [], operands: [] };
    tree.iterate({
        enter: (node) => {
            const text = expression.slice(node.from, node.to);
            if (node.type.isError) found.errors.push(`at ${node.from} of ${expression}`);
            if (node.name === "LabelName") found.labels.push(text);
            if (node.name === "Identifier" && node.node.parent?.name === "VectorSelector") found.metrics.push(text);
        },
    });
    if (tree.topNode.firstChild) found.operands = operands(tree.topNode.firstChild, expression);
    return found;
};

const board = JSON.parse(readFileSync(process.argv[2], "utf8"));
const panels = board.panels.flatMap((panel) => [panel, ...(panel.panels ?? [])]);
const queries = panels.flatMap((panel) =>
    (panel.targets ?? []).map((target) => ({
        panel: panel.title,
        legend: target.legendFormat ?? "",
        ...asked(filled(target.expr)),
    })),
);
const variables = board.templating.list
    .filter((variable) => variable.type === "query")
    .map((variable) => {
        const [, series, label] = /^label_values\((.*), (\w+)\)$/.exec(variable.query.query);
        return { name: variable.name, label, ...asked(filled(`group by (${label}) (${series})`)) };
    });
console.log(JSON.stringify({ queries, variables }));
