//! How often encoding allocates. This is counted, so it is the same on every machine.

#[allow(dead_code, reason = "who has it uses a part of it")]
#[path = "../benches/sample/mod.rs"]
mod sample;

use cekura_exporter::exposition::Format;

use sample::{Sample, encode};

/// How often may be allocated that is no chunk: the order of the families, and the labels of agents,
/// which grow to their length in each chunk that has some.
const MORE: u64 = 64;

#[test]
fn encoding_agents_allocates_nothing_per_series() {
    let snapshot = Sample::of_agents(5_000).unwrap().snapshot();
    for format in [Format::Text, Format::OpenMetrics] {
        let mut chunks = 0;
        let counted = allocation_counter::measure(|| chunks = encode(&snapshot, format).0);
        assert!(chunks > 50, "{chunks} chunks are too few to tell what is allocated for each");
        assert!(counted.count_total <= chunks as u64 + MORE, "{} for {chunks} chunks", counted.count_total);
    }
}

#[test]
fn encoding_allocates_one_buffer_a_chunk_and_nothing_per_series() {
    let snapshot = Sample::of_series(100_000).unwrap().snapshot();
    for format in [Format::Text, Format::OpenMetrics] {
        let mut chunks = 0;
        let counted = allocation_counter::measure(|| chunks = encode(&snapshot, format).0);
        assert!(chunks > 100, "{chunks} chunks are too few to tell what is allocated for each");
        assert!(
            counted.count_total <= chunks as u64 + MORE,
            "{} allocations for {chunks} chunks of {format:?}",
            counted.count_total
        );
    }
}
