//! One etcd member as a process of the test's own.
//!
//! It keeps its ports and its data over every kill and restart, as a machine in production does, so that
//! what is tested sees the same etcd come back.

mod builder;
mod jwt;

use std::{
    env, fmt, fs,
    net::SocketAddr,
    path::PathBuf,
    process::Command,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

pub use self::builder::Builder;
use self::jwt::Jwt;
use crate::{Port, Process, Truth, Version, binary, data::DataDir, wait::slack};

/// How long etcd may take to serve: it starts in 1 s, but not when the processors are taken.
const START: Duration = Duration::from_secs(30);
/// How long etcd may take to stop by itself before it is killed.
const STOP: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(10);
/// One question whether it serves; an etcd without a leader leaves it open.
const QUESTION: Duration = Duration::from_secs(1);

/// An etcd member. Dropping it kills it and removes its data.
///
/// All methods take `&self`, so that it can be shared with a task that does it harm.
pub struct Etcd {
    place: Place,
    config: Builder,
    /// All members of its cluster, as `--initial-cluster` wants them.
    peers: String,
    truth: Truth,
    /// Before the directory: a process that is gone writes nothing any more.
    process: Mutex<Option<Arc<Process>>>,
    dir: DataDir,
}

/// Where a member lives in the network.
#[derive(Debug)]
struct Place {
    name: String,
    client: Port,
    peer: Port,
    tls: Option<Port>,
}

#[derive(Debug, Clone)]
struct Tls {
    cert: PathBuf,
    key: PathBuf,
    client_ca: Option<PathBuf>,
}

/// Why a process did not come to serve.
#[derive(Debug)]
enum StartError {
    PortTaken,
    Other(String),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PortTaken => f.write_str("its port is taken"),
            Self::Other(what) => f.write_str(what),
        }
    }
}

impl Place {
    fn claim(number: usize, tls: bool) -> Self {
        Self {
            name: format!("member-{number}"),
            client: Port::claim(),
            peer: Port::claim(),
            tls: tls.then(Port::claim),
        }
    }

    fn as_peer(&self) -> String {
        format!("{}=http://{}", self.name, self.peer.addr())
    }
}

impl fmt::Debug for Etcd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "etcd {} {} at {}", self.config.version, self.place.name, self.url())
    }
}

impl Etcd {
    /// Starts a single member with etcd's own defaults and waits until it serves.
    ///
    /// # Panics
    ///
    /// As [`Builder::start`].
    pub async fn start(version: Version) -> Self {
        Self::builder(version).start().await
    }

    /// A single member that is told more than the defaults.
    pub const fn builder(version: Version) -> Builder {
        Builder::new(version)
    }

    fn at(place: Place, config: Builder, peers: String) -> Self {
        let truth = Truth::new(place.client.addr());
        Self { place, config, peers, truth, process: Mutex::default(), dir: DataDir::new() }
    }

    /// Where it serves clients, as they want it: `http://127.0.0.1:…`. Always the same.
    pub fn url(&self) -> String {
        format!("http://{}", self.client_addr())
    }

    /// Where it serves clients. Always the same.
    pub fn client_addr(&self) -> SocketAddr {
        self.place.client.addr()
    }

    /// Where it serves clients over TLS.
    ///
    /// # Panics
    ///
    /// If it was not built to.
    pub fn tls_addr(&self) -> SocketAddr {
        self.place.tls.as_ref().expect("it was built with Builder::tls").addr()
    }

    /// Its release.
    pub const fn version(&self) -> Version {
        self.config.version
    }

    /// etcd's own command line client, if it lies beside the binary.
    pub fn etcdctl(&self) -> Option<PathBuf> {
        Some(binary(self.version()).with_file_name("etcdctl")).filter(|path| path.is_file())
    }

    /// The way past everything that is tested.
    pub const fn truth(&self) -> &Truth {
        &self.truth
    }

    /// The process id.
    ///
    /// # Panics
    ///
    /// If it does not run.
    pub fn pid(&self) -> u32 {
        self.running().pid()
    }

    /// Whether there is a process, paused or not.
    pub fn is_running(&self) -> bool {
        self.lock().as_ref().is_some_and(|process| process.is_running())
    }

    /// The last lines of its log.
    pub fn log_tail(&self) -> String {
        self.lock().as_ref().map(|process| process.log_tail()).unwrap_or_default()
    }

    /// SIGKILL. Returns when the process is gone. The data stay.
    pub fn kill(&self) {
        if let Some(process) = &*self.lock() {
            process.kill();
        }
    }

    /// SIGTERM, and SIGKILL after 10 s by [`slack`]. Returns when the process is gone. The data stay.
    pub async fn terminate(&self) {
        let process = self.lock().clone();
        if let Some(process) = process {
            process.terminate(slack(STOP)).await;
        }
    }

