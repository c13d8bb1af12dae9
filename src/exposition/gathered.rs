//! Encoding the families that the `prometheus` crate keeps.

use prometheus::proto::{Histogram, LabelPair, Metric, MetricFamily, MetricType, Summary};

use super::format::{Description, Format, Kind, put_value};
use crate::labels::put_label;

/// Writes the series of one metric.
struct MetricSeries<'a> {
    out: &'a mut Vec<u8>,
    format: Format,
    name: &'a str,
    labels: &'a [LabelPair],
}

/// The name of a label whose value is a number, and the number.
type Bound = (&'static str, f64);

/// The name, type and HELP text of a family.
pub(super) fn description(family: &MetricFamily) -> Description<'_> {
    let kind = match family.get_field_type() {
        MetricType::COUNTER => Kind::Counter,
        MetricType::GAUGE => Kind::Gauge,
        MetricType::HISTOGRAM => Kind::Histogram,
        MetricType::SUMMARY => Kind::Summary,
        MetricType::UNTYPED => Kind::Unknown,
    };
    Description { name: family.name(), kind, help: family.help() }
}

/// Writes the series of one metric of a family, without a timestamp.
pub(super) fn put_metric(out: &mut Vec<u8>, format: Format, family: &MetricFamily, metric: &Metric) {
    let mut series = MetricSeries { out, format, name: family.name(), labels: metric.get_label() };
    match family.get_field_type() {
        MetricType::COUNTER => series.value("", None, metric.get_counter().get_value()),
        MetricType::GAUGE => series.value("", None, metric.get_gauge().get_value()),
        MetricType::HISTOGRAM => series.histogram(metric.get_histogram()),
        MetricType::SUMMARY => series.summary(metric.get_summary()),
        MetricType::UNTYPED => series.value("", None, untyped(metric)),
    }
}

#[expect(deprecated, reason = "the crate has no other function for it")]
fn untyped(metric: &Metric) -> f64 {
    metric.get_untyped().get_value()
}

// === impl MetricSeries ===

impl MetricSeries<'_> {
    fn histogram(&mut self, histogram: &Histogram) {
        let count = histogram.get_sample_count();
        // The crate keeps the bucket `+Inf` only if it was requested, so it is always written from the count.
        let finite = histogram.get_bucket().iter().filter(|bucket| bucket.upper_bound() < f64::INFINITY);
        for bucket in finite {
            self.count("_bucket", Some(("le", bucket.upper_bound())), bucket.cumulative_count());
        }
        self.count("_bucket", Some(("le", f64::INFINITY)), count);
        self.value("_sum", None, histogram.get_sample_sum());
        self.count("_count", None, count);
    }

    fn summary(&mut self, summary: &Summary) {
        for quantile in summary.get_quantile() {
            self.value("", Some(("quantile", quantile.quantile())), quantile.value());
        }
        self.value("_sum", None, summary.sample_sum());
        self.count("_count", None, summary.sample_count());
    }

    fn value(&mut self, suffix: &str, bound: Option<Bound>, value: f64) {
        self.start(suffix, bound);
        put_value(self.out, value);
        self.out.push(b'\n');
    }

    fn count(&mut self, suffix: &str, bound: Option<Bound>, count: u64) {
        self.start(suffix, bound);
        self.out.extend_from_slice(itoa::Buffer::new().format(count).as_bytes());
        self.out.push(b'\n');
    }

    /// Writes the name, the labels and the space before the value.
    fn start(&mut self, suffix: &str, bound: Option<Bound>) {
        self.out.extend_from_slice(self.name.as_bytes());
        self.out.extend_from_slice(suffix.as_bytes());
        let mut before = b'{';
        for label in self.labels {
            self.out.push(before);
            put_label(self.out, label.name(), label.value());
            before = b',';
        }
        if let Some((name, bound)) = bound {
            self.out.push(before);
            self.out.extend_from_slice(name.as_bytes());
            self.out.extend_from_slice(b"=\"");
            self.format.put_bound(self.out, bound);
            self.out.push(b'"');
            before = b',';
        }
        if before == b',' {
            self.out.push(b'}');
        }
        self.out.push(b' ');
    }
}

#[cfg(test)]
mod tests {
    use prometheus::core::Collector;
    use prometheus::proto::Quantile;
    use prometheus::{CounterVec, Histogram, HistogramOpts, Opts, TextEncoder};

    use super::*;
    use crate::board::ToggleRows;
    use crate::exposition::{Encoder, Metrics, Snapshot};
    use crate::toggle::{ApiName, Status};

