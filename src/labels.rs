//! Labels as text, as both formats of the exposition write them: `name="value"`, escaped, separated by commas.

use std::sync::Arc;

use crate::toggle::{AgentDefinition, AgentId, ApiName, Labels, Source, Watch};

/// The labels of the series of a source of watches.
pub(crate) fn source_labels(source: Source, path: &str) -> Arc<str> {
    labels_of_source(source.as_str(), path)
}

/// The labels of the series of the agents that an API lists, as a source.
pub(crate) fn discovery_labels(api: &ApiName) -> Arc<str> {
    labels_of_source("discovery", api.as_str())
}

fn labels_of_source(source: &str, path: &str) -> Arc<str> {
    let mut text = Vec::new();
    put_label(&mut text, "source", source);
    text.push(b',');
    put_label(&mut text, "path", path);
    to_string(text).into()
}

/// The labels that all series of a watch have.
pub(crate) fn watch_labels(watch: &Watch) -> String {
    let mut text = Vec::with_capacity(128);
    put_label(&mut text, "toggle", watch.name.as_str());
    text.push(b',');
    put_agent(&mut text, &watch.api, watch.agent_id);
    put_user_labels(&mut text, &watch.labels);
    to_string(text)
}

fn to_string(text: Vec<u8>) -> String {
    // This cannot fail, because only strings were written.
    String::from_utf8(text).unwrap_or_default()
}

/// The labels of the series of an agent whose mock status is asked for.
pub(crate) fn agent_labels(agent: &AgentDefinition) -> Arc<str> {
    let mut text = Vec::new();
    put_agent(&mut text, &agent.api, agent.agent_id);
    put_user_labels(&mut text, &agent.labels);
    to_string(text).into()
}

/// Writes the labels that all series of an agent have, except those that users give.
pub(crate) fn put_agent(out: &mut Vec<u8>, api: &ApiName, agent_id: AgentId) {
    put_label(out, "api", api.as_str());
    out.push(b',');
    put_label(out, "agent_id", itoa::Buffer::new().format(agent_id.get()));
}

pub(crate) fn put_user_labels(out: &mut Vec<u8>, labels: &Labels) {
    for (name, value) in labels {
        out.push(b',');
        put_label(out, name.as_str(), value);
    }
}

/// Writes a label.
pub(crate) fn put_label(out: &mut Vec<u8>, name: &str, value: &str) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"=\"");
    put_label_value(out, value);
    out.push(b'"');
}

/// Writes the text between the quotes of a label.
pub(crate) fn put_label_value(out: &mut Vec<u8>, value: &str) {
    put_escaped(out, value, true);
}

/// Writes a text with backslashes, line feeds and, if `quotes`, double quotes escaped.
pub(crate) fn put_escaped(out: &mut Vec<u8>, text: &str, quotes: bool) {
    for byte in text.bytes() {
        match byte {
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'"' if quotes => out.extend_from_slice(b"\\\""),
            b'\n' => out.extend_from_slice(b"\\n"),
            byte => out.push(byte),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_backslashes_and_line_feeds_are_escaped_and_nothing_else() {
        let mut out = Vec::new();
        put_label(&mut out, "l", "a \"b\" \\ c\nd\r{é}");
        assert_eq!(String::from_utf8(out).unwrap(), "l=\"a \\\"b\\\" \\\\ c\\nd\r{é}\"");
    }
}
