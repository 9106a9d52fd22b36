//! Measuring in a process of its own, and what the heap of this one is.

use std::collections::HashMap;
use std::env;
use std::fmt::Display;
use std::io::{BufRead as _, BufReader, Lines, Write as _, stdout};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use discovery_benches::etcd::Result;
use tokio::time::sleep;

use crate::HEAP;

const MEASURE: &str = "--measure";
/// What a process says when it waits for something to be done to it.
const READY: &str = "ready";

/// What this process is to measure, if that is what it is for: what, how many and where.
pub(crate) fn wanted() -> Option<[String; 3]> {
    let mut arguments = env::args().skip_while(|argument| argument != MEASURE).skip(1);
    let wanted = [arguments.next()?, arguments.next()?, arguments.next()?];
    Some(wanted)
}

/// The other process.
pub(crate) struct Measured {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Measured {
    /// Starts it.
    pub(crate) fn start(what: &str, count: usize, url: &str) -> Result<Self> {
        let mut command = Command::new(env::current_exe()?);
        command.args([MEASURE, what, &count.to_string(), url]).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let lines = BufReader::new(child.stdout.take().ok_or("it has no output")?).lines();
        Ok(Self { child, lines })
    }

    /// Waits until it is ready for what is to be done to it.
    pub(crate) fn ready(&mut self) -> Result<()> {
        match self.lines.next().transpose()? {
            Some(line) if line == READY => Ok(()),
            _ => Err("it was not made ready".into()),
        }
    }

    /// Waits for its numbers.
    pub(crate) fn numbers(mut self) -> Result<HashMap<String, f64>> {
        let mut numbers = HashMap::new();
        for line in self.lines {
            let line = line?;
            let (name, number) = line.split_once(' ').ok_or("not a number with a name")?;
            numbers.insert(name.to_owned(), number.parse()?);
        }
        if self.child.wait()?.success() { Ok(numbers) } else { Err("it failed".into()) }
    }
}

/// Says in the other process that it is ready.
pub(crate) fn say_ready() -> Result<()> {
    Ok(writeln!(stdout(), "{READY}")?)
}

/// Says a number in the other process.
pub(crate) fn say(name: &str, number: impl Display) -> Result<()> {
    Ok(writeln!(stdout(), "{name} {number}")?)
}

/// The heap once nothing more happens: other tasks let go of what they had a moment later.
pub(crate) async fn settled() -> usize {
    let mut last = HEAP.current_usage();
    let mut quiet = 0;
    while quiet < 10 {
        sleep(Duration::from_millis(20)).await;
        let now = HEAP.current_usage();
        quiet = if now == last { quiet + 1 } else { 0 };
        last = now;
    }
    last
}
