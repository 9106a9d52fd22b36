//! The environment decides which etcd the tests run on, and a failure says which it was.
//!
//! A process looks once, so each case is a process: this test starts itself again.

use std::{
    env, fs,
    path::Path,
    process::{Command, Output},
};

use discovery_test_support::{Version, binary, on_each_version, versions};

/// Set for the process that looks; it writes down what it found.
const ANSWER: &str = "DISCOVERY_TEST_VERSIONS_ANSWER";

/// Starts this test again, where nothing but `variables` leads to an etcd.
fn look(variables: &[(&str, &Path)], answer: &Path) -> Output {
    let nowhere = Path::new("/nonexistent");
    Command::new(env::current_exe().unwrap())
        .args(["--exact", "the_environment_decides", "--nocapture"])
        .env_remove("DISCOVERY_TEST_ETCD_35")
        .env_remove("DISCOVERY_TEST_ETCD_34")
        .env_remove("ETCD_BIN")
        .env("PATH", nowhere)
        .env("DISCOVERY_CACHE", nowhere)
        .env(ANSWER, answer)
        .envs(variables.iter().copied())
        .output()
        .unwrap()
}

#[test]
fn the_environment_decides() {
    if let Some(answer) = env::var_os(ANSWER) {
        let found =
            versions().into_iter().map(|version| format!("{version}={:?} ", binary(version)));
        fs::write(answer, found.collect::<String>()).unwrap();
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let answer = dir.path().join("answer");
    let found = |variables: &[(&str, &Path)]| {
        let output = look(variables, &answer);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        fs::read_to_string(&answer).unwrap()
    };
    let failure = |variables: &[(&str, &Path)]| {
        let output = look(variables, &answer);
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };

    for version in versions() {
        let path = binary(version);
        let (this, other) = match version {
            Version::V3_5 => ("DISCOVERY_TEST_ETCD_35", "ETCD_34"),
            Version::V3_4 => ("DISCOVERY_TEST_ETCD_34", "ETCD_35"),
        };
        let only = format!("{version}={path:?} ");
        assert_eq!(found(&[(this, path)]), only);
        assert_eq!(found(&[("ETCD_BIN", path)]), only);
        // As it would be found on a machine that has it.
        let bin = dir.path().join(format!("bin-{version}"));
        fs::create_dir(&bin).unwrap();
        std::os::unix::fs::symlink(path, bin.join("etcd")).unwrap();
        assert_eq!(found(&[("PATH", &bin)]), format!("{version}={:?} ", bin.join("etcd")));
        assert_eq!(found(&[("PATH", &bin), ("ETCD_BIN", Path::new("etcd"))]), only);
        // As setup writes it down.
        let this = this.trim_start_matches("DISCOVERY_TEST_");
        let setup = format!("unset {this} {other}\nexport {this}={}\n", path.display());
        fs::write(dir.path().join("env"), setup).unwrap();
        assert_eq!(found(&[("DISCOVERY_CACHE", dir.path())]), only);
    }

    assert!(failure(&[]).contains("run ./scripts/setup"), "{}", failure(&[]));
    let wrong = failure(&[("DISCOVERY_TEST_ETCD_35", Path::new("/nowhere/etcd"))]);
    assert!(wrong.contains("DISCOVERY_TEST_ETCD_35=/nowhere/etcd cannot be used"), "{wrong}");
    let wrong = failure(&[("ETCD_BIN", Path::new("/bin/true"))]);
    assert!(wrong.contains("is no etcd"), "{wrong}");
}

#[tokio::test]
async fn a_failure_says_on_which_version() {
    let failing = tokio::spawn(on_each_version(async |version| {
        tokio::task::yield_now().await;
        panic!("{version} has a fault");
    }));
    let payload = failing.await.unwrap_err().into_panic();
    let message = payload.downcast_ref::<String>().unwrap();
    let first = versions()[0];
    assert_eq!(*message, format!("on etcd {first}: {first} has a fault"));
}
