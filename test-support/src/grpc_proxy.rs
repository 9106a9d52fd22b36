//! etcd's own gRPC proxy, which people put between many clients and a cluster.

use std::{
    fmt,
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use crate::{
    Etcd, Port, Process, binary, data::DataDir, etcd::plain_environment, wait::eventually,
};

const START: Duration = Duration::from_secs(10);

/// `etcd grpc-proxy` in front of one member. Dropping it kills it.
pub struct GrpcProxy {
    port: Port,
    process: Process,
    _dir: DataDir,
}

impl fmt::Debug for GrpcProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GrpcProxy")
            .field("port", &self.port)
            .field("process", &self.process)
            .finish_non_exhaustive()
    }
}

impl GrpcProxy {
    /// Starts one in front of `etcd`, of the same version, and waits until it accepts connections.
    ///
    /// # Panics
    ///
    /// If it does not within 10 s by [`slack`](crate::slack), with the end of its log.
    pub async fn start(etcd: &Etcd) -> Self {
        let port = Port::claim();
        let dir = DataDir::new();
        let process = Process::spawn(binary(etcd.version()), &dir.path().join("log"), |command| {
            command
                .args(["grpc-proxy", "start"])
                .arg(format!("--endpoints={}", etcd.client_addr()))
                .arg(format!("--listen-addr={}", port.addr()))
                // A leftover of its own without this: it makes a directory where it is started.
                .current_dir(dir.path());
            plain_environment(command);
        })
        .unwrap_or_else(|error| panic!("the gRPC proxy cannot be started: {error}"));
        eventually(START, "the gRPC proxy accepts connections", async || {
            TcpStream::connect(port.addr()).map(drop).map_err(|error| (error, process.log_tail()))
        })
        .await;
        Self { port, process, _dir: dir }
    }

    /// Where it serves clients: `http://127.0.0.1:…`.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr())
    }

    /// Where it serves clients.
    pub fn addr(&self) -> SocketAddr {
        self.port.addr()
    }

    /// Its process, to kill or pause.
    pub const fn process(&self) -> &Process {
        &self.process
    }
}
