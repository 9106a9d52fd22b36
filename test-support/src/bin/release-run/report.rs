//! Checks the whole and says what came of it.

use std::{
    fmt::Display,
    io::{self, Write as _},
    process::ExitCode,
    time::Duration,
};

use crate::{
    check::{self, Step, Violation},
    plan::Plan,
    run::Outcome,
    world::World,
};

/// So many entries around a violation are printed.
const CONTEXT: usize = 20;

/// A line on stderr.
pub(crate) fn say(line: &str) {
    // Nobody is there to be told that stderr is closed.
    drop(writeln!(io::stderr().lock(), "release-run: {line}"));
}

/// Text on stdout.
pub(crate) fn print(text: &str) {
    // Who closes a pipe has read enough.
    drop(writeln!(io::stdout().lock(), "{}", text.trim_end()));
}

/// Checks the history, reports, and decides how the program ends.
pub(crate) fn report(plan: &Plan, world: &World, outcome: Outcome, again: &str) -> ExitCode {
    let epochs = world.recorder.epochs();
    let steps = check::steps(&epochs);
    let writes: usize = epochs.iter().map(|epoch| epoch.written.len()).sum();
    let mut violations = outcome.violations;
    let mut checked = 0;
    for viewed in &outcome.viewed {
        match check::follow(viewed, &steps) {
            Ok(changes) => checked += changes,
            Err(violation) => violations.push(violation),
        }
    }
    for left in &outcome.left {
        violations.extend(check::stays_away(left, &steps).err());
    }
    for calm in &outcome.calm {
        violations.extend(check::keeps_all(calm, &steps).err());
    }
    violations.sort_by_key(|violation| violation.at);
    if let Some(why) = world.recorder.lost() {
        say(&format!("INCONCLUSIVE: the recording is not whole: {why}"));
        say(&format!("what was found all the same: {} violations", violations.len()));
        say(&format!("again: {again}"));
        return ExitCode::from(3);
    }
    let Some(first) = violations.first() else {
        print(&format!(
            "ok: seed {}, etcd {}, members {}, {:.0} s, faults {}, revisions {writes}, stores {}, \
             streams {}, changes checked {checked}, deregistrations checked {}, calm rounds {}, longest lag of a \
             viewer {:.0?}, of a registrant {:.0?}",
            plan.seed,
            plan.version,
            plan.members,
            world.journal.now().as_secs_f64(),
            outcome.faults,
            steps.len(),
            outcome.viewed.len(),
            outcome.left.len(),
            outcome.calm.len(),
            outcome.lags.viewer,
            outcome.lags.registrant,
        ));
        return ExitCode::SUCCESS;
    };
    say(&format!("FAILED: seed {}, violations: {}", plan.seed, violations.len()));
    for violation in violations.iter().skip(1).take(CONTEXT) {
        say(&format!("also, at {:.3?}: {}", violation.at, violation.what));
    }
    say(&format!("the first, at {:.3?}: {}", first.at, first.what));
    let viewed = outcome.viewed.iter().filter(|viewed| first.viewer.as_ref() == Some(&viewed.name));
    let written = || steps.iter().flatten().map(|step: &Step| (step.at, step));
    for viewed in viewed {
        let told = || viewed.told.iter().map(|(at, told)| (*at, told));
        if let Some(key) = &first.key {
            let of_key = told().filter(|(_, told)| told.key() == Some(key));
            around(first, &format!("{} was told of {key}", viewed.name), of_key);
        }
        around(first, &format!("{} was told", viewed.name), told());
    }
    if let Some(key) = &first.key {
        let of_key = written().filter(|(_, step)| step.changes.iter().any(|(it, _)| it == key));
        around(first, &format!("written to etcd of {key}"), of_key);
    }
    around(first, "written to etcd", written());
    let lines = world.journal.lines();
    around(first, "happened", lines.iter().map(|(at, line)| (*at, line)));
    say(&format!("again: {again}"));
    ExitCode::FAILURE
}

/// Prints the last entries up to the violation, and a few that follow.
fn around<'a, T: Display + 'a>(
    violation: &Violation,
    what: &str,
    entries: impl Iterator<Item = (Duration, T)>,
) {
    let entries: Vec<_> = entries.collect();
    let place = entries.partition_point(|(at, _)| *at <= violation.at);
    let first = place.saturating_sub(CONTEXT);
    let last = (place + CONTEXT / 4).min(entries.len());
    say(&format!("-- {what}, {first} entries before:"));
    for (at, entry) in &entries[first..last] {
        let text: String = entry.to_string().chars().take(400).collect();
        say(&format!("  {at:>10.3?} {text}"));
    }
}
