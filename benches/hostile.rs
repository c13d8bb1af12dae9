//! How the exporter bears clients that mean no good, and crowds: `cargo bench --bench hostile`, or
//! with another number of watches `cargo bench --bench hostile -- 1000`.
//!
//! The program runs as a process of its own, on loopback, and polls a stand-in of the API whose
//! tasks never finish. Attackers come from one address, and scrapes from another one. The goals are
//! those for 10,000 watches. They are printed beside the figures, and missing one fails nothing. A
//! scrape that is refused, cut or wrong does, and so does a bad login that is let in.

#[allow(dead_code, unused_imports, reason = "each bench uses a part of it")]
mod harness;

use std::collections::HashSet;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use flate2::read::GzDecoder;
use harness::{
    Exporter, Failure, Scrape, Scraper, Table, Upstream, folder, goal, load_average, mebibytes, receive, spread,
};
use reqwest::header::ACCEPT_ENCODING;
use reqwest::{Client, ClientBuilder, RequestBuilder, StatusCode};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout_at;

/// Watches, if the command line says no other number.
const WATCHES: u32 = 10_000;

/// How long everything may take.
const LIMIT: Duration = Duration::from_secs(210);

/// Where attackers come from.
const ATTACKER: Ipv4Addr = Ipv4Addr::LOCALHOST;

/// Where everybody else comes from.
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// Scrapes of a kind that are timed while nothing else happens.
const ALONE: usize = 10;

/// Connections that ask for the metrics and never read them.
const NEVER_READING: usize = 60;

/// The time from one such request to the next, so that hardly two share an answer.
const APART: Duration = Duration::from_millis(50);

/// Bytes that the kernel takes for one who does not read. It has a lower bound of its own.
const RECEIVE_BUFFER: u32 = 4096;

/// Connections that send half of a header.
const HALF_OPEN: usize = 400;

/// A connection that ends sooner was refused. Later it is because its header does not arrive.
const REFUSED: Duration = Duration::from_secs(5);

/// How long the attack is watched, and scraped meanwhile.
const ATTACK: Duration = Duration::from_mins(1);

/// The time from one scrape to the next.
const SCRAPE_EVERY: Duration = Duration::from_secs(1);

/// The beginning of the attack, in which scrapes may be slow.
const BEGINNING: Duration = Duration::from_secs(10);

/// What a scrape should take at most after that.
const SCRAPE_GOAL: Duration = Duration::from_secs(1);

/// When the last hostile connection should be closed.
const CLOSED_GOAL: Duration = Duration::from_mins(1);

/// By how much the memory should grow at most, in MiB: by a few answers, however many want one.
const GROWTH_GOAL: f64 = 64.0;

/// Scrapes at once.
const CROWD: usize = 100;

/// The costs of passwords that are flooded with bad ones.
const COSTS: [u32; 2] = [10, 12];

/// Bad logins, each with another password.
const BAD_LOGINS: u32 = 300;

/// How many of them are under way at a time.
const AT_A_TIME: usize = 16;

/// After that no more bad logins begin.
const FLOOD: Duration = Duration::from_secs(50);

/// The time from one good login of a kind to the next.
const LOGIN_EVERY: Duration = Duration::from_millis(500);

/// What a good login should take at most, with the scrape that it is for.
const LOGIN_GOAL: Duration = Duration::from_secs(2);

/// More users than log in within the flood.
const USERS: u32 = 200;

/// The time of what did not come to its end for as long as was waited. It reaches no goal.
const NEVER: Duration = Duration::MAX;

/// The user who has logged in before.
const KNOWN: u32 = 0;

/// The password of all of them.
const PASSWORD: &str = "correct horse battery staple";

/// The running program, and what it needs meanwhile.
struct Site {
    exporter: Exporter,
    watches: u32,
    _upstream: Upstream,
    _folder: TempDir,
}

/// What a scrape is while nothing else happens.
struct Alone {
    median: Duration,
    lines: usize,
}

/// One of a crowd, and what it was answered.
struct Member {
    took: Duration,
    /// If it asked for it so.
    packed: Vec<u8>,
    /// If it did not.
    lines: Lines,
}

/// Counts the lines of what is written to it.
#[derive(Default)]
struct Lines(usize);

/// How the memory of a process grows.
struct Growth<'a> {
    exporter: &'a Exporter,
    before: u64,
}

fn main() -> ExitCode {
    harness::main(LIMIT, async |arguments| measure(harness::watches(&arguments, WATCHES)?).await)
}

