//! Compares the notifications with what was required and allowed.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use super::plan::Time;
use super::truth::{Expected, Must};
use super::webhook::{Change, Subject, Told};

/// The number of examples that are kept of each kind of error.
const EXAMPLES: usize = 5;

/// The result for each alert, by name.
#[derive(Default)]
pub(crate) struct Verdict {
    pub(crate) alerts: BTreeMap<String, Tally>,
    /// Examples of errors.
    pub(crate) wrong: Vec<String>,
}

/// The result for one alert.
#[derive(Default)]
pub(crate) struct Tally {
    /// Whether the plan has the alert fire at all.
    pub(crate) is_expected: bool,
    /// How many notifications were required, and how many came in time.
    pub(crate) due: usize,
    pub(crate) seen: usize,
    /// The number of errors of each kind.
    pub(crate) wrong: BTreeMap<Wrong, usize>,
    /// The times from true to notified, without those that an outage or a restart put off.
    pub(crate) delays: Vec<Time>,
    /// The longest delay that is allowed for these.
    pub(crate) bound: Time,
    /// The number of notifications that were not due when the run ended.
    pub(crate) open: usize,
}

/// The kinds of errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Wrong {
    /// The receiver was not notified.
    Missed,
    /// The receiver was notified after the bound.
    Late,
    /// The receiver was notified of something that was not true.
    False,
    /// The alert was resolved while it was true.
    Dropped,
    /// The alert was not resolved in time.
    Unresolved,
    /// The receiver was notified again without news.
    Twice,
    /// Another receiver was notified.
    Misrouted,
}

/// From a notification that an alert fires to the one that it is resolved.
#[derive(Debug, Clone, Copy)]
struct Firing {
    from: Time,
    to: Time,
}

// === impl Verdict ===

impl Verdict {
    /// Judges what was notified until `end`.
    pub(crate) fn of(
        told: &Told,
        expected: &HashMap<Subject, Expected>,
        end: Time,
        about: impl Fn(&Subject) -> String,
    ) -> Self {
        let mut verdict = Self::default();
        let none = Vec::new();
        for (subject, expected) in expected {
            let firings = firings(told.changes.get(subject).unwrap_or(&none));
            let tally = verdict.alerts.entry(subject.alert.clone()).or_default();
            tally.is_expected |= expected.is_planned;
            let wrong = judge(expected, &firings, end, tally);
            for (what, at) in wrong {
                let must: Vec<_> = expected.must.iter().map(|must| (must.since, must.due, must.until)).collect();
                let told = format!("must {must:.1?} may {:.1?} told {firings:.1?}", expected.may);
                verdict.note(what, subject, at, &format!("{} {told}", about(subject)));
            }
            for receiver in told.receivers.get(subject).into_iter().flatten() {
                if *receiver != expected.receiver {
                    let told = format!("to {receiver} and not to {}", expected.receiver);
                    verdict.note(Wrong::Misrouted, subject, 0.0, &told);
                }
            }
        }
        for (subject, changes) in &told.changes {
            if !expected.contains_key(subject) {
                for change in changes.iter().filter(|change| change.fires) {
                    verdict.note(Wrong::False, subject, change.at, &about(subject));
                }
            }
        }
        for (at, subject) in told.repeated.iter().chain(&told.doubled) {
            verdict.note(Wrong::Twice, subject, *at, "the same again");
        }
        verdict
    }

    /// Adds another verdict to this one.
    pub(crate) fn add(&mut self, other: Self) {
        for (alert, other) in other.alerts {
            let tally = self.alerts.entry(alert).or_default();
            tally.is_expected |= other.is_expected;
            tally.due += other.due;
            tally.seen += other.seen;
            tally.open += other.open;
            tally.bound = tally.bound.max(other.bound);
            tally.delays.extend(other.delays);
            for (what, count) in other.wrong {
                *tally.wrong.entry(what).or_default() += count;
            }
        }
        self.wrong.extend(other.wrong);
    }

    /// The alerts of which no notification was due before the run ended.
    pub(crate) fn not_judged(&self) -> impl Iterator<Item = &str> {
        self.alerts.iter().filter(|(_, tally)| tally.due == 0 && tally.is_expected).map(|(alert, _)| alert.as_str())
    }

    /// The number of errors.
    pub(crate) fn wrong(&self) -> usize {
        self.alerts.values().flat_map(|tally| tally.wrong.values()).sum()
    }

    fn note(&mut self, what: Wrong, subject: &Subject, at: Time, more: &str) {
        let tally = self.alerts.entry(subject.alert.clone()).or_default();
        let count = tally.wrong.entry(what).or_default();
        *count += 1;
        if *count <= EXAMPLES {
            let Subject { alert, api, toggle, agent } = subject;
            self.wrong.push(format!("{alert} {what:?} at {at:.1}: {api} {toggle} {agent} {more}"));
        }
    }
}

fn firings(changes: &[Change]) -> Vec<Firing> {
    let mut firings = Vec::<Firing>::new();
    for change in changes {
        match firings.last_mut() {
            Some(last) if !change.fires => last.to = change.at,
            _ if change.fires => firings.push(Firing { from: change.at, to: f64::INFINITY }),
            _ => {}
        }
    }
    firings
}

