//! Logs: one event a line on standard output, written by a thread of their own.

use std::io::{self, IsTerminal};

use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{Layer, fmt};

use crate::cli::{LogFilter, LogFormat};

/// Lines that wait to be written. When nobody reads them, what comes after these is lost: the
/// exporter does not wait for its log.
const LINES_WAITING: usize = 8192;

/// Sets up the process' logs. Without a format it is text on a terminal, else JSON. What waits to
/// be written is written when the guard is dropped.
///
/// # Errors
/// If logs were set up before.
pub fn init(filter: LogFilter, format: Option<LogFormat>) -> Result<WorkerGuard, TryInitError> {
    let terminal = io::stdout().is_terminal();
    let format = format.unwrap_or(if terminal { LogFormat::Text } else { LogFormat::Json });
    let (writer, guard) =
        NonBlockingBuilder::default().buffered_lines_limit(LINES_WAITING).lossy(true).finish(io::stdout());
    // A log line that cannot be written is lost: complaining to a closed stream would panic.
    let layer = fmt::layer().with_writer(writer).log_internal_errors(false);
    let layer = match format {
        LogFormat::Json => layer.json().flatten_event(true).with_current_span(false).with_span_list(false).boxed(),
        LogFormat::Text => {
            layer.with_ansi(terminal && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())).boxed()
        }
    };
    tracing_subscriber::registry().with(layer.with_filter(filter.0)).try_init()?;
    Ok(guard)
}
