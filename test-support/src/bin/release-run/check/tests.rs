//! Histories made by hand, good ones and such as break each law once.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::{Calm, Left, Raw, Step, Told, Viewed, follow, keeps_all, stays_away};
use crate::meaning::{Seen, TAG};

fn seen(number: u64) -> Arc<Seen> {
    Arc::new(Seen {
        address: format!("http://127.0.0.1:{number}"),
        weight: 1,
        zone: None,
        status: "up".into(),
        metadata: BTreeMap::from([(TAG.to_owned(), number.to_string())]),
    })
}

/// Revisions from 2 on: `a1` puts 1 to `orders/a`, `a!` poison, `a-` deletes; together with spaces.
fn epoch(revisions: &[&str]) -> Vec<Step> {
    let change = |text: &str| {
        let (id, what) = text.split_at(1);
        let raw = match what {
            "!" => Raw::Poison,
            "-" => Raw::Gone,
            number => Raw::Good(seen(number.parse().unwrap())),
        };
        (format!("orders/{id}").into(), raw)
    };
    let steps = revisions.iter().zip(2..).map(|(text, revision)| Step {
        revision,
        at: Duration::from_millis(revision.unsigned_abs()),
        changes: text.split_whitespace().map(change).collect(),
    });
    steps.collect()
}

/// What a viewer was told: `a1`, `a-` as above, `a1?` a suspect, `.` Synced, `end`.
fn viewed(guarded: bool, told: &str) -> Viewed {
    let one = |text: &str| {
        if text == "." {
            return Told::Synced;
        }
        if text == "end" {
            return Told::Ended;
        }
        let (id, what) = text.split_at(1);
        let key = format!("orders/{id}").into();
        let suspect = what.ends_with('?');
        match what.trim_end_matches('?') {
            "-" => Told::Remove(key),
            number => Told::Insert { key, seen: seen(number.parse().unwrap()), suspect },
        }
    };
    let told = told.split_whitespace().map(|text| (Duration::ZERO, one(text)));
    Viewed { name: "v".into(), scope: Some("orders".into()), guarded, told: told.collect() }
}

#[track_caller]
fn good(epochs: &[&[&str]], told: &str) {
    check(false, epochs, told, None);
}

#[track_caller]
fn bad(epochs: &[&[&str]], told: &str, law: &str) {
    check(false, epochs, told, Some(law));
}

#[track_caller]
fn check(guarded: bool, epochs: &[&[&str]], told: &str, law: Option<&str>) {
    let epochs: Vec<_> = epochs.iter().map(|revisions| epoch(revisions)).collect();
    let outcome = follow(&viewed(guarded, told), &epochs);
    match (law, outcome) {
        (None, Ok(_)) => {}
        (Some(law), Err(violation)) if violation.what.contains(law) => {}
        (law, outcome) => panic!("wanted {law:?}, got {outcome:?}"),
    }
}

const PLAIN: &[&str] = &["a1", "b1", "a2", "b-", "a3 c1"];

#[test]
fn what_follows_the_history_is_good() {
    good(&[PLAIN], "a1 . b1 . a2 . b- . a3 c1 .");
    good(&[PLAIN], "");
    good(&[PLAIN], ". a1 .");
    good(&[PLAIN], "a3 c1 .");
    good(&[PLAIN], "a1 b1 . b- a2 . a3 c1 . . .");
    good(&[&["a1", "a2", "a1"]], "a1 . . .");
}

#[test]
fn law_1_a_set_that_never_was_is_found() {
    bad(&[PLAIN], "b1 .", "law 1");
    bad(&[PLAIN], "a1 . a4 .", "law 1");
    bad(&[PLAIN], "x1 .", "law 1");
    bad(&[PLAIN], "a1 b1 . a2 b- c1 .", "law 1");
}

#[test]
fn law_1_a_revision_seen_in_half_is_found() {
    bad(&[PLAIN], "a1 . a3 . c1 .", "law 1");
    bad(&[&["a1 b1", "a2 b2"]], "a1 b1 . a2 .", "law 1");
}

#[test]
fn law_1_going_back_is_found() {
    bad(&[PLAIN], "a1 b1 . a2 . a1 .", "law 1");
    bad(&[PLAIN], "a3 c1 . c- b1 a2 .", "law 1");
}

#[test]
fn law_1_a_ghost_and_a_loss_are_found() {
    bad(&[PLAIN], "a1 b1 . a3 c1 .", "law 1");
    bad(&[&["a1", "b1"]], "b1 .", "law 1");
}

#[test]
fn law_1_what_is_not_watched_is_found() {
    let mut viewed = viewed(false, "a1 .");
    viewed.scope = Some("order".into());
    let error = follow(&viewed, &[epoch(PLAIN)]).unwrap_err();
    assert!(error.what.contains("does not watch"), "{error:?}");
}