/// The errors of one subject, and when they happened.
fn judge(expected: &Expected, firings: &[Firing], end: Time, tally: &mut Tally) -> Vec<(Wrong, Time)> {
    let mut wrong = Vec::new();
    for must in &expected.must {
        if must.due > end {
            tally.open += 1;
            continue;
        }
        tally.due += 1;
        wrong.extend(judge_one(must, firings, end, tally));
    }
    for firing in firings {
        let may = expected.may.iter().filter(|(from, to)| *from <= firing.from && firing.from < *to);
        match may.map(|(_, to)| *to).reduce(f64::max) {
            None => wrong.push((Wrong::False, firing.from)),
            Some(mut over) => {
                // An alert that becomes true again before it had to be resolved stays.
                while let Some((_, to)) = expected.may.iter().find(|(from, to)| *from <= over && *to > over) {
                    over = *to;
                }
                if over < end && firing.to > over {
                    wrong.push((Wrong::Unresolved, over));
                }
            }
        }
    }
    wrong
}

fn judge_one(must: &Must, firings: &[Firing], end: Time, tally: &mut Tally) -> Vec<(Wrong, Time)> {
    let mut wrong = Vec::new();
    let until = must.until.min(end);
    let is_known = |at: Time| firings.iter().find(|firing| firing.from <= at && firing.to > at);
    let later = firings.iter().find(|firing| firing.from > must.due && firing.from < until);
    match (is_known(must.due), later) {
        (Some(firing), _) => {
            tally.seen += 1;
            if must.calm {
                tally.bound = tally.bound.max(must.due - must.since);
                tally.delays.extend((firing.from >= must.since).then_some(firing.from - must.since));
            }
        }
        // It was notified, and resolved before the deadline.
        _ if firings.iter().any(|firing| firing.to >= must.since && firing.to <= must.due) => {
            wrong.push((Wrong::Dropped, must.due));
        }
        (None, Some(firing)) => wrong.push((Wrong::Late, firing.from)),
        (None, None) => wrong.push((Wrong::Missed, must.due)),
    }
    let inside = |at: Time| at > must.due && at < until;
    for firing in firings.iter().filter(|firing| inside(firing.to)) {
        wrong.push((Wrong::Dropped, firing.to));
        if firings.iter().any(|next| next.from >= firing.to && next.from < until) {
            wrong.push((Wrong::Twice, firing.to));
        }
    }
    wrong
}

// === impl Wrong ===

impl Wrong {
    pub(crate) const ALL: [Self; 7] =
        [Self::Missed, Self::Late, Self::False, Self::Dropped, Self::Unresolved, Self::Twice, Self::Misrouted];

    fn as_str(self) -> &'static str {
        match self {
            Self::Missed => "missed",
            Self::Late => "late",
            Self::False => "false",
            Self::Dropped => "dropped",
            Self::Unresolved => "unresolved",
            Self::Twice => "twice",
            Self::Misrouted => "misrouted",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<28}{:>7}{:>7}", "alert", "due", "seen")?;
        for wrong in Wrong::ALL {
            write!(f, "{:>11}", wrong.as_str())?;
        }
        writeln!(f, "{:>7}{:>8}{:>8}{:>8}{:>8}", "open", "p50", "p99", "max", "bound")?;
        for (alert, tally) in &self.alerts {
            write!(f, "{alert:<28}{:>7}{:>7}", tally.due, tally.seen)?;
            for wrong in Wrong::ALL {
                write!(f, "{:>11}", tally.wrong.get(&wrong).copied().unwrap_or_default())?;
            }
            let mut delays = tally.delays.clone();
            delays.sort_by(Time::total_cmp);
            let percentile = |percent| super::harness::percentile(&delays, percent);
            let [p50, p99, max] = [50, 99, 100].map(percentile);
            writeln!(f, "{:>7}{p50:>8.1}{p99:>8.1}{max:>8.1}{:>8.1}", tally.open, tally.bound)?;
        }
        for wrong in &self.wrong {
            writeln!(f, "  {wrong}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(dead_code, unused_imports, reason = "where this is a bench, it has no tests")]
mod tests {
    use super::*;

    fn told(changes: &[(Time, bool)]) -> Vec<Firing> {
        firings(&changes.iter().map(|(at, fires)| Change { at: *at, fires: *fires }).collect::<Vec<_>>())
    }

    /// The errors for an alert that is true from 10 to 50, due at 20 and to be resolved by 70.
    fn wrong(changes: &[(Time, bool)]) -> Vec<(Wrong, Time)> {
        let expected = Expected {
            subject: Subject::default(),
            receiver: String::new(),
            must: vec![Must { since: 10.0, due: 20.0, until: 50.0, calm: true }],
            may: vec![(10.0, 70.0)],
            is_planned: true,
        };
        judge(&expected, &told(changes), 100.0, &mut Tally::default())
    }

    #[test]
    fn a_notification_in_time_and_its_resolution_after_the_end_are_right() {
        assert_eq!(wrong(&[(15.0, true), (60.0, false)]), []);
    }

    #[test]
    fn each_kind_of_error_is_found() {
        assert_eq!(wrong(&[]), [(Wrong::Missed, 20.0)]);
        assert_eq!(wrong(&[(25.0, true), (60.0, false)]), [(Wrong::Late, 25.0)]);
        assert_eq!(wrong(&[(15.0, true)]), [(Wrong::Unresolved, 70.0)]);
        assert_eq!(wrong(&[(15.0, true), (30.0, false)]), [(Wrong::Dropped, 30.0)]);
        assert_eq!(wrong(&[(12.0, true), (15.0, false)]), [(Wrong::Dropped, 20.0)]);
        let again = [(15.0, true), (30.0, false), (35.0, true), (60.0, false)];
        assert_eq!(wrong(&again), [(Wrong::Dropped, 30.0), (Wrong::Twice, 30.0)]);
        let early = [(5.0, true), (6.0, false), (15.0, true), (60.0, false)];
        assert_eq!(wrong(&early), [(Wrong::False, 5.0)]);
        let after = [(15.0, true), (60.0, false), (80.0, true), (90.0, false)];
        assert_eq!(wrong(&after), [(Wrong::False, 80.0)]);
    }
}
