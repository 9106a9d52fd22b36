//! What a program is told wrong: one line on stderr that names it, and exit code 2.

use std::io::Write as _;
use std::net::TcpListener;

use crate::support::{GATEWAY, NODE, Program, WATCH};

const ETCD: &str = "--etcd=http://127.0.0.1:1";

/// Runs it and expects that it refuses, in one line with all of `parts`.
async fn refused(binary: &str, args: &[&str], parts: &[&str]) {
    refused_with(binary, args, &[], parts).await;
}

async fn refused_with(binary: &str, args: &[&str], env: &[(&str, &str)], parts: &[&str]) {
    let program = Program::start_with(binary, args, env);
    let code = program.ended().await;
    let stderr = program.stderr();
    assert_eq!(code, Some(2), "{args:?}: {stderr}");
    assert_eq!(stderr.lines().count(), 1, "{args:?}: {stderr}");
    assert!(stderr.ends_with('\n'), "{args:?}: {stderr}");
    assert!(parts.iter().all(|part| stderr.contains(part)), "{args:?}: {stderr}");
    assert_eq!(program.stdout(), "", "{args:?}");
}

fn file(content: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(content.as_bytes()).unwrap();
    file
}

#[tokio::test]
async fn node_refuses() {
    let with = |args: &[&'static str]| [&["--service=orders", ETCD], args].concat();
    refused(NODE, &[ETCD], &["--service"]).await;
    refused(NODE, &["--service=orders"], &["--etcd", "DISCOVERY_ETCD"]).await;
    for (args, parts) in [
        (&["--service=a b", ETCD][..], &["--service", "a b"][..]),
        (&with(&["--bogus"]), &["--bogus"]),
        (&with(&["--bogus=1\n\n2"]), &["--bogus"]),
        (&with(&["bogus"]), &["bogus"]),
        (&with(&["--id=a/b"]), &["--id", "a/b"]),
        (&with(&["--id="]), &["--id"]),
        (&with(&["--id=a b"]), &["--id", "a b"]),
        (&with(&["--format=x"]), &["--format", "'x'", "not known", "native, heartbeat"]),
        (&with(&["--format="]), &["--format"]),
        (&with(&["--format=heartbeat", "--prefix="]), &["--prefix"]),
        (&with(&["--ttl=0"]), &["--ttl", "0"]),
        (&with(&["--ttl=x"]), &["--ttl", "x"]),
        (&with(&["--ttl=86401"]), &["--ttl", "86401", "1 to 86400"]),
        (&with(&["--ttl", "-1"]), &["--ttl", "'-1'"]),
        (&with(&["--weight", "-1"]), &["--weight", "'-1'"]),
        (&with(&["--fail-rate", "-1"]), &["--fail-rate", "'-1'"]),
        (&with(&["--ttl"]), &["--ttl"]),
        (&with(&["--weight=65536"]), &["--weight", "65536"]),
        (&with(&["--weight=-1"]), &["--weight", "-1"]),
        (&with(&["--zone=a/b"]), &["--zone", "a/b"]),
        (&with(&["--delay-ms=-5"]), &["--delay-ms", "-5"]),
        (&with(&["--delay-ms=1.5"]), &["--delay-ms", "1.5"]),
        (&with(&["--fail-rate=1.5"]), &["--fail-rate", "1.5"]),
        (&with(&["--fail-rate=NaN"]), &["--fail-rate", "NaN"]),
        (&with(&["--drain-ms=x"]), &["--drain-ms", "x"]),
        (&with(&["--on-conflict=x"]), &["--on-conflict", "x", "wait", "fail"]),
        (&with(&["--advertise=http://a/b"]), &["--advertise", "http://a/b"]),
        (&with(&["--advertise=ftp://a:1"]), &["--advertise", "ftp"]),
        (&with(&["--advertise=http://a:0"]), &["--advertise", "http://a:0"]),
        (&with(&["--advertise=foo"]), &["--advertise", "foo", "port"]),
        (&with(&["--advertise=http://[::1]"]), &["--advertise", "http://[::1]", "port"]),
        (&with(&["--advertise=https://a:1"]), &["--advertise", "https://a:1", "not http"]),
        (&with(&["--advertise=unix:///a"]), &["--advertise", "unix:///a", "not http"]),
        (&with(&["--listen=nonsense"]), &["--listen", "nonsense"]),
        (&with(&["--listen=127.0.0.1:99999"]), &["--listen", "127.0.0.1:99999"]),
        (&with(&["--listen=192.0.2.1:0"]), &["--listen", "192.0.2.1:0"]),
        (&with(&["--prefix="]), &["--prefix"]),
        (&with(&["--prefix=/"]), &["--prefix"]),
    ] {
        refused(NODE, args, parts).await;
    }
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    refused(NODE, &["--service=a", ETCD, "--listen", &taken], &["--listen", &taken]).await;
}

#[tokio::test]
async fn whoever_reaches_for_etcd_refuses() {
    for (args, parts) in [
        (&["--etcd=ftp://a:1"][..], &["--etcd", "ftp://a:1"][..]),
        (&["--etcd=nonsense"], &["--etcd", "nonsense"]),
        (&["--etcd=http://"], &["--etcd", "http://"]),
        (&["--etcd=http://a"], &["--etcd", "http://a", "port"]),
        (&["--etcd=http://a:99999"], &["--etcd", "http://a:99999"]),
        (&["--etcd=http://a:1/x"], &["--etcd", "http://a:1/x"]),
        (&["--etcd=http://a:1,"], &["--etcd"]),
        (&["--etcd="], &["--etcd"]),
        (&[ETCD, "--user=root"], &["--user", "--password-file"]),
        (&[ETCD, "--password-file=/dev/null"], &["--password-file", "--user"]),
        (&[ETCD, "--user=root", "--password-file=/dev/null"], &["--password-file", "/dev/null"]),
        (&[ETCD, "--user=root", "--password-file=/no/such"], &["--password-file", "/no/such"]),
        (&[ETCD, "--ca=/no/such"], &["--ca", "/no/such"]),
        (&[ETCD, "--cert=/no/such", "--key=/dev/null"], &["--cert", "/no/such"]),
        (&[ETCD, "--cert=/dev/null", "--key=/no/such"], &["--key", "/no/such"]),
        (&[ETCD, "--cert=/dev/null"], &["--cert", "--key"]),
        (&[ETCD, "--key=/dev/null"], &["--key", "--cert"]),
        (&["--etcd=https://127.0.0.1:1", "--ca=/dev/null"], &["--ca", "/dev/null"]),
        (&[ETCD, "--config=/no/such"], &["--config", "/no/such"]),
        (&[ETCD, "--config=/"], &["--config", "/"]),
        (&[ETCD, "--last-good=/dev/null"], &["--last-good", "/dev/null"]),
        (&[ETCD, "--last-good="], &["--last-good"]),
        (&[ETCD, "--suspect-s=x"], &["--suspect-s", "x"]),
        (&[ETCD, "--format=Native"], &["--format", "Native", "native, heartbeat"]),
        (&[ETCD, "--suspect-s=-1"], &["--suspect-s", "-1"]),
        (&[ETCD, "--suspect-s", "-1"], &["--suspect-s", "'-1'"]),
    ] {
        refused(WATCH, args, parts).await;
    }
    for bad in ["http://a:0", "http://a", "nonsense"] {
        for binary in [WATCH, GATEWAY] {
            refused_with(binary, &[], &[("DISCOVERY_ETCD", bad)], &["DISCOVERY_ETCD", bad]).await;
        }
    }
    refused_with(WATCH, &[], &[("DISCOVERY_ETCD", "")], &["--etcd"]).await;
    for garbage in ["garbage", "-----BEGIN CERTIFICATE-----\n%\n-----END CERTIFICATE-----\n"] {
        let file = file(garbage);
        let ca = format!("--ca={}", file.path().display());
        refused(WATCH, &["--etcd=https://127.0.0.1:1", &ca], &[&ca.replace('=', " ")]).await;
    }
}

#[tokio::test]
async fn what_is_wrong_in_a_file_is_named_with_the_file() {
    for (content, parts) in [
        ("etcd = ", &["line 1"][..]),
        ("servise = 'a'", &["servise"]),
        ("suspect_s = 1", &["suspect_s"]),
        ("etcd = 5", &["etcd", "5"]),
        ("etcd = [5]", &["etcd"]),
        ("etcd = 'http://a:0'", &["etcd", "http://a:0"]),
        ("suspect-s = 'x'", &["suspect-s", "x"]),
        ("format = 'x'", &["--format", "x", "native, heartbeat"]),
        ("format = 7", &["--format", "7"]),
        ("[etcd]\nurl = 'x'", &["etcd"]),
    ] {
        let file = file(content);
        let config = format!("--config={}", file.path().display());
        let path = file.path().display().to_string();
        refused(WATCH, &[&config], &[parts, &["--config", &path]].concat()).await;
    }
}

#[tokio::test]
async fn gateway_refuses() {
    refused(GATEWAY, &[], &["--etcd", "--demo"]).await;
    refused(GATEWAY, &["--demo", ETCD], &["--etcd", "--demo"]).await;
    for (args, parts) in [
        (&["--policy=x"][..], &["--policy", "policy \"x\" is not known", "known: p2c"][..]),
        (&["--policy=round-robin"], &["round-robin", "not known"]),
        (&["--hash-header=x-user"], &["--hash-header", "x-user"]),
        (&["--retries=-1"], &["--retries", "-1"]),
        (&["--retries", "-1"], &["--retries", "'-1'"]),
        (&["--retries=x"], &["--retries", "x"]),
        (&["--timeout-ms=0"], &["--timeout-ms", "0"]),
        (&["--workers=0"], &["--workers", "0"]),
        (&["--zone="], &["--zone"]),
        (&["--suspect-s=86401"], &["--suspect-s", "86401"]),
        (&["--listen=x"], &["--listen", "x"]),
        (&["--format=x"], &["--format", "x", "native, heartbeat"]),
    ] {
        refused(GATEWAY, &[&["--demo"], args].concat(), parts).await;
    }
    let both = file("demo = true\netcd = 'http://a:1'");
    let both = format!("--config={}", both.path().display());
    refused(GATEWAY, &[&both], &["--demo", "--etcd"]).await;
}

#[tokio::test]
async fn help_is_printed_and_is_no_error() {
    for binary in [NODE, GATEWAY, WATCH] {
        let program = Program::start(binary, &["--help"]);
        assert_eq!(program.ended().await, Some(0));
        assert!(program.stdout().contains("--etcd"), "{}", program.stdout());
        assert_eq!(program.stderr(), "");
    }
}

#[tokio::test]
async fn a_file_says_all_that_the_command_line_can() {
    let file = file(
        "demo = true\nlisten = '127.0.0.1:0'\npolicy = 'least-pending'\nretries = 0\nworkers = 1\n",
    );
    let config = format!("--config={}", file.path().display());
    let gateway = Program::start(GATEWAY, &[config]);
    assert!(gateway.address().await.starts_with("http://127.0.0.1:"));
    assert!(gateway.stderr().contains("least-pending"));
    assert_eq!(gateway.stop().await, Some(0));
}

#[tokio::test]
async fn what_has_no_effect_yet_is_said_once() {
    let args =
        ["--demo", "--listen=127.0.0.1:0", "--zone=a", "--suspect-s=5", "--last-good=/dev/null"];
    let gateway = Program::start(GATEWAY, &args);
    gateway.address().await;
    let said = |option: &str| gateway.stderr().lines().filter(|line| line.contains(option)).count();
    assert_eq!((said("--zone"), said("--suspect-s"), said("--last-good")), (1, 0, 1));
}
