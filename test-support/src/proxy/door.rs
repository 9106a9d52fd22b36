//! Who comes in: the listener, and the orders that close what is open.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, mpsc::Sender},
    time::{Duration, Instant},
};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
    task::JoinSet,
};

use super::{
    link,
    rules::{End, Shared},
};
use crate::wait::slack;

/// A port that was just given up can be held for a moment by what is left of its connections.
const REBIND: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(5);

/// What happens to somebody who connects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Door {
    Serve,
    Close(End),
    Refuse,
}

/// What the handle asks for; it waits for `done`.
#[derive(Debug)]
pub(super) enum Command {
    Door { door: Door, close: Option<End>, done: Sender<()> },
    Close { end: End, done: Sender<()> },
}

/// The task that owns the listener and all connections. It ends, and closes all, with its handle.
pub(super) struct Doorkeeper {
    addr: SocketAddr,
    target: SocketAddr,
    shared: Arc<Shared>,
    commands: mpsc::UnboundedReceiver<Command>,
    door: Door,
    listener: Option<Listener>,
    links: JoinSet<()>,
    /// Tells every connection there is to end; one that comes later does not hear it.
    closing: watch::Sender<End>,
}

impl Doorkeeper {
    pub(super) fn new(
        addr: SocketAddr,
        target: SocketAddr,
        shared: Arc<Shared>,
        commands: mpsc::UnboundedReceiver<Command>,
    ) -> Self {
        Self {
            addr,
            target,
            shared,
            commands,
            door: Door::Refuse,
            listener: None,
            links: JoinSet::new(),
            closing: watch::Sender::new(End::Fin),
        }
    }

    pub(super) async fn run(mut self) {
        loop {
            tokio::select! {
                // What was ordered holds for whoever has not been let in yet.
                biased;
                command = self.commands.recv() => match command {
                    Some(command) => self.obey(command).await,
                    None => break,
                },
                Some(_) = self.links.join_next() => {}
                stream = accept(self.listener.as_ref()) => self.admit(stream),
            }
        }
        self.close_all(End::Fin).await;
    }

    async fn obey(&mut self, command: Command) {
        let done = match command {
            Command::Door { door, close, done } => {
                if let Some(end) = close {
                    self.close_all(end).await;
                }
                if door == Door::Refuse {
                    self.listener = None;
                }
                if door != Door::Refuse && self.listener.is_none() {
                    self.listener = Some(listen(self.addr).await);
                }
                self.door = door;
                done
            }
            Command::Close { end, done } => {
                self.close_all(end).await;
                done
            }
        };
        // A handle that does not wait any more is being dropped.
        done.send(()).ok();
    }

    fn admit(&mut self, stream: TcpStream) {
        let open = self.shared.count();
        match self.door {
            Door::Serve => {
                let shared = Arc::clone(&self.shared);
                let (target, closing) = (self.target, self.closing.subscribe());
                self.links.spawn(async move {
                    link::serve(stream, target, &shared, closing).await;
                    drop(open);
                });
            }
            Door::Close(end) => link::close(stream, end),
            Door::Refuse => link::close(stream, End::Rst),
        }
    }

    async fn close_all(&mut self, end: End) {
        // To their clients, those who have not been let in yet are connected too.
        while let Some(stream) = self.listener.as_ref().and_then(Listener::accept_now) {
            self.admit(stream);
        }
        self.closing.send_replace(end);
        while self.links.join_next().await.is_some() {}
    }
}

/// A listener, and its socket once more, to see who waits without waiting.
struct Listener {
    listener: TcpListener,
    socket: std::net::TcpListener,
}

impl Listener {
    fn new(listener: TcpListener) -> io::Result<Self> {
        let socket = listener.into_std()?;
        let listener = TcpListener::from_std(socket.try_clone()?)?;
        Ok(Self { listener, socket })
    }

    fn accept_now(&self) -> Option<TcpStream> {
        let (stream, _) = self.socket.accept().ok()?;
        stream.set_nonblocking(true).ok()?;
        TcpStream::from_std(stream).ok()
    }
}

async fn accept(listener: Option<&Listener>) -> TcpStream {
    let Some(listener) = listener else { return std::future::pending().await };
    loop {
        match listener.listener.accept().await {
            Ok((stream, _)) => return stream,
            // A client that was gone before it was let in; anything else would come back at once.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => panic!("the proxy cannot accept: {error}"),
        }
    }
}

async fn listen(addr: SocketAddr) -> Listener {
    let deadline = Instant::now() + slack(REBIND);
    loop {
        match TcpListener::bind(addr).await.and_then(Listener::new) {
            Ok(listener) => return listener,
            Err(_) if Instant::now() < deadline => tokio::time::sleep(POLL).await,
            Err(error) => panic!("the proxy cannot listen on {addr}: {error}"),
        }
    }
}
