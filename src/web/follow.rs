//! Following the web configuration: renewed certificates and changed users.

use std::sync::Arc;

use tokio::sync::watch;

use super::load::WebChange;
use super::{Web, WebFile, events};
use crate::document::{Problem, Problems};
use crate::exposition::Metrics;
use crate::follow::{CheckRequester, CheckRequests, Follower, check_requests};

type WebCheckRequester = CheckRequester<(), Result<(), Problems>>;

/// Requests that the web configuration is checked now.
#[derive(Debug)]
pub struct WebChecks {
    /// `None` if it is in no file.
    checks: Option<(String, WebCheckRequester)>,
}

/// Follows a web configuration and puts it in force.
pub struct WebFollower {
    /// `None` if it is in no file.
    file: Option<WebFile>,
    checks: CheckRequests<(), Result<(), Problems>>,
    web: watch::Sender<Arc<Web>>,
    metrics: Arc<Metrics>,
}

// === impl WebFollower ===

impl WebFollower {
    /// A follower of this file. Also returns the configuration in force as it changes, and a way to request
    /// checks.
    pub fn new(file: Option<WebFile>, metrics: Arc<Metrics>) -> (Self, watch::Receiver<Arc<Web>>, WebChecks) {
        let (requester, checks) = check_requests();
        let requester = WebChecks { checks: file.as_ref().map(|file| (file.path().display().to_string(), requester)) };
        let (web, in_force) = watch::channel(file.as_ref().map(|file| file.web().clone()).unwrap_or_default());
        let follower = Self { file, checks, web, metrics };
        follower.record_reload();
        (follower, in_force, requester)
    }

    /// Follows the files until it is dropped.
    pub async fn run(mut self) {
        if let Some(file) = self.file.take() {
            self.follow(file).await;
            events::no_longer_followed();
        }
        // From here on requests fail, and the configuration in force stays.
        drop(self.checks);
        std::future::pending::<()>().await;
    }

    /// Ends when a check panics.
    async fn follow(&mut self, file: WebFile) {
        let mut follower = Follower::new("web-config", file);
        loop {
            let request = tokio::select! {
                Some(request) = self.checks.next() => Some(request),
                () = follower.tick() => None,
            };
            let Ok(change) = follower.check(WebFile::check).await else { return };
            let Some(file) = follower.state() else { return };
            self.apply(file, &change);
            if let Some(((), reply)) = request {
                // The requester may have stopped waiting.
                let _ = reply.send(file.result());
            }
        }
    }

    fn apply(&self, file: &WebFile, change: &WebChange) {
        match change {
            WebChange::None => {}
            WebChange::Changed(warnings) => {
                events::reloaded(warnings);
                let before = self.web.send_replace(file.web().clone());
                events::protection_removed(&before, file.web());
                self.record_reload();
            }
            WebChange::Failed(problems) => {
                events::not_reloaded(problems);
                self.metrics.web_not_reloaded();
            }
        }
    }

    fn record_reload(&self) {
        self.metrics.web_reloaded(self.web.borrow().tls.as_ref().map(|tls| tls.expiry));
    }
}

// === impl WebChecks ===

