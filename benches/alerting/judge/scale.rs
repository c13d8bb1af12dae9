//! Scales the times in the shipped rules and routes, and breaks rules on purpose.

use std::collections::HashMap;
use std::fmt::Write as _;

use super::harness::Failure;

/// A number in an expression that is at least this large is a number of seconds. Smaller ones are counts.
const LEAST_SECONDS: f64 = 60.0;

/// A way to break the rules, to check that the judge finds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Break {
    /// Removes `keep_firing_for`.
    KeepFiringFor,
    /// Alerts on a mismatch of the current run only.
    Mismatch,
    /// Alerts at once when mocks are not as they should be, so also on those that are switched for a test run.
    Drift,
    /// Lets one refused toggle fire `CekuraApiUnauthorized`, which mutes the other toggles of the API.
    Inhibition,
}

/// The text of the rules, split by rule.
#[derive(Clone)]
pub(crate) struct Rules {
    head: Vec<String>,
    rules: Vec<Rule>,
}

#[derive(Clone)]
struct Rule {
    name: String,
    lines: Vec<String>,
}

// === impl Break ===

impl Break {
    pub(crate) const ALL: [Self; 4] = [Self::KeepFiringFor, Self::Mismatch, Self::Drift, Self::Inhibition];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::KeepFiringFor => "keep_firing_for",
            Self::Mismatch => "mismatch",
            Self::Drift => "drift",
            Self::Inhibition => "inhibition",
        }
    }

    pub(crate) fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|broken| broken.as_str() == name)
    }
}

// === impl Rules ===

impl Rules {
    pub(crate) fn parse(text: &str) -> Result<Self, Failure> {
        let (mut head, mut rules) = (Vec::new(), Vec::<Rule>::new());
        for line in text.lines() {
            let item = line.trim_start();
            if let Some(name) = item.strip_prefix("- alert: ").or_else(|| item.strip_prefix("- record: ")) {
                rules.push(Rule { name: name.to_owned(), lines: Vec::new() });
            }
            rules.last_mut().map_or(&mut head, |rule| &mut rule.lines).push(line.to_owned());
        }
        if rules.is_empty() { Err("There is no rule in the rules.".into()) } else { Ok(Self { head, rules }) }
    }

    /// The `keep_firing_for` of each alert, in seconds.
    pub(crate) fn kept_firing(&self) -> Result<HashMap<String, f64>, Failure> {
        let mut kept = HashMap::new();
        for rule in &self.rules {
            if let Some(value) = rule.lines.iter().find_map(|line| line.trim().strip_prefix("keep_firing_for: ")) {
                let seconds = duration(value).ok_or_else(|| format!("{value:?} is no duration."))?;
                kept.insert(rule.name.clone(), seconds);
            }
        }
        Ok(kept)
    }

    /// Breaks the rules.
    pub(crate) fn broken(mut self, how: Break) -> Result<Self, Failure> {
        match how {
            Break::KeepFiringFor => {
                for rule in &mut self.rules {
                    rule.lines.retain(|line| !line.trim_start().starts_with("keep_firing_for:"));
                }
            }
            Break::Mismatch => {
                for (alert, expect) in [("CekuraToggleMocksNotOn", "enabled"), ("CekuraToggleMocksNotOff", "disabled")]
                {
                    let of_run = format!("cekura_toggle_mock_mismatch{{expect=\"{expect}\"}}");
                    self.replace(alert, &format!("max without (instance, pod) ({of_run}) == 1"))?;
                }
            }
            Break::Drift => {
                for rule in self.rules.iter_mut().filter(|rule| rule.name == "CekuraAgentMocksDrifted") {
                    rule.lines.retain(|line| !line.trim_start().starts_with("for:"));
                }
            }
            Break::Inhibition => {
                let refused = "cekura_toggle_poll_error{reason=~\"unauthorized|forbidden|credentials\"}";
                let counted =
                    format!("count by (job, namespace, api, reason) (max without (instance, pod) ({refused}))");
                self.replace("CekuraApiUnauthorized", &counted)?;
            }
        }
        Ok(self)
    }

