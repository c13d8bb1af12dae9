//! The timeline of a toggle: what its task was, and how polls went.
//!
//! It is a picture that the server draws. Positions are percentages, so it fits every screen and its texts keep their
//! size. Each part of it can be chosen with the keyboard, the mouse or a finger, and then says what it shows.

use std::fmt::{self, Write as _};
use std::time::Duration;

use super::html::{Time, utc};
use crate::config::format_duration;
use crate::toggle::{Event, EventKind, Run, Status, Timestamp, Toggle};

/// What a toggle did over time.
pub(super) struct Timeline {
    /// The times at its two ends.
    start: Timestamp,
    end: Timestamp,
    /// Whether what is at the end goes on until now, and only its beginning is shown.
    is_cut: bool,
    lanes: [TimelineLane; 2],
}

/// One row of the picture.
struct TimelineLane {
    title: &'static str,
    /// They follow each other without gaps.
    stretches: Vec<Stretch>,
}

/// A time in which nothing changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stretch {
    from: Timestamp,
    /// `None` if it goes on.
    to: Option<Timestamp>,
    phase: TimelinePhase,
}

/// What can be so for a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TimelinePhase {
    /// No answer has told a documented status yet.
    Unknown,
    InProgress,
    Completed,
    /// Completed in another state than expected.
    Mismatched,
    Failed,
    /// There has been no poll yet.
    Unpolled,
    Answering,
    Failing,
    /// The run is finished and not polled any more.
    Done,
}

/// What a tick of the axis tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TickForm {
    Second,
    Minute,
    Day,
}

const SECOND: u64 = 1000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// How far ticks may be from each other, in milliseconds.
const STEPS: [u64; 23] = [
    SECOND,
    2 * SECOND,
    5 * SECOND,
    10 * SECOND,
    15 * SECOND,
    30 * SECOND,
    MINUTE,
    2 * MINUTE,
    5 * MINUTE,
    10 * MINUTE,
    15 * MINUTE,
    30 * MINUTE,
    HOUR,
    2 * HOUR,
    3 * HOUR,
    6 * HOUR,
    12 * HOUR,
    DAY,
    2 * DAY,
    7 * DAY,
    14 * DAY,
    28 * DAY,
    91 * DAY,
];

/// How many ticks there are at most: their texts must not touch each other on a phone.
const MAX_TICKS: u64 = 4;

/// What happened earlier than this before the end is not shown, unless it belongs to the run that is watched.
const SHOWN: Duration = Duration::from_hours(24);

/// How much is shown at least.
const SHORTEST: Duration = Duration::from_secs(1);

/// How wide a part is at least, in percent, so that it is seen.
const NARROWEST: f64 = 0.75;

/// How wide a part must be for the shape that tells it from others, in percent.
const ROOM_FOR_SHAPE: f64 = 6.0;

// === impl Timeline ===

impl Timeline {
    /// The timeline of a toggle until `now`, from its events, which are given newest first. Less may be known of the
    /// past than of now: not all events are kept. `is_done` says whether the toggle is not polled any more.
    pub(super) fn of(toggle: &Toggle, events: &[Event], is_done: bool, now: Timestamp) -> Self {
        let run = &toggle.run;
        let first = events.last().map_or(run.started, |event| event.at.min(run.started));
        let lanes = [
            TimelineLane { title: "Task", stretches: task_stretches(toggle, events, first) },
            TimelineLane { title: "Polls", stretches: poll_stretches(run, events, first, is_done) },
        ];
        let last = lanes.iter().filter_map(|lane| lane.stretches.last()).map(|stretch| stretch.from).max();
        let last = last.unwrap_or(first);
        // Of what is over for a long time, the end would leave no room for the rest.
        let is_over = run.finished.is_some() && run.failing.is_none();
        let begin_of = |end: Timestamp| first.max(run.started.min(end.before(SHOWN)));
        let tail = SHORTEST.max(last.since(begin_of(last)) / 2);
        let end = if is_over { now.min(last.after(tail)) } else { now };
        let end = end.max(first.after(SHORTEST));
        Self { start: begin_of(end), end, is_cut: end < now, lanes }
    }

