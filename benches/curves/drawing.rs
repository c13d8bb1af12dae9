//! The curves as a picture. The same figures make the same picture, byte for byte.

use std::fmt::Write as _;

/// The columns of the figures, in this order.
pub(crate) const COLUMNS: &str =
    "watches,polls_per_second,cpu_seconds_per_second,resident_bytes,scrape_seconds,lag_p50_seconds,lag_p99_seconds";

/// A panel, and where its upper left corner is.
struct Panel {
    title: &'static str,
    left: f64,
    top: f64,
    curves: Vec<Curve>,
}

/// A curve: watches, and what they cost.
struct Curve {
    /// How it is drawn.
    class: &'static str,
    /// What its points say of themselves.
    name: &'static str,
    points: Vec<(f64, f64)>,
}

/// The plot within a panel.
const WIDTH: f64 = 300.0;
const HEIGHT: f64 = 150.0;

/// Of the watches, as powers of ten.
const FIRST: f64 = 1.0;
const LAST: f64 = 5.0;

/// Text is as large as it is in the documents around. Colours follow what the reader prefers.
const STYLE: &str = "<style>
text { font: 12px sans-serif; fill: #1f2328; }
.back { fill: #ffffff; }
.value { paint-order: stroke; stroke: #ffffff; stroke-width: 4; }
.title { font-weight: bold; }
.grid { stroke: #d1d9e0; }
.tick { fill: #59636e; }
.main, .faint { fill: none; stroke: #0969da; stroke-width: 2; }
.faint { stroke-dasharray: 5 4; }
.point { fill: #0969da; }
@media (prefers-color-scheme: dark) {
  text { fill: #f0f6fc; }
  .back { fill: #0d1117; }
  .value { stroke: #0d1117; }
  .grid { stroke: #3d444d; }
  .tick { fill: #9198a1; }
  .main, .faint { stroke: #4493f8; }
  .point { fill: #4493f8; }
}
</style>
";

/// Draws the figures, which are CSV with these [`COLUMNS`].
///
/// # Errors
/// A sentence that says what is wrong with them.
pub(crate) fn draw(csv: &str) -> Result<String, String> {
    let rows = rows(csv)?;
    let column = |index: usize, factor: f64| rows.iter().map(|row| (row[0], row[index] * factor)).collect::<Vec<_>>();
    let mebibyte = 1.0 / f64::from(1 << 20);
    let main = |title, left, top, points| Panel {
        title,
        left,
        top,
        curves: vec![Curve { class: "main", name: title, points }],
    };
    let panels = [
        main("CPU, seconds per second", 60.0, 40.0, column(2, 1.0)),
        main("Resident memory, MiB", 440.0, 40.0, column(3, mebibyte)),
        main("Scrape, ms", 60.0, 280.0, column(4, 1000.0)),
        Panel {
            title: "Poll lag, ms: p99, and p50 dashed",
            left: 440.0,
            top: 280.0,
            curves: vec![
                Curve { class: "main", name: "p99", points: column(6, 1000.0) },
                Curve { class: "faint", name: "p50", points: column(5, 1000.0) },
            ],
        },
    ];
    let mut svg = String::from(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 780 490\" role=\"img\" aria-labelledby=\"title desc\">\n\
         <title id=\"title\">What the exporter costs by the number of watches</title>\n",
    );
    let _ = write!(svg, "<desc id=\"desc\">{}</desc>\n{STYLE}", description(&rows));
    svg.push_str("<rect class=\"back\" width=\"780\" height=\"490\"/>\n");
    for panel in &panels {
        panel.draw(&mut svg);
    }
    svg.push_str("</svg>\n");
    Ok(svg)
}

fn rows(csv: &str) -> Result<Vec<[f64; 7]>, String> {
    let mut lines = csv.lines();
    if lines.next() != Some(COLUMNS) {
        return Err(format!("The columns must be {COLUMNS}."));
    }
    let row = |line: &str| {
        let fields: Result<Vec<f64>, _> = line.split(',').map(str::parse).collect();
        let fields = fields.ok().and_then(|fields| <[f64; 7]>::try_from(fields).ok());
        let fields = fields.filter(|fields| fields.iter().all(|figure| figure.is_finite() && *figure > 0.0));
        fields.ok_or_else(|| format!("The line {line:?} is not of seven figures above 0."))
    };
    let rows = lines.map(row).collect::<Result<Vec<_>, _>>()?;
    if rows.is_empty() { Err("There are no figures.".into()) } else { Ok(rows) }
}

/// The same in words, for those who do not see it.
fn description(rows: &[[f64; 7]]) -> String {
    let mut text = String::new();
    for [watches, polls, cpu, resident, scrape, p50, p99] in rows {
        // Writing into a string cannot fail.
        let _ = write!(
            text,
            "{watches} watches: {} polls per second, {} CPU seconds per second, {} MiB resident, a scrape in {} ms, \
             poll lag p50 {} ms and p99 {} ms. ",
            figure(*polls),
            figure(*cpu),
            figure(resident / f64::from(1 << 20)),
            figure(scrape * 1000.0),
            figure(p50 * 1000.0),
            figure(p99 * 1000.0)
        );
    }
    text.trim_end().to_owned()
}

/// Two digits or more.
fn figure(value: f64) -> String {
    let decimals = match value {
        10.0.. => 0,
        1.0.. => 1,
        0.1.. => 2,
        0.01.. => 3,
        _ => 4,
    };
    format!("{value:.decimals$}")
}

// === impl Panel ===

impl Panel {
    /// Writing into a string cannot fail, here and below.
    fn draw(&self, svg: &mut String) {
        let (bottom, top) = self.decades();
        let _ = writeln!(svg, "<g transform=\"translate({},{})\">", self.left, self.top);
        let _ = writeln!(svg, "<text class=\"title\" x=\"0\" y=\"-12\">{}</text>", self.title);
        let mut power = FIRST;
        while power <= LAST {
            let (x, watches) = (across(power), count(power));
            let _ = write!(svg, "<path class=\"grid\" d=\"M{x:.1},0V{HEIGHT}\"/>");
            let _ =
                writeln!(svg, "<text class=\"tick\" x=\"{x:.1}\" y=\"168\" text-anchor=\"middle\">{watches}</text>");
            power += 1.0;
        }
        let mut power = bottom;
        while power <= top {
            let y = down(power, bottom, top);
            let _ = write!(svg, "<path class=\"grid\" d=\"M0,{y:.1}H{WIDTH}\"/>");
            let tick = 10f64.powf(power);
            let _ =
                writeln!(svg, "<text class=\"tick\" x=\"-8\" y=\"{:.1}\" text-anchor=\"end\">{tick}</text>", y + 4.0);
            power += 1.0;
        }
        let _ =
            writeln!(svg, "<text class=\"tick\" x=\"{}\" y=\"186\" text-anchor=\"middle\">watches</text>", WIDTH / 2.0);
        for curve in &self.curves {
            curve.draw(svg, bottom, top);
        }
        svg.push_str("</g>\n");
    }

    /// The powers of ten that all figures are between.
    fn decades(&self) -> (f64, f64) {
        let powers = || self.curves.iter().flat_map(|curve| &curve.points).map(|(_, value)| value.log10());
        let bottom = powers().fold(f64::MAX, f64::min).floor();
        // Room for what is written above the last point.
        let top = (powers().fold(f64::MIN, f64::max) + 0.2).ceil();
        (bottom, top.max(bottom + 1.0))
    }
}

// === impl Curve ===

impl Curve {
    fn draw(&self, svg: &mut String, bottom: f64, top: f64) {
        let Self { class, name, points } = self;
        let place = |(watches, value): &(f64, f64)| (across(watches.log10()), down(value.log10(), bottom, top));
        let path: Vec<_> = points.iter().map(place).map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let _ = writeln!(svg, "<path class=\"{class}\" d=\"M{}\"/>", path.join("L"));
        for point in points {
            let ((x, y), value) = (place(point), figure(point.1));
            let circle =
                format!("<circle class=\"point\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\"><title>{name}</title></circle>");
            // Of two curves the lower one has its figures below.
            let y = if *class == "faint" { y + 16.0 } else { y - 8.0 };
            let anchor = if x > 0.0 { "end" } else { "start" };
            let _ = writeln!(
                svg,
                "{circle}<text class=\"value\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{value}</text>"
            );
        }
    }
}

/// Where a power of ten of watches is.
fn across(power: f64) -> f64 {
    (power - FIRST) / (LAST - FIRST) * WIDTH
}

/// Where a power of ten of the figure is.
fn down(power: f64, bottom: f64, top: f64) -> f64 {
    HEIGHT - (power - bottom) / (top - bottom) * HEIGHT
}

/// A power of ten with commas.
fn count(power: f64) -> String {
    let digits = format!("{:.0}", 10f64.powf(power));
    match digits.len() {
        4.. => format!("{},{}", &digits[..digits.len() - 3], &digits[digits.len() - 3..]),
        _ => digits,
    }
}
