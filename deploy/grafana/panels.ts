// The kinds of panels that the dashboard has.

import * as common from "@grafana/grafana-foundation-sdk/common";
import * as dashboard from "@grafana/grafana-foundation-sdk/dashboard";
import * as heatmap from "@grafana/grafana-foundation-sdk/heatmap";
import * as prometheus from "@grafana/grafana-foundation-sdk/prometheus";
import * as stat from "@grafana/grafana-foundation-sdk/stat";
import * as statetimeline from "@grafana/grafana-foundation-sdk/statetimeline";
import * as table from "@grafana/grafana-foundation-sdk/table";
import * as timeseries from "@grafana/grafana-foundation-sdk/timeseries";

import { statuses } from "./queries.js";

/** The data source that the variable names. */
export const source = { type: "prometheus", uid: "${datasource}" };

/** An expression and how its series are called. */
export type Query = [expression: string, legend: string];

/** What every panel says of itself. */
export interface About {
    title: string;
    /** What it tells, and what is bad. */
    description: string;
    /** Of a grid that is 24 wide. */
    width: number;
    height: number;
    /** As Grafana names it. */
    unit?: string;
}

const green = "green";
const red = "red";
const orange = "orange";
const blue = "blue";

const statusTexts: dashboard.ValueMapping[] = [
    {
        type: dashboard.MappingType.ValueToText,
        options: {
            [statuses.completed]: { text: "completed", color: green, index: 0 },
            [statuses.in_progress]: { text: "in progress", color: blue, index: 1 },
            [statuses.unknown]: { text: "unknown", color: orange, index: 2 },
            [statuses.failed]: { text: "failed", color: red, index: 3 },
        },
    },
];

const switchTexts: dashboard.ValueMapping[] = [
    {
        type: dashboard.MappingType.ValueToText,
        options: { 0: { text: "off", index: 0 }, 1: { text: "on", color: orange, index: 1 } },
    },
];

/** Colours by value: the first holds from the start. */
const steps = (...steps: [from: number | null, color: string][]) =>
    new dashboard.ThresholdsConfigBuilder()
        .mode(dashboard.ThresholdsMode.Absolute)
        .steps(steps.map(([value, color]) => ({ value, color })));

const ranges = ([expression, legend]: Query) =>
    new prometheus.DataqueryBuilder().datasource(source).expr(expression).legendFormat(legend).range();

const instants = (expression: string) =>
    new prometheus.DataqueryBuilder().datasource(source).expr(expression).instant();

/** How many there are; `bad` colours from 1 on. */
export const counts = (about: About, expression: string, bad: "red" | "orange" | "none"): stat.PanelBuilder =>
    new stat.PanelBuilder()
        .title(about.title)
        .description(about.description)
        .span(about.width)
        .height(about.height)
        .datasource(source)
        .unit(about.unit ?? "short")
        .colorMode(common.BigValueColorMode.Background)
        .graphMode(common.BigValueGraphMode.None)
        .thresholds(bad === "none" ? steps([null, blue]) : steps([null, green], [1, bad]))
        .withTarget(instants(expression));

/** What holds now, for each series; red below `good`. */
export const holds = (about: About, query: Query, good: number): stat.PanelBuilder =>
    new stat.PanelBuilder()
        .title(about.title)
        .description(about.description)
        .span(about.width)
        .height(about.height)
        .datasource(source)
        .unit(about.unit ?? "short")
        .graphMode(common.BigValueGraphMode.None)
        .textMode(common.BigValueTextMode.ValueAndName)
        .thresholds(steps([null, red], [good, green]))
        .withTarget(instants(query[0]).legendFormat(query[1]));

/** How values went. */
export const graph = (about: About, ...queries: Query[]): timeseries.PanelBuilder =>
    new timeseries.PanelBuilder()
        .title(about.title)
        .description(about.description)
        .span(about.width)
        .height(about.height)
        .datasource(source)
        .unit(about.unit ?? "short")
        .min(0)
        .fillOpacity(10)
        .showPoints(common.VisibilityMode.Never)
        .targets(queries.map(ranges));

/** How many there were in each step of time. */
export const bars = (about: About, ...queries: Query[]): timeseries.PanelBuilder =>
    graph(about, ...queries)
        .drawStyle(common.GraphDrawStyle.Bars)
        .fillOpacity(80)
        .stacking(new common.StackingConfigBuilder().mode(common.StackingMode.Normal));

