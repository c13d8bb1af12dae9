//! The standard `process_*` metrics, with CPU time finer than a second.
//!
//! The collector of the `prometheus` crate counts whole CPU seconds, and this process needs minutes to use one.

use std::fs;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Counter, Gauge};

/// Reads `/proc/self` at each scrape. A value that cannot be read is left out.
pub(super) struct ProcessCollector {
    cpu_seconds: Counter,
    open_fds: Gauge,
    max_fds: Gauge,
    virtual_memory: Gauge,
    virtual_memory_max: Gauge,
    resident_memory: Gauge,
    start_time: Gauge,
}

// === impl ProcessCollector ===

impl ProcessCollector {
    pub(super) fn new() -> Result<Self, prometheus::Error> {
        let collector = Self {
            cpu_seconds: Counter::new(
                "process_cpu_seconds_total",
                "Total user and system CPU time spent, in seconds.",
            )?,
            open_fds: Gauge::new("process_open_fds", "Number of open file descriptors.")?,
            max_fds: Gauge::new("process_max_fds", "Maximum number of open file descriptors.")?,
            virtual_memory: Gauge::new("process_virtual_memory_bytes", "Virtual memory size, in bytes.")?,
            virtual_memory_max: Gauge::new(
                "process_virtual_memory_max_bytes",
                "Maximum amount of virtual memory, in bytes; -1 if it is unlimited.",
            )?,
            resident_memory: Gauge::new("process_resident_memory_bytes", "Resident memory size, in bytes.")?,
            start_time: Gauge::new(
                "process_start_time_seconds",
                "Start time of the process, as a Unix time in seconds.",
            )?,
        };
        if let Some(start) = start_time() {
            collector.start_time.set(start);
        }
        Ok(collector)
    }
}

impl Collector for ProcessCollector {
    fn desc(&self) -> Vec<&Desc> {
        let gauges = [
            &self.open_fds,
            &self.max_fds,
            &self.virtual_memory,
            &self.virtual_memory_max,
            &self.resident_memory,
            &self.start_time,
        ];
        self.cpu_seconds.desc().into_iter().chain(gauges.into_iter().flat_map(Collector::desc)).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut families = Vec::new();
        let spent = cpu_seconds();
        self.cpu_seconds.inc_by((spent - self.cpu_seconds.get()).max(0.0));
        families.extend(self.cpu_seconds.collect());
        let memory = memory_bytes();
        let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
        for (gauge, value) in [
            (&self.open_fds, open_fds()),
            (&self.max_fds, soft_limit(&limits, "Max open files")),
            (&self.virtual_memory, memory.map(|(virtual_bytes, _)| virtual_bytes)),
            (&self.virtual_memory_max, soft_limit(&limits, "Max address space")),
            (&self.resident_memory, memory.map(|(_, resident)| resident)),
        ] {
            if let Some(value) = value {
                gauge.set(value);
                families.extend(gauge.collect());
            }
        }
        if self.start_time.get() > 0.0 {
            families.extend(self.start_time.collect());
        }
        families
    }
}

fn cpu_seconds() -> f64 {
    let spent = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    std::time::Duration::try_from(spent).unwrap_or_default().as_secs_f64()
}

/// Open descriptors, without the one that is open to list them.
fn open_fds() -> Option<f64> {
    let count = fs::read_dir("/proc/self/fd").ok()?.count().checked_sub(1)?;
    Some(f64::from(u32::try_from(count).ok()?))
}

/// Virtual and resident bytes, from `/proc/self/statm`, which counts pages.
fn memory_bytes() -> Option<(f64, f64)> {
    let statm = fs::read_to_string("/proc/self/statm").ok()?;
    let page = f64::from(u32::try_from(rustix::param::page_size()).ok()?);
    let mut pages = statm.split(' ').map(|field| field.trim().parse::<f64>().ok());
    Some((pages.next()?? * page, pages.next()?? * page))
}

/// A soft limit from `/proc/self/limits`; unlimited is -1, as in the Go client of Prometheus.
fn soft_limit(limits: &str, name: &str) -> Option<f64> {
    let value = limits.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?;
    if value == "unlimited" { Some(-1.0) } else { value.parse().ok() }
}

/// The start time in seconds: the boot time of the machine plus the clock ticks from then until the start.
fn start_time() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The second field is the name of the program in parentheses, which may contain any characters.
    let ticks: f64 = stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()?;
    let per_second = f64::from(u32::try_from(rustix::param::clock_ticks_per_second()).ok()?);
    let boot = fs::read_to_string("/proc/stat").ok()?;
    let boot: f64 = boot.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    Some(boot + ticks / per_second)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gauge_of(families: &[MetricFamily], name: &str) -> f64 {
        families.iter().find(|f| f.name() == name).unwrap().get_metric()[0].get_gauge().get_value()
    }

    #[test]
    fn memory_descriptors_and_start_time_are_exposed() {
        let collector = ProcessCollector::new().unwrap();
        let families = collector.collect();
        assert!(gauge_of(&families, "process_resident_memory_bytes") > 100_000.0);
        assert!(gauge_of(&families, "process_open_fds") >= 3.0);
        let started = gauge_of(&families, "process_start_time_seconds");
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
        assert!(started < now + 2.0 && started > now - 86_400.0, "{started} {now}");
    }

    #[test]
    fn cpu_time_is_counted_in_fractions_of_a_second() {
        let collector = ProcessCollector::new().unwrap();
        let spent = || {
            let families = collector.collect();
            families.iter().find(|f| f.name() == "process_cpu_seconds_total").unwrap().get_metric()[0]
                .get_counter()
                .get_value()
        };
        let first = spent();
        let mut sum = 0u64;
        while spent() <= first {
            sum = (0..10_000u64).fold(sum, u64::wrapping_add);
        }
        assert!(spent() - first < 1.0, "{sum}");
    }

    #[test]
    fn an_unlimited_limit_is_minus_one() {
        let limits = "Limit  Soft Limit  Hard Limit  Units\nMax open files            1024                 4096                 files\nMax address space         unlimited            unlimited            bytes\n";
        assert_eq!(soft_limit(limits, "Max open files"), Some(1024.0));
        assert_eq!(soft_limit(limits, "Max address space"), Some(-1.0));
        assert_eq!(soft_limit(limits, "Max nothing"), None);
    }
}
