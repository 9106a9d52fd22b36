//! Each law checked by a short play with a fixed course.

use std::task::Poll;

use super::probe::Probe;
use super::stage::Stage;
use super::subject::{Faults, Subject};

/// All checks that the subject's abilities allow, in turn.
pub(super) async fn all<S: Subject>(stage: &mut Stage<S>) {
    loads(stage).await;
    if stage.subject.can_change() {
        atomic(stage).await;
        follows(stage).await;
        slow(stage).await;
        wakes(stage).await;
        dropped(stage).await;
    }
    if stage.subject.faults() != Faults::None {
        faults(stage).await;
    }
    stops(stage).await;
    if stage.subject.can_close() {
        closes(stage).await;
    }
}

/// A reader is told the whole set; then it waits, and neither ends nor says more.
async fn loads<S: Subject>(stage: &mut Stage<S>) {
    stage.doing = "a first reader";
    let mut first = stage.open();
    stage.converge(&mut first).await;
    let mut second = stage.open();
    stage.converge(&mut second).await;
    for probe in [&mut first, &mut second] {
        if let Poll::Ready(told) = stage.poll(probe) {
            stage.fault(1, format!("nothing had changed and {told:?} came"));
        }
        stage.expect_status(probe, 1, "fresh", |status| status.is_fresh() && status.loaded).await;
    }
}

/// Two keys always changed together are never seen apart.
async fn atomic<S: Subject>(stage: &mut Stage<S>) {
    stage.doing = "atomic changes";
    stage.strange_set_breaks = 5;
    let mut eager = stage.open();
    let mut halting = stage.open();
    stage.converge(&mut eager).await;
    for version in 0..20 {
        let batch = vec![stage.insert(0, version), stage.insert(1, version)];
        stage.apply(batch).await;
        // No waiting in between: a source that is not synchronous is met in the middle of its work.
        stage.drain(&mut eager);
        // The other one has been told half of something when the next change comes.
        let _ = stage.poll(&mut halting);
    }
    let batch = vec![stage.remove(0), stage.remove(1)];
    stage.apply(batch).await;
    stage.converge(&mut eager).await;
    stage.converge(&mut halting).await;
    stage.strange_set_breaks = 1;
}

/// Readers follow changes of every kind, and are told nothing of what is no change.
async fn follows<S: Subject>(stage: &mut Stage<S>) {
    stage.doing = "changes of every kind";
    let mut reader = stage.open();
    let batches = [
        vec![stage.insert(0, 0)],
        vec![stage.insert(1, 0), stage.insert(2, 0), stage.insert(3, 0)],
        // As they are already.
        vec![stage.insert(0, 0), stage.insert(1, 0)],
        vec![stage.insert(0, 1)],
        vec![stage.insert(0, 1), stage.insert(1, 1), stage.remove(2)],
        // Not there.
        vec![stage.remove(2), stage.remove(4)],
        vec![stage.remove(0), stage.remove(1), stage.remove(3), stage.insert(4, 0)],
        vec![stage.remove(4)],
        vec![stage.insert(4, 0), stage.insert(0, 1)],
        vec![stage.remove(0), stage.remove(4)],
    ];
    for batch in batches {
        let differs = stage.apply(batch).await;
        if stage.synchronous() && !differs && reader.sleeps() {
            let items = stage.drain(&mut reader);
            if items > 0 {
                stage.fault(2, format!("{items} items told of a change that changes nothing"));
            }
        }
        stage.converge(&mut reader).await;
        let mut late = stage.open();
        stage.converge(&mut late).await;
    }
}

/// A reader that is not polled for long is owed no more than one item for each key, and nothing for
/// what changed back.
async fn slow<S: Subject>(stage: &mut Stage<S>) {
    const KEYS: u16 = 4;
    stage.doing = "a slow reader";
    let mut slow = stage.open();
    let mut eager = stage.open();
    stage.converge(&mut slow).await;
    let rounds = if stage.synchronous() { 50 } else { 5 };
    for version in 0..rounds {
        for key in 0..KEYS {
            let batch = vec![stage.insert(key, version)];
            stage.apply(batch).await;
        }
        stage.converge(&mut eager).await;
    }
    let owed = stage.drain(&mut slow);
    if owed > usize::from(KEYS) + 1 {
        stage.fault(6, format!("{owed} items were owed for changes of {KEYS} keys"));
    }
    stage.converge(&mut slow).await;

    stage.doing = "a change that was taken back before a slow reader looked";
    for batch in [
        vec![stage.insert(0, 900), stage.remove(1), stage.insert(KEYS, 0)],
        vec![stage.insert(0, rounds - 1), stage.insert(1, rounds - 1), stage.remove(KEYS)],
    ] {
        stage.apply(batch).await;
        stage.converge(&mut eager).await;
    }
    // Only a synchronous source has certainly brought both halves to this reader, too.
    let owed = stage.drain(&mut slow);
    if stage.synchronous() && owed > 0 {
        stage.fault(6, format!("{owed} items were owed for what is as it was"));
    }
    stage.converge(&mut slow).await;
    let batch = (0..KEYS).map(|key| stage.remove(key)).collect();
    stage.apply(batch).await;
}

