//! What is resident.

use crate::harness::{Failure, MESSAGE, Nginx, Site, Tasks, number, spread, watch_list};
use crate::lines::{self, Row};

/// Watches whose memory is that of the program.
const FEW: u32 = 10;

/// The default polling.
const DEFAULT: &str = "";

/// So many watches are polled so seldom, that the machine is not busy with it.
pub(crate) const SELDOM: &str = "min_interval: 10s, max_interval: 10s";

/// What the kernel says is resident, in bytes.
struct Resident {
    all: f64,
    anonymous: f64,
    file: f64,
}

pub(crate) async fn measure(nginx: &Nginx, rounds: usize) -> Result<Vec<Row>, Failure> {
    let (mut few, mut many, mut most) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        few.push(resident(nginx, DEFAULT, FEW).await?);
        many.push(resident(nginx, DEFAULT, 10_000).await?.all);
        most.push(resident(nginx, SELDOM, 100_000).await?.all);
    }
    let figures = |of: fn(&Resident) -> f64| few.iter().map(of).collect::<Vec<_>>();
    let mut all = figures(|resident| resident.all);
    all.sort_unstable_by(f64::total_cmp);
    let (_, base, _) = spread(&all);
    Ok(vec![
        Row::new(&lines::RESIDENT, all, vec![]),
        Row::new(&lines::RESIDENT_ANONYMOUS, figures(|resident| resident.anonymous), vec![]),
        Row::new(&lines::RESIDENT_FILE, figures(|resident| resident.file), vec![]),
        per_watch(&many, base, 10_000, &lines::PER_WATCH_OF_10_000)?,
        per_watch(&most, base, 100_000, &lines::PER_WATCH_OF_100_000)?,
    ])
}

/// After every watch was polled once, and two scrapes.
async fn resident(nginx: &Nginx, polling: &str, watches: u32) -> Result<Resident, Failure> {
    let site = Site::polled_once(nginx, &nginx.watching(Tasks::InProgress, polling, watches), watches).await?;
    let mut connection = site.connect().await?;
    for _ in 0..2 {
        connection.scrape("").await?;
    }
    let bytes = |key| number(site.exporter.status(key)?);
    Ok(Resident { all: bytes("VmRSS:")?, anonymous: bytes("RssAnon:")?, file: bytes("RssFile:")? })
}

/// What a watch takes beyond the program and beyond its own texts.
fn per_watch(resident: &[f64], base: f64, watches: u32, line: &'static lines::Line) -> Result<Row, Failure> {
    let own = number((0..watches).map(watch_list::own_bytes).sum::<usize>())? / f64::from(watches);
    let own = own + number(MESSAGE.len())?;
    let beyond = f64::from(watches - FEW);
    let each = resident.iter().map(|resident| (resident - base) / beyond - own).collect();
    let (least, most) =
        (resident.iter().copied().fold(f64::MAX, f64::min), resident.iter().copied().fold(0.0, f64::max));
    let mebibytes = |bytes: f64| bytes / f64::from(1 << 20);
    let note = format!("beyond {own:.0} B of own texts; {:.1} to {:.1} MiB in all", mebibytes(least), mebibytes(most));
    Ok(Row::new(line, each, vec![]).note(note))
}
