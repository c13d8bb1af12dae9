//! The corpora of the fuzz targets, replayed: what was found once is not found again.

use std::fs;
use std::path::Path;

#[path = "../../fuzz/checks.rs"]
mod checks;

fn replay(target: &str, check: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut count = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let bytes = fs::read(&path).unwrap();
        let held = std::panic::catch_unwind(|| check(&bytes)).is_ok();
        assert!(held, "{} fails", path.display());
        count += 1;
    }
    assert!(count >= 5, "{target} has {count} seeds");
}

#[test]
fn no_answer_makes_the_decoder_panic_or_leak() {
    replay("answer", checks::answer);
}

#[test]
fn no_mock_status_and_no_list_of_agents_makes_the_decoder_panic_or_leak() {
    replay("mock_status", checks::mock_status);
}

#[test]
fn no_retry_after_is_longer_than_an_hour() {
    replay("retry_after", checks::retry_after);
}

#[test]
fn no_configuration_makes_validation_panic_and_what_is_in_force_is_read_back() {
    replay("configuration", checks::configuration);
}

#[test]
fn no_watch_file_and_no_registration_makes_reading_it_panic() {
    replay("definitions", checks::definitions);
}

#[test]
fn whatever_users_write_is_one_label_value() {
    replay("exposition", checks::exposition);
}