    /// Replaces the expression of all rules of a name.
    fn replace(&mut self, name: &str, expression: &str) -> Result<(), Failure> {
        let mut found = false;
        for rule in self.rules.iter_mut().filter(|rule| rule.name == name) {
            let Some((start, end)) = rule.expression() else { continue };
            let indentation = indentation(&rule.lines[start]);
            rule.lines.splice(start..end, [format!("{:indentation$}expr: {expression}", "")]);
            found = true;
        }
        if found { Ok(()) } else { Err(format!("There is no rule {name} to be broken.").into()) }
    }

    /// The text with all times divided by `factor`, and the number of times. Annotations are not scaled.
    pub(crate) fn scaled(&self, factor: f64) -> (String, usize) {
        let mut count = 0;
        let mut text = self.head.join("\n") + "\n";
        for rule in &self.rules {
            let expression = rule.expression().unwrap_or_default();
            for (number, line) in rule.lines.iter().enumerate() {
                let trimmed = line.trim_start();
                let is_time = trimmed.starts_with("for:") || trimmed.starts_with("keep_firing_for:");
                let is_expression = (expression.0..expression.1).contains(&number) && !trimmed.starts_with('#');
                let line = if is_time || is_expression { scale(line, factor, &mut count) } else { line.clone() };
                text += &line;
                text.push('\n');
            }
        }
        (text, count)
    }
}

// === impl Rule ===

impl Rule {
    /// The range of the lines of its expression.
    fn expression(&self) -> Option<(usize, usize)> {
        let start = self.lines.iter().position(|line| line.trim_start().starts_with("expr:"))?;
        let outer = indentation(&self.lines[start]);
        let inside = |line: &&String| line.trim().is_empty() || indentation(line) > outer;
        let more = self.lines[start + 1..].iter().take_while(inside).count();
        Some((start, start + 1 + more))
    }
}

/// The routes with all times divided by `factor` and the URL of each receiver replaced by `url_of`. `max_alerts` is
/// removed, because the judge needs all alerts of a notification.
pub(crate) fn routes(text: &str, factor: f64, url_of: impl Fn(&str) -> String) -> Result<String, Failure> {
    let (mut routes, mut receiver, mut led) = (String::new(), "", 0);
    for line in text.lines() {
        let trimmed = line.trim_start();
        let indentation = indentation(line);
        if trimmed.starts_with('#') {
            continue;
        }
        if let Some(name) = trimmed.strip_prefix("- name: ") {
            receiver = name;
        }
        let is_time = ["group_wait:", "group_interval:", "repeat_interval:"].iter().any(|key| trimmed.starts_with(key));
        // Writing into a string cannot fail.
        let _ = if is_time {
            writeln!(routes, "{}", scale(line, factor, &mut 0))
        } else if trimmed.starts_with("- {url:") {
            led += 1;
            writeln!(routes, "{:indentation$}- {{url: '{}', max_alerts: 0}}", "", url_of(receiver))
        } else {
            writeln!(routes, "{line}")
        };
    }
    if led == 0 { Err("No receiver of the routes could be led elsewhere.".into()) } else { Ok(routes) }
}

/// The duration of the first occurrence of a key in the routes, in seconds.
pub(crate) fn time_of(text: &str, key: &str) -> Result<f64, Failure> {
    let value = text.lines().find_map(|line| line.trim().strip_prefix(key)?.strip_prefix(": "));
    value.and_then(duration).ok_or_else(|| format!("The routes have no {key}.").into())
}

