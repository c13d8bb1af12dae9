//! The two formats of the exposition, and how they write descriptions, bounds and numbers.

use std::io::Write as _;

use crate::labels::put_escaped;

/// A format of the exposition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// Prometheus' text format 0.0.4.
    Text,
    /// The text format of `OpenMetrics` 1.0.0.
    OpenMetrics,
}

/// How metric and label names are written that have other characters than letters, digits, `_` and `:`. The exporter
/// has no such names, so its output is the same with each scheme.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameEscaping {
    /// Unchanged and quoted.
    AllowUtf8,
    /// Each such character is replaced by `_`.
    Underscores,
    /// Each such character is replaced by its code.
    Values,
}

/// The description of a family, which comes before its series.
#[derive(Clone, Copy)]
pub(super) struct Description<'a> {
    /// The name of its series, without the suffixes that histograms and summaries add.
    pub(super) name: &'a str,
    pub(super) kind: Kind,
    pub(super) help: &'a str,
}

/// The type of a family.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram,
    Summary,
    Unknown,
}

/// Numbers below this are written with an exponent.
const SMALLEST_PLAIN: f64 = 1e-4;

/// Values from this on are written with an exponent.
const VALUE_EXPONENT: f64 = 1e21;

/// Numbers in labels of `OpenMetrics` from this on are written with an exponent.
const CANONICAL_EXPONENT: f64 = 1e6;

// === impl Format ===

impl Format {
    /// The Content-Type of an answer in this format. `OpenMetrics` names the escaping, if the client asked for one;
    /// text 0.0.4 has none.
    pub fn content_type(self, escaping: Option<NameEscaping>) -> &'static str {
        match (self, escaping) {
            (Self::Text, _) => "text/plain; version=0.0.4; charset=utf-8",
            (Self::OpenMetrics, None) => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            (Self::OpenMetrics, Some(NameEscaping::AllowUtf8)) => {
                "application/openmetrics-text; version=1.0.0; charset=utf-8; escaping=allow-utf-8"
            }
            (Self::OpenMetrics, Some(NameEscaping::Underscores)) => {
                "application/openmetrics-text; version=1.0.0; charset=utf-8; escaping=underscores"
            }
            (Self::OpenMetrics, Some(NameEscaping::Values)) => {
                "application/openmetrics-text; version=1.0.0; charset=utf-8; escaping=values"
            }
        }
    }

    /// The name and the type of a family in this format.
    pub(super) fn known_as(self, family: Description<'_>) -> (&str, &'static str) {
        match (self, family.kind) {
            // There, a counter without `_total` at the end of its name is not a counter.
            (Self::OpenMetrics, Kind::Counter) => {
                family.name.strip_suffix("_total").map_or((family.name, "unknown"), |base| (base, "counter"))
            }
            (Self::OpenMetrics, Kind::Unknown) => (family.name, "unknown"),
            (Self::Text, Kind::Unknown) => (family.name, "untyped"),
            (Self::Text, Kind::Counter) => (family.name, "counter"),
            (_, Kind::Gauge) => (family.name, "gauge"),
            (_, Kind::Histogram) => (family.name, "histogram"),
            (_, Kind::Summary) => (family.name, "summary"),
        }
    }

    /// Writes the HELP, TYPE and UNIT lines of a family.
    pub(super) fn put_description(self, out: &mut Vec<u8>, family: Description<'_>) {
        let (name, kind) = self.known_as(family);
        if !family.help.is_empty() {
            put_all(out, &["# HELP ", name, " "]);
            put_escaped(out, family.help, self == Self::OpenMetrics);
            out.push(b'\n');
        }
        put_all(out, &["# TYPE ", name, " ", kind, "\n"]);
        if self == Self::OpenMetrics
            && let Some(unit) = unit(name)
        {
            put_all(out, &["# UNIT ", name, " ", unit, "\n"]);
        }
    }

    /// Writes a number as the value of the label `le` or `quantile`.
    pub(super) fn put_bound(self, out: &mut Vec<u8>, bound: f64) {
        match self {
            Self::Text => put_value(out, bound),
            Self::OpenMetrics => put_canonical(out, bound),
        }
    }

    /// The text after the last family.
    pub(super) fn end(self) -> &'static str {
        match self {
            Self::Text => "",
            Self::OpenMetrics => "# EOF\n",
        }
    }
}

