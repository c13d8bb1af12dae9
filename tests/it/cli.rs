//! Flags and exit codes.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Command;

use rustix::process::{Pid, Signal, kill_process};

use crate::harness::{eventually, run, run_through};

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
        "--config.auto-reload",
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
    for more in [
        "CEKURA_EXPORTER__",
        "CEKURA_API_KEY",
        "HTTPS_PROXY",
        "NO_PROXY",
        "NO_COLOR",
        "SIGHUP",
        "SIGTERM, SIGINT",
        "Exit codes:",
        "README.md",
    ] {
        assert!(text.contains(more), "{more} is not in\n{text}");
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
        (&["--demo", "--config.auto-reload"], "--config.auto-reload"),
        (&["stray"], "stray"),
        (&["-config.file=c.yaml"], "flags take two dashes: --config.file\n"),
        (&["--log.level=info", "-demo"], "flags take two dashes: --demo\n"),
        (&["--config.file=-"], "does not stand for standard input"),
        (&["--config.file=~/c.yaml"], "begins with `~`, which is not expanded"),
        (&["--web.config.file=~/c.yaml"], "begins with `~`, which is not expanded"),
        (
            &["--web.listen-address=127.0.0.1:1", "--web.listen-address=127.0.0.1:1"],
            "--web.listen-address 127.0.0.1:1 is given twice",
        ),
    ] {
        let output = run(args, &[]);
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(errors.contains(what) && output.stdout.is_empty(), "{args:?}: {errors}");
    }
}

#[test]
fn a_configuration_that_was_named_and_is_missing_is_told_from_one_that_nobody_named() {
    let empty = tempfile::tempdir().unwrap();
    let script = format!("cd {} && exec \"$0\" \"$@\"", empty.path().display());
    let through: Vec<_> = ["/bin/sh", "-c", &script].map(str::to_owned).into();
    for check in [&[][..], &["--config.check"]] {
        let said = |more: &[&str]| {
            let output = run_through(&through, &[check, more].concat(), &[]);
            assert_eq!(output.status.code(), Some(2));
            String::from_utf8(output.stderr).unwrap()
        };
        let named = said(&["--config.file=config.yaml"]);
        assert!(named.starts_with("config.yaml: cannot be read: ") && named.contains("--config.file"), "{named}");
        assert!(!named.contains("--demo"), "{named}");
        let unnamed = said(&[]);
        assert!(unnamed.starts_with("config.yaml: is not in the working directory"), "{unnamed}");
        assert!(unnamed.contains("--config.file") && unnamed.contains("--demo"), "{unnamed}");
    }
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

#[tokio::test]
async fn a_hangup_does_not_end_it_even_while_it_reads_its_flags() {
    // As much as a pipe holds: what the program writes waits for a reader.
    let full = vec![b'x'; 64 * 1024];
    let (mut reader, mut writer) = std::io::pipe().unwrap();
    writer.write_all(&full).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_cekura-exporter"));
    let mut child = command.env_clear().arg("--version").stdout(writer).spawn().unwrap();
    drop(command);
    let catches_hangups = async || {
        let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap().trim().to_owned();
        (u64::from_str_radix(&caught, 16).unwrap() & 1 == 1).then_some(())
    };
    eventually("it catches SIGHUP", catches_hangups).await;
    kill_process(Pid::from_child(&child), Signal::HUP).unwrap();
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(text[full.len()..].starts_with("cekura-exporter "), "{text}");
}