    /// Writes the picture and what explains it.
    pub(super) fn write(&self, page: &mut String) -> fmt::Result {
        let until = if self.is_cut { "Nothing has changed since." } else { "" };
        writeln!(page, "<p class=\"more\">From {} to {}. {until}</p>", Time(self.start), Time(self.end))?;
        page.push_str(
            "<svg class=\"timeline\" id=\"picture\" width=\"100%\" height=\"162\" role=\"group\" \
             aria-label=\"Timeline of the task and its polls\">\n",
        );
        for (lane, top) in self.lanes.iter().zip([0, 50]) {
            self.write_lane(page, lane, top)?;
        }
        self.write_axis(page)?;
        page.push_str("<text class=\"hint\" x=\"0\" y=\"140\">Choose a part to see its time.</text>\n</svg>\n");
        self.write_legend(page)
    }

    fn write_lane(&self, page: &mut String, lane: &TimelineLane, top: u32) -> fmt::Result {
        writeln!(page, "<text class=\"lane\" x=\"0\" y=\"{}\">{}</text>", top + 12, lane.title)?;
        for stretch in &lane.stretches {
            let ends = stretch.to.unwrap_or(self.end).min(self.end);
            if ends <= self.start && stretch.to.is_some() {
                continue;
            }
            let (left, right) = (self.percent(stretch.from), self.percent(ends));
            let width = (right - left).max(NARROWEST);
            let x = left.min(100.0 - width);
            let (class, title) = (stretch.phase.class(), lane.title);
            let (what, since) = (stretch.what(title), stretch.since());
            write!(
                page,
                "<g tabindex=\"0\" role=\"img\" data-key=\"{title}-{}\"><title>{what}, {since} {}</title>\
                 <rect class=\"{class}\" x=\"{x:.2}%\" y=\"{}\" width=\"{width:.2}%\" height=\"26\"/>",
                stretch.from.as_millis(),
                utc(stretch.from),
                top + 18
            )?;
            if width >= ROOM_FOR_SHAPE {
                write!(
                    page,
                    "<text class=\"shape\" x=\"{x:.2}%\" dx=\"6\" y=\"{}\">{}</text>",
                    top + 36,
                    stretch.phase.shape()
                )?;
            }
            writeln!(
                page,
                "<text class=\"words\" x=\"0\" y=\"140\">{what}<tspan x=\"0\" dy=\"16\">{since} \
                 <tspan data-at=\"{from}\" data-form=\"full\">{}</tspan></tspan></text></g>",
                utc(stretch.from),
                from = stretch.from
            )?;
        }
        Ok(())
    }

    /// Writes the times below the lanes.
    fn write_axis(&self, page: &mut String) -> fmt::Result {
        page.push_str("<line class=\"axis\" x1=\"0\" x2=\"100%\" y1=\"101\" y2=\"101\"/>\n");
        let (step, form) = self.ticks();
        let mut tick = self.start.as_millis().next_multiple_of(step);
        while tick <= self.end.as_millis() {
            let at = Timestamp::from_millis(tick);
            let x = self.percent(at);
            let anchor = match x {
                ..8.0 => "start",
                92.0.. => "end",
                _ => "middle",
            };
            writeln!(
                page,
                "<line class=\"axis\" x1=\"{x:.2}%\" x2=\"{x:.2}%\" y1=\"101\" y2=\"106\"/>\
                 <text class=\"tick\" x=\"{x:.2}%\" y=\"119\" text-anchor=\"{anchor}\" data-at=\"{at}\" data-form=\"{}\">{}</text>",
                form.as_str(),
                form.utc(at)
            )?;
            tick = tick.saturating_add(step);
        }
        Ok(())
    }

    /// How far ticks are from each other, in milliseconds, and what they tell.
    fn ticks(&self) -> (u64, TickForm) {
        let span = self.end.as_millis() - self.start.as_millis();
        let step = STEPS.into_iter().find(|step| span / step < MAX_TICKS).unwrap_or(span);
        let form = match step {
            ..MINUTE => TickForm::Second,
            DAY.. => TickForm::Day,
            _ => TickForm::Minute,
        };
        (step, form)
    }

