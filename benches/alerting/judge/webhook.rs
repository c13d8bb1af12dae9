//! A webhook that stands in for every receiver and records the notifications.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::plan::Time;

/// A webhook on loopback.
pub(crate) struct Webhook {
    address: SocketAddr,
    begun: Instant,
    told: Arc<Mutex<Told>>,
    accepting: JoinHandle<()>,
}

/// The name of an alert and its labels `api`, `toggle` and `agent_id`, empty where it has none.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Subject {
    pub(crate) alert: String,
    pub(crate) api: String,
    pub(crate) toggle: String,
    pub(crate) agent: String,
}

/// The notifications that all receivers got.
#[derive(Default)]
pub(crate) struct Told {
    /// When each alert began to fire or was resolved, as notified.
    pub(crate) changes: HashMap<Subject, Vec<Change>>,
    /// The receivers of each alert.
    pub(crate) receivers: HashMap<Subject, BTreeSet<String>>,
    /// Alerts in notifications that repeat the one before, within `repeat_interval`.
    pub(crate) repeated: Vec<(Time, Subject)>,
    /// Alerts that fired while another alert of the same subject was firing.
    pub(crate) doubled: Vec<(Time, Subject)>,
    pub(crate) notifications: usize,
    /// The last notification of each receiver and group: when it came, and what was firing.
    groups: HashMap<(String, String), (Time, BTreeSet<String>)>,
    /// The fingerprints of the firing alerts of each subject.
    firing: HashMap<Subject, BTreeSet<String>>,
}

/// An alert began to fire or was resolved.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Change {
    pub(crate) at: Time,
    pub(crate) fires: bool,
}

#[derive(Deserialize)]
struct Notification {
    receiver: String,
    #[serde(rename = "groupKey")]
    group: String,
    alerts: Vec<Alert>,
}

#[derive(Deserialize)]
struct Alert {
    status: String,
    labels: HashMap<String, String>,
    fingerprint: String,
}

// === impl Webhook ===

impl Webhook {
    /// Starts to listen. A notification that repeats the one before within `repeat_interval` is recorded as such.
    pub(crate) async fn start(begun: Instant, repeat_interval: Time) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let told = Arc::new(Mutex::new(Told::default()));
        let kept = told.clone();
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let kept = kept.clone();
                let service = service_fn(move |request| take(request, kept.clone(), begun, repeat_interval));
                let connection =
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                tokio::spawn(connection);
            }
        });
        Ok(Self { address, begun, told, accepting })
    }

    /// The URL of a receiver.
    pub(crate) fn url(&self, receiver: &str) -> String {
        format!("http://{}/{receiver}", self.address)
    }

    /// Takes what was recorded so far, and returns it with the time.
    pub(crate) fn take(&self) -> (Told, Time) {
        let told = std::mem::take(&mut *self.told.lock().unwrap_or_else(PoisonError::into_inner));
        (told, self.begun.elapsed().as_secs_f64())
    }
}

