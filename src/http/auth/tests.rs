//! The authenticator as a whole, with verifications that end when the test permits it.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http_body_util::BodyExt;
use tokio::task::JoinHandle;

use super::*;
use crate::web::PasswordHash;

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const THERE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));

type PendingLogin = JoinHandle<Result<(), Unauthorized>>;

/// An authenticator of which the test sees what is verified.
struct Observed {
    authenticator: Arc<Authenticator>,
    users: Arc<Users>,
    /// The passwords whose verification began, in that order.
    begun: Arc<Mutex<Vec<String>>>,
    /// How many were ever verified at the same time.
    most: Arc<AtomicUsize>,
    permits: mpsc::Sender<()>,
}

impl Observed {
    /// Each verification waits for a permit to end.
    fn holding() -> Self {
        let (permits, permitted) = mpsc::channel();
        let permitted = Mutex::new(permitted);
        Self::verifying(permits, move || permitted.lock().unwrap().recv().unwrap())
    }

    fn free() -> Self {
        Self::verifying(mpsc::channel().0, || {})
    }

    fn verifying(permits: mpsc::Sender<()>, wait: impl Fn() + Send + Sync + 'static) -> Self {
        let begun = Arc::new(Mutex::new(Vec::new()));
        let [now, most] = [(); 2].map(|()| Arc::new(AtomicUsize::new(0)));
        let (begins, at_most) = (begun.clone(), most.clone());
        let verify = move |login: &Login| {
            let password = String::from_utf8(login.credentials.password().to_vec()).unwrap();
            at_most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            begins.lock().unwrap().push(password.clone());
            wait();
            now.fetch_sub(1, Ordering::SeqCst);
            assert!(!password.starts_with("panic"));
            login.verify()
        };
        let authenticator = Arc::new(Authenticator::with_verify(Arc::new(verify)).unwrap());
        Self { authenticator, users: users("right"), begun, most, permits }
    }

    fn log_in(&self, user: &str, password: &str) -> PendingLogin {
        self.log_in_from(HERE, user, password)
    }

    fn log_in_from(&self, peer: IpAddr, user: &str, password: &str) -> PendingLogin {
        let (authenticator, users, headers) = (self.authenticator.clone(), self.users.clone(), headers(user, password));
        tokio::spawn(async move { authenticator.authenticate(&users, &headers, peer).await })
    }

    async fn is_accepted(&self, user: &str, password: &str) -> bool {
        self.log_in(user, password).await.unwrap().is_ok()
    }

    /// Logs in from an address of which a login is verified already, and waits until this one waits as the
    /// `nth` behind it.
    async fn wait_behind(&self, peer: IpAddr, password: &str, nth: usize) -> PendingLogin {
        let login = self.log_in_from(peer, "u", password);
        self.users_of_turn(peer, nth + 1).await;
        login
    }

    /// Waits until that many logins of an address are verified or wait.
    async fn users_of_turn(&self, peer: IpAddr, count: usize) {
        until(|| self.authenticator.address_turns.count(peer) == count).await;
    }

    fn let_end(&self, count: usize) {
        (0..count).for_each(|_| self.permits.send(()).unwrap());
    }

