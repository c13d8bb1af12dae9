//! The metric families whose labels users write: those of toggles, agents and sources.
//!
//! Each is declared here once: its name, type and HELP text, and how the series of one value are written.

use super::format::{Description, Kind};
use crate::board::AskedAgent;
use crate::labels::put_label_value;
use crate::toggle::{Drift, Expect, FailureStreak, Provider, Status, Timestamp, Toggle, ToldMocks, Watch};

/// A family with series for each `T`.
pub(super) struct Family<T> {
    /// The name and the brace that follows it in each series.
    open: &'static str,
    kind: Kind,
    help: &'static str,
    write: fn(&mut Series<'_>, &T),
}

/// Writes the series that one value has in one family.
pub(super) struct Series<'a> {
    out: &'a mut Vec<u8>,
    open: &'static str,
    labels: &'a [u8],
}

/// Writes a series that is 1 or 0. `$more` is empty, or more labels that begin with a comma. All that follows the
/// labels of the value is written as one piece, because the cost is in the number of pieces.
macro_rules! flag {
    ($series:expr, $more:literal, $is:expr) => {
        $series.whole(if $is { concat!($more, "} 1\n") } else { concat!($more, "} 0\n") })
    };
}

/// The families of toggles, sorted by name.
pub(super) const TOGGLE_FAMILIES: &[Family<Toggle>] = &[
    Family {
        open: "cekura_toggle_finished_timestamp_seconds{",
        kind: Kind::Gauge,
        help: "When the run was first seen completed or failed, as a Unix time in seconds.",
        write: |series, toggle| series.time(toggle.run.finished.map(|finish| finish.at)),
    },
    Family {
        open: "cekura_toggle_finished_total{",
        kind: Kind::Counter,
        help: "Runs of this watch that were seen to finish, by status; each is counted once.",
        write: |series, toggle| {
            series.int(r#",status="completed""#, toggle.tally.completed.into());
            series.int(r#",status="failed""#, toggle.tally.failed.into());
        },
    },
    Family {
        open: "cekura_toggle_info{",
        kind: Kind::Gauge,
        help: "Definition of the watch in its labels; always 1.",
        write: |series, toggle| series.info(&toggle.watch),
    },
    Family {
        open: "cekura_toggle_last_completed_timestamp_seconds{",
        kind: Kind::Gauge,
        help: "When a run of this watch last completed, as a Unix time in seconds.",
        write: |series, toggle| series.time(toggle.tally.last_completed),
    },
    Family {
        open: "cekura_toggle_last_failed_timestamp_seconds{",
        kind: Kind::Gauge,
        help: "When a run of this watch last failed, as a Unix time in seconds.",
        write: |series, toggle| series.time(toggle.tally.last_failed),
    },
    Family {
        open: "cekura_toggle_last_mismatched_timestamp_seconds{",
        kind: Kind::Gauge,
        help: "When a run of this watch last completed in another state than expected, as a Unix time in seconds.",
        write: |series, toggle| series.time(toggle.tally.last_mismatched),
    },
    Family {
        open: "cekura_toggle_last_success_timestamp_seconds{",
        kind: Kind::Gauge,
        help: "When a poll of the run last brought a valid answer, as a Unix time in seconds.",
        write: |series, toggle| series.time(toggle.run.last_success),
    },
    Family {
        open: "cekura_toggle_mcp_endpoints{",
        kind: Kind::Gauge,
        help: "Registered MCP mock endpoints.",
        write: |series, toggle| series.maybe(toggle.run.last_answer.mcp_endpoints.map(u64::from)),
    },
    Family {
        open: "cekura_toggle_mcp_tools{",
        kind: Kind::Gauge,
        help: "Tool names over all registered MCP mock endpoints.",
        write: |series, toggle| series.maybe(toggle.run.last_answer.mcp_tools.map(u64::from)),
    },
    Family {
        open: "cekura_toggle_mock_enabled{",
        kind: Kind::Gauge,
        help: "Whether mocks are on (1) or off (0), as answered for this run.",
        write: |series, toggle| series.maybe_flag(toggle.run.last_answer.mock_enabled),
    },
    Family {
        open: "cekura_toggle_mock_mismatch{",
        kind: Kind::Gauge,
        help: "Whether the run completed in another state than expected (1) or not (0).",
        write: |series, toggle| {
            let mismatch = toggle.mismatch() == Some(true);
            match toggle.watch.expect {
                Some(Expect::Enabled) => flag!(series, r#",expect="enabled""#, mismatch),
                Some(Expect::Disabled) => flag!(series, r#",expect="disabled""#, mismatch),
                None => {}
            }
        },
    },
    Family {
        open: "cekura_toggle_poll_error{",
        kind: Kind::Gauge,
        help: "Reason why the last poll failed; always 1, and absent after a valid answer.",
        write: |series, toggle| series.poll_error(toggle.run.failing.as_deref()),
    },
    Family {
        open: "cekura_toggle_poll_failures_total{",
        kind: Kind::Counter,
        help: "Polls that ended without a valid answer.",
        write: |series, toggle| series.int("", toggle.tally.failures),
    },
    Family {
        open: "cekura_toggle_polls_total{",
        kind: Kind::Counter,
        help: "Polls that ended.",
        write: |series, toggle| series.int("", toggle.tally.polls),
    },
    Family {
        open: "cekura_toggle_problem{",
        kind: Kind::Gauge,
        help: "How the last finished run of this watch ended badly; always 1, and absent if it ended well.",
        write: |series, toggle| {
            if let Some(problem) = toggle.tally.problem {
                series.start();
                series.raw(r#",problem=""#);
                series.raw(problem.kind.as_str());
                series.raw(r#"",expect=""#);
                series.raw(problem.expect.map_or("", Expect::as_str));
                series.raw("\"} 1\n");
            }
        },
    },
    Family {
        open: "cekura_toggle_started_timestamp_seconds{",
        kind: Kind::Gauge,
        help: "When the run was first watched, as a Unix time in seconds.",
        write: |series, toggle| series.time(Some(toggle.run.started)),
    },
    Family {
        open: "cekura_toggle_status{",
        kind: Kind::Gauge,
        help: "Status of the run: 1 for the current status, 0 for the other three.",
        write: |series, toggle| {
            let now = toggle.run.last_answer.status;
            flag!(series, r#",status="in_progress""#, now == Status::InProgress);
            flag!(series, r#",status="completed""#, now == Status::Completed);
            flag!(series, r#",status="failed""#, now == Status::Failed);
            flag!(series, r#",status="unknown""#, now == Status::Unknown);
        },
    },
    Family {
        open: "cekura_toggle_up{",
        kind: Kind::Gauge,
        help: "Whether the last poll of the run brought a valid answer (1) or failed (0).",
        write: |series, toggle| series.maybe_flag(toggle.run.up()),
    },
];

/// The families of what toggle tasks told of agents, sorted by name.
pub(super) const TOLD_FAMILIES: &[Family<ToldMocks>] = &[
    Family {
        open: "cekura_agent_mock_enabled{",
        kind: Kind::Gauge,
        help: "Whether the mocks of the agent are on (1) or off (0), according to its newest completed run.",
        write: |series, agent| series.maybe_flag(agent.enabled()),
    },
    Family {
        open: "cekura_agent_mock_enabled_since_timestamp_seconds{",
        kind: Kind::Gauge,
        help: "Since when the mocks of the agent are on, as a Unix time in seconds; absent while they are off.",
        write: |series, agent| series.time(agent.enabled_since),
    },
];

/// The families of agents whose mock status is asked for, sorted by name.
pub(super) const ASKED_FAMILIES: &[Family<AskedAgent>] = &[
    Family {
        open: "cekura_agent_expected{",
        kind: Kind::Gauge,
        help: "State in which the mocks of the agent should be according to its definition; always 1.",
        write: |series, agent| {
            if let Some(expect) = agent.definition.expect {
                series.whole(match expect {
                    Expect::Enabled => ",expect=\"enabled\"} 1\n",
                    Expect::Disabled => ",expect=\"disabled\"} 1\n",
                });
            }
        },
    },
    Family {
        open: "cekura_agent_info{",
        kind: Kind::Gauge,
        help: "Source and provider of the agent in its labels; always 1.",
        write: |series, agent| {
            series.start();
            series.raw(r#",source=""#);
            series.raw(agent.definition.source.as_str());
            series.raw(r#"",provider=""#);
            series.raw(agent.provider().map_or("", Provider::as_str));
            series.raw("\"} 1\n");
        },
    },
    Family {
        open: "cekura_agent_last_success_timestamp_seconds{",
        kind: Kind::Gauge,
        help: "When a poll of the agent's mock status last brought a valid answer, as a Unix time in seconds.",
        write: |series, agent| series.time(agent.live.last_success),
    },
    Family {
        open: "cekura_agent_mock_endpoints{",
        kind: Kind::Gauge,
        help: "Mock endpoints of the agent, by kind: mcp for MCP servers, tool for single tools.",
        write: |series, agent| {
            let kinds = [(r#",kind="mcp""#, agent.live.mcp_endpoints), (r#",kind="tool""#, agent.live.tool_endpoints)];
            for (kind, count) in kinds {
                if let Some(count) = count {
                    series.int(kind, count.into());
                }
            }
        },
    },
    Family {
        open: "cekura_agent_mocks_drift{",
        kind: Kind::Gauge,
        help: "Whether the mocks of the agent are not as they should be (1) or are (0); absent while that is not known.",
        write: |series, agent| match agent.drift {
            Some(Drift { expect: Expect::Enabled, drifted }) => flag!(series, r#",expect="enabled""#, drifted),
            Some(Drift { expect: Expect::Disabled, drifted }) => flag!(series, r#",expect="disabled""#, drifted),
            None => {}
        },
    },
    Family {
        open: "cekura_agent_mocks_live{",
        kind: Kind::Gauge,
        help: "Whether the mocks of the agent are on (1) or off (0), as the API said last.",
        write: |series, agent| series.maybe_flag(agent.live.enabled),
    },
    Family {
        open: "cekura_agent_mocks_live_since_timestamp_seconds{",
        kind: Kind::Gauge,
        help: "Since when the API says that the mocks are on, as a Unix time in seconds; absent while they are off.",
        write: |series, agent| series.time(agent.live.enabled_since),
    },
    Family {
        open: "cekura_agent_poll_error{",
        kind: Kind::Gauge,
        help: "Reason why the last poll of the agent's mock status failed; always 1, and absent after a valid answer.",
        write: |series, agent| series.poll_error(agent.live.failing.as_deref()),
    },
    Family {
        open: "cekura_agent_poll_failures_total{",
        kind: Kind::Counter,
        help: "Polls of the agent's mock status that ended without a valid answer.",
        write: |series, agent| series.int("", agent.live.failures),
    },
    Family {
        open: "cekura_agent_polls_total{",
        kind: Kind::Counter,
        help: "Polls of the agent's mock status that ended.",
        write: |series, agent| series.int("", agent.live.polls),
    },
    Family {
        open: "cekura_agent_up{",
        kind: Kind::Gauge,
        help: "Whether the last poll of the agent's mock status brought a valid answer (1) or failed (0).",
        write: |series, agent| series.maybe_flag(agent.live.up()),
    },
];

/// The families of sources, whose value says whether the source is up.
pub(super) const SOURCE_FAMILIES: &[Family<bool>] = &[Family {
    open: "cekura_exporter_source_up{",
    kind: Kind::Gauge,
    help: "Whether the last attempt to read the source succeeded (1) or failed (0).",
    write: |series, up| series.maybe_flag(Some(*up)),
}];

// === impl Family ===

impl<T> Family<T> {
    /// The name, type and HELP text.
    pub(super) fn description(&self) -> Description<'static> {
        Description { name: &self.open[..self.open.len() - 1], kind: self.kind, help: self.help }
    }

    /// Writes the series of a value, if it has any at present. `labels` are the labels that they all have.
    pub(super) fn put(&self, out: &mut Vec<u8>, labels: &[u8], value: &T) {
        (self.write)(&mut Series { out, open: self.open, labels }, value);
    }
}

// === impl Series ===

impl Series<'_> {
    #[inline]
    fn raw(&mut self, text: &str) {
        self.out.extend_from_slice(text.as_bytes());
    }

    /// Writes the name and the labels of the value; more labels may follow.
    #[inline]
    fn start(&mut self) {
        self.raw(self.open);
        self.out.extend_from_slice(self.labels);
    }

    /// Writes a series; `end` is all that follows the labels of the value.
    #[inline]
    fn whole(&mut self, end: &'static str) {
        self.start();
        self.raw(end);
    }

    /// Writes a series with an integer. `more` is empty, or more labels that begin with a comma.
    #[inline]
    fn int(&mut self, more: &'static str, value: u64) {
        self.start();
        self.raw(more);
        self.raw("} ");
        self.raw(itoa::Buffer::new().format(value));
        self.out.push(b'\n');
    }

    fn maybe(&mut self, value: Option<u64>) {
        if let Some(value) = value {
            self.int("", value);
        }
    }

    fn maybe_flag(&mut self, value: Option<bool>) {
        if let Some(is) = value {
            flag!(self, "", is);
        }
    }

    /// Writes the series with the reason of failed polls, if the last one failed.
    fn poll_error(&mut self, failing: Option<&FailureStreak>) {
        if let Some(failing) = failing {
            self.start();
            self.raw(r#",reason=""#);
            self.raw(failing.reason.as_str());
            self.raw("\"} 1\n");
        }
    }

    /// Writes a series with a time in seconds, with three decimals.
    fn time(&mut self, time: Option<Timestamp>) {
        let Some(millis) = time.map(Timestamp::as_millis) else { return };
        self.start();
        self.raw("} ");
        self.raw(itoa::Buffer::new().format(millis / 1000));
        let [a, b, c] = [100, 10, 1].map(|unit| b'0' + u8::try_from(millis % 1000 / unit % 10).unwrap_or_default());
        self.out.extend_from_slice(&[b'.', a, b, c, b'\n']);
    }

    fn info(&mut self, watch: &Watch) {
        self.start();
        for (name, value) in [
            (r#",progress_id=""#, watch.progress_id.as_str()),
            (r#"",source=""#, watch.source.as_str()),
            (r#"",expect=""#, watch.expect.map_or("", Expect::as_str)),
        ] {
            self.raw(name);
            put_label_value(self.out, value);
        }
        self.raw("\"} 1\n");
    }
}
