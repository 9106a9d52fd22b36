//! Each way in which the proxy can be broken does to a connection what it says, and no more.
//!
//! The server here answers every byte with itself, so that all that was sent is known.

use std::{
    io::ErrorKind,
    net::SocketAddr,
    time::{Duration, Instant},
};

use discovery_test_support::{
    Direction::{ToClient, ToServer},
    Etcd, Port, Proxy, Truth, eventually, eventually_eq, on_each_version, slack,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};

const SOON: Duration = Duration::from_secs(5);
/// So long nothing must come: it shows a fault, but a slow machine only hides it.
const SILENCE: Duration = Duration::from_millis(200);

/// What the server sees of its clients.
#[derive(Debug, PartialEq)]
enum Seen {
    Bytes(Vec<u8>),
    Fin,
    Rst,
}

/// A server that sends back what it gets, and tells what it saw.
async fn echo() -> (SocketAddr, mpsc::UnboundedReceiver<Seen>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let (tell, seen) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let tell = tell.clone();
            tokio::spawn(async move {
                let mut buffer = [0; 16 << 10];
                loop {
                    let news = match stream.read(&mut buffer).await {
                        Ok(0) => Seen::Fin,
                        Ok(count) => Seen::Bytes(buffer[..count].to_vec()),
                        Err(_) => Seen::Rst,
                    };
                    if let Seen::Bytes(bytes) = &news {
                        stream.write_all(bytes).await.ok();
                    }
                    let last = !matches!(news, Seen::Bytes(_));
                    if tell.send(news).is_err() || last {
                        break;
                    }
                }
            });
        }
    });
    (addr, seen)
}

async fn connect(proxy: &Proxy) -> TcpStream {
    TcpStream::connect(proxy.addr()).await.expect("the proxy accepts")
}

/// Sends `text` and reads it back.
async fn round_trip(client: &mut TcpStream, text: &str) {
    client.write_all(text.as_bytes()).await.unwrap();
    hear(client, text).await;
}

async fn hear(client: &mut TcpStream, text: &str) {
    let mut answer = vec![0; text.len()];
    tokio::time::timeout(slack(SOON), client.read_exact(&mut answer))
        .await
        .unwrap_or_else(|_| panic!("{text} does not come"))
        .unwrap_or_else(|error| panic!("{text} does not come: {error}"));
    assert_eq!(answer, text.as_bytes());
}

/// How the connection ends for the client.
async fn end(client: &mut TcpStream) -> Result<usize, ErrorKind> {
    let read = tokio::time::timeout(slack(SOON), client.read(&mut [0; 64])).await;
    read.expect("it ends").map_err(|error| error.kind())
}

/// How a connection ends that is made now. A reset can be quicker than the client's own connect.
async fn end_of_new(proxy: &Proxy) -> Result<usize, ErrorKind> {
    match TcpStream::connect(proxy.addr()).await {
        Ok(mut client) => end(&mut client).await,
        Err(error) => Err(error.kind()),
    }
}

async fn is_silent(client: &mut TcpStream) -> bool {
    tokio::time::timeout(SILENCE, client.read(&mut [0; 64])).await.is_err()
}

async fn next(seen: &mut mpsc::UnboundedReceiver<Seen>) -> Seen {
    tokio::time::timeout(slack(SOON), seen.recv()).await.expect("something comes").unwrap()
}

#[tokio::test]
async fn it_starts_as_a_wire_that_counts() {
    let (server, mut seen) = echo().await;
    let proxy = Proxy::start(server);
    assert_eq!((proxy.accepted(), proxy.open()), (0, 0));
    let mut first = connect(&proxy).await;
    let mut second = connect(&proxy).await;
    round_trip(&mut first, "hello").await;
    round_trip(&mut second, "you").await;
    assert_eq!((proxy.accepted(), proxy.open()), (2, 2));
    assert_eq!((proxy.bytes(ToServer), proxy.bytes(ToClient)), (8, 8));

    drop(first);
    eventually_eq(SOON, "open connections", 1, async || proxy.open()).await;
    assert_eq!(next(&mut seen).await, Seen::Bytes(b"hello".to_vec()));
    assert_eq!(next(&mut seen).await, Seen::Bytes(b"you".to_vec()));
    assert_eq!(next(&mut seen).await, Seen::Fin);
    assert_eq!(proxy.accepted(), 2);
}