    /// Writes what the colours and shapes mean.
    fn write_legend(&self, page: &mut String) -> fmt::Result {
        page.push_str("<ul class=\"legend\" aria-label=\"What the colours mean\">\n");
        for lane in &self.lanes {
            let mut told = Vec::new();
            for Stretch { phase, .. } in &lane.stretches {
                if told.contains(phase) {
                    continue;
                }
                told.push(*phase);
                writeln!(
                    page,
                    "<li><svg class=\"swatch\" width=\"18\" height=\"18\" aria-hidden=\"true\"><rect class=\"{}\" width=\"18\" height=\"18\"/>\
                     <text class=\"shape\" x=\"9\" y=\"13\" text-anchor=\"middle\">{}</text></svg> {}</li>",
                    phase.class(),
                    phase.shape(),
                    phase.word()
                )?;
            }
        }
        page.push_str("</ul>\n");
        Ok(())
    }

    /// Where a time is between the two ends.
    fn percent(&self, at: Timestamp) -> f64 {
        let at = at.clamp(self.start, self.end);
        100.0 * at.since(self.start).as_secs_f64() / self.end.since(self.start).as_secs_f64()
    }
}

/// What the task was, from `first` on.
fn task_stretches(toggle: &Toggle, events: &[Event], first: Timestamp) -> Vec<Stretch> {
    let run = &toggle.run;
    let change = |event: &Event| match &event.kind {
        EventKind::RunStarted { .. } => Some((TimelinePhase::Unknown, TimelinePhase::Unknown)),
        EventKind::StatusChanged { from, to, mismatch, .. } => {
            Some((TimelinePhase::of_status(*from, false), TimelinePhase::of_status(*to, *mismatch)))
        }
        _ => None,
    };
    let changes: Vec<_> = events.iter().rev().filter_map(|event| Some((event.at, change(event)?))).collect();
    let initial = changes.first().map_or(TimelinePhase::Unknown, |(_, (before, _))| *before);
    let mut phases = vec![(first, initial)];
    phases.extend(changes.iter().map(|(at, (_, phase))| (*at, *phase)));
    if let (Some(finish), true) = (run.finished, changes.is_empty()) {
        phases.push((finish.at, initial));
    }
    // How it is now is known, whatever is kept.
    let is = TimelinePhase::of_status(run.last_answer.status, toggle.mismatch() == Some(true));
    stretches(phases, is)
}

/// How polls went, from `first` on.
fn poll_stretches(run: &Run, events: &[Event], first: Timestamp, is_done: bool) -> Vec<Stretch> {
    let mut phases = vec![(first, TimelinePhase::Unpolled)];
    for event in events.iter().rev() {
        let phase = match &event.kind {
            EventKind::PollFailed { .. } => TimelinePhase::Failing,
            EventKind::RunStarted { .. } => TimelinePhase::Unpolled,
            EventKind::Recovered { lasted, .. } => {
                if phases.len() == 1 {
                    // The event that it began to fail was not kept.
                    phases.push((event.at.before(*lasted).max(first), TimelinePhase::Failing));
                }
                TimelinePhase::Answering
            }
            EventKind::StatusChanged { .. } | EventKind::UnrecognisedStatus { .. } => TimelinePhase::Answering,
        };
        if phases.last().is_none_or(|(_, last)| *last != phase) {
            phases.push((event.at, phase));
        }
    }
    let is = match run.up() {
        Some(true) => TimelinePhase::Answering,
        Some(false) => TimelinePhase::Failing,
        None => TimelinePhase::Unpolled,
    };
    if let Some(failing) = &run.failing
        && phases.last().is_some_and(|(at, last)| *last != TimelinePhase::Failing && *at < failing.since)
    {
        phases.push((failing.since, TimelinePhase::Failing));
    }
    let mut polls = stretches(phases, is);
    if let Some(finish) = run.finished
        && is_done
        && let Some(last) = polls.last_mut()
    {
        let at = run.last_success.map_or(finish.at, |last| last.max(finish.at)).max(last.from);
        last.to = Some(at);
        polls.retain(Stretch::is_seen);
        polls.push(Stretch { from: at, to: None, phase: TimelinePhase::Done });
    }
    polls
}

