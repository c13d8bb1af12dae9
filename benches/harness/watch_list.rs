//! Long lists of watches and agents.

use std::fmt::Write as _;

/// The entries of a list of so many watches, each of an agent of its own.
pub(crate) fn entries(watches: u32) -> String {
    let mut text = String::new();
    for number in 0..watches {
        // Writing into a string cannot fail.
        let _ = writeln!(
            text,
            "  - {{name: {}, agent_id: {}, progress_id: {}, expect: enabled, labels: {{{LABEL}: {VALUE}}}}}",
            name(number),
            number + 1,
            progress_id(number),
        );
    }
    text
}

/// The entries of a list of so many agents, with ids from `first` on.
pub(crate) fn agents(first: u32, agents: u32) -> String {
    let mut text = String::new();
    for id in first..first + agents {
        // Writing into a string cannot fail.
        let _ = writeln!(text, "  - {{agent_id: {id}, expect: enabled, labels: {{{LABEL}: {VALUE}}}}}");
    }
    text
}

/// How long the texts are that such a watch brings along: its name, progress id and label.
pub(crate) fn own_bytes(number: u32) -> usize {
    name(number).len() + progress_id(number).len() + LABEL.len() + VALUE.len()
}

const LABEL: &str = "team";
const VALUE: &str = "bookings";

fn name(number: u32) -> String {
    format!("load-{number:05}")
}

/// An id of the usual form that ends with the watch's number.
fn progress_id(number: u32) -> String {
    format!("6f0c1f6e-8d1c-4f0e-9f8e-{number:012}")
}