/// Writes a number as a value: the shortest text that parses as the same number.
pub(super) fn put_value(out: &mut Vec<u8>, value: f64) {
    if is_plain(value, VALUE_EXPONENT) {
        // Writing to a Vec cannot fail.
        let _ = write!(out, "{value}");
    } else {
        put_special(out, value);
    }
}

/// Writes a number as `OpenMetrics` requires it in labels: never as an integer.
fn put_canonical(out: &mut Vec<u8>, number: f64) {
    if is_plain(number, CANONICAL_EXPONENT) {
        let _ = write!(out, "{number:?}");
    } else {
        put_special(out, number);
    }
}

/// Whether a number is finite and, with `most` as the limit, written without an exponent.
fn is_plain(number: f64, most: f64) -> bool {
    number == 0.0 || (SMALLEST_PLAIN..most).contains(&number.abs())
}

/// Writes a number as `NaN`, as `+Inf` or `-Inf`, or with an exponent, as Go does.
fn put_special(out: &mut Vec<u8>, number: f64) {
    if number.is_nan() {
        return put_all(out, &["NaN"]);
    }
    if number.is_infinite() {
        return put_all(out, &[if number > 0.0 { "+Inf" } else { "-Inf" }]);
    }
    let text = format!("{number:e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, digits) = exponent.strip_prefix('-').map_or(("+", exponent), |digits| ("-", digits));
    let _ = write!(out, "{mantissa}e{sign}{digits:0>2}");
}

/// The unit at the end of the name of a family.
fn unit(name: &str) -> Option<&'static str> {
    ["seconds", "bytes"].into_iter().find(|unit| name.strip_suffix(unit).is_some_and(|rest| rest.ends_with('_')))
}