/// The stretches that begin with these phases, the last of which `is` now.
fn stretches(mut phases: Vec<(Timestamp, TimelinePhase)>, is: TimelinePhase) -> Vec<Stretch> {
    if let Some((_, last)) = phases.last_mut() {
        *last = is;
    }
    let ends = phases.iter().skip(1).map(|(at, _)| Some(*at)).chain([None]);
    let stretches = phases.iter().zip(ends).map(|((from, phase), to)| Stretch { from: *from, to, phase: *phase });
    stretches.filter(Stretch::is_seen).collect()
}

// === impl Stretch ===

impl Stretch {
    /// Whether it is long enough to be shown, as most are not in which something is not known yet.
    fn is_seen(&self) -> bool {
        self.to.is_none_or(|to| to.since(self.from) >= Duration::from_secs(1))
    }

    /// What was so in which lane, and for how long.
    fn what(&self, lane: &str) -> String {
        let word = self.phase.word();
        match self.to.map(|to| Duration::from_secs(to.since(self.from).as_secs())) {
            Some(lasted) => format!("{lane}: {word} for {}", format_duration(lasted)),
            None => format!("{lane}: {word}"),
        }
    }

    /// Since when it has been so, or from when it was.
    fn since(&self) -> &'static str {
        if self.to.is_some() { "from" } else { "since" }
    }
}

// === impl TimelinePhase ===

impl TimelinePhase {
    fn of_status(status: Status, mismatch: bool) -> Self {
        match status {
            Status::Unknown => Self::Unknown,
            Status::InProgress => Self::InProgress,
            Status::Completed if mismatch => Self::Mismatched,
            Status::Completed => Self::Completed,
            Status::Failed => Self::Failed,
        }
    }

    fn class(self) -> &'static str {
        match self {
            Self::Unknown | Self::Unpolled => "unknown",
            Self::Done => "done",
            Self::InProgress => "in_progress",
            Self::Completed => "completed",
            Self::Mismatched => "mismatched",
            Self::Failed => "failed",
            Self::Answering => "answering",
            Self::Failing => "failing",
        }
    }

    fn shape(self) -> &'static str {
        match self {
            Self::Unknown => "?",
            Self::InProgress => "▸",
            Self::Completed => "✔",
            Self::Mismatched => "≠",
            Self::Failed => "✖",
            Self::Unpolled => "○",
            Self::Answering => "✓",
            Self::Failing => "△",
            Self::Done => "–",
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Unknown => "status not known",
            Self::InProgress => "in progress",
            Self::Completed => "completed",
            Self::Mismatched => "completed, not as expected",
            Self::Failed => "failed",
            Self::Unpolled => "no answer yet",
            Self::Answering => "answered",
            Self::Failing => "polls failed",
            Self::Done => "no more polls",
        }
    }
}

// === impl TickForm ===

