//! What was true of the exporters themselves, of replicas as a group, and of their database.

use super::super::driver::TAKEN_OVER;
use super::super::plan::{Ending, Time};
use super::super::webhook::Subject;
use super::super::{Bounds, Settings};
use super::{Expected, Model, Must, receiver};

/// The `for` of the alerts, in seconds of the rules.
const DOWN: Time = 300.0;
const UNOWNED: Time = 300.0;
const DATABASE_DOWN: Time = 300.0;
const MISSING: Time = 900.0;

/// How long replicas may take to reach a database that answers again: they try once a second.
const RECONNECTED: Time = 2.0;

/// What is expected when something is gone for good.
pub(crate) struct GoneForGood<'a> {
    pub(crate) settings: &'a Settings,
    pub(crate) bounds: &'a Bounds,
}

// === impl GoneForGood ===

impl GoneForGood<'_> {
    /// All exporters are gone from this time on.
    pub(crate) fn exporters(&self, from: Time) -> Expected {
        self.notified("CekuraExporterDown", true, DOWN, from)
    }

    /// A replica is gone. The others have taken over from it.
    pub(crate) fn replica(&self, from: Time) -> Expected {
        self.notified("CekuraExporterReplicasMissing", false, MISSING, from)
    }

    /// The database of replicas is gone.
    pub(crate) fn database(&self, from: Time) -> Expected {
        self.notified("CekuraDatabaseDown", true, DATABASE_DOWN, from)
    }

    /// A replica is gone, and nobody takes over from it. `killed` is when another one was killed before.
    pub(crate) fn shards(&self, killed: Time, from: Time) -> Expected {
        let mut expected = self.notified("CekuraShardUnowned", true, UNOWNED, from);
        let taken_over = killed + self.settings.lease + TAKEN_OVER;
        expected.may.extend(allowed(
            &[(killed, taken_over)],
            "CekuraShardUnowned",
            UNOWNED,
            self.settings,
            self.bounds,
        ));
        expected
    }

    fn notified(&self, alert: &str, critical: bool, wait: Time, from: Time) -> Expected {
        let since = from + self.settings.scaled(wait);
        Expected {
            subject: Subject { alert: alert.into(), ..Subject::default() },
            receiver: receiver(None, critical),
            must: vec![Must { since, due: since + self.bounds.notification(), until: f64::INFINITY, calm: true }],
            may: vec![(from, f64::INFINITY)],
            is_planned: true,
        }
    }
}

// === impl Model ===

impl Model<'_> {
    /// The alerts that nothing in the plan makes fire before the end. They are allowed only if their cause lasted for as
    /// long as their `for`: by what users are promised if it was planned, and otherwise as measured.
    pub(super) fn exporters(&mut self) {
        // One exporter that is gone is not down while replicas of it are there.
        self.allowed("CekuraExporterDown", true, DOWN, &self.bounds.blind.clone());
        if self.settings.replicas == 1 {
            return;
        }
        self.allowed("CekuraExporterReplicasMissing", false, MISSING, &self.bounds.missing.clone());
        let unowned = self.unowned();
        self.allowed("CekuraShardUnowned", true, UNOWNED, &unowned);
        let failover = self.happened.failover.map(|(from, to)| (from, to + RECONNECTED));
        self.allowed("CekuraDatabaseDown", true, DATABASE_DOWN, &failover.into_iter().collect::<Vec<_>>());
    }

    /// The times in which shards may have had no owner, or one that was not scraped.
    fn unowned(&self) -> Vec<(Time, Time)> {
        let killed = self.happened.ended.iter().filter(|ended| ended.how == Ending::Killed);
        let killed = killed.map(|ended| (ended.from, ended.from + self.settings.lease + TAKEN_OVER));
        killed.chain(self.bounds.absences.iter().copied()).collect()
    }

    /// Allows an alert in those of these times that are long enough.
    fn allowed(&mut self, alert: &str, critical: bool, wait: Time, times: &[(Time, Time)]) {
        let may = allowed(times, alert, wait, self.settings, self.bounds);
        if !may.is_empty() {
            let subject = Subject { alert: alert.into(), ..Subject::default() };
            let receiver = receiver(None, critical);
            let expected = Expected { subject: subject.clone(), receiver, must: Vec::new(), may, is_planned: false };
            self.expected.insert(subject, expected);
        }
    }
}

/// When notifications of an alert are allowed because of those of these times that are as long as its `for`, or a scrape
/// less.
fn allowed(times: &[(Time, Time)], alert: &str, wait: Time, settings: &Settings, bounds: &Bounds) -> Vec<(Time, Time)> {
    let wait = settings.scaled(wait);
    let long = times.iter().filter(|(from, to)| to - from + settings.scrape_interval >= wait);
    long.map(|(from, to)| (*from, to + bounds.resolution(alert))).collect()
}
