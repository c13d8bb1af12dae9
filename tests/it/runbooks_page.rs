//! The runbooks in a browser, as `runbooks_page.mjs` says.

use std::path::Path;

use serde_json::json;
use tokio::process::Command;

use crate::harness::{Exporter, Upstream, tool};

/// Plays a scenario in a browser, with an exporter that has one toggle.
async fn played(scenario: &str) {
    let upstream = Upstream::start().await;
    let exporter = Exporter::with(Exporter::registering(&upstream, Path::new("state"))).start().await;
    let toggle = json!({"agent_id": 77, "progress_id": "first", "expect": "enabled", "labels": {"team": "Payments"}});
    assert_eq!(exporter.put("payments-x", &toggle).await.0, 201);
    let mut node = Command::new(tool("node"));
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/runbooks_page.mjs");
    node.args([script, scenario, &exporter.urls[0]]).kill_on_drop(true);
    let output = node.output().await.unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{scenario}: {}", String::from_utf8_lossy(&said));
}

#[tokio::test]
async fn the_link_of_an_alert_leads_to_its_section_whose_heading_stays_in_sight() {
    played("reads").await;
}

#[tokio::test]
async fn the_parts_of_a_section_can_be_told_apart() {
    played("parts").await;
}

#[tokio::test]
async fn the_contents_are_beside_the_text_and_tell_what_is_read() {
    played("contents").await;
}

#[tokio::test]
async fn on_a_phone_the_contents_are_folded() {
    played("folds").await;
}

#[tokio::test]
async fn commands_have_the_whole_width_and_nothing_is_wider_than_the_screen() {
    played("fits").await;
}

#[tokio::test]
async fn the_runbooks_are_for_everybody() {
    played("accessible").await;
}

#[tokio::test]
async fn a_block_is_copied_with_one_click_also_after_a_refresh() {
    played("copies").await;
}

#[tokio::test]
async fn runbooks_that_have_not_changed_are_not_sent_again() {
    played("rests").await;
}

#[tokio::test]
async fn the_runbooks_can_be_printed() {
    played("prints").await;
}
