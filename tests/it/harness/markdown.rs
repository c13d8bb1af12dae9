//! What documents consist of: headings, links and tables.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The lines outside of code blocks.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut is_code = false;
    text.lines().filter(move |line| {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        !is_fence && !is_code
    })
}

/// What stands between the backticks of a line.
pub(crate) fn code(line: &str) -> Vec<&str> {
    line.split('`').skip(1).step_by(2).collect()
}

/// The anchors of the headings, as GitHub makes them.
fn anchors(text: &str) -> BTreeSet<String> {
    let titles = prose(text).filter_map(|line| line.strip_prefix('#')).map(|line| line.trim_start_matches('#').trim());
    let anchor = |title: &str| {
        let kept = title.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        kept.collect::<String>().to_lowercase().replace(' ', "-")
    };
    titles.map(anchor).collect()
}

/// Where links and pictures lead to.
pub(crate) fn links(text: &str) -> Vec<String> {
    // A link around code is one; code that looks like a link is none.
    let without_code = |line: &str| line.split('`').step_by(2).collect::<Vec<_>>().join("");
    let targets = |line: String| {
        let targets =
            line.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target.to_owned());
        targets.collect::<Vec<_>>()
    };
    prose(text).map(without_code).flat_map(targets).collect()
}

/// The links of a document that lead nowhere: to a file or a heading that is not there.
pub(crate) fn broken_links(document: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(document).unwrap();
    let is_broken = |link: &String| {
        if link.starts_with("https://") || link.starts_with("http://") {
            return false;
        }
        let (path, anchor) = link.split_once('#').map_or((link.as_str(), None), |(path, anchor)| (path, Some(anchor)));
        let target: PathBuf = if path.is_empty() { document.to_owned() } else { document.parent().unwrap().join(path) };
        let has = |anchor: &str| std::fs::read_to_string(&target).is_ok_and(|text| anchors(&text).contains(anchor));
        !target.exists() || anchor.is_some_and(|anchor| !has(anchor))
    };
    links(&text).into_iter().filter(is_broken).collect()
}

/// What stands below a heading, up to the next one of its level or above.
pub(crate) fn section<'t>(text: &'t str, heading: &str) -> &'t str {
    let start = format!("\n{heading}\n");
    let (_, after) = text.split_once(&start).unwrap_or_else(|| panic!("no {heading:?}"));
    let level = heading.bytes().take_while(|byte| *byte == b'#').count();
    let ends = (1..=level).filter_map(|level| after.find(&format!("\n{} ", "#".repeat(level))));
    &after[..ends.min().unwrap_or(after.len())]
}

/// The rows of all tables without their heads, each as its cells.
pub(crate) fn rows(text: &str) -> Vec<Vec<&str>> {
    let lines: Vec<_> = prose(text).collect();
    let is_rule = |line: &str| line.starts_with("|--");
    let is_head = |at: usize| lines.get(at + 1).is_some_and(|next| is_rule(next));
    let is_row = |at: usize| lines[at].starts_with('|') && !is_rule(lines[at]) && !is_head(at);
    let rows = (0..lines.len()).filter(|at| is_row(*at)).map(|at| lines[at]);
    rows.map(|row| row.trim().trim_start_matches('|').split('|').map(str::trim).collect()).collect()
}
