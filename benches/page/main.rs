//! What the status page of a long watch list takes in a browser: `cargo bench --bench page`, or with
//! another number of watches `cargo bench --bench page -- 1000`.
//!
//! The program polls nginx, whose tasks never finish, at the default interval, so that every row has
//! changed at every refresh. Chromium loads the page several times and lets it refresh itself. The goals
//! are those for 10,000 watches. They are printed beside the figures, and missing one fails nothing.

#[allow(dead_code, unused_imports, reason = "each bench uses a part of it")]
#[path = "../harness/mod.rs"]
mod harness;

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use harness::{Connection, Failure, Nginx, Program, Site, Table, Tasks, goal, load_average, spread};
use serde::Deserialize;
use tokio::process::Command;

/// Watches, if the command line says no other number.
const WATCHES: u32 = 10_000;

/// How long everything may take.
const LIMIT: Duration = Duration::from_mins(10);

/// How often the page is loaded.
const LOADS: u32 = 5;

/// How often it refreshes itself after each load.
const REFRESHES: u32 = 4;

/// How often the program is asked for each page.
const REQUESTS: u32 = 20;

/// Until something is painted, in milliseconds.
const PAINT_GOAL: f64 = 1000.0;

/// The script of a refresh, in milliseconds.
const SCRIPT_GOAL: f64 = 200.0;

const NODE: Program = Program { name: "node", package: "nodejs", ready: "" };

/// What the browser took, in milliseconds.
#[derive(Deserialize)]
struct Figures {
    /// From asking for the page to its first text on the screen, of each load.
    paint: Vec<f64>,
    /// The script of each refresh.
    script: Vec<f64>,
    /// Reading the page as HTML, once for each load.
    reading: Vec<f64>,
    /// Style and layout in each refresh.
    layout: Vec<f64>,
    /// The main thread in each refresh: script, style, layout, painting.
    main: Vec<f64>,
    rows: u32,
}

fn main() -> ExitCode {
    harness::main(LIMIT, async |arguments| {
        let watches = harness::watches(&arguments, WATCHES)?;
        let table = measure(watches).await?;
        write!(io::stdout(), "{table}")?;
        Ok(())
    })
}

async fn measure(watches: u32) -> Result<Table, Failure> {
    let nginx = Nginx::start().await?;
    let site = Site::polled_once(&nginx, &nginx.watching(Tasks::InProgress, "", watches), watches).await?;
    let mut table = Table::new(&format!("{watches} watches, load average {}", load_average()?));

    let figures = browse(&format!("http://{}/", site.exporter.address)).await?;
    table.row("rows on the page", figures.rows);
    let (paint, median) = shown(figures.paint);
    table.row("first paint", format!("{paint} (goal {PAINT_GOAL} ms: {})", goal(median < PAINT_GOAL)));
    let (script, median) = shown(figures.script);
    table.row("script of a refresh", format!("{script} (goal {SCRIPT_GOAL} ms: {})", goal(median < SCRIPT_GOAL)));
    table.row("reading its HTML", shown(figures.reading).0);
    table.row("its style and layout", shown(figures.layout).0);
    table.row("main thread in all", shown(figures.main).0);

    let mut connection = site.connect().await?;
    for (name, target) in [("page", "/"), ("one toggle", "/toggles/load-00000"), ("runbooks", "/runbooks")] {
        for encoding in ["identity", "gzip"] {
            let (took, bytes) = answered(&mut connection, target, encoding).await?;
            table.row(&format!("{name}, {encoding}"), format!("{}, {bytes} bytes", shown(took).0));
        }
    }
    Ok(table)
}

/// What a browser takes for the page at this URL.
async fn browse(url: &str) -> Result<Figures, Failure> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/page/measure.mjs");
    let mut node = Command::new(NODE.find()?);
    node.args([script, url, &LOADS.to_string(), &REFRESHES.to_string()]).kill_on_drop(true);
    let output = node.output().await?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(
            format!("The browser could not be measured; tests/tools/install installs what it needs. {said}").into()
        );
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// How long the program takes to answer, in milliseconds, and how much it answers.
async fn answered(connection: &mut Connection, target: &str, encoding: &str) -> Result<(Vec<f64>, usize), Failure> {
    let (mut took, mut bytes) = (Vec::new(), 0);
    for _ in 0..REQUESTS {
        let begun = Instant::now();
        bytes = 0;
        let headers = format!("accept-encoding: {encoding}\r\n");
        let status = connection.get(target, &headers, |piece| bytes += piece.len()).await?;
        if status != 200 {
            return Err(format!("{target} answers {status}.").into());
        }
        took.push(begun.elapsed().as_secs_f64() * 1000.0);
    }
    Ok((took, bytes))
}

/// The median with the least and the most, for people, and as it is.
fn shown(mut figures: Vec<f64>) -> (String, f64) {
    figures.sort_unstable_by(f64::total_cmp);
    let (least, median, most) = spread(&figures);
    (format!("{median:.1} ms ({least:.1} to {most:.1})"), median)
}
