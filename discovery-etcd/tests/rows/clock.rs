//! The failure row about a wall clock that jumps. What is registered and watched lives in a process of its
//! own, whose clock is turned: this test binary once more, told so by a variable.

use std::env;
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::support::{NOW, NOW_AFTER_OUTAGE, PREFIX, instance, key, value};
use discovery_core::{Registrar as _, Source as _};
use discovery_etcd::{EtcdConfig, EtcdRegistry};
use discovery_test_support::{Etcd, FakeClock, Process, Truth, eventually, on_all_versions, slack};
use futures::StreamExt as _;
use tokio::time::{Instant, sleep};

/// Where the etcd is that the process with the clock shall use.
const ETCD: &str = "DISCOVERY_TEST_CLOCK_ETCD";
const HOUR: i64 = 3_600;

/// Row 40: the wall clock jumps by an hour, forth and back.
#[tokio::test(flavor = "multi_thread")]
async fn row_40_a_wall_clock_that_jumps_changes_nothing() {
    if let Ok(etcd) = env::var(ETCD) {
        return live_and_tell(etcd).await;
    }
    on_all_versions(async |version| {
        let Some(clock) = FakeClock::new() else { return };
        let etcd = Etcd::start(version).await;
        let truth = Truth::new(etcd.client_addr());
        let dir = tempfile::tempdir().unwrap();
        let subject = started(&etcd, &clock, dir.path());
        let told = async |what: &str| {
            eventually(NOW_AFTER_OUTAGE, what, async || {
                let log = news(&subject);
                if log.iter().any(|line| line == what) { Ok(()) } else { Err(log) }
            })
            .await;
        };
        told("registration Registered").await;
        told("insert orders/1 http://127.0.0.1:1").await;
        told("source fresh").await;
        let (before, heard) = (truth.range(PREFIX).await.unwrap(), news(&subject));

        for offset in [HOUR, -HOUR, 0] {
            clock.turn(offset);
            eventually(NOW, "its clock was turned", async || {
                let off = wall(&subject) - seconds_since_1970();
                if (off - offset).abs() < 10 { Ok(()) } else { Err(off) }
            })
            .await;
            // Longer than the lease lives without renewal.
            let until = Instant::now() + Duration::from_secs(4);
            while Instant::now() < until {
                assert_eq!(truth.range(PREFIX).await.unwrap(), before, "the same lease and key");
                assert_eq!(news(&subject), heard, "no status and no change is told");
                sleep(Duration::from_millis(50)).await;
            }
        }
        // It is not dead, either.
        truth.put(key("orders", "2"), value(2)).await.unwrap();
        told("insert orders/2 http://127.0.0.1:2").await;
    })
    .await;
}

/// This test once more, in a process with that clock.
fn started(etcd: &Etcd, clock: &FakeClock, dir: &Path) -> Process {
    let binary = env::current_exe().unwrap();
    Process::spawn(&binary, &dir.join("log"), |command| {
        command.args([
            "--exact",
            "clock::row_40_a_wall_clock_that_jumps_changes_nothing",
            "--nocapture",
        ]);
        command.env(ETCD, etcd.url());
        clock.rule(command);
    })
    .unwrap()
}

/// What the process told, but for its clock.
fn news(subject: &Process) -> Vec<String> {
    assert!(subject.is_running(), "it ended: {}", subject.log_tail());
    let told = ["registration ", "source ", "insert ", "remove "];
    let log = subject.log_text();
    let lines = log.lines().filter(|line| told.iter().any(|word| line.starts_with(word)));
    lines.map(str::to_owned).collect()
}

/// The time on the wall of the process, in seconds since 1970; 0 if it has not told.
fn wall(subject: &Process) -> i64 {
    let log = subject.log_text();
    let last = log.lines().rev().find_map(|line| line.strip_prefix("wall ")?.parse().ok());
    last.unwrap_or_default()
}

fn seconds_since_1970() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(since.as_secs()).unwrap()
}

/// Registers, watches and tells what becomes of it, until it is killed.
async fn live_and_tell(etcd: String) {
    let config = EtcdConfig::new([etcd]).ttl(Duration::from_secs(2)).suspects_for(Duration::ZERO);
    let registry = EtcdRegistry::new(config).unwrap();
    let registration = registry.register(instance("orders", "1", 1));
    let mut changes = registry.watch_all();
    let (mut source, mut registered) = (changes.status(), registration.watch_status());
    tell(format_args!("registration {:?}", registered.borrow_and_update().state));
    let (mut said, mut since) = (String::new(), source.get().since_instant);
    let mut ticks = tokio::time::interval(Duration::from_millis(50));
    let end = Instant::now() + slack(Duration::from_secs(120));
    while Instant::now() < end {
        tokio::select! {
            change = changes.next() => match change.unwrap() {
                discovery_core::Change::Insert(key, instance) => {
                    tell(format_args!("insert {key} {}", instance.address));
                }
                discovery_core::Change::Remove(key) => tell(format_args!("remove {key}")),
                _ => {}
            },
            true = source.changed() => {
                let status = source.get();
                if status.since_instant != since {
                    tell(format_args!("source {}", status.state.name()));
                    since = status.since_instant;
                }
            }
            Ok(()) = registered.changed() => {
                // Each renewal is news of the same state.
                let state = format!("registration {:?}", registered.borrow_and_update().state);
                if state != said {
                    tell(format_args!("{state}"));
                    said = state;
                }
            }
            _ = ticks.tick() => tell(format_args!("wall {}", seconds_since_1970())),
        }
    }
}

/// Past what the harness makes of standard output.
fn tell(what: std::fmt::Arguments<'_>) {
    let mut out = std::io::stdout();
    writeln!(out, "{what}").unwrap();
}
