//! What single parts cost: `cargo bench --bench micro`, or of some only with a part of their names,
//! `cargo bench --bench micro -- encoding`. How many instructions two of them take is judged by
//! `benches/instructions`.

#[allow(dead_code, reason = "who has it uses a part of it")]
mod sample;

use std::hint::black_box;
use std::slice;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cekura_exporter::board::{AppliedPoll, Board, RunId};
use cekura_exporter::cekura::decode;
use cekura_exporter::exposition::Format;
use cekura_exporter::poller::Schedule;
use cekura_exporter::sources::WatchChange;
use cekura_exporter::toggle::{Failure, Outcome, Reason};
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput};

use sample::{SMALL, Sample, TYPICAL, after, answered, completed, encode, hidden, replaced};

/// The time between two polls of a run.
const INTERVAL: Duration = Duration::from_secs(5);

fn main() -> Result<(), String> {
    let mut criterion = Criterion::default().configure_from_args();
    encoding(&mut criterion)?;
    snapshot(&mut criterion)?;
    state(&mut criterion)?;
    schedule(&mut criterion)?;
    decoding(&mut criterion);
    criterion.final_summary();
    Ok(())
}

/// Writing all that a scrape exposes; the elements are series.
fn encoding(criterion: &mut Criterion) -> Result<(), String> {
    let mut group = criterion.benchmark_group("encoding");
    for series in [10_000, 100_000] {
        let snapshot = Sample::of_series(series)?.snapshot();
        group.throughput(Throughput::Elements(series as u64));
        for (name, format) in [("text", Format::Text), ("OpenMetrics", Format::OpenMetrics)] {
            group.bench_function(BenchmarkId::new(name, series), |bencher| bencher.iter(|| encode(&snapshot, format)));
        }
    }
    group.finish();
    Ok(())
}

/// Taking what a scrape exposes from the board, with and without the agents.
fn snapshot(criterion: &mut Criterion) -> Result<(), String> {
    let sample = Sample::of_watches(10_000)?;
    let mut group = criterion.benchmark_group("snapshot");
    group.bench_function("rows of 10000 watches", |bencher| bencher.iter(|| sample.board.rows()));
    group.bench_function("10000 watches and their agents", |bencher| bencher.iter(|| sample.snapshot()));
    group.finish();
    Ok(())
}

/// Applying what a poll of a run in progress brought: alone, and while somebody reads the rows as they
/// were just before, so that they are copied.
fn state(criterion: &mut Criterion) -> Result<(), String> {
    let outcomes: [(&str, Outcome); 3] = [
        ("in progress", answered(SMALL)?),
        ("failure", Err(Failure::new(Reason::Timeout))),
        ("finish", completed(TYPICAL)?),
    ];
    let mut begins = Begins::new()?;
    let mut group = criterion.benchmark_group("state");
    for (name, outcome) in outcomes {
        for (readers, is_read) in [("alone", false), ("while read", true)] {
            group.bench_function(BenchmarkId::new(name, readers), |bencher| {
                let board = begins.board.clone();
                bencher.iter_batched(
                    || (begins.next(), outcome.clone(), is_read.then(|| board.rows())),
                    // What is returned is dropped when the time was taken.
                    |(run, outcome, rows)| (apply(&board, run, outcome), rows),
                    BatchSize::NumIterations(Begins::AT_A_TIME),
                );
            });
        }
    }
    group.finish();
    Ok(())
}

fn apply(board: &Board, run: Option<RunId>, outcome: Outcome) -> Option<AppliedPoll> {
    board.apply(run?, outcome, after(9), |_| Some(after(14)))
}

/// Taking out the run that is due first of a hundred thousand, and planning it anew.
fn schedule(criterion: &mut Criterion) -> Result<(), String> {
    let runs = Sample::of_watches(100_000)?.runs;
    let start = Instant::now();
    let mut schedule = Schedule::new(start);
    for (micros, run) in (0..).step_by(50).zip(&runs) {
        schedule.plan(start + Duration::from_micros(micros), *run);
    }
    let end = start + Duration::from_hours(24);
    criterion.bench_function("schedule/the first of 100000", |bencher| {
        bencher.iter(|| {
            if let Some((due, run)) = schedule.pop_due(end) {
                schedule.plan(due + INTERVAL, run);
            }
        });
    });
    Ok(())
}

/// Reading an answer.
fn decoding(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decoding");
    for (name, body) in [("small", SMALL), ("typical", TYPICAL)] {
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.bench_function(name, |bencher| bencher.iter(|| decode(black_box(body.as_bytes()), hidden())));
    }
    group.finish();
}

/// A board on which runs begin anew, one watch after the other, so that there is always one in
/// progress.
struct Begins {
    board: Arc<Board>,
    /// What puts one of two runs in the place of the other, for each watch.
    changes: [Vec<WatchChange>; 2],
    so_far: usize,
}

// === impl Begins ===

impl Begins {
    const WATCHES: usize = 10_000;

    /// How many runs are begun before the first of them is polled.
    const AT_A_TIME: u64 = 256;

    /// How far one watch is from the next: far enough that their rows are not copied together.
    const STRIDE: usize = 33;

    fn new() -> Result<Self, String> {
        let changes = |times| (0..Self::WATCHES).map(|number| replaced(number, times)).collect::<Result<_, _>>();
        let board = Arc::new(Sample::of_watches(Self::WATCHES)?.board);
        let mut begins = Self { board, changes: [changes(0)?, changes(1)?], so_far: 0 };
        match apply(&begins.board.clone(), begins.next(), completed(TYPICAL)?) {
            Some(_) => Ok(begins),
            None => Err("no run begins anew that could finish".into()),
        }
    }

    /// A run that is in progress, and of which one poll was answered.
    fn next(&mut self) -> Option<RunId> {
        let place = self.so_far * Self::STRIDE;
        self.so_far += 1;
        let change = &self.changes[place / Self::WATCHES % 2][place % Self::WATCHES];
        let run = self.board.update(slice::from_ref(change), after(0)).started.first()?.run;
        self.board.apply(run, answered(SMALL).ok()?, after(3), |_| Some(after(8)));
        Some(run)
    }
}
