//! What processes use of the CPU.

use std::collections::HashMap;
use std::fs;
use std::time::Duration;

use super::Failure;

/// What each thread of a process has used so far, user and system time, in nanoseconds.
///
/// It is from the scheduler's accounts, `/proc/PID/task/TID/schedstat`. Those in `/proc/PID/stat`
/// are rounded to 10 ms, which a process that idles does not use in a minute. Of a thread that runs
/// just then, what it used since the last tick is missing.
pub(crate) struct Cpu(HashMap<String, u64>);

// === impl Cpu ===

impl Cpu {
    pub(crate) fn of(process: u32) -> Result<Self, Failure> {
        let mut threads = HashMap::new();
        for thread in fs::read_dir(format!("/proc/{process}/task"))? {
            let thread = thread?;
            // It may have ended since it was listed.
            let Ok(text) = fs::read_to_string(thread.path().join("schedstat")) else { continue };
            let used = text.split_whitespace().next().and_then(|used| used.parse().ok());
            let used = used.ok_or("The kernel tells no CPU time of threads.")?;
            threads.insert(thread.file_name().to_string_lossy().into_owned(), used);
        }
        if threads.is_empty() { Err("The kernel tells no CPU time of threads.".into()) } else { Ok(Self(threads)) }
    }

    /// What was used since then, but for what threads used that have ended.
    pub(crate) fn since(&self, earlier: &Self) -> Duration {
        let used = |(thread, now): (&String, &u64)| now.saturating_sub(earlier.0.get(thread).copied().unwrap_or(0));
        Duration::from_nanos(self.0.iter().map(used).sum())
    }
}