impl Drop for Webhook {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn take(
    request: Request<Incoming>,
    told: Arc<Mutex<Told>>,
    begun: Instant,
    repeat_interval: Time,
) -> Result<Response<Empty<Bytes>>, hyper::Error> {
    let body = request.into_body().collect().await?.to_bytes();
    let mut response = Response::new(Empty::new());
    match serde_json::from_slice(&body) {
        Ok(notification) => {
            let now = begun.elapsed().as_secs_f64();
            told.lock().unwrap_or_else(PoisonError::into_inner).note(notification, now, repeat_interval);
        }
        // Alertmanager sends it again.
        Err(_) => *response.status_mut() = StatusCode::BAD_REQUEST,
    }
    Ok(response)
}

// === impl Told ===

impl Told {
    fn note(&mut self, notification: Notification, now: Time, repeat_interval: Time) {
        self.notifications += 1;
        let Notification { receiver, group, alerts } = notification;
        let is_firing = |alert: &&Alert| alert.status == "firing";
        let firing: BTreeSet<_> = alerts.iter().filter(is_firing).map(|alert| alert.fingerprint.clone()).collect();
        let nothing_new = self.groups.get(&(receiver.clone(), group.clone())).is_some_and(|(at, before)| {
            // An alert that is resolved is news, too, and it is not among the firing ones.
            *before == firing && firing.len() == alerts.len() && now - at < repeat_interval
        });
        for alert in &alerts {
            let subject = Subject::of(&alert.labels);
            if nothing_new {
                self.repeated.push((now, subject.clone()));
            }
            let fires = alert.status == "firing";
            let known = self.firing.entry(subject.clone()).or_default();
            let before = known.len();
            if fires {
                known.insert(alert.fingerprint.clone());
                if known.len() > before && before > 0 {
                    self.doubled.push((now, subject.clone()));
                }
            } else {
                known.remove(&alert.fingerprint);
            }
            if (before == 0) != known.is_empty() {
                self.changes.entry(subject.clone()).or_default().push(Change { at: now, fires });
            }
            self.receivers.entry(subject).or_default().insert(receiver.clone());
        }
        self.groups.insert((receiver, group), (now, firing));
    }
}

// === impl Subject ===

impl Subject {
    fn of(labels: &HashMap<String, String>) -> Self {
        let label = |name: &str| labels.get(name).cloned().unwrap_or_default();
        Self { alert: label("alertname"), api: label("api"), toggle: label("toggle"), agent: label("agent_id") }
    }
}

#[cfg(test)]
#[allow(dead_code, unused_imports, reason = "where this is a bench, it has no tests")]
mod tests {
    use super::*;

    /// An alert: its toggle, its fingerprint and whether it fires.
    type Sample = (&'static str, &'static str, bool);

    /// What is recorded of notifications of one group, each with its time and its alerts.
    fn recorded(notifications: &[(Time, &[Sample])]) -> Told {
        let mut told = Told::default();
        for (at, alerts) in notifications {
            let alert = |(toggle, fingerprint, fires): &Sample| Alert {
                status: if *fires { "firing" } else { "resolved" }.into(),
                labels: HashMap::from([("toggle".into(), (*toggle).into())]),
                fingerprint: (*fingerprint).into(),
            };
            let alerts = alerts.iter().map(alert).collect();
            told.note(Notification { receiver: "chat".into(), group: "g".into(), alerts }, *at, 100.0);
        }
        told
    }

    fn changes(told: &Told, toggle: &str) -> Vec<(Time, bool)> {
        let subject = Subject { toggle: toggle.into(), ..Subject::default() };
        told.changes.get(&subject).into_iter().flatten().map(|change| (change.at, change.fires)).collect()
    }

    #[test]
    fn the_changes_of_an_alert_are_recorded_and_group_updates_are_no_repetition() {
        let both: &[Sample] = &[("a", "1", true), ("b", "2", true)];
        let told = recorded(&[(1.0, &[("a", "1", true)]), (2.0, both), (3.0, &[("a", "1", false), ("b", "2", true)])]);
        assert_eq!((changes(&told, "a"), changes(&told, "b")), (vec![(1.0, true), (3.0, false)], vec![(2.0, true)]));
        assert_eq!((told.repeated.len(), told.doubled.len()), (0, 0));
    }

    #[test]
    fn a_notification_without_news_is_a_repetition_until_the_repeat_interval_is_over() {
        let alerts: &[Sample] = &[("a", "1", true)];
        assert_eq!(recorded(&[(1.0, alerts), (100.0, alerts)]).repeated.len(), 1);
        assert_eq!(recorded(&[(1.0, alerts), (101.0, alerts)]).repeated.len(), 0);
    }

    #[test]
    fn two_alerts_of_one_subject_are_doubled() {
        assert_eq!(recorded(&[(1.0, &[("a", "1", true), ("a", "2", true)])]).doubled.len(), 1);
    }
}