impl WebChecks {
    /// Has all files checked now. When this returns, a valid configuration is in force.
    ///
    /// # Errors
    /// Every problem of the files, or that they could not be read in time.
    pub async fn check(&self) -> Result<(), Problems> {
        let Some((path, checks)) = &self.checks else { return Ok(()) };
        let failed = |error| Problems(vec![Problem::new(path.clone(), "", format!("{error}"))]);
        checks.request(()).await.map_err(failed)?
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::web::sample::{Authority, Folder, Name};

    const SUCCESSFUL: &str = "cekura_exporter_web_config_last_reload_successful";
    const EXPIRY: &str = "cekura_exporter_tls_certificate_expiry_timestamp_seconds";

    /// A web configuration that is followed.
    struct Followed {
        metrics: Arc<Metrics>,
        web: watch::Receiver<Arc<Web>>,
        checks: WebChecks,
        following: tokio::task::JoinHandle<()>,
    }

    impl Followed {
        fn start(file: Option<WebFile>) -> Self {
            let metrics = Arc::new(Metrics::new().unwrap());
            let (follower, web, checks) = WebFollower::new(file, metrics.clone());
            Self { metrics, web, checks, following: tokio::spawn(follower.run()) }
        }

        fn of(folder: &Folder) -> Self {
            Self::start(Some(WebFile::open(&folder.config()).unwrap().0))
        }

        /// The value of a metric without labels.
        fn value(&self, name: &str) -> Option<f64> {
            let families = self.metrics.gather(Instant::now());
            let family = families.iter().find(|family| family.name() == name)?;
            Some(family.get_metric()[0].get_gauge().get_value())
        }
    }

    impl Drop for Followed {
        fn drop(&mut self) {
            self.following.abort();
        }
    }

    fn folder(authority: &Authority) -> Folder {
        Folder::of_server(&authority.issue(&[Name::Dns("localhost")]), "")
    }

    #[tokio::test]
    async fn without_a_file_it_is_plain_http_and_a_check_finds_no_problem() {
        let followed = Followed::start(None);
        assert!(followed.web.borrow().tls.is_none());
        assert_eq!(followed.checks.check().await, Ok(()));
        assert_eq!((followed.value(SUCCESSFUL), followed.value(EXPIRY)), (Some(1.0), None));
    }

    #[tokio::test]
    async fn a_valid_configuration_is_in_force_when_its_check_returns() {
        let authority = Authority::new("servers");
        let folder = folder(&authority);
        let followed = Followed::of(&folder);
        assert_eq!(followed.value(EXPIRY), Some(4_102_444_800.0));
        let before = followed.web.borrow().clone();
        let expired = authority.issue_expired(&[]);
        folder.write("server.pem", &expired.certificate);
        folder.write("server.key", &expired.key);
        assert_eq!(followed.checks.check().await, Ok(()));
        assert!(!Arc::ptr_eq(&before, &followed.web.borrow()));
        assert_eq!((followed.value(SUCCESSFUL), followed.value(EXPIRY)), (Some(1.0), Some(1_612_310_400.0)));
        folder.write("web.yaml", "{}");
        assert_eq!(followed.checks.check().await, Ok(()));
        assert_eq!(followed.value(EXPIRY), None);
    }

    #[tokio::test]
    async fn each_check_returns_all_problems() {
        let folder = folder(&Authority::new("servers"));
        let followed = Followed::of(&folder);
        let good = followed.web.borrow().clone();
        folder.write("server.key", "");
        for _ in 0..2 {
            let problems = followed.checks.check().await.unwrap_err().to_string();
            assert!(problems.contains("server.key has no private key"), "{problems}");
        }
        assert!(Arc::ptr_eq(&good, &followed.web.borrow()));
        assert_eq!(followed.value(SUCCESSFUL), Some(0.0));
        assert_eq!(followed.value(EXPIRY), Some(4_102_444_800.0), "the one in force is told of");
    }

    #[tokio::test]
    async fn changes_are_put_in_force_without_a_request() {
        let folder = folder(&Authority::new("servers"));
        let mut followed = Followed::of(&folder);
        folder.write("web.yaml", "{}");
        followed.web.changed().await.unwrap();
        assert!(followed.web.borrow().tls.is_none());
    }

    #[tokio::test]
    async fn who_asks_is_told_if_nobody_checks_any_more() {
        let folder = folder(&Authority::new("servers"));
        let followed = Followed::of(&folder);
        followed.following.abort();
        let problems = followed.checks.check().await.unwrap_err().to_string();
        assert!(problems.ends_with("web.yaml: is not followed any more: restart the exporter"), "{problems}");
    }
}
