//! Keeping up with the web configuration, as certificates are renewed and users change.
//!
//! A look at files can hang for as long as a network volume does, so it is done by a task of its
//! own, and nobody waits for it for long.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::MissedTickBehavior;

use super::load::WebChange;
use super::{Web, WebFile, events};
use crate::document::{Problem, Problems};
use crate::exposition::Metrics;
use crate::threads::Thread;

/// How often the files are looked at.
const INTERVAL: Duration = Duration::from_secs(2);

/// The longest that is waited for a look that was asked for.
const LONGEST_LOOK: Duration = Duration::from_secs(5);

/// The most that ask for a look at a time; reloads ask one after the other.
const ASKING: usize = 8;

/// Has the web configuration looked at when it is asked for.
#[derive(Debug, Clone)]
pub struct Looks {
    /// `None` if it is in no file.
    asks: Option<(String, mpsc::Sender<Ask>)>,
}

/// Looks at a web configuration again and again.
pub struct WebFollower {
    /// `None` if it is in no file.
    file: Option<WebFile>,
    asks: mpsc::Receiver<Ask>,
    web: watch::Sender<Arc<Web>>,
    metrics: Arc<Metrics>,
}

/// Where it goes whether all is good now.
type Ask = oneshot::Sender<Result<(), Problems>>;

// === impl WebFollower ===

impl WebFollower {
    /// One for the configuration in a file, or for that of no file. Returns what is in force, and
    /// where looks can be asked for.
    pub fn new(file: Option<WebFile>, metrics: Arc<Metrics>) -> (Self, watch::Receiver<Arc<Web>>, Looks) {
        let (sender, asks) = mpsc::channel(ASKING);
        let looks = Looks { asks: file.as_ref().map(|file| (file.path().display().to_string(), sender)) };
        let (web, in_force) = watch::channel(file.as_ref().map(|file| file.web().clone()).unwrap_or_default());
        let follower = Self { file, asks, web, metrics };
        follower.note_in_force();
        (follower, in_force, looks)
    }

    /// Follows the files for ever.
    pub async fn run(mut self) {
        let mut ticks = tokio::time::interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while let Some(file) = self.file.take() {
            let ask = tokio::select! {
                Some(ask) = self.asks.recv() => Some(ask),
                _ = ticks.tick() => None,
            };
            let thread = Thread::start_patiently("web-config").await;
            let Ok((file, news)) = thread.run(move || look(file)).await else {
                events::lost();
                break;
            };
            self.take_over(&file, &news);
            // Who asked may have given up.
            let _ = ask.map(|ask| ask.send(file.judgement()));
            self.file = Some(file);
        }
        // Nothing is followed, and what is in force stays.
        self.asks.close();
        std::future::pending::<()>().await;
    }

    fn take_over(&self, file: &WebFile, news: &WebChange) {
        match news {
            WebChange::None => {}
            WebChange::Changed(warnings) => {
                events::reloaded(warnings);
                let before = self.web.send_replace(file.web().clone());
                events::given_up(&before, file.web());
                self.note_in_force();
            }
            WebChange::Failed(problems) => {
                events::not_reloaded(problems);
                self.metrics.web_not_reloaded();
            }
        }
    }

    fn note_in_force(&self) {
        self.metrics.web_reloaded(self.web.borrow().tls.as_ref().map(|tls| tls.expiry));
    }
}

fn look(mut file: WebFile) -> (WebFile, WebChange) {
    let news = file.look();
    (file, news)
}

// === impl Looks ===

impl Looks {
    /// Has all files looked at now, and what is good taken over.
    ///
    /// # Errors
    /// Every problem that there is.
    pub async fn look(&self) -> Result<(), Problems> {
        let Some((path, asks)) = &self.asks else { return Ok(()) };
        let problem = |what: String| Err(Problems(vec![Problem::new(path.clone(), "", what)]));
        let look = async {
            let (ask, judgement) = oneshot::channel();
            asks.send(ask).await.ok()?;
            judgement.await.ok()
        };
        match tokio::time::timeout(LONGEST_LOOK, look).await {
            Ok(Some(judgement)) => judgement,
            Ok(None) => problem("is not followed any more: restart the exporter".to_owned()),
            Err(_) => problem(format!("took longer than {LONGEST_LOOK:?} to be read")),
        }
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
        looks: Looks,
        following: tokio::task::JoinHandle<()>,
    }

    impl Followed {
        fn start(file: Option<WebFile>) -> Self {
            let metrics = Arc::new(Metrics::new().unwrap());
            let (follower, web, looks) = WebFollower::new(file, metrics.clone());
            Self { metrics, web, looks, following: tokio::spawn(follower.run()) }
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
    async fn without_a_file_it_is_plain_http_and_a_look_finds_nothing_wrong() {
        let followed = Followed::start(None);
        assert!(followed.web.borrow().tls.is_none());
        assert_eq!(followed.looks.look().await, Ok(()));
        assert_eq!((followed.value(SUCCESSFUL), followed.value(EXPIRY)), (Some(1.0), None));
    }

    #[tokio::test]
    async fn a_look_takes_over_what_is_good_before_it_is_answered() {
        let authority = Authority::new("servers");
        let folder = folder(&authority);
        let followed = Followed::of(&folder);
        assert_eq!(followed.value(EXPIRY), Some(4_102_444_800.0));
        let before = followed.web.borrow().clone();
        let expired = authority.issue_expired(&[]);
        folder.write("server.pem", &expired.certificate);
        folder.write("server.key", &expired.key);
        assert_eq!(followed.looks.look().await, Ok(()));
        assert!(!Arc::ptr_eq(&before, &followed.web.borrow()));
        assert_eq!((followed.value(SUCCESSFUL), followed.value(EXPIRY)), (Some(1.0), Some(1_612_310_400.0)));
        folder.write("web.yaml", "{}");
        assert_eq!(followed.looks.look().await, Ok(()));
        assert_eq!(followed.value(EXPIRY), None);
    }

    #[tokio::test]
    async fn a_look_that_finds_problems_tells_all_of_them_each_time() {
        let folder = folder(&Authority::new("servers"));
        let followed = Followed::of(&folder);
        let good = followed.web.borrow().clone();
        folder.write("server.key", "");
        for _ in 0..2 {
            let problems = followed.looks.look().await.unwrap_err().to_string();
            assert!(problems.contains("server.key has no private key"), "{problems}");
        }
        assert!(Arc::ptr_eq(&good, &followed.web.borrow()));
        assert_eq!(followed.value(SUCCESSFUL), Some(0.0));
        assert_eq!(followed.value(EXPIRY), Some(4_102_444_800.0), "the one in force is told of");
    }

    #[tokio::test]
    async fn changes_are_taken_over_without_anybody_asking() {
        let folder = folder(&Authority::new("servers"));
        let mut followed = Followed::of(&folder);
        folder.write("web.yaml", "{}");
        followed.web.changed().await.unwrap();
        assert!(followed.web.borrow().tls.is_none());
    }

    #[tokio::test]
    async fn who_asks_is_told_if_nobody_looks_any_more() {
        let folder = folder(&Authority::new("servers"));
        let followed = Followed::of(&folder);
        followed.following.abort();
        let problems = followed.looks.look().await.unwrap_err().to_string();
        assert!(problems.ends_with("web.yaml: is not followed any more: restart the exporter"), "{problems}");
    }
}