async fn measure(watches: u32) -> Result<(), Failure> {
    writeln!(io::stdout(), "{watches} watches, load average {}", load_average()?)?;
    let site = Site::start(watches, None).await?;
    let (table, alone) = alone(&site).await?;
    write!(io::stdout(), "{table}")?;
    write!(io::stdout(), "{}", attack(&site).await?)?;
    write!(io::stdout(), "{}", crowd(&site, &alone).await?)?;
    drop(site);
    for cost in COSTS {
        write!(io::stdout(), "{}", logins(watches, cost).await?)?;
    }
    writeln!(io::stdout(), "load average at the end: {}", load_average()?)?;
    Ok(())
}

// === Alone ===

/// What a scrape takes while nothing else happens.
async fn alone(site: &Site) -> Result<(Table, Alone), Failure> {
    let mut table = Table::new("scrapes while nothing else happens");
    let scraper = site.scraper(ELSEWHERE)?;
    let (mut plain, mut packed) = (Vec::new(), Vec::new());
    let (mut text, mut body) = (String::new(), Vec::new());
    for _ in 0..ALONE {
        let scrape = scraper.scrape().await?;
        scrape.require_success(site.watches)?;
        plain.push(scrape.took);
        text = scrape.text;
    }
    for _ in 0..ALONE {
        body.clear();
        let took = receive(compressed(scraper.request()), &mut body).await?;
        unpacked(took, &body)?.require_success(site.watches)?;
        packed.push(took);
    }
    table.row("text", format!("{}, {} bytes", times(&mut plain), text.len()));
    table.row("gzip", format!("{}, {} bytes", times(&mut packed), body.len()));
    table.row("resident memory", site.exporter.memory()?);
    Ok((table, Alone { median: spread(&plain).1, lines: text.lines().count() }))
}

fn compressed(request: RequestBuilder) -> RequestBuilder {
    request.header(ACCEPT_ENCODING, "gzip")
}

fn unpacked(took: Duration, body: &[u8]) -> Result<Scrape, Failure> {
    Ok(Scrape { took, text: io::read_to_string(GzDecoder::new(body))? })
}

// === Attack ===

/// What scrapes from elsewhere take while one address has all connections that it may have, and
/// how soon these end.
async fn attack(site: &Site) -> Result<Table, Failure> {
    let mut table = Table::new(&format!(
        "{NEVER_READING} connections that never read and {HALF_OPEN} that send half of a header, from one address"
    ));
    let address = site.exporter.address;
    let refused_before = site.refused().await?;
    let growth = Growth::of(&site.exporter)?;
    let began = Instant::now();
    // They come first, as there is not room for all.
    let never_reading = open_never_reading(address).await?;
    let ((mut at_first, mut later), half_open, never_reading) = tokio::try_join!(
        scrapes_meanwhile(site, began),
        half_open(address, began),
        never_read(never_reading, address, began),
    )?;
    let growth = growth.until_now()?;

    let (refused, late): (Vec<_>, Vec<_>) = half_open.into_iter().partition(|ended| *ended < REFUSED);
    let counted = site.refused().await? - refused_before;
    if refused.len() != counted {
        return Err(format!("{} connections ended at once, and {counted} were counted.", refused.len()).into());
    }
    let last = refused.iter().max().copied().unwrap_or_default();
    table.row("refused at once", format!("{}, all within {last:.1?}", refused.len()));
    table.row(&format!("scrapes, first {BEGINNING:?}"), times(&mut at_first));
    table.row("scrapes from then on", timed(&mut later, SCRAPE_GOAL));
    table.row("half-open closed", closed(late.len(), late.iter().max().copied().unwrap_or_default()));
    table.row("never-reading closed", closed(NEVER_READING, never_reading));
    table.row("resident memory", growth);
    Ok(table)
}

/// One scrape in each period, on a connection of its own and on one that is kept alive in turns.
/// How long those took that began at first, and how long the others.
async fn scrapes_meanwhile(site: &Site, began: Instant) -> Result<(Vec<Duration>, Vec<Duration>), Failure> {
    let (kept, watches) = (site.scraper(ELSEWHERE)?, site.watches);
    let fresh = Scraper::new(&site.exporter, client(ELSEWHERE).pool_max_idle_per_host(0))?;
    let over = tokio::time::sleep_until((began + ATTACK).into());
    let scrapes = each(SCRAPE_EVERY, over, |turn| {
        let scraper = if turn % 2 == 0 { fresh.clone() } else { kept.clone() };
        async move {
            let after = began.elapsed();
            let scrape = scraper.scrape().await?;
            scrape.require_success(watches)?;
            Ok((after, scrape.took))
        }
    });
    let (at_first, later): (Vec<_>, Vec<_>) = scrapes.await?.into_iter().partition(|(after, _)| *after < BEGINNING);
    let took = |scrapes: Vec<_>| scrapes.into_iter().map(|(_, took)| took).collect();
    Ok((took(at_first), took(later)))
}

