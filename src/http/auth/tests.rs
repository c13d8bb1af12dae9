//! The gate as a whole, with attempts that end when the test says so.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http_body_util::BodyExt;
use tokio::task::JoinHandle;

use super::attempts::MOST_AT_A_TIME;
use super::*;
use crate::web::PasswordHash;

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A gate, what is verified at it, and the leave to end.
struct Watched {
    gate: Arc<Gate>,
    users: Arc<Users>,
    begun: Arc<Mutex<Vec<String>>>,
    /// How many were ever verified at once.
    most: Arc<AtomicUsize>,
    leave: mpsc::Sender<()>,
    drain: watch::Sender<bool>,
}

impl Watched {
    /// Attempts end when they are let.
    fn holding() -> Self {
        let (leave, leaves) = mpsc::channel();
        let leaves = Mutex::new(leaves);
        Self::verifying(leave, move || leaves.lock().unwrap().recv().unwrap())
    }

    /// Attempts end by themselves.
    fn free() -> Self {
        Self::verifying(mpsc::channel().0, || {})
    }

    fn verifying(leave: mpsc::Sender<()>, wait: impl Fn() + Send + Sync + 'static) -> Self {
        let begun = Arc::new(Mutex::new(Vec::new()));
        let [now, most] = [(); 2].map(|()| Arc::new(AtomicUsize::new(0)));
        let (begins, at_most) = (begun.clone(), most.clone());
        let verify = move |attempt: &Attempt| {
            let password = String::from_utf8(attempt.credentials.password().to_vec()).unwrap();
            at_most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            begins.lock().unwrap().push(password.clone());
            wait();
            now.fetch_sub(1, Ordering::SeqCst);
            assert!(!password.starts_with("panic"));
            attempt.verify()
        };
        let (drain, draining) = watch::channel(false);
        let gate = Arc::new(Gate::verifying_by(Box::new(verify), draining).unwrap());
        Self { gate, users: users("right"), begun, most, leave, drain }
    }

    fn log_in(&self, user: &str, password: &str) -> JoinHandle<Result<(), Denied>> {
        self.log_in_from(HERE, user, password)
    }

    fn log_in_from(&self, peer: IpAddr, user: &str, password: &str) -> JoinHandle<Result<(), Denied>> {
        let (gate, users, headers) = (self.gate.clone(), self.users.clone(), headers(user, password));
        tokio::spawn(async move { gate.admit(&users, &headers, peer).await })
    }

    /// Logs in and waits until that is known.
    async fn logs_in(&self, user: &str, password: &str) -> bool {
        self.log_in(user, password).await.unwrap().is_ok()
    }

    /// Logs in while all places are taken, as the one after so many.
    async fn waits(&self, password: &str, before: usize) -> JoinHandle<Result<(), Denied>> {
        let attempt = self.log_in("u", password);
        self.count(before + 1, MOST_AT_A_TIME + before + 1).await;
        attempt
    }

    /// Takes every place.
    async fn fill(&self) -> [JoinHandle<Result<(), Denied>>; MOST_AT_A_TIME] {
        let attempts = ["first", "second"].map(|password| self.log_in("u", password));
        self.begun(MOST_AT_A_TIME).await;
        self.begun.lock().unwrap().sort();
        attempts
    }

    /// Lets as many end.
    fn let_end(&self, count: usize) {
        (0..count).for_each(|_| self.leave.send(()).unwrap());
    }

    /// Waits until so many were begun; their passwords in the order in which they were.
    async fn begun(&self, count: usize) -> Vec<String> {
        until(|| self.begun.lock().unwrap().len() == count).await;
        self.begun.lock().unwrap().clone()
    }

    /// Waits until so many wait to be verified, and so many for a verdict.
    async fn count(&self, waiting: usize, told: usize) {
        let counts = || self.gate.porter.notes().attempts.counts();
        until(|| counts().0 == waiting && counts().1 == told).await;
    }
}

