// The dashboard: first what an engineer who was paged looks for, then what explains it.

import {
    AdHocVariableBuilder,
    DashboardBuilder,
    DashboardCursorSync,
    DatasourceVariableBuilder,
    QueryVariableBuilder,
    RowBuilder,
    VariableRefresh,
    VariableSort,
} from "@grafana/grafana-foundation-sdk/dashboard";

import { bars, counts, graph, holds, rows, shares, source, spread, timeline } from "./panels.js";
import * as q from "./queries.js";

/** A variable that takes the values of a label. */
const label = (name: string, title: string, query: string) =>
    new QueryVariableBuilder(name)
        .label(title)
        .datasource(source)
        .query({ qryType: 1, query: `label_values(${query}, ${name})`, refId: name })
        .definition(`label_values(${query}, ${name})`)
        .refresh(VariableRefresh.OnTimeRangeChanged)
        .sort(VariableSort.AlphabeticalAsc)
        .multi(true)
        .includeAll(true)
        .allValue(".*")
        .current({ selected: true, text: "All", value: "$__all" });

const overview = [
    counts(
        { title: "Failed", description: "Toggles whose run failed, and no later run has ended well. The mocks of their agents may be in the wrong state.", width: 4, height: 4 },
        q.count(q.problem("failed")),
        "red",
    ),
    counts(
        { title: "Mismatched", description: "Toggles whose run completed in another state than expected, and no later run has ended well: tests reach the real systems, or callers talk to mocks.", width: 4, height: 4 },
        q.count(q.problem("mismatch")),
        "red",
    ),
    counts(
        { title: "Stuck", description: "Toggles that have been watched for half an hour and are answered, but are neither completed nor failed.", width: 4, height: 4 },
        q.count(q.stuck),
        "orange",
    ),
    counts(
        { title: "Not answering", description: "Toggles whose last poll got no valid answer, so that their state is outdated. The reasons are below, under APIs.", width: 4, height: 4 },
        q.count(`${q.toggle("up")} == 0`),
        "orange",
    ),
    counts(
        { title: "In progress", description: "Toggles whose run is in progress.", width: 4, height: 4 },
        q.count(`${q.toggle("status", 'status="in_progress"')} == 1`),
        "none",
    ),
    counts(
        { title: "Completed", description: "Toggles whose run completed, as expected or not.", width: 4, height: 4 },
        q.count(`${q.toggle("status", 'status="completed"')} == 1`),
        "none",
    ),
    rows(
        { title: "Toggles", description: "All toggles, the worst first. A mismatch is only known for toggles with an expected state. The messages and errors of runs are at /api/v1/toggles of the exporter.", width: 24, height: 10 },
        [
            { label: "toggle", title: "toggle" },
            { expression: q.status, title: "status", kind: "status" },
            { label: "expect", title: "expected" },
            { expression: `max by (toggle, api, agent_id) (${q.toggle("mock_enabled")})`, title: "mocks", kind: "switch" },
            { expression: `max by (toggle, api, agent_id) (${q.toggle("mock_mismatch")})`, title: "as expected?", kind: "problem" },
            { label: "problem", title: "not solved" },
            { label: "reason", title: "poll error" },
            { expression: `max by (toggle, api, agent_id) (time() - ${q.toggle("started_timestamp_seconds")})`, title: "watched for", kind: "age" },
            { expression: `max by (toggle, api, agent_id) (time() - ${q.toggle("last_success_timestamp_seconds")})`, title: "last answer", kind: "age" },
            { expression: `max by (toggle, api, agent_id, expect, source) (${q.toggle("info")})`, title: "info" },
            { expression: `max by (toggle, api, agent_id, reason) (${q.toggle("poll_error")})`, title: "error" },
            { expression: `max by (toggle, api, agent_id, problem) (${q.toggle("problem")})`, title: "unsolved" },
            { label: "api", title: "API" },
            { label: "agent_id", title: "agent" },
            { label: "source", title: "source" },
        ],
        "status",
    )
        .overrideByRegexp("^(info|error|unsolved)$", [{ id: "custom.hidden", value: true }]),
    timeline(
        { title: "Status over time", description: "The status of each toggle. In a gap, it was not watched, or the exporter was not scraped.", width: 24, height: 9 },
        [q.status, "{{toggle}}"],
    ),
];