    /// SIGSTOP: it keeps its connections and says nothing. Returns when every thread has stopped.
    ///
    /// # Panics
    ///
    /// If it does not run.
    pub fn pause(&self) {
        self.running().pause();
    }

    /// SIGCONT.
    ///
    /// # Panics
    ///
    /// If it does not run.
    pub fn resume(&self) {
        self.running().resume();
    }

    /// Kills it if it runs, starts it on the same data and the same ports, and waits until it serves.
    ///
    /// # Panics
    ///
    /// As [`Builder::start`].
    pub async fn restart(&self) {
        self.kill();
        self.start_again_without_waiting();
        self.wait_until_serving().await;
    }

    /// Starts it on the same data and the same ports, and returns at once.
    ///
    /// # Panics
    ///
    /// If it runs.
    pub fn start_again_without_waiting(&self) {
        assert!(!self.is_running(), "{self:?} runs");
        self.spawn();
    }

    /// Kills it if it runs, deletes its data, starts it and waits until it serves. It has the same cluster
    /// and member ids as before: they are made from the addresses.
    ///
    /// # Panics
    ///
    /// As [`Builder::start`].
    pub async fn wipe(&self) {
        self.kill();
        let data = self.data_dir();
        fs::remove_dir_all(&data)
            .unwrap_or_else(|error| panic!("cannot remove {}: {error}", data.display()));
        self.restart().await;
    }

    /// Waits until it serves: until it has a leader and answers a linearizable read.
    ///
    /// # Panics
    ///
    /// As [`Builder::start`].
    pub async fn wait_until_serving(&self) {
        loop {
            match self.serving().await {
                Ok(()) => return,
                // Its own earlier connections can hold the port for a moment.
                Err(StartError::PortTaken) => self.spawn(),
                Err(error) => panic!("{self:?}: {error}"),
            }
        }
    }

    async fn serving(&self) -> Result<(), StartError> {
        let limit = slack(START);
        let deadline = Instant::now() + limit;
        let process = self.running();
        let truth = self.truth.deadline(slack(QUESTION));
        loop {
            if let Some(status) = process.exit_status() {
                if process.log_text().contains("address already in use") {
                    return Err(StartError::PortTaken);
                }
                let log = process.log_tail();
                return Err(StartError::Other(format!("ended with {status}; its log:\n{log}")));
            }
            if truth.serves().await && process.is_running() {
                return Ok(());
            }
            if Instant::now() > deadline {
                let log = process.log_tail();
                return Err(StartError::Other(format!(
                    "does not serve within {limit:?}; its log:\n{log}"
                )));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    fn spawn(&self) {
        let log = self.dir.path().join("log");
        let process = Process::spawn(binary(self.config.version), &log, |command| {
            command.args(self.flags());
            plain_environment(command);
        })
        .unwrap_or_else(|error| panic!("{self:?} cannot be started: {error}"));
        *self.lock() = Some(Arc::new(process));
    }

    fn flags(&self) -> Vec<String> {
        let client = self.url();
        let peer = format!("http://{}", self.place.peer.addr());
        let mut listen = client.clone();
        let mut flags = vec![
            format!("--name={}", self.place.name),
            format!("--data-dir={}", self.data_dir().display()),
            format!("--advertise-client-urls={client}"),
            format!("--listen-peer-urls={peer}"),
            format!("--initial-advertise-peer-urls={peer}"),
            format!("--initial-cluster={}", self.peers),
        ];
        if let (Some(port), Some(tls)) = (&self.place.tls, &self.config.tls) {
            listen = format!("{listen},https://{}", port.addr());
            flags.push(format!("--cert-file={}", tls.cert.display()));
            flags.push(format!("--key-file={}", tls.key.display()));
            if let Some(ca) = &tls.client_ca {
                flags.push(format!("--trusted-ca-file={}", ca.display()));
                flags.push("--client-cert-auth".into());
            }
        }
        if let Some(jwt) = &self.config.jwt {
            flags.push(jwt.flag(self.dir.path()));
        }
        flags.push(format!("--listen-client-urls={listen}"));
        flags.extend(self.config.flags.iter().cloned());
        flags
    }

    fn data_dir(&self) -> PathBuf {
        self.config.data_dir.clone().unwrap_or_else(|| self.dir.path().join("etcd"))
    }

    fn running(&self) -> Arc<Process> {
        self.lock().clone().unwrap_or_else(|| panic!("{self:?} was never started"))
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<Process>>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// etcd takes every variable that starts with `ETCD_` for an option of its own.
pub(crate) fn plain_environment(command: &mut Command) {
    for (name, _) in env::vars_os() {
        if name.to_string_lossy().starts_with("ETCD_") {
            command.env_remove(name);
        }
    }
    // Release 3.4 asks for a promise on processors that it was not tested on.
    let arch = if env::consts::ARCH == "aarch64" { "arm64" } else { env::consts::ARCH };
    command.env("ETCD_UNSUPPORTED_ARCH", arch);
}