async fn until(holds: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_mins(1);
    while !holds() {
        assert!(Instant::now() < deadline, "it never came true");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// A user `u` with that password.
fn users(password: &str) -> Arc<Users> {
    let hash = PasswordHash::parse(&bcrypt::hash(password, 4).unwrap()).unwrap();
    Arc::new([("u".to_owned(), hash)].into_iter().collect())
}

fn headers(user: &str, password: &str) -> HeaderMap {
    let value = format!("Basic {}", STANDARD.encode(format!("{user}:{password}")));
    [(AUTHORIZATION, value.parse().unwrap())].into_iter().collect()
}

#[tokio::test]
async fn without_users_everybody_is_let_in() {
    let watched = Watched::free();
    for headers in [HeaderMap::new(), headers("u", "wrong")] {
        assert_eq!(watched.gate.admit(&Users::default(), &headers, HERE).await, Ok(()));
    }
    assert!(watched.begun(0).await.is_empty());
}

#[tokio::test]
async fn a_user_is_let_in_by_the_right_password_only() {
    let gate = Gate::new(watch::channel(false).1).unwrap();
    let users = users("right");
    for (user, password, expected) in [
        ("u", "right", Ok(())),
        ("u", "wrong", Err(Denied)),
        ("u", "", Err(Denied)),
        ("U", "right", Err(Denied)),
        ("", "right", Err(Denied)),
        ("nobody", "right", Err(Denied)),
        ("u", "right", Ok(())),
        ("u", "wrong", Err(Denied)),
    ] {
        assert_eq!(gate.admit(&users, &headers(user, password), HERE).await, expected, "{user}:{password}");
    }
}

#[tokio::test]
async fn what_is_no_login_is_denied_without_being_verified() {
    let watched = Watched::free();
    let bearer = [(AUTHORIZATION, "Bearer dTpyaWdodA==".parse().unwrap())].into_iter().collect();
    let mut twice = headers("u", "right");
    twice.append(AUTHORIZATION, twice[AUTHORIZATION].clone());
    for headers in [HeaderMap::new(), bearer, twice] {
        assert_eq!(watched.gate.admit(&watched.users, &headers, HERE).await, Err(Denied));
    }
    assert!(watched.begun(0).await.is_empty());
}

#[tokio::test]
async fn a_login_that_was_verified_is_remembered_good_or_bad_until_the_hash_is_another() {
    let mut watched = Watched::free();
    for _ in 0..2 {
        assert!(watched.logs_in("u", "right").await);
        assert!(!watched.logs_in("u", "wrong").await);
    }
    assert_eq!(watched.begun(2).await, ["right", "wrong"]);
    watched.users = users("wrong");
    for _ in 0..2 {
        assert!(watched.logs_in("u", "wrong").await);
        assert!(!watched.logs_in("u", "right").await);
    }
    assert_eq!(watched.begun(4).await[2..], ["wrong", "right"]);
    // The same password with another salt.
    watched.users = users("wrong");
    assert!(watched.logs_in("u", "wrong").await);
    watched.begun(5).await;
}

#[tokio::test]
async fn a_user_that_there_is_not_is_verified_and_remembered_as_another_is() {
    let watched = Watched::free();
    for _ in 0..2 {
        assert!(!watched.logs_in("nobody", "wrong").await);
    }
    assert_eq!(watched.begun(1).await, ["wrong"]);
}

#[tokio::test]
async fn at_most_two_are_verified_at_a_time() {
    let watched = Watched::free();
    let passwords: Vec<_> = (0..40).map(|n| n.to_string()).collect();
    let attempts: Vec<_> = passwords.iter().map(|password| watched.log_in("u", password)).collect();
    assert_eq!(watched.begun(attempts.len()).await.len(), attempts.len());
    assert!((1..=MOST_AT_A_TIME).contains(&watched.most.load(Ordering::SeqCst)));
    attempts.iter().for_each(JoinHandle::abort);
}

#[tokio::test]
async fn the_newest_goes_next_but_now_and_then_the_oldest() {
    let watched = Watched::holding();
    let mut attempts = Vec::from(watched.fill().await);
    for before in 0..9 {
        attempts.push(watched.waits(&before.to_string(), before).await);
    }
    // One at a time, so that it is known which began first.
    for begun in 3..=11 {
        watched.let_end(1);
        watched.begun(begun).await;
    }
    assert_eq!(watched.begun(11).await, ["first", "second", "8", "7", "6", "5", "4", "0", "3", "2", "1"]);
    attempts.iter().for_each(JoinHandle::abort);
}

#[tokio::test]
async fn peers_take_turns_so_that_the_flood_of_one_holds_up_no_other() {
    let watched = Watched::holding();
    let _first = watched.fill().await;
    let elsewhere = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
    let mut flood = Vec::new();
    for n in 0..10 {
        flood.push(watched.waits(&format!("flood {n}"), n).await);
    }
    let good = watched.log_in_from(elsewhere, "u", "right");
    watched.count(11, MOST_AT_A_TIME + 11).await;
    for n in 10..20 {
        flood.push(watched.waits(&format!("flood {n}"), n + 1).await);
    }
    watched.let_end(2);
    let begun = watched.begun(4).await;
    assert!(begun[2..].contains(&"right".to_owned()), "{begun:?}");
    watched.let_end(20);
    assert_eq!(good.await.unwrap(), Ok(()));
}

#[tokio::test]
async fn the_same_login_many_times_at_once_is_verified_once_and_counts_as_the_newest() {
    let watched = Watched::holding();
    let [first, _second] = watched.fill().await;
    let mut right = vec![watched.waits("right", 0).await];
    let other = watched.waits("other", 1).await;
    right.extend([watched.log_in("u", "right"), watched.log_in("u", "right")]);
    let first_again = watched.log_in("u", "first");
    watched.count(2, 7).await;
    watched.let_end(1);
    assert_eq!(watched.begun(3).await, ["first", "second", "right"]);
    watched.let_end(3);
    for login in right {
        assert_eq!(login.await.unwrap(), Ok(()));
    }
    for login in [first, first_again, other] {
        assert_eq!(login.await.unwrap(), Err(Denied));
    }
    assert_eq!(watched.begun(4).await[3], "other");
}

#[tokio::test]
async fn who_gives_up_waiting_is_not_verified_and_takes_no_place_along() {
    let watched = Watched::holding();
    let _filling = watched.fill().await;
    let (kept, given_up) = (watched.waits("right", 0).await, watched.waits("a", 1).await);
    given_up.abort();
    watched.count(1, 3).await;
    watched.let_end(3);
    assert_eq!(kept.await.unwrap(), Ok(()));
    assert_eq!(watched.begun(3).await, ["first", "second", "right"]);
}

#[tokio::test]
async fn what_somebody_else_waits_for_stays_when_one_gives_up() {
    let watched = Watched::holding();
    let _filling = watched.fill().await;
    let (given_up, kept) = (watched.waits("right", 0).await, watched.log_in("u", "right"));
    watched.count(1, 4).await;
    given_up.abort();
    watched.count(1, 3).await;
    watched.let_end(3);
    assert_eq!(kept.await.unwrap(), Ok(()));
}

#[tokio::test]
async fn who_goes_while_being_verified_keeps_the_place_until_that_ends() {
    let watched = Watched::holding();
    let going = watched.log_in("u", "right");
    watched.begun(1).await;
    let _other = watched.log_in("u", "other");
    watched.begun(2).await;
    going.abort();
    watched.count(0, 1).await;
    let next = watched.log_in("u", "next");
    watched.count(1, 2).await;
    watched.let_end(3);
    assert_eq!(next.await.unwrap(), Err(Denied));
    until(|| watched.gate.porter.notes().attempts.counts() == (0, 0, 0)).await;
    assert!(watched.logs_in("u", "right").await, "it is remembered");
    assert_eq!(watched.begun(3).await[2], "next");
}

#[tokio::test]
async fn a_panic_is_a_failed_login_and_takes_no_place_along() {
    let watched = Watched::free();
    for n in 0..2 * MOST_AT_A_TIME {
        assert!(!watched.logs_in("u", &format!("panic {n}")).await);
    }
    assert!(watched.logs_in("u", "right").await);
}

#[tokio::test]
async fn failed_logins_are_held_back_when_they_are_many_and_let_go_when_connections_end() {
    let watched = Watched::free();
    {
        let mut notes = watched.gate.porter.notes();
        (0..100).for_each(|_| notes.cost.note(Duration::from_secs(1)));
        let hold = (0..100).map(|_| notes.schedule.hold(Instant::now(), Duration::from_secs(1))).max();
        assert!(hold > Some(Duration::from_secs(9)));
    }
    let held = watched.log_in("u", "wrong");
    watched.begun(1).await;
    assert!(watched.logs_in("u", "right").await, "a good one is not");
    assert!(!held.is_finished());
    watched.drain.send(true).unwrap();
    assert_eq!(held.await.unwrap(), Err(Denied));
}

#[tokio::test]
async fn the_answer_asks_for_a_login_as_browsers_and_programs_understand_it() {
    let answer = HttpResponse::from(Denied);
    assert_eq!(answer.status(), 401);
    assert_eq!(answer.headers()["www-authenticate"], "Basic realm=\"cekura-exporter\", charset=\"UTF-8\"");
    assert_eq!(answer.headers()["content-type"], "application/json");
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    let problem: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert!(problem["error"].as_str().unwrap().contains("login"), "{problem}");
}
