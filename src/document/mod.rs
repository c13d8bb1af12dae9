//! Documents that users write: YAML and JSON as trees of text, walked key by key, with every problem and where
//! it is. What the keys mean is known by the rooms above: the configuration, the sources, the web configuration.

pub(crate) mod json;
mod position;
mod problem;
mod read;
mod section;
pub(crate) mod yaml;

pub(crate) use position::locate;
pub(crate) use problem::show;
pub use problem::{Position, Problem, Problems};
pub(crate) use read::{not_empty_path, switch, text_of, validated, validated_text};
pub(crate) use section::{Node, Place, Reading, Section, Show};