const agents = [
    counts(
        { title: "Drifted", description: "Agents whose mocks are not as they should be: what their newest completed run said, otherwise what is configured. Real callers talk to mocks, or tests reach the real systems.", width: 4, height: 5 },
        q.count(`${q.agent("mocks_drift")} == 1`),
        "red",
    ),
    counts(
        { title: "On without being expected", description: "Agents whose mocks are on although nothing says that they should be, without those that drifted and those of the provider custom, which reports this in any case.", width: 4, height: 5 },
        q.count(q.onUnexpectedly),
        "orange",
    ),
    counts(
        { title: "Mocks on", description: "Agents whose mocks are on, as the API said last.", width: 4, height: 5 },
        q.count(`${q.agent("mocks_live")} == 1`),
        "none",
    ),
    counts(
        { title: "Agents not answering", description: "Agents whose last poll got no valid answer, so that what is known of their mocks is outdated.", width: 4, height: 5 },
        q.count(`${q.agent("up")} == 0`),
        "orange",
    ),
    graph(
        { title: "Agents by API", description: "For each API: the agents that are asked, whose mocks are on, that drifted, and that do not answer.", width: 8, height: 5 },
        [`count by (api) (${q.agent("info")})`, "{{api}}, asked"],
        [`sum by (api) (${q.agent("mocks_live")})`, "{{api}}, on"],
        [`sum by (api) (${q.agent("mocks_drift")})`, "{{api}}, drifted"],
        [`count by (api) (${q.agent("up")}) - sum by (api) (${q.agent("up")})`, "{{api}}, not answering"],
    ),
    rows(
        { title: "Agents", description: "The agents whose mock status is asked for, and those of which a toggle said something; the drifted ones first. Nothing is judged while a run is in progress or nothing says what the mocks should be.", width: 24, height: 10 },
        [
            { label: "agent_id", title: "agent" },
            { label: "api", title: "API" },
            { expression: `max by (agent_id, api) (${q.agent("mocks_drift")})`, title: "as it should be?", kind: "drift" },
            { expression: `max by (agent_id, api) (${q.agent("mocks_live")})`, title: "mocks are", kind: "switch" },
            { expression: q.shouldBe, title: "should be", kind: "switch" },
            { expression: `max by (agent_id, api) (time() - ${q.agent("mocks_live_since_timestamp_seconds")})`, title: "on for", kind: "age" },
            { expression: `max by (agent_id, api) (${q.agent("mock_enabled")})`, title: "a toggle said", kind: "switch" },
            { expression: `max by (agent_id, api) (time() - ${q.agent("mock_enabled_since_timestamp_seconds")})`, title: "said for", kind: "age" },
            { expression: `max by (agent_id, api) (${q.agent("up")})`, title: "last poll", kind: "up" },
            { expression: `max by (agent_id, api) (time() - ${q.agent("last_success_timestamp_seconds")})`, title: "last answer", kind: "age" },
            { expression: `max by (agent_id, api, source, provider) (${q.agent("info")})`, title: "info" },
            { label: "source", title: "source" },
            { label: "provider", title: "provider" },
        ],
        "as it should be?",
    ).overrideByName("info", [{ id: "custom.hidden", value: true }]),
];

const runs = [
    bars(
        { title: "Runs finished", description: "Runs that were seen to finish, each once. Failed and mismatched runs are problems.", width: 8, height: 8 },
        [`sum by (outcome) (${q.increase(q.api("runs_finished_total"))})`, "{{outcome}}"],
    ),
    spread(
        { title: "How long runs took", description: "From first watched to seen finished, without runs that were finished at their first answer.", width: 8, height: 8, unit: "s" },
        `sum by (le) (${q.increase(q.durations)})`,
    ),
    graph(
        { title: "Durations of runs", description: "The time that half of the runs, and nine of ten, did not exceed in the selected time range.", width: 8, height: 8, unit: "s" },
        [q.quantile(0.5, "status", `increase(${q.durations}[$__range])`), "{{status}}, half"],
        [q.quantile(0.9, "status", `increase(${q.durations}[$__range])`), "{{status}}, nine of ten"],
    ),
];

