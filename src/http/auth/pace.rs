//! How fast the answers to failed logins leave, and how often they are logged.

use std::time::{Duration, Instant};

/// When the answers to failed logins leave: a few at once, then one for each two times that
/// verifying one takes. So who waits for the answers keeps half of one place busy, and where there
/// are two, three quarters are left for good logins: with less, these queue when they are many.
#[derive(Debug, Default)]
pub(super) struct AnswerSchedule {
    /// When all that was failed is paid for.
    paid: Option<Instant>,
}

/// How long verifying a password takes of late.
#[derive(Debug, Default)]
pub(super) struct Cost(Option<Duration>);

/// Failed logins that are not logged yet.
#[derive(Debug, Default)]
pub(super) struct Failures {
    count: u64,
    /// Whether somebody is about to log them.
    announced: bool,
    logged: Option<Instant>,
}

// === impl AnswerSchedule ===

impl AnswerSchedule {
    /// So many answers leave at once when none has left for a while.
    const AT_ONCE: u32 = 5;

    /// No answer is held back for longer: its client would have given up.
    const LONGEST: Duration = Duration::from_secs(10);

    /// The time from one answer to the next, in verifications.
    const APART: u32 = 2;

    /// How long to hold back the answer to a login that failed `now`, when verifying one takes
    /// `cost`.
    pub(super) fn hold(&mut self, now: Instant, cost: Duration) -> Duration {
        let price = cost * Self::APART;
        let credit = price * Self::AT_ONCE;
        let debt = self.paid.map_or(Duration::ZERO, |paid| paid.saturating_duration_since(now)) + price;
        let debt = debt.min(credit + Self::LONGEST);
        self.paid = Some(now + debt);
        debt.saturating_sub(credit)
    }
}

// === impl Cost ===

impl Cost {
    const LEAST: Duration = Duration::from_millis(20);
    /// The highest cost that is taken takes some four seconds.
    const MOST: Duration = Duration::from_secs(5);

    /// One was verified in that time.
    pub(super) fn note(&mut self, took: Duration) {
        let took = took.clamp(Self::LEAST, Self::MOST);
        self.0 = Some(self.0.map_or(took, |before| (before * 7 + took) / 8));
    }

    /// The time of the latest, smoothed, within bounds.
    pub(super) fn typical(&self) -> Duration {
        self.0.unwrap_or(Self::LEAST)
    }
}

// === impl Failures ===

impl Failures {
    /// The time from one log line to the next.
    const APART: Duration = Duration::from_secs(10);

    /// Counts one. If nobody is about to log it, somebody must after this time.
    pub(super) fn note(&mut self, now: Instant) -> Option<Duration> {
        self.count += 1;
        if std::mem::replace(&mut self.announced, true) {
            return None;
        }
        Some(self.logged.map_or(Duration::ZERO, |logged| (logged + Self::APART).saturating_duration_since(now)))
    }

    /// How many to log `now`.
    pub(super) fn report(&mut self, now: Instant) -> u64 {
        self.announced = false;
        self.logged = Some(now);
        std::mem::take(&mut self.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COST: Duration = Duration::from_millis(100);

    fn millis(hold: Duration) -> u128 {
        hold.as_millis()
    }

    #[test]
    fn a_few_answers_leave_at_once_and_the_others_one_after_the_other() {
        let (mut schedule, now) = (AnswerSchedule::default(), Instant::now());
        let holds: Vec<_> = (0..8).map(|_| millis(schedule.hold(now, COST))).collect();
        assert_eq!(holds, [0, 0, 0, 0, 0, 200, 400, 600]);
        assert_eq!(millis(schedule.hold(now + COST * 3, COST)), 500);
    }

    #[test]
    fn who_fails_slowly_is_not_held_back_and_pauses_are_credited() {
        let (mut schedule, start) = (AnswerSchedule::default(), Instant::now());
        let at = |n: u32| start + COST * n;
        let slow: Vec<_> = (0..50).map(|n| millis(schedule.hold(at(n * AnswerSchedule::APART), COST))).collect();
        assert!(slow.iter().all(|hold| *hold == 0), "{slow:?}");
        let mut burst = |n| (0..6).map(|_| millis(schedule.hold(at(n), COST))).collect::<Vec<_>>();
        assert_eq!(burst(200), [0, 0, 0, 0, 0, 200]);
        assert_eq!(burst(204), [0, 200, 400, 600, 800, 1000]);
    }

    #[test]
    fn nobody_is_held_back_for_longer_than_ten_seconds_nor_pays_for_longer() {
        let (mut schedule, now) = (AnswerSchedule::default(), Instant::now());
        let longest = (0..1000).map(|_| schedule.hold(now, COST)).max();
        assert_eq!(longest, Some(AnswerSchedule::LONGEST));
        let later = now + AnswerSchedule::LONGEST + COST * AnswerSchedule::APART;
        assert_eq!(schedule.hold(later, COST), Duration::ZERO);
    }

    #[test]
    fn a_flood_that_waits_for_its_answers_gets_half_of_one_place() {
        let (mut schedule, start) = (AnswerSchedule::default(), Instant::now());
        // Sixteen at a time, each sent anew when its answer has left.
        let mut answered = [Duration::ZERO; 16];
        let mut count = 0;
        while let Some(next) = answered.iter_mut().min().filter(|next| **next < COST * 1000) {
            *next += schedule.hold(start + *next, COST);
            count += 1;
        }
        assert!((500..=520).contains(&count), "{count}");
    }

    #[test]
    fn the_cost_is_smoothed_and_bounded() {
        let mut cost = Cost::default();
        assert_eq!(cost.typical(), Cost::LEAST);
        cost.note(Duration::from_millis(100));
        assert_eq!(millis(cost.typical()), 100);
        cost.note(Duration::from_millis(180));
        assert_eq!(millis(cost.typical()), 110);
        (0..100).for_each(|_| cost.note(Duration::from_micros(1)));
        assert_eq!(millis(cost.typical()), millis(Cost::LEAST));
        (0..100).for_each(|_| cost.note(Duration::from_hours(1)));
        assert!(cost.typical() > Cost::MOST * 9 / 10 && cost.typical() <= Cost::MOST);
    }

    #[test]
    fn failures_are_logged_at_once_and_then_together_every_ten_seconds() {
        let (mut failures, start) = (Failures::default(), Instant::now());
        let after = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(failures.note(start), Some(Duration::ZERO));
        assert_eq!(failures.note(start), None);
        assert_eq!(failures.report(start), 2);
        assert_eq!(failures.note(after(4)), Some(Duration::from_secs(6)));
        assert_eq!(failures.note(after(5)), None);
        assert_eq!(failures.report(after(10)), 2);
        assert_eq!(failures.note(after(60)), Some(Duration::ZERO));
        assert_eq!(failures.report(after(60)), 1);
    }
}
