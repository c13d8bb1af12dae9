//! The histogram of the poll lag.

use super::Failure;

/// The upper bounds of a histogram's buckets, and how much is below each.
pub(crate) struct Buckets(Vec<(f64, f64)>);

// === impl Buckets ===

impl Buckets {
    /// Those of the poll lag of the only API, in the lines of a scrape or of a part of it.
    pub(crate) fn of<'a>(lines: impl Iterator<Item = &'a str>) -> Result<Self, Failure> {
        let bucket = |line: &str| {
            let labels = line.strip_prefix("cekura_exporter_poll_lag_seconds_bucket{")?;
            let (_, rest) = labels.split_once("le=\"")?;
            let (bound, count) = rest.split_once("\"} ")?;
            Some((bound.parse().ok()?, count.parse().ok()?))
        };
        let buckets: Vec<_> = lines.filter_map(bucket).collect();
        if buckets.is_empty() { Err("A scrape has no poll lag.".into()) } else { Ok(Self(buckets)) }
    }

    pub(crate) fn since(mut self, earlier: &Self) -> Self {
        self.0.iter_mut().zip(&earlier.0).for_each(|(now, before)| now.1 -= before.1);
        self
    }

    /// How much is in all of them.
    pub(crate) fn count(&self) -> f64 {
        self.0.last().map_or(0.0, |(_, count)| *count)
    }

    /// The quantile, linear within its bucket, as `histogram_quantile` has it.
    pub(crate) fn quantile(&self, quantile: f64) -> f64 {
        let (lower, upper, share) = self.place(quantile);
        lower + (upper - lower) * share
    }

    /// The bounds of the bucket that the quantile is in.
    pub(crate) fn bounds(&self, quantile: f64) -> (f64, f64) {
        let (lower, upper, _) = self.place(quantile);
        (lower, upper)
    }

    /// The bounds of the quantile's bucket, and how far in it the quantile is, from 0 to 1.
    fn place(&self, quantile: f64) -> (f64, f64, f64) {
        let rank = self.count() * quantile;
        let (mut lower, mut below) = (0.0, 0.0);
        for (upper, count) in self.0.iter().filter(|(upper, _)| upper.is_finite()) {
            if *count >= rank {
                return (lower, *upper, (rank - below) / (count - below).max(1.0));
            }
            (lower, below) = (*upper, *count);
        }
        (lower, lower, 0.0)
    }
}