impl TickForm {
    /// Its name for the script.
    fn as_str(self) -> &'static str {
        match self {
            Self::Second => "second",
            Self::Minute => "minute",
            Self::Day => "day",
        }
    }

    /// The time of a tick in UTC.
    fn utc(self, at: Timestamp) -> String {
        let full = at.to_string();
        let part = match self {
            Self::Second => full.get(11..19),
            Self::Minute => full.get(11..16),
            Self::Day => full.get(5..10),
        };
        part.unwrap_or_default().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::toggle::sample::{answer, at, watch};
    use crate::toggle::{Answer, Expect, Failure, Outcome, ProgressId, Reason, ReportedStatus, Text, Watch};

    /// The toggle after these outcomes of polls, each at a second.
    fn toggle(outcomes: impl IntoIterator<Item = (u64, Outcome)>) -> Toggle {
        let watch = Watch { expect: Some(Expect::Enabled), ..watch("a", "1") };
        let mut toggle = Toggle::new(Arc::new(watch), at(0));
        for (second, outcome) in outcomes {
            toggle.apply(outcome, at(second));
        }
        toggle
    }

    fn says(status: ReportedStatus, mock_enabled: Option<bool>) -> Answer {
        Answer { message: Some(Text::own("m")), ..answer(status, mock_enabled) }
    }

    fn fails() -> Outcome {
        Err(Failure::new(Reason::Dns))
    }

    fn status_changed(second: u64, from: Status, to: Status, mismatch: bool) -> Event {
        Event { at: at(second), kind: EventKind::StatusChanged { from, to, duration: None, mismatch, text: None } }
    }

    fn poll_failed(second: u64) -> Event {
        Event { at: at(second), kind: EventKind::PollFailed { reason: Reason::Dns, detail: None } }
    }

    fn recovered(second: u64, lasted: u64) -> Event {
        let lasted = Duration::from_secs(lasted);
        Event { at: at(second), kind: EventKind::Recovered { reason: Reason::Dns, lasted } }
    }

    fn run_started(second: u64) -> Event {
        let progress_id = ProgressId::restore("p").unwrap();
        Event { at: at(second), kind: EventKind::RunStarted { progress_id } }
    }

    /// When each phase of the task and of its polls began, in seconds.
    fn lanes(toggle: &Toggle, mut events: Vec<Event>, is_done: bool) -> [Vec<(u64, TimelinePhase)>; 2] {
        events.reverse();
        let timeline = Timeline::of(toggle, &events, is_done, at(100));
        for lane in &timeline.lanes {
            let mut ends = lane.stretches.iter().map(|stretch| stretch.to);
            assert_eq!(ends.next_back(), Some(None), "the last one goes on");
            let begins = lane.stretches.iter().skip(1).map(|stretch| Some(stretch.from));
            assert!(ends.eq(begins), "there are no gaps");
        }
        let second = |stretch: &Stretch| (stretch.from.since(at(0)).as_secs(), stretch.phase);
        timeline.lanes.map(|lane| lane.stretches.iter().map(second).collect())
    }

    #[test]
    fn the_task_and_its_polls_are_told_from_the_events() {
        let toggle = toggle([
            (30, Ok(says(ReportedStatus::InProgress, None))),
            (60, Ok(says(ReportedStatus::Completed, Some(false)))),
        ]);
        let events = vec![
            poll_failed(10),
            recovered(30, 20),
            status_changed(30, Status::Unknown, Status::InProgress, false),
            status_changed(60, Status::InProgress, Status::Completed, true),
        ];
        let task = vec![(0, TimelinePhase::Unknown), (30, TimelinePhase::InProgress), (60, TimelinePhase::Mismatched)];
        let polls = vec![(0, TimelinePhase::Unpolled), (10, TimelinePhase::Failing), (30, TimelinePhase::Answering)];
        assert_eq!(lanes(&toggle, events.clone(), false), [task.clone(), polls.clone()]);
        assert_eq!(lanes(&toggle, events, true), [task, [polls, vec![(60, TimelinePhase::Done)]].concat()]);
    }

    #[test]
    fn what_is_not_known_of_the_past_does_not_belie_what_is_known_now() {
        let completed = || Ok(says(ReportedStatus::Completed, Some(false)));
        let mismatched = toggle([(9, completed())]);
        assert_eq!(
            lanes(&mismatched, vec![], false),
            [vec![(0, TimelinePhase::Unknown), (9, TimelinePhase::Mismatched)], vec![(0, TimelinePhase::Answering)]]
        );
        let failing = toggle([(5, Ok(says(ReportedStatus::InProgress, None))), (7, fails()), (8, fails())]);
        assert_eq!(
            lanes(&failing, vec![], false),
            [vec![(0, TimelinePhase::InProgress)], vec![(0, TimelinePhase::Unpolled), (7, TimelinePhase::Failing)]]
        );
        assert_eq!(
            lanes(&toggle([]), vec![], false),
            [vec![(0, TimelinePhase::Unknown)], vec![(0, TimelinePhase::Unpolled)]]
        );
        let failed = toggle([(9, Ok(says(ReportedStatus::Failed, None)))]);
        assert_eq!(
            lanes(&failed, vec![run_started(4)], false)[0],
            [(0, TimelinePhase::Unknown), (4, TimelinePhase::Failed)]
        );
        let again =
            toggle([(5, Ok(says(ReportedStatus::InProgress, None))), (70, Ok(says(ReportedStatus::InProgress, None)))]);
        assert_eq!(
            lanes(&again, vec![recovered(70, 60)], false)[1],
            [(0, TimelinePhase::Unpolled), (10, TimelinePhase::Failing), (70, TimelinePhase::Answering)]
        );
    }

    #[test]
    fn the_end_of_what_is_over_is_cut() {
        let span = |toggle: &Toggle, events: &[Event], now: u64| {
            let timeline = Timeline::of(toggle, events, false, at(now));
            (timeline.start.since(at(0)).as_secs(), timeline.end.since(at(0)).as_secs(), timeline.is_cut)
        };
        let completed = toggle([(40, Ok(says(ReportedStatus::Completed, Some(true))))]);
        let events = [status_changed(40, Status::Unknown, Status::Completed, false)];
        assert_eq!(span(&completed, &events, 50), (0, 50, false));
        assert_eq!(span(&completed, &events, 100_000), (0, 60, true));
        let goes_on = toggle([(40, Ok(says(ReportedStatus::InProgress, None)))]);
        assert_eq!(span(&goes_on, &[], 100_000), (0, 100_000, false), "a run is shown from its beginning");
        assert_eq!(span(&toggle([]), &[], 0), (0, 1, false), "it has a width");
    }

    #[test]
    fn runs_of_earlier_days_are_left_out() {
        let mut toggle = toggle([]);
        let day = 24 * 3600;
        toggle.redefine(Arc::new(watch("a", "2")), at(9 * day));
        let events = [run_started(9 * day), status_changed(10, Status::Unknown, Status::Completed, false)];
        let timeline = Timeline::of(&toggle, &events, false, at(9 * day + 60));
        assert_eq!(timeline.start, at(8 * day + 60));
        let mut page = String::new();
        timeline.write(&mut page).unwrap();
        assert_eq!(page.matches("<g ").count(), 4, "{page}");
        assert!(page.contains("Task: completed for 8d23h59m50s, from 1970-01-01 00:16:50 UTC"), "{page}");
    }

    #[test]
    fn ticks_are_few_and_at_round_times() {
        for seconds in [1, 2, 9, 59, 61, 600, 3601, 90_000, 1_000_000, 30_000_000, 1_000_000_000] {
            let start = at(7);
            let lanes = ["Task", "Polls"].map(|title| TimelineLane { title, stretches: Vec::new() });
            let timeline = Timeline { start, end: start.after(Duration::from_secs(seconds)), is_cut: false, lanes };
            let mut page = String::new();
            timeline.write_axis(&mut page).unwrap();
            let ticks = page.matches("class=\"tick\"").count();
            assert!((1..=5).contains(&ticks), "{ticks} in {seconds}s: {page}");
            for x in page.split(" x=\"").skip(1).filter_map(|rest| rest.split('%').next()) {
                assert!((0.0..=100.0).contains(&x.parse::<f64>().unwrap()), "{page}");
            }
        }
    }

    #[test]
    fn each_part_says_what_it_shows_and_stays_within_the_picture() {
        let toggle = toggle([(99, Ok(says(ReportedStatus::Failed, None)))]);
        let events = [status_changed(99, Status::Unknown, Status::Failed, false)];
        let mut page = String::new();
        Timeline::of(&toggle, &events, false, at(99)).write(&mut page).unwrap();
        assert!(
            page.contains("<title>Task: status not known for 1m39s, from 1970-01-01 00:16:40 UTC</title>"),
            "{page}"
        );
        assert!(page.contains("<title>Task: failed, since 1970-01-01 00:18:19 UTC</title>"), "{page}");
        assert!(page.contains("<rect class=\"failed\" x=\"99.25%\" y=\"18\" width=\"0.75%\""), "{page}");
        assert_eq!(page.matches("tabindex=\"0\"").count(), 4, "{page}");
    }
}