    /// The passwords whose verification began, once they are that many.
    async fn begun(&self, count: usize) -> Vec<String> {
        until(|| self.begun.lock().unwrap().len() == count).await;
        self.begun.lock().unwrap().clone()
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
async fn without_users_everybody_is_accepted() {
    let observed = Observed::free();
    for headers in [HeaderMap::new(), headers("u", "wrong")] {
        assert_eq!(observed.authenticator.authenticate(&Users::default(), &headers, HERE).await, Ok(()));
    }
    assert!(observed.begun(0).await.is_empty());
}

#[tokio::test]
async fn a_user_is_accepted_by_the_right_password_only() {
    let authenticator = Authenticator::new().unwrap();
    let users = users("right");
    for (user, password, expected) in [
        ("u", "right", Ok(())),
        ("u", "wrong", Err(Unauthorized)),
        ("u", "", Err(Unauthorized)),
        ("U", "right", Err(Unauthorized)),
        ("", "right", Err(Unauthorized)),
        ("nobody", "right", Err(Unauthorized)),
        ("u", "right", Ok(())),
        ("u", "wrong", Err(Unauthorized)),
    ] {
        let result = authenticator.authenticate(&users, &headers(user, password), HERE).await;
        assert_eq!(result, expected, "{user}:{password}");
    }
}

#[tokio::test]
async fn malformed_credentials_are_refused_without_being_verified() {
    let observed = Observed::free();
    let bearer = [(AUTHORIZATION, "Bearer dTpyaWdodA==".parse().unwrap())].into_iter().collect();
    let mut twice = headers("u", "right");
    twice.append(AUTHORIZATION, twice[AUTHORIZATION].clone());
    for headers in [HeaderMap::new(), bearer, twice] {
        assert_eq!(observed.authenticator.authenticate(&observed.users, &headers, HERE).await, Err(Unauthorized));
    }
    assert!(observed.begun(0).await.is_empty());
}

#[tokio::test]
async fn a_verified_login_is_remembered_valid_or_not_until_the_hash_changes() {
    let mut observed = Observed::free();
    for _ in 0..2 {
        assert!(observed.is_accepted("u", "right").await);
        assert!(!observed.is_accepted("u", "wrong").await);
    }
    assert_eq!(observed.begun(2).await, ["right", "wrong"]);
    observed.users = users("wrong");
    for _ in 0..2 {
        assert!(observed.is_accepted("u", "wrong").await);
        assert!(!observed.is_accepted("u", "right").await);
    }
    assert_eq!(observed.begun(4).await[2..], ["wrong", "right"]);
    // The same password with another salt.
    observed.users = users("wrong");
    assert!(observed.is_accepted("u", "wrong").await);
    observed.begun(5).await;
}

#[tokio::test]
async fn an_unknown_user_is_verified_and_remembered_like_a_known_one() {
    let observed = Observed::free();
    for _ in 0..2 {
        assert!(!observed.is_accepted("nobody", "wrong").await);
    }
    assert_eq!(observed.begun(1).await, ["wrong"]);
}

#[tokio::test]
async fn at_most_two_logins_are_verified_at_a_time_and_one_of_each_address() {
    let observed = Observed::holding();
    let addresses = [1, 2, 3].map(|n| IpAddr::from([10, 0, 0, n]));
    let mut logins = Vec::new();
    for (n, peer) in addresses.into_iter().cycle().take(12).enumerate() {
        logins.push(observed.log_in_from(peer, "u", &format!("{n} of {peer}")));
    }
    let begun = observed.begun(2).await;
    assert_ne!(begun[0].split(' ').next_back(), begun[1].split(' ').next_back(), "one address has both turns");
    observed.let_end(12);
    for login in logins {
        assert_eq!(login.await.unwrap(), Err(Unauthorized));
    }
    assert_eq!(observed.most.load(Ordering::SeqCst), MAX_VERIFICATIONS);
    assert!(addresses.iter().all(|peer| observed.authenticator.address_turns.count(*peer) == 0));
}

#[tokio::test]
async fn addresses_take_turns_so_a_flood_from_one_delays_no_login_from_another() {
    let observed = Observed::holding();
    let mut flood = vec![observed.log_in("u", "flood 0")];
    observed.begun(1).await;
    for n in 1..10 {
        flood.push(observed.wait_behind(HERE, &format!("flood {n}"), n).await);
    }
    let valid = observed.log_in_from(THERE, "u", "right");
    assert_eq!(observed.begun(2).await, ["flood 0", "right"]);
    // Whose verification takes a permit is not known.
    observed.let_end(11);
    assert_eq!(valid.await.unwrap(), Ok(()));
    flood.iter().for_each(JoinHandle::abort);
}

#[tokio::test]
async fn the_newest_login_of_an_address_goes_first_so_its_flood_delays_a_valid_login_by_one_verification() {
    let observed = Observed::holding();
    let mut flood = vec![observed.log_in("u", "flood 0")];
    observed.begun(1).await;
    for n in 1..10 {
        flood.push(observed.wait_behind(HERE, &format!("flood {n}"), n).await);
    }
    let valid = observed.wait_behind(HERE, "right", 10).await;
    observed.let_end(2);
    assert_eq!(valid.await.unwrap(), Ok(()));
    assert_eq!(observed.begun(3).await[..2], ["flood 0", "right"]);
    observed.let_end(9);
    for login in flood {
        assert_eq!(login.await.unwrap(), Err(Unauthorized));
    }
}

#[tokio::test]
async fn the_same_login_many_times_at_once_is_verified_once() {
    let observed = Observed::holding();
    let first = observed.log_in("u", "first");
    observed.begun(1).await;
    let mut same = Vec::new();
    for n in 1..5 {
        same.push(observed.wait_behind(HERE, "right", n).await);
    }
    observed.let_end(2);
    assert_eq!(first.await.unwrap(), Err(Unauthorized));
    for login in same {
        assert_eq!(login.await.unwrap(), Ok(()));
    }
    assert_eq!(observed.begun(2).await, ["first", "right"]);
}

#[tokio::test]
async fn a_client_that_gives_up_waiting_is_not_verified() {
    let observed = Observed::holding();
    let first = observed.log_in("u", "first");
    observed.begun(1).await;
    let given_up = observed.wait_behind(HERE, "given up", 1).await;
    let kept = observed.wait_behind(HERE, "right", 2).await;
    given_up.abort();
    observed.users_of_turn(HERE, 2).await;
    observed.let_end(2);
    assert_eq!(first.await.unwrap(), Err(Unauthorized));
    assert_eq!(kept.await.unwrap(), Ok(()));
    assert_eq!(observed.begun(2).await, ["first", "right"]);
}

#[tokio::test]
async fn a_client_that_leaves_while_it_is_verified_keeps_its_turn_until_that_ends() {
    let observed = Observed::holding();
    let leaving = observed.log_in("u", "right");
    observed.begun(1).await;
    leaving.abort();
    assert!(leaving.await.unwrap_err().is_cancelled());
    let next = observed.log_in("u", "next");
    observed.users_of_turn(HERE, 2).await;
    assert_eq!(observed.begun(1).await, ["right"]);
    observed.let_end(2);
    assert_eq!(next.await.unwrap(), Err(Unauthorized));
    assert!(observed.is_accepted("u", "right").await, "it is remembered");
    assert_eq!(observed.begun(2).await, ["right", "next"]);
}

#[tokio::test]
async fn a_panic_is_a_failed_login_and_gives_its_turn_back() {
    let observed = Observed::free();
    for n in 0..2 * MAX_VERIFICATIONS {
        assert!(!observed.is_accepted("u", &format!("panic {n}")).await);
    }
    assert!(observed.is_accepted("u", "right").await);
}

#[tokio::test]
async fn the_response_asks_for_a_login_as_browsers_and_programs_understand_it() {
    let response = HttpResponse::from(Unauthorized);
    assert_eq!(response.status(), 401);
    assert_eq!(response.headers()["www-authenticate"], "Basic realm=\"cekura-exporter\", charset=\"UTF-8\"");
    assert_eq!(response.headers()["content-type"], "application/json");
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let problem: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert!(problem["error"].as_str().unwrap().contains("login"), "{problem}");
}