fn indentation(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

/// Divides each duration and each number of seconds in a line, except in quoted strings.
fn scale(line: &str, factor: f64, count: &mut usize) -> String {
    let (mut scaled, mut rest) = (String::new(), line);
    let (mut quoted, mut before) = (false, ' ');
    while let Some(next) = rest.chars().next() {
        let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
        let end = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
        if quoted || !next.is_ascii_digit() || is_word(before) {
            quoted ^= next == '"';
            scaled.push(next);
            before = next;
            rest = &rest[next.len_utf8()..];
            continue;
        }
        let (word, behind) = rest.split_at(end);
        let number = word.parse::<f64>().ok().filter(|number| *number >= LEAST_SECONDS);
        // Writing into a string cannot fail.
        let _ = match (duration(word), number) {
            (Some(seconds), _) => {
                *count += 1;
                write!(scaled, "{:.0}ms", (1000.0 * seconds / factor).max(1.0))
            }
            (None, Some(number)) => {
                *count += 1;
                write!(scaled, "{}", number / factor)
            }
            (None, None) => write!(scaled, "{word}"),
        };
        before = ' ';
        rest = behind;
    }
    scaled
}

/// The seconds of a duration such as `1h30m`.
fn duration(text: &str) -> Option<f64> {
    let (mut seconds, mut rest) = (0.0, text);
    while !rest.is_empty() {
        let (digits, behind) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit())?);
        let (unit, behind) = behind.split_at(behind.find(|c: char| c.is_ascii_digit()).unwrap_or(behind.len()));
        let unit = match unit {
            "ms" => 0.001,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            "d" => 86_400.0,
            "w" => 604_800.0,
            "y" => 31_536_000.0,
            _ => return None,
        };
        seconds += digits.parse::<f64>().ok()? * unit;
        rest = behind;
    }
    (seconds > 0.0).then_some(seconds)
}

#[cfg(test)]
#[allow(dead_code, unused_imports, reason = "where this is a bench, it has no tests")]
mod tests {
    use super::*;

    const RULES: &str = "\
groups:
  - name: g
    rules:
      # After 10m.
      - alert: A
        expr: |
          max_over_time(a{x=\"30m\"}[15m] offset 121m) > 1800
          or up == 0
        for: 1h30m
        keep_firing_for: 10m
        annotations:
          summary: 400 times in 10m
      - alert: CekuraApiUnauthorized
        expr: b > 4
";

    #[test]
    fn every_time_is_divided_and_nothing_else() {
        let (text, count) = Rules::parse(RULES).unwrap().scaled(60.0);
        let expected = RULES
            .replace("[15m] offset 121m) > 1800", "[15000ms] offset 121000ms) > 30")
            .replace("for: 1h30m", "for: 90000ms")
            .replace("keep_firing_for: 10m", "keep_firing_for: 10000ms");
        assert_eq!((text, count), (expected, 5));
    }

    #[test]
    fn how_long_alerts_are_kept_firing_is_read() {
        let kept = Rules::parse(RULES).unwrap().kept_firing().unwrap();
        assert_eq!(kept, HashMap::from([("A".to_owned(), 600.0)]));
    }

    #[test]
    fn a_broken_rule_is_another_one_and_one_that_there_is_not_cannot_be_broken() {
        let rules = Rules::parse(RULES).unwrap();
        let kept = rules.clone().broken(Break::KeepFiringFor).unwrap().scaled(1.0).0;
        assert!(!kept.contains("keep_firing_for") && kept.contains("for: 5400000ms"), "{kept}");
        let inhibition = rules.clone().broken(Break::Inhibition).unwrap().scaled(1.0).0;
        assert!(inhibition.contains("expr: count by (job, namespace, api, reason)"), "{inhibition}");
        assert!(!inhibition.contains("b > 4"), "{inhibition}");
        assert!(rules.broken(Break::Mismatch).is_err());
    }

    #[test]
    fn routes_lead_each_receiver_to_its_url_and_wait_for_less() {
        let shipped = "\
route:
  group_wait: 30s
  repeat_interval: 7d
receivers:
  - name: chat
    webhook_configs:
      - {url: 'https://chat.example.com/x', max_alerts: 50}
";
        let text = routes(shipped, 30.0, |receiver| format!("http://h/{receiver}")).unwrap();
        let expected = shipped
            .replace("30s", "1000ms")
            .replace("7d", "20160000ms")
            .replace("https://chat.example.com/x', max_alerts: 50", "http://h/chat', max_alerts: 0");
        assert_eq!(text, expected);
        assert!(routes("route:\n", 30.0, str::to_owned).is_err());
    }
}
