//! How long threads of this process have run: what the kernel counts for each of them in nanoseconds,
//! since the ticks of the usual numbers are too long for what is measured here. Linux only.

use std::fs;
use std::io::Result;
use std::time::Duration;

/// The time that all threads of this process have run. Threads that have ended do not count any more.
///
/// # Errors
/// The kernel does not say.
pub fn process() -> Result<Duration> {
    sum(|_| true)
}

/// The time that the threads of this name have run.
///
/// # Errors
/// The kernel does not say.
pub fn thread(name: &str) -> Result<Duration> {
    sum(|other| other == name)
}

fn sum(counts: impl Fn(&str) -> bool) -> Result<Duration> {
    let mut time = Duration::ZERO;
    for thread in fs::read_dir("/proc/self/task")? {
        let thread = thread?.path();
        // One that ends meanwhile is none of those that are measured.
        let Ok(name) = fs::read_to_string(thread.join("comm")) else { continue };
        if counts(name.trim_end()) {
            let text = fs::read_to_string(thread.join("schedstat"))?;
            let run = text.split(' ').next().and_then(|run| run.parse().ok());
            time += Duration::from_nanos(run.ok_or(std::io::ErrorKind::InvalidData)?);
        }
    }
    Ok(time)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn a_thread_that_runs_is_counted_by_its_name() {
        let work = || {
            let before = thread("busy").unwrap();
            let start = Instant::now();
            while thread("busy").unwrap().saturating_sub(before) < Duration::from_millis(20) {
                assert!(start.elapsed() < Duration::from_secs(10), "it runs");
            }
        };
        std::thread::Builder::new().name("busy".into()).spawn(work).unwrap().join().unwrap();
        assert_eq!(thread("nobody").unwrap(), Duration::ZERO);
        assert!(process().unwrap() > Duration::ZERO);
    }
}
