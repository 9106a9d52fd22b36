//! The release run in short, with a fresh seed each time.

use std::{env, process::Command};

use discovery_test_support::{Version, long, versions};

/// A minute of random failures breaks no law.
#[test]
fn random_failures_break_no_law() {
    let minutes = if long() { "10" } else { "1" };
    let mut command = Command::new(env!("CARGO_BIN_EXE_release-run"));
    command.args(["--minutes", minutes]);
    // The seed chooses between both, where there are both.
    if let [only] = versions()[..] {
        command.args(["--etcd", if only == Version::V3_5 { "3.5" } else { "3.4" }]);
    }
    let output = command.output().expect("the program can be started");
    let (said, printed) =
        (String::from_utf8_lossy(&output.stderr), String::from_utf8_lossy(&output.stdout));
    assert!(output.status.success(), "{}\n{said}", output.status);
    assert!(printed.starts_with("ok: seed "), "{printed}");
}

/// A failing seed can be looked at before it is repeated.
#[test]
fn the_plan_of_a_seed_is_printed_and_always_the_same() {
    let plan = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_release-run"));
        let output = command.args(["--seed", "7", "--plan"]).output();
        String::from_utf8(output.expect("the program can be started").stdout).expect("text")
    };
    assert!(plan().starts_with("seed 7: etcd 3."), "{}", plan());
    assert_eq!(plan(), plan());
}