/// A connection from this address.
async fn connect(from: Ipv4Addr, to: SocketAddr, receive_buffer: Option<u32>) -> Result<TcpStream, Failure> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((from, 0).into())?;
    if let Some(size) = receive_buffer {
        socket.set_recv_buffer_size(size)?;
    }
    Ok(socket.connect(to).await?)
}

/// Has connections send half of a header each; when each ended, or [`NEVER`].
async fn half_open(address: SocketAddr, began: Instant) -> Result<Vec<Duration>, Failure> {
    let mut streams = Vec::new();
    for _ in 0..HALF_OPEN {
        let mut stream = connect(ATTACKER, address, None).await?;
        // It may have been refused already.
        let _ = stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\n").await;
        streams.push(stream);
    }
    all(streams.into_iter().map(|mut stream| async move {
        // Whether it ends in good order or not.
        let ended = timeout_at((began + ATTACK).into(), stream.read(&mut [0; 1])).await;
        Ok(if ended.is_ok() { began.elapsed() } else { NEVER })
    }))
    .await
}

async fn open_never_reading(address: SocketAddr) -> Result<Vec<TcpStream>, Failure> {
    let mut streams = Vec::new();
    for _ in 0..NEVER_READING {
        streams.push(connect(ATTACKER, address, Some(RECEIVE_BUFFER)).await?);
    }
    Ok(streams)
}

/// Has connections ask for the metrics one after the other, and reads nothing; when the last was
/// closed, or [`NEVER`].
async fn never_read(mut streams: Vec<TcpStream>, address: SocketAddr, began: Instant) -> Result<Duration, Failure> {
    for (turn, stream) in streams.iter_mut().enumerate() {
        let encoding = if turn % 2 == 0 { "identity" } else { "gzip" };
        let request = format!("GET /metrics HTTP/1.1\r\nhost: x\r\naccept-encoding: {encoding}\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        tokio::time::sleep(APART).await;
    }
    let ports = streams.iter().map(|stream| Ok(stream.local_addr()?.port())).collect::<io::Result<_>>()?;
    while any_is_held(address, &ports)? {
        if began.elapsed() > ATTACK {
            return Ok(NEVER);
        }
        tokio::time::sleep(APART).await;
    }
    Ok(began.elapsed())
}

/// Whether a process holds the side of this address of a connection with one of these ports. That
/// cannot be seen from the other side, as long as something is on its way that is not read.
fn any_is_held(address: SocketAddr, ports: &HashSet<u16>) -> Result<bool, Failure> {
    let port = |address: &str| u16::from_str_radix(address.rsplit_once(':')?.1, 16).ok();
    let held = |line: &str| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let [_, local, remote, .., inode] = *fields.get(..10)? else { return None };
        // What was closed, and what is not accepted yet, is no file of anybody.
        Some(port(local)? == address.port() && ports.contains(&port(remote)?) && inode != "0")
    };
    let connections = fs::read_to_string("/proc/net/tcp")?;
    Ok(connections.lines().any(|line| held(line) == Some(true)))
}

// === Crowd ===

/// What many scrapes at once take.
async fn crowd(site: &Site, alone: &Alone) -> Result<Table, Failure> {
    let mut table = Table::new(&format!("{CROWD} scrapes at once from one address, half of them compressed"));
    let scraper = site.scraper(ELSEWHERE)?;
    let growth = Growth::of(&site.exporter)?;
    let began = Instant::now();
    let members = all((0..CROWD).map(|number| member(scraper.clone(), number % 2 == 0))).await?;
    let took = began.elapsed();
    table.row(
        "all answered",
        format!("after {took:.2?}, {:.1} times as long as one alone", took.div_duration_f64(alone.median)),
    );
    table.row("each", times(&mut members.iter().map(|member| member.took).collect::<Vec<_>>()));
    table.row("resident memory", growth.until_now()?);
    for member in members {
        member.require_lines(alone.lines)?;
    }
    Ok(table)
}

