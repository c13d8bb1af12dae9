// The expressions of the dashboard. `cekura_*` names are those of docs/metrics.md.

/** What the variables select of series that have a toggle. */
const toggles = 'job=~"$job", api=~"$api", toggle=~"$toggle"';
/** What the variables select of series of an API or an agent. */
const apis = 'job=~"$job", api=~"$api"';
/** What the variables select of series of the exporter. */
const exporters = 'job=~"$job"';

/** The series of a toggle metric. While it moves to another pod or replica there are two of it, and it is one toggle. */
export const toggle = (metric: string, more = ""): string =>
    `max without (instance, pod) (cekura_toggle_${metric}{${toggles}${more && `, ${more}`}})`;

/** The series of an agent metric, likewise. */
export const agent = (metric: string, more = ""): string =>
    `max without (instance, pod) (cekura_agent_${metric}{${apis}${more && `, ${more}`}})`;

/** What the mocks of each agent should be: 1 on, 0 off. Only of agents whose mocks are judged now. */
export const shouldBe =
    `max by (api, agent_id) (${agent("mocks_drift", 'expect="enabled"')} * 0 + 1 ` +
    `or ${agent("mocks_drift", 'expect="disabled"')} * 0)`;

/** Agents whose mocks are on, and nothing says that they should be. A custom provider reports this in any case. */
export const onUnexpectedly = [
    `max by (api, agent_id) (${agent("mocks_live")}) == 1`,
    agent("mocks_drift"),
    `${agent("mock_enabled")} == 1`,
    agent("expected", 'expect="enabled"'),
    agent("info", 'provider="custom"'),
].join(" unless on (api, agent_id) ");

/** The selector of an API's series. */
export const api = (metric: string, more = ""): string => `cekura_api_${metric}{${apis}${more && `, ${more}`}}`;

/** The selector of the exporter's own series. */
export const exporter = (metric: string, more = ""): string => `${metric}{${exporters}${more && `, ${more}`}}`;

/** The selector of the buckets of how long runs took. */
export const durations = `cekura_toggle_duration_seconds_bucket{${apis}}`;

/** The selector of the buckets of how late polls started. */
export const lags = `cekura_exporter_poll_lag_seconds_bucket{${apis}}`;

/** How many series there are, 0 if there are none. */
export const count = (expression: string): string => `count(${expression}) or vector(0)`;

/** How fast a counter grows, per second. */
export const rate = (selector: string): string => `rate(${selector}[$__rate_interval])`;

/** By how much a counter grew from one point of the graph to the next. */
export const increase = (selector: string): string => `increase(${selector}[$__rate_interval])`;

/** A quantile of a histogram by these labels. */
export const quantile = (of: number, by: string, buckets: string): string =>
    `histogram_quantile(${of}, sum by (le, ${by}) (${buckets}))`;

/** What is wrong with toggles until a run of them ends well. The alerts on failed and mismatched toggles ask the same. */
export const problem = (kind: "failed" | "mismatch"): string => toggle("problem", `problem="${kind}"`);

/** Half an hour without an end, and answering: the alert CekuraToggleStuck asks the same. */
export const stuck =
    `(time() - ${toggle("started_timestamp_seconds")} > 1800) ` +
    `unless ${toggle("finished_timestamp_seconds")} and ${toggle("up")} == 1`;

/** How a status is told as a number, the worst highest. */
export const statuses = { completed: 0, in_progress: 1, unknown: 2, failed: 3 } as const;

/** The status of each toggle as such a number. Two replicas may disagree for a moment: then the worse one counts. */
export const status = `max by (toggle, api, agent_id) (${Object.entries(statuses)
    .map(([name, number]) => `${toggle("status", `status="${name}"`)} * ${number}`)
    .join(" or ")})`;
