//! What Prometheus knows of its scrapes of the exporter.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use reqwest::Client;
use serde_json::Value;

use super::driver::Happened;
use super::harness::{Daemon, Failure};
use super::plan::Time;
use super::{Lag, Settings};

/// The successful scrapes of each exporter.
pub(super) struct Scrapes {
    /// When they were, for each exporter by its address.
    good: Vec<(String, Vec<Time>)>,
}

/// Asks Prometheus for its lag.
pub(super) async fn lag(http: &Client, prometheus: &Daemon, lasted: Time) -> Result<Lag, Failure> {
    let window = format!("[{lasted:.0}s]");
    let most = async |expression: String| -> Result<Time, Failure> {
        let result = query(http, prometheus, &expression).await?;
        let value = result[0]["value"][1].as_str().and_then(|value| value.parse().ok());
        Ok(value.unwrap_or_default())
    };
    Ok(Lag {
        scrape: most(format!("max(max_over_time(scrape_duration_seconds{{job=\"cekura-exporter\"}}{window}))")).await?,
        evaluation: most(format!("max(max_over_time(prometheus_rule_group_last_duration_seconds{window}))")).await?,
        missed: most("sum(prometheus_rule_group_iterations_missed_total)".to_owned()).await?,
        ..Lag::default()
    })
}

/// The result of an instant query.
async fn query(http: &Client, prometheus: &Daemon, expression: &str) -> Result<Value, Failure> {
    let expression: String = url::form_urlencoded::byte_serialize(expression.as_bytes()).collect();
    let url = format!("http://{}/api/v1/query?query={expression}", prometheus.address);
    let mut answer: Value = serde_json::from_str(&http.get(url).send().await?.text().await?)?;
    if answer["status"] != "success" {
        return Err(format!("Prometheus answered {answer}.").into());
    }
    Ok(answer["data"]["result"].take())
}

// === impl Scrapes ===

impl Scrapes {
    /// The scrapes until `end`. Times count from `begun`.
    pub(super) async fn query(http: &Client, prometheus: &Daemon, begun: Instant, end: Time) -> Result<Self, Failure> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64();
        let zero = now - begun.elapsed().as_secs_f64();
        let result = query(http, prometheus, "up{job=\"cekura-exporter\"}[2h]").await?;
        let good = result.as_array().into_iter().flatten().map(|series| {
            let samples = series["values"].as_array().into_iter().flatten();
            let good = samples.filter(|sample| sample[1] == "1").filter_map(|sample| sample[0].as_f64());
            let address = series["metric"]["instance"].as_str().unwrap_or_default().to_owned();
            (address, good.map(|at| at - zero).filter(|at| *at < end).collect())
        });
        Ok(Self { good: good.collect() })
    }

    /// The gaps in which no exporter was scraped.
    pub(super) fn blind(&self, settings: &Settings) -> Vec<(Time, Time)> {
        let mut good: Vec<_> = self.good.iter().flat_map(|(_, good)| good.iter().copied()).collect();
        good.sort_by(Time::total_cmp);
        gaps(&good).filter(|gap| is_long(*gap, settings)).collect()
    }

    /// The gaps in which some exporter was not scraped.
    pub(super) fn missing(&self, settings: &Settings) -> Vec<(Time, Time)> {
        let all = self.good.iter().flat_map(|(_, good)| gaps(good));
        all.filter(|gap| is_long(*gap, settings)).collect()
    }

    /// Those of [`Scrapes::missing`] in which the exporter was running. What one that is ended does not expose, others
    /// do, or it counts as an absence of the replica.
    pub(super) fn unplanned(&self, happened: &Happened, settings: &Settings) -> Vec<(Time, Time)> {
        let mut unplanned = Vec::new();
        for (address, good) in &self.good {
            let ended = happened.ended.iter().filter(|ended| ended.address == *address);
            let ended: Vec<_> = ended.map(|ended| (ended.from, ended.to)).collect();
            unplanned.extend(gaps(good).flat_map(|gap| without(gap, &ended)).filter(|gap| is_long(*gap, settings)));
        }
        unplanned
    }
}

fn gaps(good: &[Time]) -> impl Iterator<Item = (Time, Time)> {
    good.windows(2).map(|pair| (pair[0], pair[1]))
}

/// Whether at least one scrape failed or was late.
fn is_long((from, to): (Time, Time), settings: &Settings) -> bool {
    to - from > 1.5 * settings.scrape_interval
}

/// What is left of a gap without these times, which are in order.
fn without((from, to): (Time, Time), times: &[(Time, Time)]) -> Vec<(Time, Time)> {
    let inside = times.iter().filter(|(begins, ends)| *begins < to && *ends > from);
    let (begins, ends): (Vec<_>, Vec<_>) = inside.copied().unzip();
    [from].into_iter().chain(ends).zip(begins.into_iter().chain([to])).collect()
}

#[cfg(test)]
#[allow(dead_code, unused_imports, reason = "where this is a bench, it has no tests")]
mod tests {
    use super::*;

    #[test]
    fn a_planned_end_of_a_replica_is_no_part_of_a_gap() {
        assert_eq!(without((1.0, 9.0), &[]), [(1.0, 9.0)]);
        assert_eq!(without((1.0, 9.0), &[(2.0, 5.0)]), [(1.0, 2.0), (5.0, 9.0)]);
        assert_eq!(without((1.0, 9.0), &[(0.0, 1.0), (9.0, 10.0)]), [(1.0, 9.0)]);
    }
}
