//! The labels of a watch or an agent as JSON.

use serde::{Serialize, Serializer};

use crate::toggle::Labels;

/// Labels as an object, which is empty where there are none.
pub(crate) struct LabelsJson<'a>(pub(crate) Option<&'a Labels>);

impl Serialize for LabelsJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.into_iter().flatten().map(|(name, value)| (name.as_str(), value)))
    }
}