/** How a whole was shared, as areas that add up, and the whole as a line above them. */
export const shares = (about: About, parts: Query, whole: Query): timeseries.PanelBuilder =>
    graph(about, parts, whole)
        .fillOpacity(40)
        .stacking(new common.StackingConfigBuilder().mode(common.StackingMode.Normal))
        .overrideByQuery("B", [
            { id: "custom.stacking", value: { mode: common.StackingMode.None } },
            { id: "custom.fillOpacity", value: 0 },
            { id: "custom.lineStyle", value: { fill: "dash" } },
        ]);

/** How a histogram went. */
export const spread = (about: About, expression: string): heatmap.PanelBuilder =>
    new heatmap.PanelBuilder()
        .title(about.title)
        .description(about.description)
        .span(about.width)
        .height(about.height)
        .datasource(source)
        .calculate(false)
        .yAxis(new heatmap.YAxisConfigBuilder().unit(about.unit ?? "short"))
        .withTarget(ranges([expression, "{{le}}"]).format(prometheus.PromQueryFormat.Heatmap));

/** The status of each toggle over time. */
export const timeline = (about: About, query: Query): statetimeline.PanelBuilder =>
    new statetimeline.PanelBuilder()
        .title(about.title)
        .description(about.description)
        .span(about.width)
        .height(about.height)
        .datasource(source)
        .mergeValues(true)
        .showValue(common.VisibilityMode.Never)
        .mappings(statusTexts)
        .withTarget(ranges(query));

/** A column of a table. */
export interface Column {
    /** An expression that yields a value for each row; without, the column is a label of the rows. */
    expression?: string;
    label?: string;
    title: string;
    kind?: "status" | "switch" | "problem" | "drift" | "up" | "age";
}

/** A coloured text for each of 0 and 1. */
const verdict = (...[zero, one]: [dashboard.ValueMappingResult, dashboard.ValueMappingResult]): dashboard.DynamicConfigValue[] => [
    {
        id: "mappings",
        value: [
            {
                type: dashboard.MappingType.ValueToText,
                options: { 0: { ...zero, index: 0 }, 1: { ...one, index: 1 } },
            },
        ],
    },
    { id: "custom.cellOptions", value: { type: "color-text" } },
];

const shown: Record<NonNullable<Column["kind"]>, dashboard.DynamicConfigValue[]> = {
    status: [
        { id: "mappings", value: statusTexts },
        { id: "custom.cellOptions", value: { type: "color-background" } },
    ],
    switch: [{ id: "mappings", value: switchTexts }],
    problem: verdict({ text: "as expected", color: green }, { text: "MISMATCH", color: red }),
    drift: verdict({ text: "as expected", color: green }, { text: "DRIFTED", color: red }),
    up: verdict({ text: "failed", color: orange }, { text: "answered", color: green }),
    age: [{ id: "unit", value: "s" }],
};

/** One row for each set of labels, the highest of the first sorted column first. */
export const rows = (about: About, columns: Column[], sorted: string): table.PanelBuilder => {
    const refIds = "ABCDEFGHIJ";
    const queried = columns.filter((column) => column.expression !== undefined);
    const field = (column: Column) =>
        column.expression === undefined ? column.label ?? "" : `Value #${refIds[queried.indexOf(column)]}`;
    const targets = queried.map((column, index) =>
        instants(column.expression ?? "")
            .format(prometheus.PromQueryFormat.Table)
            .refId(refIds[index] ?? ""),
    );
    const panel = new table.PanelBuilder()
        .title(about.title)
        .description(about.description)
        .span(about.width)
        .height(about.height)
        .datasource(source)
        .unit(about.unit ?? "short")
        .filterable(true)
        .targets(targets)
        .withTransformation({ id: "merge", options: {} })
        .withTransformation({
            id: "organize",
            options: {
                excludeByName: { Time: true },
                indexByName: Object.fromEntries(columns.map((column, index) => [field(column), index])),
                renameByName: Object.fromEntries(columns.map((column) => [field(column), column.title])),
            },
        })
        .sortBy([new common.TableSortByFieldStateBuilder().displayName(sorted).desc(true)]);
    for (const column of columns) {
        if (column.kind !== undefined) {
            panel.overrideByName(column.title, shown[column.kind]);
        }
    }
    return panel;
};
