//! The families of toggles and agents: name, help, type and how a series is written.

use super::format::{Description, Kind};
use crate::labels::put_label_value;
use crate::toggle::{AgentMock, Expect, Status, Timestamp, Toggle, Watch};

/// One family of series, each of a `T`.
pub(super) struct Family<T> {
    /// The name of its series and the brace that comes after it.
    open: &'static str,
    kind: Kind,
    help: &'static str,
    write: fn(&mut Series<'_>, &T),
}

/// Writes series of one family with the labels of one thing.
pub(super) struct Series<'a> {
    out: &'a mut Vec<u8>,
    open: &'static str,
    labels: &'a [u8],
}

/// Writes a series that is 1 if it is so and else 0, with label text that begins with a comma. Its
/// end is one piece, because most of the work is in the number of pieces.
macro_rules! flag {
    ($series:expr, $more:literal, $is:expr) => {
        $series.whole(if $is { concat!($more, "} 1\n") } else { concat!($more, "} 0\n") })
    };
}

/// The families of toggles, sorted by name.
pub(super) const TOGGLE_FAMILIES: [Family<Toggle>; 18] = [
    Family {
        open: "cekura_toggle_finished_timestamp_seconds{",
        kind: Kind::Gauge,
        help: "When the run was first seen completed or failed, as a Unix time.",
        write: |series, toggle| series.time(toggle.run.finished.map(|finish| finish.at)),
    },
    Family {
        open: "cekura_toggle_finished_total{",
        kind: Kind::Counter,
        help: "Runs of this watch that were seen to finish, each once.",
        write: |series, toggle| {
            series.int(r#",status="completed""#, toggle.tally.completed.into());
            series.int(r#",status="failed""#, toggle.tally.failed.into());
        },
    },
    Family {
        open: "cekura_toggle_info{",
        kind: Kind::Gauge,
        help: "What is watched; always 1.",
        write: |series, toggle| series.info(&toggle.watch),
    },
    Family {
        open: "cekura_toggle_last_completed_timestamp_seconds{",
        kind: Kind::Gauge,
        help: "When a run of this watch last completed, as a Unix time.",
        write: |series, toggle| series.time(toggle.tally.last_completed),
    },
    Family {
        open: "cekura_toggle_last_failed_timestamp_seconds{",
        kind: Kind::Gauge,
        help: "When a run of this watch last failed, as a Unix time.",
        write: |series, toggle| series.time(toggle.tally.last_failed),
    },
    Family {
        open: "cekura_toggle_last_mismatched_timestamp_seconds{",
        kind: Kind::Gauge,
        help: "When a run of this watch last completed in another state than was expected, as a Unix time.",
        write: |series, toggle| series.time(toggle.tally.last_mismatched),
    },
    Family {
        open: "cekura_toggle_last_success_timestamp_seconds{",
        kind: Kind::Gauge,
        help: "When a poll of the run last brought a valid answer, as a Unix time.",
        write: |series, toggle| series.time(toggle.run.last_success),
    },
    Family {
        open: "cekura_toggle_mcp_endpoints{",
        kind: Kind::Gauge,
        help: "MCP mock endpoints that are registered.",
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
        help: "Whether the run completed in another state than was expected.",
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
        help: "Why the last poll brought no valid answer; absent after one that did.",
        write: |series, toggle| {
            if let Some(failing) = &toggle.run.failing {
                series.start();
                series.raw(r#",reason=""#);
                series.raw(failing.reason.as_str());
                series.raw("\"} 1\n");
            }
        },
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
        help: "How a run of this watch ended badly; absent since one ended well.",
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
        help: "When the run was first watched, as a Unix time.",
        write: |series, toggle| series.time(Some(toggle.run.started)),
    },
    Family {
        open: "cekura_toggle_status{",
        kind: Kind::Gauge,
        help: "The status of the run: exactly one of the four is 1.",
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
        help: "Whether the last poll of the run brought a valid answer.",
        write: |series, toggle| series.maybe_flag(toggle.run.up()),
    },
];

/// The families of agents, sorted by name.
pub(super) const AGENT_FAMILIES: [Family<AgentMock>; 2] = [
    Family {
        open: "cekura_agent_mock_enabled{",
        kind: Kind::Gauge,
        help: "Whether the agent's mocks are on (1) or off (0), as its newest completed run said.",
        write: |series, agent| series.maybe_flag(agent.enabled()),
    },
    Family {
        open: "cekura_agent_mock_enabled_since_timestamp_seconds{",
        kind: Kind::Gauge,
        help: "Since when the agent's mocks are on, as a Unix time; absent while they are off.",
        write: |series, agent| series.time(agent.enabled_since()),
    },
];

/// What a configured agent should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AgentExpected(pub Expect);

/// The families of configured agents.
pub(super) const AGENT_EXPECTED_FAMILIES: [Family<AgentExpected>; 1] = [Family {
    open: "cekura_agent_expected{",
    kind: Kind::Gauge,
    help: "What the mocks of this agent should be by the configuration; always 1.",
    write: |series, expected| {
        series.whole(match expected.0 {
            Expect::Enabled => ",expect=\"enabled\"} 1\n",
            Expect::Disabled => ",expect=\"disabled\"} 1\n",
        });
    },
}];

/// Whether a source of watches could be read when it was last looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SourceUp(pub bool);

/// The families of sources.
pub(super) const SOURCE_FAMILIES: [Family<SourceUp>; 1] = [Family {
    open: "cekura_exporter_source_up{",
    kind: Kind::Gauge,
    help: "Whether the source could be read when it was last looked at.",
    write: |series, up| series.maybe_flag(Some(up.0)),
}];

// === impl Family ===

impl<T> Family<T> {
    /// What is said of the family.
    pub(super) fn description(&self) -> Description<'static> {
        Description { name: &self.open[..self.open.len() - 1], kind: self.kind, help: self.help }
    }

    /// Writes the series of one thing with its labels, if it has any now.
    pub(super) fn put(&self, out: &mut Vec<u8>, labels: &[u8], thing: &T) {
        (self.write)(&mut Series { out, open: self.open, labels }, thing);
    }
}

// === impl Series ===

impl Series<'_> {
    #[inline]
    fn raw(&mut self, text: &str) {
        self.out.extend_from_slice(text.as_bytes());
    }

    /// The name and the thing's own labels; more labels may follow.
    #[inline]
    fn start(&mut self) {
        self.raw(self.open);
        self.out.extend_from_slice(self.labels);
    }

    /// A series with all that comes after the thing's own labels.
    #[inline]
    fn whole(&mut self, end: &'static str) {
        self.start();
        self.raw(end);
    }

    /// A series with a whole number. `more` is label text that begins with a comma.
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

    /// A series with a time, in seconds to the millisecond.
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