/// One of a crowd. What is not compressed is too much to be kept for all of them.
async fn member(scraper: Scraper, packs: bool) -> Result<Member, Failure> {
    let (request, mut packed, mut lines) = (scraper.request(), Vec::new(), Lines::default());
    let took =
        if packs { receive(compressed(request), &mut packed).await? } else { receive(request, &mut lines).await? };
    Ok(Member { took, packed, lines })
}

// === Logins ===

/// What good logins take during a flood of bad ones, when passwords cost so much.
async fn logins(watches: u32, cost: u32) -> Result<Table, Failure> {
    let mut table = Table::new(&format!("bad logins, {AT_A_TIME} at a time, at cost {cost}"));
    let hashing = Instant::now();
    let hash = bcrypt::hash(PASSWORD, cost).map_err(|error| error.to_string())?;
    table.row("hashing a password", format!("{:.1?}", hashing.elapsed()));
    let site = Site::start(watches, Some(&users(&hash))).await?;
    let (attacker, scraper) = (site.scraper(ATTACKER)?, site.scraper(ELSEWHERE)?);
    login(scraper.clone(), KNOWN).await?;
    let (flooding, flooded) = watch::channel(false);
    let flood = async {
        let flood = flood(&attacker).await;
        flooding.send_replace(true);
        flood
    };
    let known = each(LOGIN_EVERY, told(flooded.clone()), |_| login(scraper.clone(), KNOWN));
    let unseen = each(LOGIN_EVERY, told(flooded), |turn| login(scraper.clone(), KNOWN + 1 + turn));
    let ((mut bad, took), mut known, mut unseen) = tokio::try_join!(flood, known, unseen)?;
    table.row("bad logins", format!("{} of {BAD_LOGINS} in {took:.1?}, none let in", bad.len()));
    table.row("  each", times(&mut bad));
    table.row("a known login", format!("{} scrapes, {}", known.len(), timed(&mut known, LOGIN_GOAL)));
    table.row("logins never seen", format!("{} scrapes, {}", unseen.len(), timed(&mut unseen, LOGIN_GOAL)));
    Ok(table)
}

/// A web configuration in which all users have the same password. To log in as another one is
/// another login all the same.
fn users(hash: &str) -> String {
    let mut text = String::from("basic_auth_users:\n");
    for number in 0..USERS {
        // Writing into a string cannot fail.
        let _ = writeln!(text, "  {}: {hash}", user(number));
    }
    text
}

fn user(number: u32) -> String {
    format!("user-{number:03}")
}

/// Scrapes as this user; how long that took, or [`NEVER`].
async fn login(scraper: Scraper, number: u32) -> Result<Duration, Failure> {
    let request = scraper.request().basic_auth(user(number), Some(PASSWORD));
    receive(request, &mut io::sink()).await.or_else(given_up)
}

/// To give up waiting is no wrong answer: on a machine that is busy, passwords may take long.
fn given_up(failure: Failure) -> Result<Duration, Failure> {
    let waited = failure.downcast_ref::<reqwest::Error>().is_some_and(reqwest::Error::is_timeout);
    if waited { Ok(NEVER) } else { Err(failure) }
}

/// Bad logins until there were enough, or it is time; how long each took, and all of them.
async fn flood(attacker: &Scraper) -> Result<(Vec<Duration>, Duration), Failure> {
    let next = Arc::new(AtomicU32::new(0));
    let began = Instant::now();
    let floods = all((0..AT_A_TIME).map(|_| {
        let (attacker, next) = (attacker.clone(), next.clone());
        async move {
            let mut took = Vec::new();
            while began.elapsed() < FLOOD {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= BAD_LOGINS {
                    break;
                }
                took.push(bad_login(&attacker, number).await?);
            }
            Ok(took)
        }
    }));
    let took = floods.await?.concat();
    Ok((took, began.elapsed()))
}

/// Tries a wrong password; how long the answer took, or [`NEVER`].
async fn bad_login(attacker: &Scraper, number: u32) -> Result<Duration, Failure> {
    let started = Instant::now();
    let request = attacker.request().basic_auth(user(KNOWN), Some(format!("wrong-{number}")));
    match request.send().await {
        Ok(answer) if answer.status() == StatusCode::UNAUTHORIZED => Ok(started.elapsed()),
        Ok(answer) => Err(format!("A bad login was answered with {}.", answer.status()).into()),
        Err(error) => given_up(error.into()),
    }
}

/// Ends when that is told.
async fn told(mut done: watch::Receiver<bool>) {
    // What would tell it lives for as long as this is waited for.
    let _ = done.wait_for(|done| *done).await;
}

// === What goes on at a time ===

