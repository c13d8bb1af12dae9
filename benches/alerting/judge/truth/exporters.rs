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

/// The notification that is required when all exporters are gone for good.
pub(crate) fn exporter_down(from: Time, settings: &Settings, bounds: &Bounds) -> Expected {
    let since = from + settings.scaled(DOWN);
    Expected {
        subject: Subject { alert: "CekuraExporterDown".into(), ..Subject::default() },
        receiver: receiver(None, true),
        must: vec![Must { since, due: since + bounds.notification(), until: f64::INFINITY, calm: true }],
        may: vec![(from, f64::INFINITY)],
        is_planned: true,
    }
}

impl Model<'_> {
    /// The alerts that nothing in the plan makes fire. They are allowed only if what they are about lasted for as long as
    /// their `for`: as the plan lasts by what users are promised, and else as it was measured.
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
        let killed = self.plan.restarts.iter().zip(&self.happened.ended).filter(|((_, how), _)| *how == Ending::Killed);
        let killed = killed.map(|(_, ended)| (ended.from, ended.from + self.settings.lease + TAKEN_OVER));
        killed.chain(self.bounds.absences.iter().copied()).collect()
    }

    /// Allows an alert in those of these times that are as long as its `for` and a scrape less.
    fn allowed(&mut self, alert: &str, critical: bool, wait: Time, times: &[(Time, Time)]) {
        let wait = self.settings.scaled(wait);
        let long = times.iter().filter(|(from, to)| to - from + self.settings.scrape_interval >= wait);
        let may: Vec<_> = long.map(|(from, to)| (*from, to + self.bounds.resolution(alert))).collect();
        if !may.is_empty() {
            let subject = Subject { alert: alert.into(), ..Subject::default() };
            let receiver = receiver(None, critical);
            let expected = Expected { subject: subject.clone(), receiver, must: Vec::new(), may, is_planned: false };
            self.expected.insert(subject, expected);
        }
    }
}
