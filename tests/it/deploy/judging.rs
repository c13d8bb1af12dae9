//! The short form of the judge of the alerts; `cargo bench --bench alerting` is the long one.

#[path = "../../../benches/alerting/judge/mod.rs"]
#[allow(dead_code, reason = "the bench uses more of it")]
mod judge;

use judge::Settings;

use crate::harness::Postgres;

/// Enough for every script to be drawn, and for mocks to be left on for two hours divided by 60.
const SLOTS: u32 = 300;
const MINUTES: u32 = 3;
const SEED: u64 = 1;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_receiver_is_notified_of_what_is_true_and_of_nothing_else() {
    let report = judge::run(Settings::new(SLOTS, MINUTES, SEED)).await.unwrap();
    assert!(report.is_good(), "{report}");
}
