//! A process that a test can do anything to, and that is gone when the test is.

use std::{
    fmt, fs,
    fs::File,
    io,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};

use crate::guard::{self, Guard, Lifeline};

/// How often a process that was asked to stop is looked at.
const POLL: Duration = Duration::from_millis(2);

/// A running program. Dropping it kills it, also when it is paused and when the test panics; it dies with
/// the test process too, however that ends.
///
/// All methods take `&self`, so that a process can be shared with a task that does it harm.
pub struct Process {
    pid: Pid,
    log: PathBuf,
    /// Signals go out under this lock, so that none is sent to a pid that has been given to another.
    child: Mutex<(Child, Lifeline)>,
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Process")
            .field("pid", &self.pid())
            .field("log", &self.log)
            .finish_non_exhaustive()
    }
}

impl Process {
    /// Starts `program`; `configure` adds arguments and variables. What it prints goes to the file `log`.
    pub fn spawn(
        program: &Path,
        log: &Path,
        configure: impl FnOnce(&mut Command),
    ) -> io::Result<Self> {
        Self::spawn_under(Guard::best(), program, log, configure)
    }

    fn spawn_under(
        guard: Guard,
        program: &Path,
        log: &Path,
        configure: impl FnOnce(&mut Command),
    ) -> io::Result<Self> {
        let output = File::create(log)?;
        let mut command = guard.command(program);
        command.stdout(output.try_clone()?).stderr(output);
        configure(&mut command);
        let (child, lifeline) = guard::spawn(command)?;
        let pid = Pid::from_child(&child);
        Ok(Self { pid, log: log.to_path_buf(), child: Mutex::new((child, lifeline)) })
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// How it ended, or `None` while it runs (paused or not).
    pub fn exit_status(&self) -> Option<ExitStatus> {
        let mut guard = self.lock();
        let (child, lifeline) = &mut *guard;
        let status = child.try_wait().expect("our own child can be waited for");
        if status.is_some() {
            lifeline.release();
        }
        status
    }

    /// Whether it has not ended. A paused process is running.
    pub fn is_running(&self) -> bool {
        self.exit_status().is_none()
    }

    /// SIGKILL. Returns when the process is gone.
    pub fn kill(&self) {
        let mut guard = self.lock();
        let (child, lifeline) = &mut *guard;
        if child.try_wait().is_ok_and(|status| status.is_none()) {
            child.kill().expect("our own child can be killed");
            child.wait().expect("our own child can be waited for");
        }
        lifeline.release();
    }

    /// SIGTERM, and SIGKILL if the process has not ended within `patience`. Returns how it ended.
    ///
    /// Cancel safe: dropped half-way, the process has been told to end and nobody waits for it.
    pub async fn terminate(&self, patience: Duration) -> ExitStatus {
        self.signal(Signal::TERM);
        let deadline = Instant::now() + patience;
        loop {
            match self.exit_status() {
                Some(status) => return status,
                None if Instant::now() < deadline => tokio::time::sleep(POLL).await,
                None => self.kill(),
            }
        }
    }

    /// SIGSTOP. Returns when every thread has stopped. Does nothing to a process that has ended.
    pub fn pause(&self) {
        let guard = self.lock();
        if self.signal_locked(guard, Signal::STOP) {
            // Leaves the news in place: `exit_status` must still hear of a process that ended instead.
            let news = WaitIdOptions::STOPPED | WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
            waitid(WaitId::Pid(self.pid), news).expect("our own child can be waited for");
        }
    }

    /// SIGCONT. Does nothing to a process that is not paused.
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// The last lines that it printed, for a message that says why a test failed.
    pub fn log_tail(&self) -> String {
        const LINES: usize = 30;
        let text = self.log_text();
        let skip = text.lines().count().saturating_sub(LINES);
        text.lines().skip(skip).collect::<Vec<_>>().join("\n")
    }

    /// All that it printed.
    pub fn log_text(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    fn signal(&self, signal: Signal) {
        self.signal_locked(self.lock(), signal);
    }

    /// Says whether there was still a process to send it to.
    fn signal_locked(&self, mut guard: MutexGuard<'_, (Child, Lifeline)>, signal: Signal) -> bool {
        let running = guard.0.try_wait().is_ok_and(|status| status.is_none());
        if running {
            kill_process(self.pid, signal).expect("our own child can be signalled");
        }
        running
    }

    /// A panic elsewhere leaves a child that is as good as before, and it must still be killed.
    fn lock(&self) -> MutexGuard<'_, (Child, Lifeline)> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

#[cfg(test)]
mod tests {
    use std::{env, process::Stdio};

    use super::*;
    use crate::{data::DataDir, eventually};

    const DIR: &str = "DISCOVERY_TEST_GUARD_DIR";

    fn sleep(guard: Guard, dir: &Path) -> Process {
        Process::spawn_under(guard, Path::new("sleep"), &dir.join("log"), |command| {
            command.arg("1000");
        })
        .expect("sleep can be started")
    }

    fn alive(pid: &str) -> bool {
        // A process that nobody has reaped yet is dead all the same.
        fs::read_to_string(format!("/proc/{pid}/stat"))
            .is_ok_and(|stat| stat.rsplit(") ").next().is_some_and(|rest| !rest.starts_with('Z')))
    }

    /// The processes that have `text` in their command line.
    fn with_command_line(text: &str) -> Vec<String> {
        let entries = fs::read_dir("/proc").expect("this system has /proc").flatten();
        entries
            .filter(|entry| {
                let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
                String::from_utf8_lossy(&line).contains(text)
            })
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect()
    }

    async fn dies_with_the_test_process(guard: Guard, name: &str) {
        let name = format!("process::tests::{name}");
        if let Some(dir) = env::var_os(DIR) {
            let process = sleep(guard, Path::new(&dir));
            fs::write(Path::new(&dir).join("pid"), process.pid().to_string())
                .expect("the directory is there");
            std::future::pending::<()>().await;
        }
        let data = DataDir::new();
        let mut victim = Command::new(env::current_exe().expect("a running test has a binary"))
            .args(["--exact", &name])
            .env(DIR, data.path())
            .stdout(Stdio::null())
            .spawn()
            .expect("the test binary can be started");
        let pid = eventually(Duration::from_secs(10), "the child of the victim runs", async || {
            fs::read_to_string(data.path().join("pid"))
                .ok()
                .filter(|pid| !pid.is_empty() && alive(pid))
        })
        .await;
        victim.kill().expect("our own child can be killed");
        victim.wait().expect("our own child can be waited for");
        eventually(Duration::from_secs(5), "the child has died with it", async || !alive(&pid))
            .await;
    }

    #[tokio::test]
    async fn the_kernel_kills_it_when_the_test_process_dies() {
        if Guard::best() == Guard::Kernel {
            dies_with_the_test_process(
                Guard::Kernel,
                "the_kernel_kills_it_when_the_test_process_dies",
            )
            .await;
        }
    }

    #[tokio::test]
    async fn the_shell_kills_it_when_the_test_process_dies() {
        dies_with_the_test_process(Guard::Shell, "the_shell_kills_it_when_the_test_process_dies")
            .await;
    }

    #[tokio::test]
    async fn the_shell_goes_when_its_charge_is_killed() {
        let data = DataDir::new();
        let mark = format!("1000.{}", std::process::id());
        let process = Process::spawn_under(
            Guard::Shell,
            Path::new("sleep"),
            &data.path().join("log"),
            |command| {
                command.arg(&mark);
            },
        )
        .expect("sleep can be started");
        eventually(Duration::from_secs(5), "charge and watcher run", async || {
            with_command_line(&mark).len() == 2
        })
        .await;
        process.kill();
        eventually(Duration::from_secs(5), "the watcher is gone", async || {
            with_command_line(&mark).is_empty()
        })
        .await;
    }

    #[tokio::test]
    async fn it_outlives_the_thread_that_asked_for_it() {
        let data = DataDir::new();
        let dir = data.path().to_path_buf();
        let start = move || {
            let thread = fs::read_link("/proc/thread-self").expect("this system has /proc");
            (sleep(Guard::best(), &dir), Path::new("/proc").join(thread))
        };
        let (process, thread) =
            std::thread::spawn(start).join().expect("the thread does not panic");
        // The kernel forgets a thread after it has signalled the children of that thread.
        eventually(Duration::from_secs(5), "the thread is gone", async || !thread.exists()).await;
        process.pause();
        assert!(process.is_running());
    }

    #[tokio::test]
    async fn a_paused_process_can_be_killed_and_a_dead_one_paused() {
        let data = DataDir::new();
        let process = sleep(Guard::best(), data.path());
        let pid = process.pid().to_string();
        process.pause();
        process.pause();
        process.kill();
        assert!(!alive(&pid));
        process.pause();
        process.resume();
        process.kill();
        assert!(!process.is_running());
    }
}