const upstream = [
    bars(
        { title: "Polls by outcome", description: "ok, or the reason why polls failed. unauthorized, forbidden and credentials point to the key, bad_request and not_found most likely to an expired id.", width: 12, height: 8, unit: "reqps" },
        [`sum by (api, outcome) (${q.rate(q.api("requests_total"))}) > 0`, "{{api}}: {{outcome}}"],
    ),
    graph(
        { title: "Share of polls that fail", description: "The share of all polls of an API. A rise means an outage or a refused key.", width: 6, height: 8, unit: "percentunit" },
        [`1 - sum by (api) (${q.rate(q.api("requests_total", 'outcome="ok"'))}) / sum by (api) (${q.rate(q.api("requests_total"))})`, "{{api}}"],
    ),
    graph(
        { title: "Toggles whose polls fail, by reason", description: "How many toggles do not answer now, by reason.", width: 6, height: 8 },
        [`count by (api, reason) (${q.toggle("poll_error")}) or max by (api) (${q.toggle("up")}) * 0`, "{{api}}: {{reason}}"],
    ),
    graph(
        { title: "Time of a poll", description: "The time from connecting to the last byte that half of the polls, and 99 of a hundred, did not exceed.", width: 6, height: 8, unit: "s" },
        [q.quantile(0.5, "api", q.rate(q.api("request_duration_seconds_bucket"))), "{{api}}, half"],
        [q.quantile(0.99, "api", q.rate(q.api("request_duration_seconds_bucket"))), "{{api}}, 99 %"],
    ),
    graph(
        { title: "Budget", description: "Polls that are in progress, and polls that are due but held back by the budget, the limit of concurrent requests or a pause. If polls always wait, the budget is too small.", width: 6, height: 8 },
        [`sum by (api) (${q.api("requests_in_flight")})`, "{{api}}, under way"],
        [`sum by (api) (${q.api("polls_waiting")})`, "{{api}}, waiting"],
    ),
    graph(
        { title: "Held back", description: "How many polls wait on average, and how much longer an API is paused by a Retry-After or an outage.", width: 6, height: 8, unit: "s" },
        [`sum by (api) (${q.rate(q.api("throttle_seconds_total"))})`, "{{api}}, poll-seconds a second"],
        [`max by (api) (${q.api("paused_until_timestamp_seconds")}) - time() or max by (api) (${q.api("polls_waiting")}) * 0`, "{{api}}, paused for"],
    ),
    graph(
        { title: "Lag of polls", description: "The time from due to started that half of the polls, and 99 of a hundred, did not exceed. Only polls that have started are counted.", width: 6, height: 8, unit: "s" },
        [q.quantile(0.5, "api", q.rate(q.lags)), "{{api}}, half"],
        [q.quantile(0.99, "api", q.rate(q.lags)), "{{api}}, 99 %"],
    ),
];

const lists = [
    graph(
        { title: "Watches and agents", description: "How many watches and agents each source has, and how many of them are refused because another source uses their name or lists the same agent, or their API is not configured.", width: 9, height: 7 },
        [`max by (source) (${q.exporter("cekura_exporter_watches")})`, "{{source}}"],
        [`max by (source) (${q.exporter("cekura_exporter_watches_rejected")})`, "{{source}}, refused"],
        [`max by (source) (${q.exporter("cekura_exporter_agents")})`, "agents, {{source}}"],
        [`max by (source) (${q.exporter("cekura_exporter_agents_rejected")})`, "agents, {{source}}, refused"],
    ),
    holds(
        { title: "Sources", description: "1: the watch files of this glob are good, or the agents of this API were listed. 0: a file has a problem, the folder is missing, or the agents could not be listed; what was known before is kept.", width: 5, height: 7 },
        [`min by (source, path) (${q.exporter("cekura_exporter_source_up")}) or max(${q.exporter("cekura_exporter_watches")}) * 0 + 1`, "{{source}} {{path}}"],
        1,
    ),
    holds(
        { title: "Reloads", description: "1: the configuration and the web configuration in force are those of the files. 0: the last reload was refused, and the previous one stays in force.", width: 5, height: 7 },
        [`min by (instance) (${q.exporter("cekura_exporter_config_last_reload_successful")} * ${q.exporter("cekura_exporter_web_config_last_reload_successful")})`, "{{instance}}"],
        1,
    ),
    graph(
        { title: "Unknown statuses", description: "Answers with a status that is not documented. Their toggles are shown as unknown.", width: 5, height: 7, unit: "reqps" },
        [`sum by (api) (${q.rate(q.api("unknown_statuses_total"))})`, "{{api}}"],
    ),
];

