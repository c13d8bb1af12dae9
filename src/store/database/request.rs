//! What replicas ask of the one that owns an agent, as notifications.

use std::fmt;

use super::agent_key;
use crate::toggle::AgentKey;

/// A request to the replica that owns an agent. It is lost if nobody listens, so whoever sends it waits for its effect and
/// sends it again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AgentRequest {
    /// Ask for its mock status soon, and save the answer at once.
    Ask(AgentKey),
    /// Forget what was told of its mocks.
    Forget(AgentKey),
}

// === impl AgentRequest ===

impl AgentRequest {
    /// The request in the payload of a notification; `None` if there is none.
    pub(super) fn parse(payload: &str) -> Option<Self> {
        let mut words = payload.split(' ');
        let (Some(verb), Some(api), Some(id), None) = (words.next(), words.next(), words.next(), words.next()) else {
            return None;
        };
        let key = agent_key(api, id).ok()?;
        match verb {
            "ask" => Some(Self::Ask(key)),
            "forget" => Some(Self::Forget(key)),
            _ => None,
        }
    }
}

/// The payload of a notification.
impl fmt::Display for AgentRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ask((api, id)) => write!(f, "ask {api} {id}"),
            Self::Forget((api, id)) => write!(f, "forget {api} {id}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_read_as_it_was_written_and_nothing_else_is_one() {
        let key = agent_key("eu", "4321").unwrap();
        for request in [AgentRequest::Ask(key.clone()), AgentRequest::Forget(key)] {
            assert_eq!(AgentRequest::parse(&request.to_string()), Some(request));
        }
        for other in ["", "ask", "ask eu", "ask eu 0", "ask eu 1 2", "forget  eu 1", "drop eu 1", "ask EU! 1"] {
            assert_eq!(AgentRequest::parse(other), None, "{other}");
        }
    }
}
