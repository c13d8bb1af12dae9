//! Figures, for people.

use std::fmt::{self, Display, Write as _};

use super::Failure;

/// Rows of figures below a title.
pub(crate) struct Table(String);

// === impl Table ===

impl Table {
    pub(crate) fn new(title: &str) -> Self {
        Self(format!("{title}\n"))
    }

    pub(crate) fn row(&mut self, name: &str, figures: impl Display) {
        // Writing into a string cannot fail.
        let _ = writeln!(self.0, "  {name:<22}{figures}");
    }
}

impl Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

pub(crate) fn goal(reached: bool) -> &'static str {
    if reached { "reached" } else { "missed" }
}

/// The least, the median and the most of what is sorted and not empty.
pub(crate) fn spread<T: Copy>(sorted: &[T]) -> (T, T, T) {
    (sorted[0], sorted[sorted.len() / 2], sorted[sorted.len() - 1])
}

/// A percentile of what is sorted.
pub(crate) fn percentile<T: Copy + Default>(sorted: &[T], percent: usize) -> T {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or_default()
}

/// A count as a figure.
pub(crate) fn number(count: impl TryInto<u32>) -> Result<f64, Failure> {
    Ok(f64::from(count.try_into().map_err(|_| "A count is too large.")?))
}

/// Bytes as MiB.
pub(crate) fn mebibytes(bytes: u64) -> f64 {
    f64::from(u32::try_from(bytes / 1024).unwrap_or(u32::MAX)) / 1024.0
}
