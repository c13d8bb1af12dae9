//! Documents that users write. YAML and JSON are parsed into a tree of values, and validation walks it key by
//! key and collects every [`Problem`] with its position. The modules above know what the keys mean: the
//! configuration, the sources, the web configuration.

pub(crate) mod json;
mod problem;
mod read;
mod section;
mod value;
pub(crate) mod yaml;

pub(crate) use problem::{DocumentSource, show};
pub use problem::{Position, Problem, Problems};
pub(crate) use read::{not_empty_path, switch, text_of, validated};
pub(crate) use section::{Node, Place, Section, Show, Validation, nearest};
pub(crate) use value::{Map, Value, ValueKind, ValueOrigin};
