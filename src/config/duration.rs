//! Durations as users write them: `300ms`, `5s`, `1h30m`, `7d`.

use std::fmt::Write as _;
use std::time::Duration;

/// The units, from the largest to the smallest, in milliseconds.
const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

/// The longest duration that is accepted.
const MAX_DAYS: u64 = 366;

/// Reads a duration: whole numbers with units, larger units first, each at most once.
///
/// # Errors
/// What is wrong, as a sentence for the user.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let malformed = || "is not a duration: write it like 300ms, 5s, 1h30m or 7d".to_owned();
    let too_long = || format!("is too long: at most {MAX_DAYS}d are allowed");
    let mut rest = text;
    let mut units = UNITS.iter();
    let mut millis = 0u64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(malformed)?;
        let (number, tail) = rest.split_at(digits);
        let unit_len = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_len);
        if number.is_empty() {
            return Err(malformed());
        }
        let (_, scale) = units.find(|(name, _)| *name == unit).ok_or_else(malformed)?;
        let part = number.parse::<u64>().ok().and_then(|n| n.checked_mul(*scale));
        millis = part.and_then(|part| millis.checked_add(part)).ok_or_else(too_long)?;
        rest = tail;
    }
    match millis {
        _ if text.is_empty() => Err(malformed()),
        millis if millis > MAX_DAYS * 86_400_000 => Err(too_long()),
        millis => Ok(Duration::from_millis(millis)),
    }
}

/// Writes a duration as [`parse_duration`] reads it, in whole milliseconds.
pub fn format_duration(duration: Duration) -> String {
    let mut millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let mut text = String::new();
    for (unit, scale) in UNITS {
        if millis >= scale {
            // Writing to a String cannot fail.
            let _ = write!(text, "{}{unit}", millis / scale);
            millis %= scale;
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn documented_forms_are_read() {
        for (text, millis) in
            [("300ms", 300), ("5s", 5000), ("1h30m", 5_400_000), ("7d", 604_800_000), ("0s", 0), ("1m0s5ms", 60_005)]
        {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "",
            "5",
            "s",
            "5x",
            "5 s",
            " 5s",
            "-5s",
            "1.5s",
            "5S",
            "30m1h",
            "1s1s",
            "1ms1s",
            "é",
            "5é",
            "367d",
            "99999999999999999999s",
            "18446744073709551615d",
            "1h-1m",
        ] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(millis in 0..MAX_DAYS * 86_400_000) {
            let duration = Duration::from_millis(millis);
            prop_assert_eq!(parse_duration(&format_duration(duration)), Ok(duration));
        }

        #[test]
        fn no_text_makes_it_panic(text in "\\PC*") {
            let _ = parse_duration(&text);
        }
    }
}
