//! Flags and exit codes.

use std::net::TcpListener;

use crate::harness::run;

#[test]
fn version_and_help_exit_with_0() {
    let version = run(&["--version"], &[]);
    let text = String::from_utf8(version.stdout).unwrap();
    assert_eq!(version.status.code(), Some(0));
    assert!(text.starts_with(&format!("cekura-exporter {} (revision ", env!("CARGO_PKG_VERSION"))), "{text}");
    let help = run(&["--help"], &[]);
    let text = String::from_utf8(help.stdout).unwrap();
    assert_eq!(help.status.code(), Some(0));
    for flag in [
        "--config.file",
        "--config.check",
        "--web.listen-address",
        "--web.systemd-socket",
        "--web.telemetry-path",
        "--web.config.file",
        "--log.level",
        "--log.format",
        "--demo",
        "--version",
        "--help",
    ] {
        assert!(text.contains(flag), "{flag} is not in\n{text}");
    }
}

#[test]
fn bad_usage_exits_with_2_and_says_what_is_wrong() {
    for (args, what) in [
        (&["--no-such-flag"][..], "--no-such-flag"),
        (&["--web.config.file="], "--web.config.file"),
        (&["--web.systemd-socket=x"], "--web.systemd-socket"),
        (&["--log.level=loud"], "loud"),
        (&["--log.format=xml"], "xml"),
        (&["--web.listen-address=nonsense"], "nonsense"),
        (&["--web.telemetry-path=/config"], "/config"),
        (&["--demo", "--config.check"], "--config.check"),
        (&["stray"], "stray"),
    ] {
        let output = run(args, &[]);
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(errors.contains(what) && output.stdout.is_empty(), "{args:?}: {errors}");
    }
}

#[test]
fn without_a_configuration_it_says_which_file_is_missing() {
    let output = run(&["--config.file=there-is-none.yaml"], &[]);
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(errors.contains("there-is-none.yaml") && errors.contains("--config.file"), "{errors}");
}

#[test]
fn a_port_that_is_taken_exits_with_1_and_names_the_address() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let held = TcpListener::bind(&taken).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("c.yaml");
    std::fs::write(&config, "").unwrap();
    let output =
        run(&["--config.file", config.to_str().unwrap(), "--web.listen-address", &taken, "--log.format=text"], &[]);
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert!(errors.contains(&taken) && errors.to_lowercase().contains("in use"), "{errors}");
    drop(held);
}