    fn encoded(format: Format, families: Vec<MetricFamily>) -> String {
        let snapshot = Snapshot::new(ToggleRows::default(), vec![], vec![], families);
        let mut encoder = Encoder::new(&snapshot, format);
        String::from_utf8(std::iter::from_fn(|| encoder.next_chunk(&snapshot)).collect::<Vec<_>>().concat()).unwrap()
    }

    fn family(name: &str, kind: MetricType, metric: Metric) -> MetricFamily {
        let mut family = MetricFamily::default();
        family.set_name(name.to_owned());
        family.set_field_type(kind);
        family.set_metric(vec![metric]);
        family
    }

    #[test]
    fn text_equals_what_the_encoder_of_the_crate_writes() {
        let metrics = Metrics::new().unwrap();
        let api = metrics.api(&ApiName::default_api());
        api.count_run(Status::Completed, Some(std::time::Duration::from_millis(1234)), false);
        metrics.count_http("/metrics", 200);
        let gathered = metrics.gather(std::time::Instant::now());
        let theirs = TextEncoder::new().encode_to_string(&gathered).unwrap();
        assert_eq!(encoded(Format::Text, gathered), theirs);
    }

    #[test]
    fn a_histogram_has_each_bucket_once_and_ends_with_the_infinite_one() {
        for buckets in [vec![0.5, 1.0], vec![0.5, 1.0, f64::INFINITY]] {
            let histogram = Histogram::with_opts(HistogramOpts::new("h_seconds", "H.").buckets(buckets)).unwrap();
            histogram.observe(0.75);
            histogram.observe(2.0);
            assert_eq!(
                encoded(Format::OpenMetrics, histogram.collect()),
                "# HELP h_seconds H.\n# TYPE h_seconds histogram\n# UNIT h_seconds seconds\n\
                 h_seconds_bucket{le=\"0.5\"} 0\nh_seconds_bucket{le=\"1.0\"} 1\nh_seconds_bucket{le=\"+Inf\"} 2\n\
                 h_seconds_sum 2.75\nh_seconds_count 2\n# EOF\n"
            );
            let text = encoded(Format::Text, histogram.collect());
            assert!(text.contains("h_seconds_bucket{le=\"1\"} 1\nh_seconds_bucket{le=\"+Inf\"} 2\n"), "{text}");
        }
    }

    #[test]
    fn the_series_of_a_counter_have_total_and_escaped_labels() {
        let counters = CounterVec::new(Opts::new("c_total", "Says \"so\"."), &["a", "b"]).unwrap();
        counters.with_label_values(&["x\"\\\n", ""]).inc_by(1e21);
        let series = "c_total{a=\"x\\\"\\\\\\n\",b=\"\"} 1e+21\n";
        assert_eq!(
            encoded(Format::Text, counters.collect()),
            format!("# HELP c_total Says \"so\".\n# TYPE c_total counter\n{series}")
        );
        assert_eq!(
            encoded(Format::OpenMetrics, counters.collect()),
            format!("# HELP c Says \\\"so\\\".\n# TYPE c counter\n{series}# EOF\n")
        );
    }

    #[test]
    fn summaries_and_untyped_metrics_are_written_without_timestamps() {
        let mut quantile = Quantile::default();
        quantile.set_quantile(1.0);
        quantile.set_value(f64::NAN);
        let mut summary = Summary::default();
        summary.set_quantile(vec![quantile]);
        summary.set_sample_count(u64::MAX);
        summary.set_sample_sum(-0.5);
        let mut metric = Metric::default();
        metric.set_summary(summary);
        metric.set_timestamp_ms(7);
        let families =
            vec![family("s", MetricType::SUMMARY, metric), family("u", MetricType::UNTYPED, Metric::default())];
        assert_eq!(
            encoded(Format::Text, families.clone()),
            "# TYPE s summary\ns{quantile=\"1\"} NaN\ns_sum -0.5\ns_count 18446744073709551615\n# TYPE u untyped\nu 0\n"
        );
        assert_eq!(
            encoded(Format::OpenMetrics, families),
            "# TYPE s summary\ns{quantile=\"1.0\"} NaN\ns_sum -0.5\ns_count 18446744073709551615\n\
             # TYPE u unknown\nu 0\n# EOF\n"
        );
    }

    #[test]
    fn a_family_without_series_is_left_out() {
        let mut empty = family("e", MetricType::GAUGE, Metric::default());
        empty.set_metric(vec![]);
        assert_eq!(encoded(Format::Text, vec![empty.clone()]), "");
        assert_eq!(encoded(Format::OpenMetrics, vec![empty]), "# EOF\n");
    }
}
