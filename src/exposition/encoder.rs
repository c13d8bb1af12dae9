//! Encoding a scrape, one chunk at a time.
//!
//! A scrape of many watches is tens of megabytes. It is encoded as fast as the client reads it, so it never
//! exists as a whole, and a client that does not read costs only the rows that change meanwhile.

use std::cmp::Reverse;
use std::sync::Arc;

use prometheus::proto::MetricFamily;

use super::families::{ASKED_FAMILIES, Family, SOURCE_FAMILIES, TOGGLE_FAMILIES, TOLD_FAMILIES};
use super::format::{Description, Format};
use super::gathered;
use crate::board::{AgentRow, AskedAgent, ToggleRows};
use crate::labels::{put_agent, put_user_labels};
use crate::toggle::{Toggle, ToldMocks};

/// The size at which a chunk ends, in bytes.
const CHUNK: usize = 64 * 1024;

/// The sources of watches and agents, each with the labels of its series as text, and whether they are up.
pub type SourceSeries = Vec<(Arc<str>, bool)>;

/// Everything that one scrape exposes.
pub struct Snapshot {
    toggles: ToggleRows,
    agents: Vec<AgentRow>,
    sources: SourceSeries,
    gathered: Vec<MetricFamily>,
}

/// The progress of one reader of a snapshot. It does not hold the snapshot.
pub struct Encoder {
    format: Format,
    /// The families that are still to be encoded, the next one last.
    blocks: Vec<Block>,
    /// How many rows of the next family are done.
    done: usize,
    /// Whether the description of the next family is written.
    headed: bool,
}

/// A family, by where its values are, or the end of the exposition.
#[derive(Clone, Copy)]
enum Block {
    Toggles(&'static Family<Toggle>),
    Told(&'static Family<ToldMocks>),
    Asked(&'static Family<AskedAgent>),
    Sources(&'static Family<bool>),
    /// The index of a family of the `prometheus` crate.
    Gathered(usize),
    End,
}

// === impl Snapshot ===

impl Snapshot {
    /// A snapshot; `gathered` are the families that the `prometheus` crate keeps.
    pub fn new(toggles: ToggleRows, agents: Vec<AgentRow>, sources: SourceSeries, gathered: Vec<MetricFamily>) -> Self {
        Self { toggles, agents, sources, gathered }
    }
}

// === impl Encoder ===

impl Encoder {
    /// An encoder at the beginning of a snapshot. Families are sorted by their name in this format; those
    /// without series are left out.
    pub fn new(snapshot: &Snapshot, format: Format) -> Self {
        let toggles = TOGGLE_FAMILIES.iter().map(|family| (family.description(), Block::Toggles(family)));
        let told = TOLD_FAMILIES.iter().map(|family| (family.description(), Block::Told(family)));
        let asked = ASKED_FAMILIES.iter().map(|family| (family.description(), Block::Asked(family)));
        let sources = SOURCE_FAMILIES.iter().map(|family| (family.description(), Block::Sources(family)));
        let gathered = snapshot.gathered.iter().enumerate();
        let gathered = gathered.map(|(i, family)| (gathered::description(family), Block::Gathered(i)));
        let mut families: Vec<_> = toggles.chain(told).chain(asked).chain(sources).chain(gathered).collect();
        families.sort_unstable_by_key(|(description, _)| Reverse(format.known_as(*description).0));
        let blocks = [Block::End].into_iter().chain(families.into_iter().map(|(_, block)| block)).collect();
        Self { format, blocks, done: 0, headed: false }
    }

    /// The next chunk of the snapshot that this encoder was made for; `None` after the last.
    pub fn next_chunk(&mut self, snapshot: &Snapshot) -> Option<Vec<u8>> {
        let mut out = Vec::with_capacity(CHUNK + CHUNK / 16);
        while out.len() < CHUNK
            && let Some(&block) = self.blocks.last()
        {
            let finished = match block {
                Block::Toggles(family) => self.put_toggles(&mut out, family, &snapshot.toggles),
                Block::Told(family) => self.put_told(&mut out, family, &snapshot.agents),
                Block::Asked(family) => self.put_asked(&mut out, family, &snapshot.agents),
                Block::Sources(family) => self.put_sources(&mut out, family, &snapshot.sources),
                Block::Gathered(index) => {
                    snapshot.gathered.get(index).is_none_or(|family| self.put_gathered(&mut out, family))
                }
                Block::End => {
                    out.extend_from_slice(self.format.end().as_bytes());
                    true
                }
            };
            if finished {
                self.blocks.pop();
                (self.done, self.headed) = (0, false);
            }
        }
        (!out.is_empty()).then_some(out)
    }

    fn put_toggles(&mut self, out: &mut Vec<u8>, family: &Family<Toggle>, rows: &ToggleRows) -> bool {
        self.put_family(out, family.description(), rows.len(), |out, index| {
            if let Some((row, labels)) = rows.get(index) {
                family.put(out, labels.as_bytes(), &row.toggle);
            }
        })
    }

    fn put_told(&mut self, out: &mut Vec<u8>, family: &Family<ToldMocks>, agents: &[AgentRow]) -> bool {
        let mut labels = Vec::new();
        self.put_family(out, family.description(), agents.len(), |out, index| {
            let agent = &agents[index];
            labels.clear();
            put_agent(&mut labels, &agent.api, agent.id);
            if let Some(told_by) = &agent.told.told_by {
                put_user_labels(&mut labels, &told_by.labels);
            }
            family.put(out, &labels, &agent.told);
        })
    }

    fn put_asked(&mut self, out: &mut Vec<u8>, family: &Family<AskedAgent>, agents: &[AgentRow]) -> bool {
        self.put_family(out, family.description(), agents.len(), |out, index| {
            if let Some(asked) = &agents[index].asked {
                family.put(out, asked.labels.as_bytes(), asked);
            }
        })
    }

    fn put_sources(&mut self, out: &mut Vec<u8>, family: &Family<bool>, sources: &[(Arc<str>, bool)]) -> bool {
        self.put_family(out, family.description(), sources.len(), |out, index| {
            let (labels, up) = &sources[index];
            family.put(out, labels.as_bytes(), up);
        })
    }

    fn put_gathered(&mut self, out: &mut Vec<u8>, family: &MetricFamily) -> bool {
        let (format, metrics) = (self.format, family.get_metric());
        self.put_family(out, gathered::description(family), metrics.len(), |out, index| {
            gathered::put_metric(out, format, family, &metrics[index]);
        })
    }

    /// Writes the series of a family with `put`, which gets the index of a row, until the chunk is full or
    /// the family is finished. Returns whether it is finished.
    fn put_family(
        &mut self,
        out: &mut Vec<u8>,
        description: Description<'_>,
        rows: usize,
        mut put: impl FnMut(&mut Vec<u8>, usize),
    ) -> bool {
        while self.done < rows {
            if out.len() >= CHUNK {
                return false;
            }
            let before = out.len();
            put(out, self.done);
            self.done += 1;
            let written = out.len() - before;
            if !self.headed && written > 0 {
                self.headed = true;
                self.format.put_description(out, description);
                // The description belongs before the first series. Whether there is one is known only now.
                out[before..].rotate_left(written);
            }
        }
        true
    }
}

#[cfg(test)]
mod tests;