#[test]
fn law_2_an_insert_that_changes_nothing_is_found() {
    bad(&[PLAIN], "a1 . a1 .", "law 2");
    good(&[PLAIN], "a1 a2 a1 .");
}

#[test]
fn law_3_a_remove_of_what_is_not_there_is_found() {
    bad(&[PLAIN], "b- .", "law 3");
    bad(&[PLAIN], "a1 b1 . b- a2 b- .", "law 3");
}

#[test]
fn law_4_an_end_is_found() {
    bad(&[PLAIN], "a1 . end", "law 4");
}

#[test]
fn a_wiped_store_begins_anew_and_the_old_one_does_not_come_back() {
    let wiped: &[&[&str]] = &[&["a1", "b1", "c1"], &["a2", "c1"]];
    good(wiped, "a1 b1 . a2 b- .");
    good(wiped, "a1 b1 . a- b- . a2 . c1 .");
    bad(wiped, "a1 b1 c1 . a2 b- c- . a1 b1 .", "law 1");
    bad(wiped, "a1 b1 . a2 .", "law 1");
}

#[test]
fn poison_stands_for_the_last_good_value() {
    let poisoned: &[&[&str]] = &[&["a1", "a!", "b1", "a2", "a!", "c1"]];
    good(poisoned, "a1 . b1 . a2 . c1 .");
    // Listed anew, with the second good value missed.
    good(poisoned, "a1 . b1 c1 .");
    // Nothing good was ever seen.
    good(&[&["a!", "b1"]], "b1 .");
    good(poisoned, "b1 .");
    good(&[&["a1", "a-", "a!", "b1"]], "a1 . b1 a- .");
    bad(poisoned, "a1 . a- b1 .", "law 1");
    bad(poisoned, "a1 b1 . a2 . a- .", "law 1");
    bad(poisoned, "a1 b1 . a2 c1 . a1 .", "law 1");
    bad(poisoned, "a3 b1 .", "law 1");
}

#[test]
fn a_guarded_viewer_may_keep_what_vanished_and_nothing_else() {
    let plan: &[&[&str]] = &[&["a1 b1", "a- b-", "a2", "c1"]];
    check(true, plan, "a1 b1 . a1? b1? . a2 . b- . c1 .", None);
    check(true, plan, "a1 b1 . a1? b1? . a2 c1 . b- .", None);
    check(true, plan, "a1 b1 . c1 a2 .", None);
    check(true, plan, "a1 b1 . c1 .", Some("law 1"));
    check(true, plan, "a1 b1 . a2? c1 .", Some("law 1"));
    check(true, plan, "a1 b1 . b7? .", Some("law 1"));
    check(true, plan, "a1 b1 . a- b- . b1 .", Some("law 1"));
    check(false, plan, "a1 b1 . b1? .", Some("law 1"));
    // Vanished, then poisoned, then dropped.
    check(true, &[&["a1", "a-", "a!", "b1"]], "a1 . b1 . a- .", None);
    // Vanished, back with a good value that was missed, then poisoned, then dropped.
    let back: &[&[&str]] = &[&["a1", "a-", "a2", "a!", "b1"]];
    check(true, back, "a1 . b1 . a- .", None);
    check(true, back, "a1 . a1? . a2 . b1 . a- .", Some("law 1"));
    check(true, &[&["a1", "a!", "b1"]], "a1 . b1 . a- .", Some("law 1"));
}

fn left(epoch: usize, revision: i64) -> Left {
    Left { key: "orders/a".into(), tag: 1, epoch, revision }
}

#[test]
fn what_left_stays_away() {
    let history = [epoch(&["a1", "a-", "a2", "b1"])];
    stays_away(&left(0, 3), &history).unwrap();
    assert!(stays_away(&left(0, 2), &history).is_err(), "it was there still");
    let back = [epoch(&["a1", "a-", "b1", "a1", "a-"])];
    assert!(stays_away(&left(0, 3), &back).is_err(), "it came back for a moment");
    let never_gone = [epoch(&["a1", "b1"])];
    assert!(stays_away(&left(0, 3), &never_gone).is_err());
    assert!(stays_away(&left(0, 9), &never_gone).is_err());
    let wiped = [epoch(&["a1"]), epoch(&["b1", "a1"])];
    assert!(stays_away(&left(0, 2), &wiped).is_err(), "it came back after the wipe");
    stays_away(&left(0, 9), &[epoch(&["a1"]), epoch(&["b1"])]).unwrap();
}

#[test]
fn whoever_stays_is_not_lost_while_it_is_calm() {
    let history = [epoch(&["a1", "a2", "a-", "a3", "b-"])];
    let calm = |from, to| Calm { epoch: 0, from, to, keys: vec!["orders/a".into()] };
    keeps_all(&calm(1, 3), &history).unwrap();
    keeps_all(&calm(4, 9), &history).unwrap();
    assert!(keeps_all(&calm(1, 4), &history).is_err());
    assert!(keeps_all(&calm(3, 9), &history).is_err());
}
