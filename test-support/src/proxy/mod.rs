//! The network between a client and etcd, to be broken at will.
//!
//! A killed etcd and a broken network look different to a client, and the worst of the network cannot be
//! had from etcd at all: connections that are open and silent, answers that come late while requests pass,
//! bytes that vanish. The proxy runs on a thread of its own, so that it goes on when the test's runtime is
//! kept from doing so.

mod door;
mod link;
mod rules;

use std::{net::SocketAddr, sync::Arc, thread::JoinHandle, time::Duration};

use tokio::sync::mpsc;

pub use self::rules::Direction;
use self::{
    door::{Command, Door, Doorkeeper},
    rules::{End, Flow, Rules, Shared},
};
use crate::Port;

/// A TCP proxy in front of one address. It starts as a wire; every method takes effect before it returns.
///
/// What is done to the lines ([`black_hole`](Self::black_hole), [`hold`](Self::hold),
/// [`delay`](Self::delay), [`throttle`](Self::throttle)) adds up and holds for connections there are and
/// to come. What is done to the door ([`cut`](Self::cut), [`reset`](Self::reset),
/// [`refuse`](Self::refuse)) replaces what was done to it before. [`pass`](Self::pass) undoes all.
/// Dropping it closes everything.
#[derive(Debug)]
pub struct Proxy {
    port: Port,
    shared: Arc<Shared>,
    commands: Option<mpsc::UnboundedSender<Command>>,
    thread: Option<JoinHandle<()>>,
}

impl Proxy {
    /// Starts one in front of `target`, which need not be there yet.
    ///
    /// # Panics
    ///
    /// If it cannot listen.
    pub fn start(target: SocketAddr) -> Self {
        let port = Port::claim();
        let shared = Arc::new(Shared::default());
        let (commands, queue) = mpsc::unbounded_channel();
        let keeper = Doorkeeper::new(port.addr(), target, Arc::clone(&shared), queue);
        let thread = std::thread::Builder::new()
            .name(format!("proxy-{}", port.number()))
            .spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .expect("a runtime can be made");
                runtime.block_on(keeper.run());
            })
            .expect("a thread can be started");
        let proxy = Self { port, shared, commands: Some(commands), thread: Some(thread) };
        proxy.pass();
        proxy
    }

    /// Where it listens: `http://127.0.0.1:…`. Always the same.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr())
    }

    /// Where it listens. Always the same.
    pub fn addr(&self) -> SocketAddr {
        self.port.addr()
    }

    /// Is a wire again. A connection that has lost bytes to a black hole is reset: it cannot go on.
    pub fn pass(&self) {
        self.shared.change(|rules| *rules = Rules::default());
        self.door(Door::Serve, None);
    }

    /// Closes every connection with FIN, and each new one as soon as it is accepted.
    pub fn cut(&self) {
        self.door(Door::Close(End::Fin), Some(End::Fin));
    }

    /// Closes every connection with FIN. New ones are served as before.
    pub fn cut_once(&self) {
        self.close_all(End::Fin);
    }

    /// Resets every connection with RST, and each new one as soon as it is accepted.
    pub fn reset(&self) {
        self.door(Door::Close(End::Rst), Some(End::Rst));
    }

    /// Resets every connection with RST. New ones are served as before.
    pub fn reset_once(&self) {
        self.close_all(End::Rst);
    }

    /// Stops listening, so that connecting is refused, and closes every connection with FIN: to a client
    /// this is the server's process gone.
    pub fn refuse(&self) {
        self.door(Door::Refuse, Some(End::Fin));
    }

    /// Loses every byte and every FIN and RST, both ways. New connections are accepted and hear nothing.
    pub fn black_hole(&self) {
        self.shared.change(|rules| rules.each(|line| line.flow = Flow::Swallow));
    }

    /// Loses every byte, FIN and RST of one direction.
    pub fn black_hole_one_way(&self, direction: Direction) {
        self.shared.change(|rules| rules.line(direction).flow = Flow::Swallow);
    }

    /// Keeps everything of one direction back until [`pass`](Self::pass), then lets it go on: nothing is
    /// lost. After 16 MiB the sender is kept from sending more.
    pub fn hold(&self, direction: Direction) {
        self.shared.change(|rules| rules.line(direction).flow = Flow::Hold);
    }

    /// Lets every byte of one direction arrive so much later, in order. Also those that are under way.
    pub fn delay(&self, direction: Direction, time: Duration) {
        self.shared.change(|rules| rules.line(direction).delay = time);
    }

    /// Lets about so many bytes a second through on each connection, in one direction.
    ///
    /// # Panics
    ///
    /// If it is 0: that is [`hold`](Self::hold).
    pub fn throttle(&self, direction: Direction, bytes_per_second: u32) {
        assert!(bytes_per_second > 0, "no bytes at all is Proxy::hold");
        self.shared.change(|rules| rules.line(direction).bytes_per_second = Some(bytes_per_second));
    }

    /// How many connections were accepted since the start, also by a door that closes them at once. The
    /// connects that were refused do not reach the proxy and are not among them.
    pub fn accepted(&self) -> u64 {
        self.shared.accepted()
    }

    /// How many connections of clients are open now.
    pub fn open(&self) -> usize {
        self.shared.open()
    }

    /// How many bytes were handed on in one direction since the start. A byte that has arrived is counted.
    pub fn bytes(&self, direction: Direction) -> u64 {
        self.shared.passed(direction)
    }

    fn door(&self, door: Door, close: Option<End>) {
        self.order(|done| Command::Door { door, close, done });
    }

    fn close_all(&self, end: End) {
        self.order(|done| Command::Close { end, done });
    }

    /// Waits for the proxy's thread, which never waits for us.
    fn order(&self, command: impl FnOnce(std::sync::mpsc::Sender<()>) -> Command) {
        let (done, wait) = std::sync::mpsc::channel();
        let commands = self.commands.as_ref().expect("it is only taken when this is dropped");
        let obeyed = commands.send(command(done)).is_ok() && wait.recv().is_ok();
        assert!(
            obeyed,
            "the thread of the proxy at {} has ended: see what it printed",
            self.addr()
        );
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        drop(self.commands.take());
        if let Some(thread) = self.thread.take() {
            // If it panicked it has said so, and a second panic while a test fails would hide the first.
            thread.join().ok();
        }
    }
}