#[tokio::test]
async fn what_is_sent_before_a_fin_arrives_before_it() {
    let (server, _seen) = echo().await;
    let proxy = Proxy::start(server);
    let mut client = connect(&proxy).await;
    let sent = vec![b'x'; 8 << 20];
    let (mut from, mut to) = client.split();
    let mut got = Vec::new();
    let (written, read) = tokio::join!(
        async {
            to.write_all(&sent).await?;
            to.shutdown().await
        },
        from.read_to_end(&mut got)
    );
    written.unwrap();
    read.unwrap();
    assert!(got == sent, "{} bytes came back", got.len());
}

#[tokio::test]
async fn a_reset_is_passed_on_as_one() {
    let (server, mut seen) = echo().await;
    let proxy = Proxy::start(server);
    let mut client = connect(&proxy).await;
    round_trip(&mut client, "hello").await;
    client.set_zero_linger().unwrap();
    drop(client);
    assert_eq!(next(&mut seen).await, Seen::Bytes(b"hello".to_vec()));
    assert_eq!(next(&mut seen).await, Seen::Rst);
}

#[tokio::test]
async fn a_server_that_is_not_there_resets() {
    let nobody = Port::claim();
    let proxy = Proxy::start(nobody.addr());
    assert_eq!(end_of_new(&proxy).await, Err(ErrorKind::ConnectionReset));
}

#[tokio::test]
async fn cut_closes_what_is_open_and_what_comes() {
    let (server, mut seen) = echo().await;
    let proxy = Proxy::start(server);
    let mut client = connect(&proxy).await;
    round_trip(&mut client, "hello").await;

    proxy.cut();
    assert_eq!(proxy.open(), 0);
    assert_eq!(end(&mut client).await, Ok(0));
    assert_eq!(next(&mut seen).await, Seen::Bytes(b"hello".to_vec()));
    assert_eq!(next(&mut seen).await, Seen::Fin);
    for _ in 0..3 {
        assert_eq!(end_of_new(&proxy).await, Ok(0));
    }
    assert_eq!(proxy.accepted(), 4);

    proxy.pass();
    round_trip(&mut connect(&proxy).await, "again").await;
}

#[tokio::test]
async fn cut_is_a_fin_even_to_a_client_in_the_middle_of_a_sentence() {
    let (server, _seen) = echo().await;
    let proxy = Proxy::start(server);
    // Here nobody reads what was written, and to close then is to reset.
    proxy.black_hole();
    let mut client = connect(&proxy).await;
    client.write_all(b"hello").await.unwrap();
    proxy.cut_once();
    assert_eq!(end(&mut client).await, Ok(0));
}

#[tokio::test]
async fn cut_once_closes_those_too_who_have_just_come() {
    let (server, _seen) = echo().await;
    let proxy = Proxy::start(server);
    for round in 1..=100 {
        let mut client = connect(&proxy).await;
        proxy.cut_once();
        assert_eq!(end(&mut client).await, Ok(0));
        assert_eq!(proxy.accepted(), round);
    }
}

#[tokio::test]
async fn cut_once_serves_whoever_comes_back() {
    let (server, _seen) = echo().await;
    let proxy = Proxy::start(server);
    let mut client = connect(&proxy).await;
    round_trip(&mut client, "hello").await;
    proxy.cut_once();
    assert_eq!(proxy.open(), 0);
    assert_eq!(end(&mut client).await, Ok(0));
    round_trip(&mut connect(&proxy).await, "again").await;
}

