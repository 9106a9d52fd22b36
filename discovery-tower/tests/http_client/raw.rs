//! A server that says what a test has it say, byte by byte.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What it does, after it has read the head of a request.
#[derive(Clone, Copy)]
pub(crate) enum Step {
    Say(&'static str),
    /// Reads until this has come.
    Hear(&'static str),
    Pause(Duration),
    /// Reads whatever comes, and keeps the connection open.
    Stay,
    /// Reads nothing until it is [released](Raw::release).
    Hold,
}

pub(crate) struct Raw {
    pub(crate) address: String,
    heard: Arc<Mutex<String>>,
    released: watch::Sender<bool>,
}

impl Raw {
    /// Does this on each connection, then closes it.
    pub(crate) async fn start(steps: impl IntoIterator<Item = Step>) -> Self {
        let steps: Vec<_> = steps.into_iter().collect();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let heard = Arc::<Mutex<String>>::default();
        let told = heard.clone();
        let (released, release) = watch::channel(false);
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let (steps, heard, mut release) = (steps.clone(), told.clone(), release.clone());
                tokio::spawn(async move { play(&mut socket, &steps, &heard, &mut release).await });
            }
        });
        Self { address, heard, released }
    }

    pub(crate) fn release(&self) {
        self.released.send_replace(true);
    }

    /// All that came, on all connections.
    pub(crate) fn heard(&self) -> String {
        self.heard.lock().unwrap().clone()
    }
}

/// A connection, and what came on it that nobody has asked for yet.
struct Peer<'a> {
    socket: &'a mut TcpStream,
    heard: &'a Mutex<String>,
    left: String,
}

/// `None` when the other side has gone.
async fn play(
    socket: &mut TcpStream,
    steps: &[Step],
    heard: &Mutex<String>,
    release: &mut watch::Receiver<bool>,
) -> Option<()> {
    let mut peer = Peer { socket, heard, left: String::new() };
    peer.hear("\r\n\r\n").await?;
    for step in steps {
        match step {
            Step::Say(text) => peer.socket.write_all(text.as_bytes()).await.ok()?,
            Step::Hear(text) => peer.hear(text).await?,
            Step::Pause(time) => tokio::time::sleep(*time).await,
            Step::Stay => peer.stay().await?,
            Step::Hold => drop(release.wait_for(|released| *released).await.ok()?),
        }
    }
    Some(())
}

impl Peer<'_> {
    async fn hear(&mut self, text: &str) -> Option<()> {
        while !self.left.contains(text) {
            self.read().await?;
        }
        let end = self.left.find(text)? + text.len();
        self.left.drain(..end);
        Some(())
    }

    async fn stay(&mut self) -> Option<()> {
        loop {
            self.read().await?;
            self.left.clear();
        }
    }

    async fn read(&mut self) -> Option<()> {
        let mut buffer = vec![0; 16 * 1024];
        let count = self.socket.read(&mut buffer).await.ok().filter(|count| *count > 0)?;
        let new = String::from_utf8_lossy(&buffer[..count]);
        self.heard.lock().unwrap().push_str(&new);
        self.left.push_str(&new);
        Some(())
    }
}
