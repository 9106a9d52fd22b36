//! The release run: etcd and its networks fail at random for minutes, instances come and go all the
//! time, everything written and everything told is recorded, and in the end the laws of a change stream
//! are proved over the whole of it.
//!
//! - [`plan`] draws from a seed what will happen. A failing seed repeats the plan; what the machine makes
//!   of it differs a little each time, so a rare failure may want several tries.
//! - [`world`] is etcd and the networks, [`actors`] those who write and read, [`faults`] what is done to
//!   them, [`run`](mod@run) the order of it, [`quiet`] what must be true when all is well again.
//! - [`history`] is what etcd says was written, [`check`] proves the laws over it.
//!
//! Rows of the failure table that it draws from: 1 to 7, 9 to 16, 18, 22 to 25, 27 and 35. Left out are
//! those that need an etcd of another kind, which would change what all the others see: 8 (a TTL of its
//! own), 17 (100 000 instances), 19 and 20 (auth), 21 (a store too small to hold the run). They have
//! tests of their own.
//!
//! Exit code 0: nothing was wrong. 1: something was, and it says what, with the seed. 2: a wrong option.
//! 3: the recording is not whole, so that the run proves nothing. A panic (101): so does a run that cannot
//! do what it wants to, such as start etcd.

mod actors;
mod check;
mod faults;
mod history;
mod journal;
mod meaning;
mod options;
mod plan;
mod quiet;
mod report;
mod run;
mod world;

use std::process::ExitCode;

use clap::Parser as _;

use crate::{options::Options, plan::Plan, report::say, world::World};

#[tokio::main]
async fn main() -> ExitCode {
    let options = Options::parse();
    let seed = options.seed.unwrap_or_else(plan::fresh_seed);
    let plan = Plan::new(seed, options.time(), options.etcd(), options.members());
    if options.plan {
        report::print(&plan.to_string());
        return ExitCode::SUCCESS;
    }
    let again = options.again(seed);
    say(&format!(
        "seed {seed}: etcd {}, members: {}, rounds: {}; again: {again}",
        plan.version,
        plan.members,
        plan.rounds.len()
    ));
    let world = World::start(plan.version, plan.members).await;
    world.journal.take_logs();
    let outcome = run::run(&plan, &world, |line| say(&line)).await;
    world.recorder.stop();
    report::report(&plan, &world, outcome, &again)
}
