//! Other tools, which write instances, and what is none, to etcd by themselves.

use discovery_test_support::{Op, TruthError};

use crate::{
    meaning::PREFIX,
    plan::{Act, ForeignKey, SERVICES},
    world::World,
};

/// Values that are no instance. The one that says so is written as a long one.
pub(crate) const POISON: [&[u8]; 10] = [
    b"{",
    b"",
    b"\xff\xfe\x00",
    b"LONG",
    br#"{"address":7}"#,
    br#"{"name":"orders"}"#,
    br#"{"address":"http://127.0.0.1/b c"}"#,
    br#"{"address":"http://127.0.0.1:1","weight":-5}"#,
    br#"[["address"]]"#,
    br#"{"address":"http://127.0.0.1:1","status":"up\nERROR forged"}"#,
];

/// Keys under the prefix that are no instance's.
pub(crate) const POISON_KEYS: [&[u8]; 3] =
    [b"/services/orders/a\0b", b"/services/orders/", b"/services/orders/a/b"];

/// How long the leases of other tools live, in seconds. Nobody renews them.
const LEASE: i64 = 3;

fn foreign_key(key: ForeignKey) -> String {
    format!("{PREFIX}{}/f{}", SERVICES[key.service], key.id)
}

/// A value that no other number gives, in one of the forms that tools use.
fn value(number: u64) -> String {
    let port = 1 + number % 65_000;
    match number % 3 {
        0 => format!(r#"{{"address":"http://127.0.0.1:{port}","metadata":{{"n":"{number}"}}}}"#),
        1 => {
            format!(r#"{{"Address":"127.0.0.1:{port}","Metadata":{{"n":"{number}"}}}}"#)
        }
        _ => format!(
            r#"{{"address":"127.0.0.1:{port}","weight":{},"status":"DRAINING","zone":"z","metadata":{{"n":"{number}"}}}}"#,
            number % 100
        ),
    }
}

/// A key of a burst.
pub(crate) fn burst_key(number: u64) -> String {
    format!("{PREFIX}orders/b{number}")
}

/// A value of that many bytes and a few more.
pub(crate) fn burst_value(number: u64, bytes: usize) -> String {
    let pad = "x".repeat(bytes);
    format!(r#"{{"address":"127.0.0.1:1","metadata":{{"n":"{number}","pad":"{pad}"}}}}"#)
}

/// Carries out what other tools do; the rest of the acts are not theirs.
pub(crate) async fn write(world: &World, act: &Act) {
    match act {
        Act::Put { key, number } => {
            world.ask(async |truth| truth.put(foreign_key(*key), value(*number)).await).await;
        }
        Act::PutLeased { key, number } => {
            world
                .ask(async |truth| {
                    let lease = truth.grant(LEASE).await?;
                    match truth.put_leased(foreign_key(*key), value(*number), lease).await {
                        // It took longer than the lease lives.
                        Err(TruthError::Refused { .. }) => Ok(0),
                        outcome => outcome,
                    }
                })
                .await;
        }
        Act::Delete { key } => {
            world.ask(async |truth| truth.delete(foreign_key(*key)).await).await;
        }
        Act::Together { keys } => {
            world
                .ask(async |truth| {
                    let op = |(key, number): &(ForeignKey, Option<u64>)| match number {
                        Some(number) => Op::put(foreign_key(*key), value(*number)),
                        None => Op::delete(foreign_key(*key)),
                    };
                    truth.txn(keys.iter().map(op)).await
                })
                .await;
        }
        Act::Poison { key, kind } => {
            let poison = match POISON[*kind] {
                b"LONG" => vec![b'x'; 200_000],
                short => short.to_vec(),
            };
            world.ask(async |truth| truth.put(foreign_key(*key), &poison).await).await;
            if *kind == 0 {
                for key in POISON_KEYS {
                    world.ask(async |truth| truth.put(key, value(0)).await).await;
                }
            }
        }
        Act::Slot { .. } | Act::Visit { .. } => {}
    }
}
