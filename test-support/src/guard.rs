//! How a process is made to die with the test process, even if that one is killed.
//!
//! A destructor does not run when a test is killed by a signal or a time limit, and an etcd left behind
//! holds its port, its memory and the processor of everybody who comes after. The kernel can send the
//! signal (`setpriv` asks it to); where that is not at hand, a shell waits for the end of a pipe that only
//! the test process holds open.

use std::{
    io::{self, Write},
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    sync::{OnceLock, mpsc},
    thread,
};

use crate::version::on_path;

/// The way in which a process is tied to ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Guard {
    /// The kernel kills it.
    Kernel,
    /// A shell kills it.
    Shell,
}

/// What keeps a process alive that is guarded by a shell. To drop it kills; see [`Lifeline::release`].
#[derive(Debug)]
pub(crate) struct Lifeline(Option<ChildStdin>);

impl Lifeline {
    /// Tells the shell that its charge is gone, so that it goes too and does not kill a number which by
    /// then may be another process.
    pub(crate) fn release(&mut self) {
        if let Some(mut pipe) = self.0.take() {
            // A shell that is gone already needs no telling.
            pipe.write_all(b"released\n").ok();
        }
    }
}

impl Guard {
    /// The best that this machine offers.
    pub(crate) fn best() -> Self {
        static BEST: OnceLock<Guard> = OnceLock::new();
        *BEST.get_or_init(|| {
            let works = on_path("setpriv").is_some()
                && Command::new("setpriv")
                    .args(["--pdeathsig", "KILL", "true"])
                    .stdin(Stdio::null())
                    .stderr(Stdio::null())
                    .status()
                    .is_ok_and(|status| status.success());
            if works { Self::Kernel } else { Self::Shell }
        })
    }

    /// A command that becomes `program` under this guard: its pid is the program's.
    pub(crate) fn command(self, program: &Path) -> Command {
        match self {
            Self::Kernel => {
                // Who died before the kernel was asked is not noticed by it, but is nobody's parent.
                const CHECK: &str = "test \"$PPID\" = \"$0\" && exec \"$@\"";
                let parent = std::process::id().to_string();
                let mut command = Command::new("setpriv");
                command.args(["--pdeathsig", "KILL", "sh", "-c", CHECK, &parent]).arg(program);
                command.stdin(Stdio::null());
                command
            }
            Self::Shell => {
                // `$$` in the watcher is still the pid that `exec` hands to the program.
                const WATCH: &str = "exec 3<&0; { read -r _ <&3 || kill -KILL $$; } >/dev/null 2>&1 & \
                                     exec \"$@\" 3<&- </dev/null";
                let mut command = Command::new("sh");
                command.args(["-c", WATCH, "sh"]).arg(program).stdin(Stdio::piped());
                command
            }
        }
    }
}

/// Starts `command`.
///
/// The kernel's signal comes when the *thread* that forked ends, and the threads of a test end with the
/// test while what it shares with others lives on. So one thread that never ends forks for all.
pub(crate) fn spawn(command: Command) -> io::Result<(Child, Lifeline)> {
    type Job = (Command, mpsc::Sender<io::Result<Child>>);
    static FORKER: OnceLock<mpsc::Sender<Job>> = OnceLock::new();
    let forker = FORKER.get_or_init(|| {
        let (jobs, queue) = mpsc::channel::<Job>();
        thread::Builder::new()
            .name("fork".into())
            .spawn(move || {
                for (mut command, answer) in queue {
                    answer.send(command.spawn()).ok();
                }
            })
            .expect("a thread can be started");
        jobs
    });
    let (answer, child) = mpsc::channel();
    forker.send((command, answer)).expect("the forking thread never ends");
    let mut child = child.recv().expect("the forking thread answers every job")?;
    let lifeline = Lifeline(child.stdin.take());
    Ok((child, lifeline))
}

#[cfg(test)]
mod tests {
    use std::process::ExitStatus;

    use super::*;

    fn wait(command: &mut Command) -> ExitStatus {
        command.status().expect("it can be started")
    }

    #[test]
    fn a_program_whose_parent_is_gone_already_does_not_start() {
        if Guard::best() != Guard::Kernel {
            return;
        }
        let mut ours = Guard::Kernel.command(Path::new("true"));
        assert!(wait(&mut ours).success());
        // As if we had died: the shell between us is its parent now.
        let mut orphan = Command::new("sh");
        orphan.args(["-c", "\"$@\" & wait $!", "sh"]).arg(ours.get_program()).args(ours.get_args());
        assert!(!wait(&mut orphan).success());
    }

    #[test]
    fn what_is_released_is_not_killed() {
        let mut command = Guard::Shell.command(Path::new("sh"));
        command.args(["-c", "sleep 0.2; exit 7"]);
        let (mut child, mut lifeline) = spawn(command).expect("a shell can be started");
        lifeline.release();
        let status = child.wait().expect("our own child can be waited for");
        assert_eq!(status.code(), Some(7), "{status}");
    }
}