fn put_all(out: &mut Vec<u8>, parts: &[&str]) {
    for part in parts {
        out.extend_from_slice(part.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(put: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        put(&mut out);
        String::from_utf8(out).unwrap()
    }

    fn value(value: f64) -> String {
        written(|out| put_value(out, value))
    }

    fn described(format: Format, name: &str, kind: Kind, help: &str) -> String {
        written(|out| format.put_description(out, Description { name, kind, help }))
    }

    #[test]
    fn integers_have_no_point_and_very_large_or_small_values_have_an_exponent() {
        for (number, expected) in [
            (0.0, "0"),
            (-0.0, "-0"),
            (1.0, "1"),
            (-17.0, "-17"),
            (1.5, "1.5"),
            (1_790_000_000.005, "1790000000.005"),
            (9_007_199_254_740_993.0, "9007199254740992"),
            (999_999_999_999_999_900_000.0, "999999999999999900000"),
            (1e21, "1e+21"),
            (-1.25e22, "-1.25e+22"),
            (f64::MAX, "1.7976931348623157e+308"),
            (0.0001, "0.0001"),
            (0.000_099, "9.9e-05"),
            (-2e-10, "-2e-10"),
            (5e-324, "5e-324"),
            (f64::NAN, "NaN"),
            (-f64::NAN, "NaN"),
            (f64::INFINITY, "+Inf"),
            (f64::NEG_INFINITY, "-Inf"),
        ] {
            assert_eq!(value(number), expected);
        }
    }

    #[test]
    fn bounds_are_canonical_in_openmetrics_and_values_in_text() {
        for (bound, text, open_metrics) in [
            (0.0, "0", "0.0"),
            (0.005, "0.005", "0.005"),
            (0.0001, "0.0001", "0.0001"),
            (0.000_01, "1e-05", "1e-05"),
            (1e-10, "1e-10", "1e-10"),
            (1.0, "1", "1.0"),
            (1.7, "1.7", "1.7"),
            (21_600.0, "21600", "21600.0"),
            (100_000.0, "100000", "100000.0"),
            (1e6, "1000000", "1e+06"),
            (1_234_567.0, "1234567", "1.234567e+06"),
            (1e10, "10000000000", "1e+10"),
            (-1.0, "-1", "-1.0"),
            (f64::INFINITY, "+Inf", "+Inf"),
            (f64::NEG_INFINITY, "-Inf", "-Inf"),
        ] {
            assert_eq!(written(|out| Format::Text.put_bound(out, bound)), text);
            assert_eq!(written(|out| Format::OpenMetrics.put_bound(out, bound)), open_metrics);
        }
    }

    #[test]
    fn the_name_of_a_counter_has_no_total_in_openmetrics() {
        assert_eq!(
            described(Format::Text, "a_total", Kind::Counter, "H."),
            "# HELP a_total H.\n# TYPE a_total counter\n"
        );
        assert_eq!(described(Format::OpenMetrics, "a_total", Kind::Counter, "H."), "# HELP a H.\n# TYPE a counter\n");
        assert_eq!(described(Format::OpenMetrics, "a", Kind::Counter, ""), "# TYPE a unknown\n");
    }

    #[test]
    fn each_type_has_its_name_in_each_format() {
        for (kind, text, open_metrics) in [
            (Kind::Gauge, "gauge", "gauge"),
            (Kind::Histogram, "histogram", "histogram"),
            (Kind::Summary, "summary", "summary"),
            (Kind::Unknown, "untyped", "unknown"),
        ] {
            assert_eq!(described(Format::Text, "a_total", kind, ""), format!("# TYPE a_total {text}\n"));
            assert_eq!(described(Format::OpenMetrics, "a_total", kind, ""), format!("# TYPE a_total {open_metrics}\n"));
        }
    }

    #[test]
    fn only_openmetrics_has_units_and_only_for_names_that_end_in_one() {
        let unit_of = |name, kind| described(Format::OpenMetrics, name, kind, "").lines().nth(1).map(str::to_owned);
        assert_eq!(unit_of("a_seconds", Kind::Gauge).unwrap(), "# UNIT a_seconds seconds");
        assert_eq!(unit_of("a_bytes", Kind::Histogram).unwrap(), "# UNIT a_bytes bytes");
        assert_eq!(unit_of("a_seconds_total", Kind::Counter).unwrap(), "# UNIT a_seconds seconds");
        for name in ["seconds", "a_milliseconds", "a_bytes_max", "a_seconds_total"] {
            assert_eq!(unit_of(name, Kind::Gauge), None, "{name}");
        }
        assert_eq!(described(Format::Text, "a_seconds", Kind::Gauge, ""), "# TYPE a_seconds gauge\n");
    }

    #[test]
    fn quotes_are_escaped_in_the_help_of_openmetrics_only() {
        let odd = "a \"b\" \\ c\nd\r{é}";
        let help = |format| described(format, "m", Kind::Gauge, odd).split("\n# TYPE").next().map(str::to_owned);
        assert_eq!(help(Format::Text).unwrap(), "# HELP m a \"b\" \\\\ c\\nd\r{é}");
        assert_eq!(help(Format::OpenMetrics).unwrap(), "# HELP m a \\\"b\\\" \\\\ c\\nd\r{é}");
    }

    proptest! {
        #[test]
        fn written_numbers_parse_as_the_same_numbers(bits: u64) {
            let number = f64::from_bits(bits);
            let canonical = written(|out| put_canonical(out, number));
            for text in [value(number), canonical.clone()] {
                let read: f64 = text.parse().unwrap();
                prop_assert!(read.to_bits() == bits || read.is_nan() && number.is_nan(), "{text}");
            }
            prop_assert!(canonical.contains(['.', 'e', 'N', 'I']), "{}", canonical);
        }
    }
}
