//! A long random history against a naive model.

use super::laws::expect_awake;
use super::probe::Probe;
use super::stage::Stage;
use super::subject::{Faults, Subject};

/// SplitMix64. Small and of our own, so that a seed means the same history for ever.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u16) -> u16 {
        // The remainder of a division by n fits.
        u16::try_from(self.next() % u64::from(n.max(1))).unwrap_or(0)
    }

    fn index(&mut self, n: usize) -> usize {
        usize::from(self.below(u16::try_from(n).unwrap_or(u16::MAX)))
    }
}

const READERS: usize = 8;
const VERSIONS: u16 = 4;

/// Takes `steps` random steps.
pub(super) async fn steps<S: Subject>(stage: &mut Stage<S>, seed: u64, steps: usize) {
    let mut random = Random(seed);
    let mut readers: Vec<Probe<S>> = Vec::new();
    for step in 0..steps {
        stage.seed_and_step = Some((seed, step));
        match random.below(100) {
            0..35 if stage.can_change() => {
                stage.doing = "a change";
                let batch = batch(stage, &mut random);
                change(stage, &readers, batch).await;
            }
            35..37 if stage.can_change() => {
                stage.doing = "all removed";
                let batch = (0..super::KEYS).map(|key| stage.remove(key)).collect();
                change(stage, &readers, batch).await;
            }
            37..45 if readers.len() < READERS => {
                stage.doing = "a reader opened";
                let reader = stage.open();
                readers.push(reader);
            }
            45..50 if !readers.is_empty() => {
                stage.doing = "a reader dropped";
                readers.swap_remove(random.index(readers.len()));
                if readers.is_empty() {
                    stage.expect_working(false).await;
                }
            }
            50..72 if !readers.is_empty() => {
                stage.doing = "a reader polled once";
                let reader = random.index(readers.len());
                let _ = stage.poll(&mut readers[reader]);
            }
            72..92 if !readers.is_empty() => {
                stage.doing = "a reader drained";
                let reader = random.index(readers.len());
                stage.drain(&mut readers[reader]);
            }
            92..94 if !readers.is_empty() => {
                stage.doing = "a reader's waker changed";
                let reader = random.index(readers.len());
                readers[reader].change_waker();
            }
            94..96 if !stage.failed && stage.subject.faults() != Faults::None => {
                stage.doing = "a fault";
                stage.fail().await;
            }
            94..98 if stage.failed => {
                stage.doing = "recovery from a fault";
                stage.recover().await;
                for reader in &readers {
                    let differs = reader.ledger.set != *stage.history.latest();
                    expect_awake(stage, reader, differs);
                }
            }
            98 if !stage.failed => {
                stage.doing = "all readers caught up";
                for reader in &mut readers {
                    stage.converge(reader).await;
                }
            }
            _ => {}
        }
        if step % 64 == 0 {
            // A reader that is opened during a fault may still be given an old set.
            let oldest = readers.iter().map(|reader| reader.version).min();
            let now = stage.history.now();
            if stage.synchronous() && !stage.failed {
                stage.history.forget_before(oldest.unwrap_or(now));
            }
        }
    }
    stage.doing = "the end, when all catch up";
    if stage.failed {
        stage.recover().await;
    }
    for reader in &mut readers {
        stage.converge(reader).await;
    }
    readers.clear();
    stage.expect_working(false).await;
}

async fn change<S: Subject>(
    stage: &mut Stage<S>,
    readers: &[Probe<S>],
    batch: Vec<crate::Update<S::Key, S::Endpoint>>,
) {
    let differs = stage.apply(batch).await;
    if !stage.failed {
        for reader in readers {
            // Who sleeps has the set as it was before.
            expect_awake(stage, reader, differs && reader.ledger.loaded);
        }
    }
}

/// A few keys of few, few versions: so that much of it is as it was, or changes back.
fn batch<S: Subject>(
    stage: &Stage<S>,
    random: &mut Random,
) -> Vec<crate::Update<S::Key, S::Endpoint>> {
    let mut keys: Vec<u16> = Vec::new();
    for _ in 0..=random.below(4) {
        let key = random.below(super::KEYS);
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    let update = |key| match random.below(3) {
        0 => stage.remove(key),
        _ => stage.insert(key, random.below(VERSIONS)),
    };
    keys.into_iter().map(update).collect()
}