const program = [
    graph(
        { title: "CPU", description: "CPU time per second. 1 is one core.", width: 6, height: 7 },
        [q.rate(q.exporter("process_cpu_seconds_total")), "{{instance}}"],
    ),
    graph(
        { title: "Memory", description: "Resident memory. It is 21 MiB with ten thousand watches, and 91 MiB with a hundred thousand.", width: 6, height: 7, unit: "bytes" },
        [q.exporter("process_resident_memory_bytes"), "{{instance}}"],
    ),
    graph(
        { title: "Connections and descriptors", description: "Client connections, and all open file descriptors. If descriptors only grow, there is a leak.", width: 6, height: 7 },
        [q.exporter("cekura_exporter_http_connections"), "{{instance}}, connections"],
        [q.exporter("process_open_fds"), "{{instance}}, descriptors"],
    ),
    graph(
        { title: "Clients that were not served", description: "Connections that were refused or ended early, by reason. limit: there are too many.", width: 6, height: 7, unit: "cps" },
        [`sum by (reason) (${q.rate(q.exporter("cekura_exporter_http_connection_errors_total"))})`, "{{reason}}"],
    ),
    graph(
        { title: "Requests", description: "Requests to the exporter, by path and status code. 401: a client has no valid login.", width: 12, height: 7, unit: "reqps" },
        [`sum by (handler, code) (${q.rate(q.exporter("cekura_exporter_http_requests_total"))})`, "{{handler}} {{code}}"],
    ),
    holds(
        { title: "Certificate", description: "How long the certificate of the exporter is still valid. Red below a week. Empty without TLS.", width: 6, height: 7, unit: "s" },
        [`min by (instance) (${q.exporter("cekura_exporter_tls_certificate_expiry_timestamp_seconds")}) - time()`, "{{instance}}"],
        7 * 24 * 3600,
    ).noValue("no TLS"),
    holds(
        { title: "Versions", description: "The version of each exporter.", width: 6, height: 7 },
        [`max by (instance, version, revision) (${q.exporter("cekura_exporter_build_info")})`, "{{instance}}: {{version}}, {{revision}}"],
        1,
    ),
];

const replicas = [
    holds(
        { title: "Database", description: "1: the last query of the database succeeded. 0: it failed, so this replica refuses registrations and polls on with what it knows. Empty without a database.", width: 6, height: 7 },
        [`min by (instance) (${q.exporter("cekura_exporter_database_up")})`, "{{instance}}"],
        1,
    ).noValue("no database"),
    graph(
        { title: "Live replicas", description: "Replicas that renew their lease, according to the database, and replicas that are scraped. If they differ for long, Prometheus cannot scrape one, or one does not reach the database.", width: 6, height: 7 },
        [`max by (job) (${q.exporter("cekura_exporter_replicas")})`, "{{job}}, live"],
        [`count by (job) (${q.exporter("cekura_exporter_shards", 'state="owned"')})`, "{{job}}, scraped"],
    ),
    shares(
        { title: "Shards by owner", description: "How many shards each replica owns. Together they should reach the line of all shards: toggles and agents in the others are not polled. While a replica does not reach the database, it may count shards that others have taken over.", width: 6, height: 7 },
        [q.exporter("cekura_exporter_shards", 'state="owned"'), "{{instance}}"],
        [`max by (job) (${q.exporter("cekura_exporter_shards", 'state="all"')})`, "{{job}}, all"],
    ),
    bars(
        { title: "Takeovers", description: "Shards that a replica took over from one that no longer renewed its lease, because it was killed or cut off. A replica that stops properly hands its shards over, which is not counted.", width: 6, height: 7 },
        [`sum by (instance) (${q.increase(q.exporter("cekura_exporter_takeovers_total"))})`, "{{instance}}"],
    ),
];

/** The dashboard. */
export const board = new DashboardBuilder("Cekura mock toggles")
    .uid("cekura-exporter")
    .description("What cekura-exporter knows of toggle-mock-tools tasks and of the mocks of agents. Written by deploy/grafana; changes made here are lost.")
    .tags(["cekura"])
    .time({ from: "now-3h", to: "now" })
    .refresh("30s")
    .timezone("browser")
    .tooltip(DashboardCursorSync.Crosshair)
    .editable()
    .withVariable(new DatasourceVariableBuilder("datasource").label("Data source").type("prometheus"))
    .withVariable(label("job", "Job", "cekura_exporter_build_info"))
    .withVariable(label("api", "API", 'cekura_api_polls_waiting{job=~"$job"}'))
    .withVariable(label("toggle", "Toggle", 'cekura_toggle_info{job=~"$job", api=~"$api"}'))
    // Users choose the labels of watches, so the dashboard lets them select which to use.
    .withVariable(new AdHocVariableBuilder("labels").label("Labels").datasource(source));

let id = 0;
for (const [title, panels] of [
    ["Now", overview],
    ["Agents", agents],
    ["Runs", runs],
    ["APIs", upstream],
    ["Watches", lists],
    ["Replicas", replicas],
    ["The exporter", program],
] as const) {
    board.withRow(new RowBuilder(title).id(++id));
    panels.forEach((panel) => board.withPanel(panel.id(++id)));
}