/// The waker of the last poll is the one that counts, and it is woken by every kind of change.
async fn wakes<S: Subject>(stage: &mut Stage<S>) {
    stage.doing = "waking";
    let mut readers = [stage.open(), stage.open()];
    for batch in [
        vec![stage.insert(0, 0)],
        vec![stage.insert(0, 1)],
        vec![stage.remove(0)],
        vec![stage.insert(0, 0), stage.insert(1, 0)],
        vec![stage.remove(0), stage.remove(1)],
    ] {
        for reader in &mut readers {
            stage.converge(reader).await;
            reader.change_waker();
            stage.drain(reader);
        }
        let differs = stage.apply(batch).await;
        for reader in &readers {
            expect_awake(stage, reader, differs);
        }
    }
    for reader in &mut readers {
        stage.converge(reader).await;
    }
}

/// For synchronous sources; for others [`Stage::converge`] sees to it.
pub(super) fn expect_awake<S: Subject>(stage: &Stage<S>, reader: &Probe<S>, differs: bool) {
    if stage.synchronous() && differs && reader.sleeps() {
        stage.fault(7, "a reader was Pending, the set changed, and its waker was not woken");
    }
}

/// Readers dropped in the middle of what they are owed are no loss to others.
async fn dropped<S: Subject>(stage: &mut Stage<S>) {
    stage.doing = "readers dropped half-way";
    let mut stays = stage.open();
    stage.converge(&mut stays).await;
    for polled in 0..4 {
        let mut goes = stage.open();
        let batch = (0..3).map(|key| stage.insert(key, polled)).collect();
        stage.apply(batch).await;
        for _ in 0..polled {
            let _ = stage.poll(&mut goes);
        }
        let batch = vec![stage.remove(0), stage.insert(1, 100 + polled)];
        stage.apply(batch).await;
        drop(goes);
        stage.converge(&mut stays).await;
    }
    let batch = (0..3).map(|key| stage.remove(key)).collect();
    stage.apply(batch).await;
    stage.converge(&mut stays).await;
}

/// A fault neither ends a stream nor empties the set, and is made up for.
async fn faults<S: Subject>(stage: &mut Stage<S>) {
    let mut drained = stage.open();
    for round in 0..3 {
        stage.doing = "a fault";
        if stage.subject.can_change() {
            let batch = vec![stage.insert(0, 10 + round), stage.insert(1, 10 + round)];
            stage.apply(batch).await;
        }
        stage.converge(&mut drained).await;
        let mut undrained = stage.open();
        let _ = stage.poll(&mut undrained);
        stage.fail().await;
        stage.drain(&mut drained);
        let stale = |status: &crate::Status| status.is_stale() && status.loaded;
        stage.expect_status(&drained, 4, "stale, with an error", stale).await;
        stage.drain(&mut drained);
        stage.drain(&mut undrained);
        let mut meanwhile = stage.open();
        stage.drain(&mut meanwhile);
        if stage.can_change() {
            stage.doing = "a change during a fault";
            let batch = vec![stage.remove(0), stage.insert(1, 20 + round), stage.insert(2, round)];
            stage.apply(batch).await;
            stage.drain(&mut drained);
            stage.drain(&mut undrained);
        }
        stage.doing = "recovery from a fault";
        stage.recover().await;
        for reader in [&mut drained, &mut undrained, &mut meanwhile] {
            stage.converge(reader).await;
            stage.expect_status(reader, 4, "fresh", crate::Status::is_fresh).await;
        }
    }
    if stage.subject.can_change() {
        let batch = (0..3).map(|key| stage.remove(key)).collect();
        stage.apply(batch).await;
        stage.converge(&mut drained).await;
    }
}

/// The work stops with the last reader, and begins anew with the next.
async fn stops<S: Subject>(stage: &mut Stage<S>) {
    stage.doing = "the last reader dropped";
    for _ in 0..2 {
        stage.expect_working(false).await;
        let (mut first, second) = (stage.open(), stage.open());
        stage.converge(&mut first).await;
        stage.expect_working(true).await;
        drop(second);
        stage.expect_working(true).await;
        drop(first);
    }
    stage.expect_working(false).await;
}

/// Closing ends all streams, for good.
async fn closes<S: Subject>(stage: &mut Stage<S>) {
    stage.doing = "closed on purpose";
    let mut readers = [stage.open(), stage.open()];
    if stage.subject.can_change() {
        let batch = vec![stage.insert(0, 0), stage.insert(1, 0)];
        stage.apply(batch).await;
    }
    stage.converge(&mut readers[0]).await;
    stage.subject.close().await;
    expect_awake(stage, &readers[0], true);
    for reader in &mut readers {
        stage.end(reader).await;
    }
}
