//! Logs: one event a line on standard output, written by a thread of its own.

use std::io::{self, IsTerminal};

use tracing::{Event, Subscriber};
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::fmt::format::{JsonFields, Writer};
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::{LookupSpan, Scope};
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{Layer, fmt};

use crate::cli::{LogFilter, LogFormat};

/// The most lines that wait to be written. When nobody reads them, further lines are lost, because the exporter
/// must not wait for its log.
const LINES_WAITING: usize = 8192;

/// Formats an event as one flat JSON object, in which the fields of its spans stand beside its own. An event must
/// not have a field that a span of it has.
struct FlatJson;

/// Sets up the logs of the process. Without a format they are text on a terminal and JSON elsewhere. Dropping the
/// guard writes the lines that wait.
///
/// # Errors
/// If logs were set up before.
pub fn init(filter: LogFilter, format: Option<LogFormat>) -> Result<WorkerGuard, TryInitError> {
    let terminal = io::stdout().is_terminal();
    let format = format.unwrap_or(if terminal { LogFormat::Text } else { LogFormat::Json });
    let (writer, guard) =
        NonBlockingBuilder::default().buffered_lines_limit(LINES_WAITING).lossy(true).finish(io::stdout());
    // A line that cannot be written is lost, because a complaint to a closed stream would panic.
    let layer = fmt::layer().with_writer(writer).log_internal_errors(false);
    let layer = match format {
        LogFormat::Json => layer.json().event_format(FlatJson).boxed(),
        LogFormat::Text => {
            layer.with_ansi(terminal && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())).boxed()
        }
    };
    tracing_subscriber::registry().with(layer.with_filter(filter.0)).try_init()?;
    Ok(guard)
}

// === impl FlatJson ===

impl<S: Subscriber + for<'a> LookupSpan<'a>> FormatEvent<S, JsonFields> for FlatJson {
    fn format_event(
        &self,
        context: &FmtContext<'_, S, JsonFields>,
        mut line: Writer<'_>,
        event: &Event<'_>,
    ) -> std::fmt::Result {
        line.write_str("{\"timestamp\":\"")?;
        SystemTime.format_time(&mut line)?;
        let metadata = event.metadata();
        write!(line, "\",\"level\":\"{}\",\"target\":\"{}\"", metadata.level(), metadata.target())?;
        for span in context.event_scope().into_iter().flat_map(Scope::from_root) {
            if let Some(fields) = span.extensions().get::<FormattedFields<JsonFields>>() {
                write_members(&mut line, fields)?;
            }
        }
        let mut fields = String::new();
        context.format_fields(Writer::new(&mut fields), event)?;
        write_members(&mut line, &fields)?;
        line.write_str("}\n")
    }
}

/// Writes the members of a JSON object behind others.
fn write_members(line: &mut Writer<'_>, object: &str) -> std::fmt::Result {
    let members = object.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).unwrap_or_default();
    if members.is_empty() { Ok(()) } else { write!(line, ",{members}") }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Seek};

    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_json_line_is_flat_and_has_the_fields_of_its_spans() {
        let mut file = tempfile::tempfile().unwrap();
        let layer = fmt::layer().json().event_format(FlatJson).with_writer(file.try_clone().unwrap());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            let _poll = tracing::error_span!("poll", toggle = "a \"b\"", agent_id = 7).entered();
            let _empty = tracing::error_span!("empty").entered();
            tracing::warn!(reason = "dns", "poll failed");
        });
        let mut line = String::new();
        file.rewind().unwrap();
        file.read_to_string(&mut line).unwrap();
        assert!(line.starts_with("{\"timestamp\":\"") && line.ends_with("}\n"), "{line}");
        let mut line: Value = serde_json::from_str(&line).unwrap();
        assert!(line.as_object_mut().unwrap().remove("timestamp").unwrap().is_string());
        let expected = json!({
            "level": "WARN", "target": module_path!(), "toggle": "a \"b\"", "agent_id": 7, "reason": "dns",
            "message": "poll failed",
        });
        assert_eq!(line, expected);
    }
}