/// What all of these come to.
async fn all<T: Send + 'static>(
    tasks: impl Iterator<Item = impl Future<Output = Result<T, Failure>> + Send + 'static>,
) -> Result<Vec<T>, Failure> {
    tasks.collect::<JoinSet<_>>().join_all().await.into_iter().collect()
}

/// Has one of these begin in each period until it is over, however long those before take; what
/// all of them come to.
async fn each<T, F>(period: Duration, over: impl Future, mut begin: impl FnMut(u32) -> F) -> Result<Vec<T>, Failure>
where
    T: Send + 'static,
    F: Future<Output = Result<T, Failure>> + Send + 'static,
{
    let mut tasks = JoinSet::new();
    let mut clock = tokio::time::interval(period);
    let mut over = pin!(over);
    for turn in 0.. {
        tokio::select! {
            biased;
            _ = &mut over => break,
            _ = clock.tick() => tasks.spawn(begin(turn)),
        };
    }
    tasks.join_all().await.into_iter().collect()
}

// === impl Site ===

impl Site {
    /// Starts the program, with this web configuration if there is one, and waits until every watch
    /// was polled once.
    async fn start(watches: u32, web: Option<&str>) -> Result<Self, Failure> {
        let upstream = Upstream::start(watches, 0).await?;
        let folder = folder(&upstream.configuration())?;
        let mut arguments = Vec::new();
        if let Some(web) = web {
            fs::write(folder.path().join("web.yaml"), web)?;
            arguments.push("--web.config.file=web.yaml");
        }
        let exporter = Exporter::start(folder.path(), &arguments).await?;
        upstream.first_round().await?;
        Ok(Self { exporter, watches, _upstream: upstream, _folder: folder })
    }

    /// Somebody who scrapes from this address, and keeps connections alive.
    fn scraper(&self, from: Ipv4Addr) -> Result<Scraper, Failure> {
        Scraper::new(&self.exporter, client(from))
    }

    /// How many connections it says that it refused.
    async fn refused(&self) -> Result<usize, Failure> {
        let scrape = self.scraper(ELSEWHERE)?.scrape().await?;
        scrape.value("cekura_exporter_http_connection_errors_total{reason=\"limit\"}")
    }
}

fn client(from: Ipv4Addr) -> ClientBuilder {
    Client::builder().local_address(IpAddr::from(from))
}

// === impl Member ===

impl Member {
    /// It must have been answered as many lines as that. Some series are there only after something
    /// happened for the first time, so there may be more.
    fn require_lines(mut self, least: usize) -> Result<(), Failure> {
        if !self.packed.is_empty() {
            io::copy(&mut GzDecoder::new(&*self.packed), &mut self.lines)?;
        }
        match self.lines.0 {
            lines if lines < least => Err(format!("A scrape has {lines} lines and not {least}.").into()),
            _ => Ok(()),
        }
    }
}

// === impl Lines ===

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.iter().map(|byte| usize::from(*byte == b'\n')).sum::<usize>();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

// === impl Growth ===

impl<'a> Growth<'a> {
    /// From now on.
    fn of(exporter: &'a Exporter) -> Result<Self, Failure> {
        exporter.forget_peak()?;
        Ok(Self { exporter, before: exporter.resident()? })
    }

    fn until_now(&self) -> Result<String, Failure> {
        let before = mebibytes(self.before);
        let peak = mebibytes(self.exporter.peak()?) - before;
        let now = mebibytes(self.exporter.resident()?) - before;
        let reached = goal(peak < GROWTH_GOAL);
        Ok(format!("{before:.1} MiB before, peak {peak:+.1}, after {now:+.1} (goal < +{GROWTH_GOAL}: {reached})"))
    }
}

// === Figures ===

/// Times for people, which are sorted by this.
fn times(times: &mut [Duration]) -> String {
    times.sort_unstable();
    let (_, median, most) = spread(times);
    format!("median {}, max {}", time(median), time(most))
}

fn time(time: Duration) -> String {
    if time == NEVER { "more than was waited".into() } else { format!("{time:.1?}") }
}

/// The same beside a goal of all of them.
fn timed(took: &mut [Duration], limit: Duration) -> String {
    let figures = times(took);
    let reached = goal(took.iter().all(|took| *took < limit));
    format!("{figures} (goal < {limit:?}: {reached})")
}

/// When the last of these connections was closed, or [`NEVER`].
fn closed(connections: usize, last: Duration) -> String {
    let (after, reached) = (time(last), goal(last < CLOSED_GOAL));
    format!("{connections}, the last after {after} (goal < {CLOSED_GOAL:?}: {reached})")
}
