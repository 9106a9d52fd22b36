//! What the tests of the programs share: running them, and speaking HTTP to them.
#![allow(dead_code, reason = "not every test needs all of it")]

pub(crate) mod instances;
pub(crate) mod load;
pub(crate) mod nodes;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use discovery_test_support::{Process, eventually, slack};
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

pub(crate) const NODE: &str = env!("CARGO_BIN_EXE_node");
pub(crate) const GATEWAY: &str = env!("CARGO_BIN_EXE_gateway");
pub(crate) const WATCH: &str = env!("CARGO_BIN_EXE_watch");
pub(crate) const GRPC_SERVER: &str = env!("CARGO_BIN_EXE_grpc_server");
pub(crate) const GRPC_CLIENT: &str = env!("CARGO_BIN_EXE_grpc_client");
pub(crate) const AXUM_SERVER: &str = env!("CARGO_BIN_EXE_axum_server");

/// How long something may take that is done at once.
pub(crate) const SOON: Duration = Duration::from_secs(10);

/// A running program of ours.
pub(crate) struct Program {
    pub(crate) process: Process,
    stdout: PathBuf,
    stderr: PathBuf,
    _dir: tempfile::TempDir,
}

impl Program {
    /// Starts `binary` with no setting of ours in its environment.
    pub(crate) fn start<S: AsRef<str>>(binary: &str, args: &[S]) -> Self {
        Self::start_with(binary, args, &[])
    }

    /// The same with these variables.
    pub(crate) fn start_with<S: AsRef<str>>(
        binary: &str,
        args: &[S],
        env: &[(&str, &str)],
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (stdout, stderr) = (dir.path().join("stdout"), dir.path().join("stderr"));
        let out = File::create(&stdout).unwrap();
        let process = Process::spawn(Path::new(binary), &stderr, |command| {
            command.args(args.iter().map(AsRef::as_ref)).stdout(out);
            command.env_remove("DISCOVERY_ETCD").env_remove("RUST_LOG");
            command.envs(env.iter().copied());
        });
        Self { process: process.unwrap(), stdout, stderr, _dir: dir }
    }

    pub(crate) fn stdout(&self) -> String {
        fs::read_to_string(&self.stdout).unwrap()
    }

    pub(crate) fn stderr(&self) -> String {
        fs::read_to_string(&self.stderr).unwrap()
    }

    /// Waits for a whole line on stdout that has all of these.
    pub(crate) async fn line(&self, parts: &[&str]) -> String {
        eventually(SOON, format!("a line with {parts:?}"), async || {
            let text = self.stdout();
            let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
            let line = whole.lines().find(|line| parts.iter().all(|part| line.contains(part)));
            line.map(ToOwned::to_owned).ok_or(format!("{text}{}", self.stderr()))
        })
        .await
    }

    /// Waits for the line that a server prints, and returns its address: `http://…`.
    pub(crate) async fn address(&self) -> String {
        let line = self.line(&["address="]).await;
        line.rsplit_once("address=").unwrap().1.to_owned()
    }

    /// Waits for its end and returns the exit code.
    pub(crate) async fn ended(&self) -> Option<i32> {
        let status =
            eventually(SOON, "the program ends", async || self.process.exit_status()).await;
        status.code()
    }

    /// SIGTERM; returns the exit code.
    pub(crate) async fn stop(&self) -> Option<i32> {
        self.process.terminate(slack(Duration::from_secs(40))).await.code()
    }
}

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub(crate) fn served_by(&self) -> &str {
        self.header("x-served-by")
    }

    /// The `error` of a JSON answer.
    pub(crate) fn error(&self) -> String {
        self.json()["error"].as_str().unwrap_or_else(|| panic!("no error: {self:?}")).to_owned()
    }
}

/// A client that keeps its connections.
#[derive(Clone)]
pub(crate) struct Http<B = Full<Bytes>>(Client<HttpConnector, B>);

impl<B> Http<B>
where
    B: http_body::Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    pub(crate) fn new() -> Self {
        Self(Client::builder(TokioExecutor::new()).build_http())
    }

    /// Sends it, and waits for the head of the answer.
    pub(crate) async fn head(&self, request: Request<B>) -> http::Response<hyper::body::Incoming> {
        let answer = tokio::time::timeout(slack(Duration::from_secs(20)), self.0.request(request));
        answer.await.expect("an answer in time").expect("an answer")
    }

    pub(crate) async fn send(&self, request: Request<B>) -> Answer {
        self.try_send(request).await.expect("an answer")
    }

    pub(crate) async fn try_send(&self, request: Request<B>) -> Result<Answer, String> {
        let answer = tokio::time::timeout(slack(Duration::from_secs(20)), async {
            let answer = self.0.request(request).await.map_err(|error| format!("{error:?}"))?;
            let (head, body) = answer.into_parts();
            let body = body.collect().await.map_err(|error| format!("{error:?}"))?.to_bytes();
            Ok(Answer { status: head.status, headers: head.headers, body })
        });
        answer.await.map_err(|_| "no answer in time".to_owned())?
    }
}

impl Http {
    pub(crate) async fn get(&self, url: impl AsRef<str>) -> Answer {
        self.send(request(Method::GET, url.as_ref(), "")).await
    }

    pub(crate) async fn post(&self, url: impl AsRef<str>, body: &'static str) -> Answer {
        self.send(request(Method::POST, url.as_ref(), body)).await
    }
}

pub(crate) fn request(method: Method, url: &str, body: &'static str) -> Request<Full<Bytes>> {
    Request::builder().method(method).uri(url).body(Full::from(body)).unwrap()
}
