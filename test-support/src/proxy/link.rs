//! One connection through the proxy: two lines, each of which obeys the rules of its direction.
//!
//! A line reads whatever comes and decides at the far end what becomes of it. So a rule holds for bytes
//! that were under way when it was made, and a delayed byte keeps its place.

use std::{io, io::Read as _, net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::{mpsc, watch},
    time::{Instant, sleep, sleep_until},
};

use super::rules::{Direction, End, Flow, Line, LineWatch, Shared};

/// So many bytes are read at once, at most.
const CHUNK: usize = 16 << 10;
/// So many chunks are under way on a line, at most. A slow line must not slow its sender before that.
const UNDER_WAY: usize = 1024;
/// A throttled line hands on so often each second, at least.
const STEPS: u32 = 20;

/// What travels along a line.
enum Item {
    Data(Vec<u8>),
    Fin,
    Rst,
}

/// The connection has to be reset at both ends.
struct Broken;

/// Serves a client until either end is done or `closing` has news.
pub(super) async fn serve(
    mut client: TcpStream,
    target: SocketAddr,
    shared: &Shared,
    mut closing: watch::Receiver<End>,
) {
    let connected = tokio::select! {
        connected = connect(target, shared) => connected,
        end = ordered(&mut closing) => return close(client, end),
    };
    // A server that is not there cannot be refused any more: the client is in already.
    let Ok(mut server) = connected else { return close(client, End::Rst) };
    // The proxy adds no wait of its own; without the option it would only be a little slower.
    client.set_nodelay(true).ok();
    server.set_nodelay(true).ok();

    let end = {
        let (client_reads, client_writes) = client.split();
        let (server_reads, server_writes) = server.split();
        let there = run_line(Direction::ToServer, client_reads, server_writes, shared);
        let back = run_line(Direction::ToClient, server_reads, client_writes, shared);
        tokio::select! {
            end = ordered(&mut closing) => end,
            done = async { tokio::try_join!(there, back) } => match done {
                Ok(_) => End::Fin,
                Err(Broken) => End::Rst,
            },
        }
    };
    close(client, end);
    close(server, end);
}

/// Ends a connection so that the peer sees `end`.
pub(super) fn close(stream: TcpStream, end: End) {
    match end {
        // The kernel answers with RST to a close that leaves bytes unread. Not all that can be read is
        // known to the runtime, so the socket itself is asked.
        End::Fin => {
            let mut lost = [0; CHUNK];
            let Ok(mut stream) = stream.into_std() else { return };
            while stream.read(&mut lost).is_ok_and(|count| count > 0) {}
        }
        // A socket that refuses the option is closed with FIN, and the test of it fails.
        End::Rst => {
            stream.set_zero_linger().ok();
        }
    }
}

/// Connects to the server once anything could get there.
async fn connect(target: SocketAddr, shared: &Shared) -> io::Result<TcpStream> {
    let mut line = shared.watch(Direction::ToServer);
    while line.now().is_lost() {
        line.changed().await;
    }
    TcpStream::connect(target).await
}

async fn ordered(closing: &mut watch::Receiver<End>) -> End {
    match closing.changed().await {
        Ok(()) => *closing.borrow_and_update(),
        // The doorkeeper ends every connection before it goes.
        Err(_) => End::Fin,
    }
}

async fn run_line(
    direction: Direction,
    from: ReadHalf<'_>,
    to: WriteHalf<'_>,
    shared: &Shared,
) -> Result<(), Broken> {
    let (sender, receiver) = mpsc::channel(UNDER_WAY);
    let line = shared.watch(direction);
    let far = FarEnd { to, line, lossy: false, shared, direction };
    tokio::try_join!(read(from, sender), far.run(receiver)).map(drop)
}

/// The near end: takes in everything, and writes down when.
async fn read(mut from: ReadHalf<'_>, items: mpsc::Sender<(Instant, Item)>) -> Result<(), Broken> {
    let mut buffer = vec![0; CHUNK];
    loop {
        let item = match from.read(&mut buffer).await {
            Ok(0) => Item::Fin,
            Ok(count) => Item::Data(buffer[..count].to_vec()),
            Err(_) => Item::Rst,
        };
        let last = !matches!(item, Item::Data(_));
        if items.send((Instant::now(), item)).await.is_err() || last {
            return Ok(());
        }
    }
}

/// The far end: where everything waits for its time and its permission.
struct FarEnd<'a> {
    to: WriteHalf<'a>,
    line: LineWatch,
    /// Bytes were lost, so that what comes after them must not arrive.
    lossy: bool,
    shared: &'a Shared,
    direction: Direction,
}

impl FarEnd<'_> {
    async fn run(mut self, mut items: mpsc::Receiver<(Instant, Item)>) -> Result<(), Broken> {
        loop {
            let item = tokio::select! {
                item = items.recv() => item,
                () = self.line.changed(), if self.lossy => {
                    self.check_loss()?;
                    continue;
                }
            };
            let Some((arrived, item)) = item else { return Ok(()) };
            self.wait_for_release(arrived).await?;
            match item {
                Item::Data(_) if self.line.now().is_lost() => self.lossy = true,
                Item::Data(data) => self.write(&data).await?,
                Item::Fin => {
                    self.wait_until_found().await?;
                    // The other end may be gone; then its own line says so.
                    self.to.shutdown().await.ok();
                    return Ok(());
                }
                Item::Rst => {
                    self.wait_until_found().await?;
                    return Err(Broken);
                }
            }
        }
    }

    /// Until the delay is over that holds then, and nothing is held back.
    async fn wait_for_release(&mut self, arrived: Instant) -> Result<(), Broken> {
        loop {
            let Line { flow, delay, .. } = self.line.now();
            self.check_loss()?;
            let due = arrived + delay;
            if flow != Flow::Hold && Instant::now() >= due {
                return Ok(());
            }
            tokio::select! {
                () = sleep_until(due), if flow != Flow::Hold => {}
                () = self.line.changed() => {}
            }
        }
    }

    /// Until nothing is lost any more: an end that is lost is not the end.
    async fn wait_until_found(&mut self) -> Result<(), Broken> {
        while self.line.now().is_lost() {
            self.line.changed().await;
        }
        self.check_loss()
    }

    fn check_loss(&mut self) -> Result<(), Broken> {
        if self.lossy && !self.line.now().is_lost() { Err(Broken) } else { Ok(()) }
    }

    async fn write(&mut self, mut data: &[u8]) -> Result<(), Broken> {
        while !data.is_empty() {
            let rate = self.line.now().bytes_per_second;
            let step = rate.map_or(data.len(), |rate| (rate / STEPS).max(1) as usize);
            let (now, rest) = data.split_at(step.min(data.len()));
            // Before they are: whoever has got them must find them counted.
            self.shared.add_passed(self.direction, now.len());
            self.to.write_all(now).await.map_err(|_| Broken)?;
            data = rest;
            if let Some(rate) = rate {
                let bytes = u32::try_from(now.len()).expect("a chunk is smaller than 4 GiB");
                let time = Duration::from_secs(1) * bytes / rate;
                tokio::select! {
                    () = sleep(time) => {}
                    () = self.line.changed() => {}
                }
            }
        }
        Ok(())
    }
}
