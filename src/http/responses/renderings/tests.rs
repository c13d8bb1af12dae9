use std::io::Read as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use flate2::read::GzDecoder;
use tokio::time::timeout_at;

use super::rendering::PIECE;
use super::*;
use crate::toggle::Status;

fn renderings() -> Renderings {
    Renderings::new(Worker::start("renderer").unwrap())
}

fn scrape() -> RenderingKey {
    RenderingKey { document: Document::Metrics(Format::Text), gzip: false }
}

fn text(text: &str) -> MakeSource {
    let text = text.as_bytes().to_vec();
    Box::new(|| RenderingSource::Text(text))
}

fn read(mut reader: RenderingReader) -> Vec<u8> {
    std::iter::from_fn(|| reader.next().map(Result::unwrap)).flatten().collect()
}

/// Waits until so many are in progress, and so many clients wait for one that is not begun.
async fn until(renderings: &Renderings, in_progress: usize, clients: usize) {
    let waiting = || renderings.state().pending.get(&scrape()).map_or(0, Weak::strong_count);
    while renderings.scrape_turns.available_permits() != SCRAPE_TURNS - in_progress || waiting() != clients {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_reader_gets_what_was_rendered_compressed_or_not() {
    let renderings = renderings();
    let long = "0123456789abcdef ".repeat(100_000);
    for gzip in [false, true] {
        let reader = renderings.read(RenderingKey { gzip, ..scrape() }, text(&long)).await.unwrap();
        let remaining = reader.remaining();
        let mut body = read(reader);
        assert_eq!(remaining, Some(body.len() as u64));
        if gzip {
            assert!(body.len() < long.len() / 10);
            let mut plain = Vec::new();
            GzDecoder::new(&*body).read_to_end(&mut plain).unwrap();
            body = plain;
        }
        assert!(body == long.as_bytes());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_ask_while_others_are_rendered_share_one_that_is_begun_later() {
    let renderings = Arc::new(renderings());
    let (go, gate) = mpsc::channel();
    let gate = Arc::new(Mutex::new(gate));
    let count = Arc::new(AtomicUsize::new(0));
    let ask = || {
        let (renderings, gate, count) = (renderings.clone(), gate.clone(), count.clone());
        let make = move || {
            gate.lock().unwrap().recv().unwrap();
            RenderingSource::Text(count.fetch_add(1, Ordering::Relaxed).to_string().into_bytes())
        };
        tokio::spawn(async move { renderings.read(scrape(), Box::new(make)).await.map(read).unwrap() })
    };
    let first = ask();
    until(&renderings, 1, 0).await;
    let second = ask();
    until(&renderings, 2, 0).await;
    let crowd: Vec<_> = (0..20).map(|_| ask()).collect();
    until(&renderings, 2, 20).await;
    (0..3).for_each(|_| go.send(()).unwrap());
    let mut bodies = vec![first.await.unwrap(), second.await.unwrap()];
    for asker in crowd {
        bodies.push(asker.await.unwrap());
    }
    assert!(bodies[2..].iter().all(|body| *body == bodies[2]), "{bodies:?}");
    bodies.sort();
    bodies.dedup();
    assert_eq!(bodies, [b"0", b"1", b"2"]);
    assert_eq!(count.load(Ordering::Relaxed), 3);
}

#[tokio::test]
async fn a_client_that_gives_up_delays_no_other() {
    let renderings = renderings();
    let turns = renderings.scrape_turns.acquire_many(2).await.unwrap();
    let gives_up = renderings.read(scrape(), text("never"));
    assert!(timeout_at(Instant::now(), gives_up).await.is_err());
    drop(turns);
    assert_eq!(read(renderings.read(scrape(), text("fresh")).await.unwrap()), b"fresh");
}

#[tokio::test]
async fn clients_that_give_up_leave_nothing_behind_wherever_they_waited() {
    let renderings = renderings();
    let key = |after: String| RenderingKey {
        document: Document::Toggles(Selection { after: Some(after), ..Selection::default() }, JsonLayout::Compact),
        gzip: false,
    };
    let turn = renderings.other_turns.acquire().await.unwrap();
    for count in 0..100 {
        // Before it was polled, while it waits for its turn, and while another waits for the same.
        drop(renderings.read(key(format!("dropped {count}")), text("never")));
        let [first, second] = [(); 2].map(|()| renderings.read(key(count.to_string()), text("never")));
        assert!(timeout_at(Instant::now(), async { tokio::join!(first, second) }).await.is_err());
    }
    drop(turn);
    assert_eq!(read(renderings.read(scrape(), text("fresh")).await.unwrap()), b"fresh");
    assert!(renderings.state().pending.is_empty());
    assert_eq!(renderings.other_turns.available_permits(), 1);
}

#[tokio::test]
async fn the_rendering_that_nobody_read_from_for_longest_is_cut_and_nobody_waits_for_it() {
    let renderings = renderings();
    let long = "x".repeat(PIECE * 1000);
    let mut oldest = renderings.read(scrape(), text(&long)).await.unwrap();
    let mut still = Vec::new();
    for _ in 0..MAX_ALIVE + 2 {
        oldest.next().unwrap().unwrap();
        still.push(renderings.read(scrape(), text("still")).await.unwrap());
    }
    assert!(oldest.next().unwrap().is_ok());
    let are_cut: Vec<_> = still.iter_mut().map(|reader| reader.next().unwrap().is_err()).collect();
    // The oldest is alive, so one fewer of the others is.
    let cut = still.len() + 1 - MAX_ALIVE;
    assert!(are_cut[..cut].iter().all(|is_cut| *is_cut) && are_cut[cut..].iter().all(|is_cut| !is_cut), "{are_cut:?}");
}

#[tokio::test]
async fn nothing_is_cut_while_there_are_not_too_many() {
    let renderings = renderings();
    let mut readers = Vec::new();
    for _ in 0..MAX_ALIVE {
        readers.push(renderings.read(scrape(), text("moves")).await.unwrap());
    }
    assert!(readers.iter_mut().all(|reader| reader.next().unwrap().is_ok()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rendering_keeps_its_turn_to_the_end_even_if_all_clients_have_gone() {
    let renderings = renderings();
    let (go, gate) = mpsc::channel::<()>();
    let (begins, begun) = mpsc::channel();
    let making = renderings.read(
        scrape(),
        Box::new(move || {
            begins.send(()).unwrap();
            gate.recv().unwrap();
            RenderingSource::Text(Vec::new())
        }),
    );
    tokio::select! {
        _ = making => panic!("it was made"),
        () = begun_in(begun) => {}
    }
    assert_eq!(renderings.scrape_turns.available_permits(), SCRAPE_TURNS - 1);
    go.send(()).unwrap();
    while renderings.scrape_turns.available_permits() < SCRAPE_TURNS {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_takes_long_keeps_no_scrape_waiting() {
    let renderings = renderings();
    let list = |status| RenderingKey {
        document: Document::Toggles(Selection { status: Some(status), ..Selection::default() }, JsonLayout::Compact),
        gzip: false,
    };
    let (go, gate) = mpsc::channel::<()>();
    let slow = renderings.read(
        list(Status::Failed),
        Box::new(move || {
            gate.recv().unwrap();
            RenderingSource::Text(Vec::new())
        }),
    );
    let after = renderings.read(list(Status::Unknown), text("after"));
    let scraped = async {
        assert_eq!(read(renderings.read(scrape(), text("scraped")).await.unwrap()), b"scraped");
        go.send(()).unwrap();
    };
    let (slow, after, ()) = tokio::join!(slow, after, scraped);
    assert!(slow.is_ok() && after.is_ok());
}

async fn begun_in(begun: mpsc::Receiver<()>) {
    crate::threads::try_run("test", move || begun.recv().unwrap()).await.unwrap();
}

#[tokio::test]
async fn nothing_is_cut_in_favour_of_bodies_that_end() {
    let renderings = renderings();
    let mut slow = renderings.read(scrape(), text("slow")).await.unwrap();
    for _ in 0..100 {
        assert_eq!(read(renderings.read(scrape(), text("fast")).await.unwrap()), b"fast");
    }
    assert_eq!(slow.next().unwrap().unwrap(), "slow");
}

#[tokio::test]
async fn a_rendering_that_takes_too_long_is_an_error_and_counts_as_stuck_until_it_ends() {
    let mut renderings = renderings();
    renderings.time_limit = Duration::from_millis(20);
    let (go, gate) = mpsc::channel::<()>();
    let stuck = renderings.read(
        scrape(),
        Box::new(move || {
            let _ = gate.recv();
            RenderingSource::Text(Vec::new())
        }),
    );
    assert_eq!(stuck.await.err(), Some(RenderError::TimedOut));
    let now = Instant::now();
    assert!(!renderings.are_stuck(now) && renderings.are_stuck(now + TIME_LIMIT));
    renderings.time_limit = TIME_LIMIT;
    assert_eq!(read(renderings.read(scrape(), text("another")).await.unwrap()), b"another");
    drop(go);
    while renderings.scrape_turns.available_permits() < SCRAPE_TURNS {
        tokio::task::yield_now().await;
    }
    assert!(!renderings.are_stuck(now + TIME_LIMIT));
}

#[tokio::test]
async fn a_panic_is_an_error_and_the_next_rendering_succeeds() {
    let renderings = renderings();
    for _ in 0..2 * SCRAPE_TURNS {
        let made = renderings.read(scrape(), Box::new(|| panic!("while it was made"))).await;
        assert_eq!(made.err(), Some(RenderError::Panicked));
    }
    assert_eq!(read(renderings.read(scrape(), text("good")).await.unwrap()), b"good");
}