#[tokio::test]
async fn reset_resets_what_is_open_and_what_comes() {
    let (server, mut seen) = echo().await;
    let proxy = Proxy::start(server);
    let mut client = connect(&proxy).await;
    round_trip(&mut client, "hello").await;

    proxy.reset();
    assert_eq!(end(&mut client).await, Err(ErrorKind::ConnectionReset));
    assert_eq!(next(&mut seen).await, Seen::Bytes(b"hello".to_vec()));
    assert_eq!(next(&mut seen).await, Seen::Rst);
    assert_eq!(end_of_new(&proxy).await, Err(ErrorKind::ConnectionReset));

    proxy.pass();
    let mut client = connect(&proxy).await;
    round_trip(&mut client, "again").await;
    proxy.reset_once();
    assert_eq!(end(&mut client).await, Err(ErrorKind::ConnectionReset));
    round_trip(&mut connect(&proxy).await, "once more").await;
}

#[tokio::test]
async fn refused_is_refused_until_it_passes_again_at_the_same_port() {
    let (server, _seen) = echo().await;
    let proxy = Proxy::start(server);
    let url = proxy.url();
    for _ in 0..5 {
        let mut client = connect(&proxy).await;
        round_trip(&mut client, "hello").await;
        let accepted = proxy.accepted();

        proxy.refuse();
        assert_eq!(end(&mut client).await, Ok(0));
        let error = TcpStream::connect(proxy.addr()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        assert_eq!(proxy.accepted(), accepted);

        proxy.pass();
        assert_eq!(proxy.url(), url);
        round_trip(&mut connect(&proxy).await, "again").await;
    }
}

#[tokio::test]
async fn a_black_hole_swallows_both_ways_and_accepts_in_silence() {
    let (server, mut seen) = echo().await;
    let proxy = Proxy::start(server);
    let mut talker = connect(&proxy).await;
    let mut listener = connect(&proxy).await;
    round_trip(&mut talker, "hello").await;
    round_trip(&mut listener, "you").await;
    next(&mut seen).await;
    next(&mut seen).await;

    proxy.black_hole();
    talker.write_all(b"lost").await.unwrap();
    let mut late = connect(&proxy).await;
    late.write_all(b"late").await.unwrap();
    assert!(is_silent(&mut talker).await);
    assert!(is_silent(&mut late).await);
    assert!(is_silent(&mut listener).await);
    assert!(seen.try_recv().is_err(), "nothing reached the server");
    eventually_eq(SOON, "connections", (3, 3), async || (proxy.accepted(), proxy.open())).await;

    proxy.pass();
    assert_eq!(end(&mut talker).await, Err(ErrorKind::ConnectionReset));
    round_trip(&mut listener, "still here").await;
    hear(&mut late, "late").await;
}

#[tokio::test]
async fn a_black_hole_swallows_the_end_of_a_connection() {
    let (server, mut seen) = echo().await;
    let proxy = Proxy::start(server);
    let mut client = connect(&proxy).await;
    round_trip(&mut client, "hello").await;
    next(&mut seen).await;
    proxy.black_hole();
    drop(client);
    assert!(tokio::time::timeout(SILENCE, seen.recv()).await.is_err());
    proxy.pass();
    assert_eq!(next(&mut seen).await, Seen::Fin);
}

#[tokio::test]
async fn a_black_hole_of_one_way_leaves_the_other() {
    let (server, mut seen) = echo().await;
    let proxy = Proxy::start(server);
    let mut client = connect(&proxy).await;
    round_trip(&mut client, "hello").await;
    next(&mut seen).await;

    proxy.black_hole_one_way(ToClient);
    client.write_all(b"heard").await.unwrap();
    assert_eq!(next(&mut seen).await, Seen::Bytes(b"heard".to_vec()));
    assert!(is_silent(&mut client).await);
    let mut late = connect(&proxy).await;
    late.write_all(b"late").await.unwrap();
    assert_eq!(next(&mut seen).await, Seen::Bytes(b"late".to_vec()));
    assert!(is_silent(&mut late).await);

    proxy.pass();
    assert_eq!(end(&mut client).await, Err(ErrorKind::ConnectionReset));
}

#[tokio::test]
async fn what_is_held_arrives_in_the_end() {
    let (server, mut seen) = echo().await;
    let proxy = Proxy::start(server);
    let mut client = connect(&proxy).await;
    proxy.hold(ToClient);
    client.write_all(b"one ").await.unwrap();
    assert_eq!(next(&mut seen).await, Seen::Bytes(b"one ".to_vec()));
    client.write_all(b"two").await.unwrap();
    assert!(is_silent(&mut client).await);
    proxy.pass();
    hear(&mut client, "one two").await;
}

#[tokio::test]
async fn a_delay_is_of_one_direction_and_keeps_the_order() {
    const DELAY: Duration = Duration::from_millis(300);
    let (server, mut seen) = echo().await;
    let proxy = Proxy::start(server);
    let mut client = connect(&proxy).await;
    round_trip(&mut client, "hello").await;
    next(&mut seen).await;

    proxy.delay(ToClient, DELAY);
    let start = Instant::now();
    for text in ["a", "b", "c"] {
        client.write_all(text.as_bytes()).await.unwrap();
        assert_eq!(next(&mut seen).await, Seen::Bytes(text.into()));
    }
    hear(&mut client, "abc").await;
    assert!(start.elapsed() >= DELAY, "{:?}", start.elapsed());

    // The other way is not delayed, and what is under way does not wait for a delay that is over.
    proxy.delay(ToClient, Duration::from_secs(3600));
    client.write_all(b"soon").await.unwrap();
    assert_eq!(next(&mut seen).await, Seen::Bytes(b"soon".to_vec()));
    assert!(is_silent(&mut client).await);
    proxy.pass();
    hear(&mut client, "soon").await;
}

#[tokio::test]
async fn a_throttled_line_is_as_slow_as_it_says() {
    let (server, _seen) = echo().await;
    let proxy = Proxy::start(server);
    let mut client = connect(&proxy).await;
    proxy.throttle(ToClient, 100_000);
    let text = "x".repeat(50_000);
    let start = Instant::now();
    round_trip(&mut client, &text).await;
    // All but the last step is waited for.
    assert!(start.elapsed() >= Duration::from_millis(450), "{:?}", start.elapsed());

    proxy.throttle(ToClient, 1);
    client.write_all(text.as_bytes()).await.unwrap();
    proxy.pass();
    hear(&mut client, &text).await;
}

#[tokio::test]
async fn dropped_it_closes_everything() {
    let (server, mut seen) = echo().await;
    let proxy = Proxy::start(server);
    let addr = proxy.addr();
    let mut client = connect(&proxy).await;
    round_trip(&mut client, "hello").await;
    proxy.black_hole();
    drop(proxy);
    let error = TcpStream::connect(addr).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    assert_eq!(end(&mut client).await, Ok(0));
    assert_eq!(next(&mut seen).await, Seen::Bytes(b"hello".to_vec()));
    assert_eq!(next(&mut seen).await, Seen::Fin);
}

#[tokio::test]
async fn it_works_while_the_runtime_of_the_test_does_not() {
    let (server, _seen) = echo().await;
    let proxy = Proxy::start(server);
    let addr = proxy.addr();
    // This thread is the runtime's only one, and it is blocked by what follows.
    let blocking = std::thread::spawn(move || std::net::TcpStream::connect(addr).map(drop));
    blocking.join().unwrap().unwrap();
    let start = Instant::now();
    while proxy.accepted() == 0 {
        assert!(start.elapsed() < slack(SOON), "it does not accept");
        std::thread::yield_now();
    }
}

#[tokio::test]
async fn etcd_is_reached_through_it_or_not() {
    on_each_version(async |version| {
        let etcd = Etcd::start(version).await;
        let proxy = Proxy::start(etcd.client_addr());
        let through = Truth::new(proxy.addr()).deadline(slack(Duration::from_millis(500)));
        through.put("key", "1").await.unwrap();

        proxy.black_hole();
        let error = through.put("key", "2").await.unwrap_err();
        assert!(error.to_string().contains("no answer in"), "{error}");
        proxy.refuse();
        assert!(through.put("key", "3").await.unwrap_err().is_connection_refused());
        assert_eq!(etcd.truth().get("key").await.unwrap().expect("it was put").value, b"1");

        proxy.pass();
        through.put("key", "4").await.unwrap();
        etcd.restart().await;
        eventually(SOON, "etcd is reached again", async || through.put("key", "5").await).await;
        assert_eq!(etcd.truth().get("key").await.unwrap().expect("it was put").value, b"5");
    })
    .await;
}
