//! What a test does to an etcd process really happens, on every version.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use discovery_test_support::{Etcd, GrpcProxy, Truth, eventually, on_each_version, slack};

const SOON: Duration = Duration::from_secs(5);

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// The state of each thread of a process, such as `T` for stopped; empty if there is none.
fn thread_states(pid: u32) -> Vec<char> {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    threads
        .flatten()
        .filter_map(|thread| fs::read_to_string(thread.path().join("stat")).ok())
        .filter_map(|stat| stat.rsplit_once(") ")?.1.chars().next())
        .collect()
}

fn exists(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

/// Where an etcd that runs keeps its data, as its command line says.
fn data_dir(pid: u32) -> PathBuf {
    let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).expect("it runs");
    let dir = line.split('\0').find_map(|word| word.strip_prefix("--data-dir="));
    PathBuf::from(dir.expect("it was told where"))
}

/// Asks with little patience.
fn impatient(etcd: &Etcd) -> Truth {
    etcd.truth().deadline(slack(Duration::from_millis(500)))
}

#[tokio::test]
async fn it_runs_the_version_that_was_asked_for() {
    on_each_version(async |version| {
        let etcd = Etcd::start(version).await;
        let status = etcd.truth().status().await.unwrap();
        assert!(status.release.starts_with(&version.to_string()), "{status:?}");
        assert!(etcd.client_addr().port() < 32_768);
        assert!(etcd.is_running());
    })
    .await;
}

#[tokio::test]
async fn killed_it_is_gone_and_restarted_it_has_its_data_and_its_port() {
    on_each_version(async |version| {
        let etcd = Etcd::start(version).await;
        let (pid, url) = (etcd.pid(), etcd.url());
        let revision = etcd.truth().put("key", "value").await.unwrap();

        etcd.kill();
        assert!(!exists(pid) && !etcd.is_running());
        assert!(etcd.truth().get("key").await.unwrap_err().is_connection_refused());

        etcd.restart().await;
        assert_ne!(etcd.pid(), pid);
        assert_eq!(etcd.url(), url);
        let kv = etcd.truth().get("key").await.unwrap().expect("the data stayed");
        assert_eq!((kv.value.as_slice(), kv.mod_revision), (b"value".as_slice(), revision));
    })
    .await;
}

#[tokio::test]
async fn terminated_it_stops_by_itself() {
    on_each_version(async |version| {
        let etcd = Etcd::start(version).await;
        let pid = etcd.pid();
        etcd.terminate().await;
        assert!(!exists(pid) && !etcd.is_running());
        assert!(!etcd.log_tail().is_empty(), "there was time to say so");
        etcd.terminate().await;
        etcd.start_again_without_waiting();
        etcd.wait_until_serving().await;
        assert!(etcd.is_running());
    })
    .await;
}

#[tokio::test]
async fn paused_it_says_nothing_and_resumed_it_goes_on() {
    on_each_version(async |version| {
        let etcd = Etcd::start(version).await;
        etcd.truth().put("key", "value").await.unwrap();

        for _ in 0..50 {
            etcd.resume();
            etcd.pause();
            let states = thread_states(etcd.pid());
            assert!(!states.is_empty() && states.iter().all(|state| *state == 'T'), "{states:?}");
        }
        let error = impatient(&etcd).get("key").await.unwrap_err();
        assert!(error.to_string().contains("no answer in"), "{error}");
        assert!(etcd.is_running());

        etcd.resume();
        assert!(etcd.truth().get("key").await.unwrap().is_some());
    })
    .await;
}

#[tokio::test]
async fn wiped_it_is_the_same_member_of_the_same_cluster_with_nothing_in_it() {
    on_each_version(async |version| {
        let etcd = Etcd::start(version).await;
        let before = etcd.truth().status().await.unwrap();
        etcd.truth().put("key", "value").await.unwrap();

        etcd.wipe().await;
        let after = etcd.truth().status().await.unwrap();
        assert_eq!((after.member, after.revision), (before.member, 1));
        assert_eq!(etcd.truth().get("key").await.unwrap(), None);
    })
    .await;
}

#[tokio::test]
async fn a_port_that_is_taken_for_a_while_is_waited_for() {
    on_each_version(async |version| {
        let etcd = Etcd::start(version).await;
        etcd.kill();
        let squatter = eventually(SOON, "the port is free", async || {
            std::net::TcpListener::bind(etcd.client_addr())
        })
        .await;
        etcd.start_again_without_waiting();
        eventually(secs(20), "it gives up", async || !etcd.is_running()).await;
        drop(squatter);
        etcd.wait_until_serving().await;
        assert!(etcd.truth().revision().await.is_ok());
    })
    .await;
}

#[tokio::test]
async fn dropped_it_leaves_no_process_and_no_data() {
    on_each_version(async |version| {
        for harm in [|_: &Etcd| {}, Etcd::pause, Etcd::kill] {
            let etcd = Etcd::start(version).await;
            let (pid, data) = (etcd.pid(), data_dir(etcd.pid()));
            assert!(data.is_dir());
            harm(&etcd);
            drop(etcd);
            assert!(!exists(pid));
            assert!(!data.exists());
        }
    })
    .await;
}

#[tokio::test]
async fn a_panic_leaves_no_process_and_no_data() {
    on_each_version(async |version| {
        let (tell, told) = std::sync::mpsc::channel();
        let test = tokio::spawn(async move {
            let etcd = Etcd::start(version).await;
            etcd.pause();
            tell.send((etcd.pid(), data_dir(etcd.pid()))).unwrap();
            panic!("as a failing test does");
        });
        assert!(test.await.unwrap_err().is_panic());
        let (pid, data) = told.recv().unwrap();
        assert!(!exists(pid));
        assert!(!data.exists());
    })
    .await;
}

#[tokio::test]
async fn a_given_data_directory_is_used_and_left() {
    on_each_version(async |version| {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        let etcd = Etcd::builder(version).data_dir(&data).start().await;
        etcd.truth().put("key", "value").await.unwrap();
        drop(etcd);
        assert!(data.join("member").is_dir());
    })
    .await;
}

#[tokio::test]
async fn flags_reach_etcd() {
    on_each_version(async |version| {
        let etcd = Etcd::builder(version).timing(200, 4000).start().await;
        let lease = etcd.truth().grant(1).await.unwrap();
        let lease = etcd.truth().lease(lease).await.unwrap().expect("it was just granted");
        assert_eq!(lease.granted, 6, "one and a half times the election timeout");
    })
    .await;
}

#[tokio::test]
async fn a_flag_that_etcd_does_not_know_fails_with_its_log() {
    on_each_version(async |version| {
        let start = Etcd::builder(version).flag("no-such-flag", 1).start();
        let panic = tokio::spawn(start).await.unwrap_err().into_panic();
        let message = panic.downcast_ref::<String>().expect("it says why");
        assert!(message.contains("no-such-flag"), "{message}");
    })
    .await;
}

#[tokio::test]
async fn tls_is_served_beside_the_plain_port() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// A handshake that says nothing, to which TLS, and nothing else, answers with an alert.
    const EMPTY_HELLO: [u8; 9] = [22, 3, 1, 0, 4, 1, 0, 0, 0];
    const ALERT: u8 = 21;

    let dir = tempfile::tempdir().unwrap();
    let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    let made = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
    fs::write(&cert, made.cert.pem()).unwrap();
    fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    on_each_version(async |version| {
        for client_ca in [None, Some(cert.as_path())] {
            let etcd = Etcd::builder(version).tls(&cert, &key, client_ca).start().await;
            etcd.truth().put("key", "value").await.unwrap();
            let mut stream = tokio::net::TcpStream::connect(etcd.tls_addr()).await.unwrap();
            stream.write_all(&EMPTY_HELLO).await.unwrap();
            assert_eq!(stream.read_u8().await.unwrap(), ALERT);
        }
    })
    .await;
}

#[tokio::test]
async fn the_grpc_proxy_serves_until_it_is_dropped() {
    on_each_version(async |version| {
        let etcd = Etcd::start(version).await;
        let proxy = GrpcProxy::start(&etcd).await;
        let (pid, addr) = (proxy.process().pid(), proxy.addr());
        assert!(tokio::net::TcpStream::connect(addr).await.is_ok());
        drop(proxy);
        assert!(!exists(pid));
        assert!(tokio::net::TcpStream::connect(addr).await.is_err());
    })
    .await;
}

#[tokio::test]
async fn many_at_once_do_not_meet() {
    on_each_version(async |version| {
        let start = Instant::now();
        let mut starting = tokio::task::JoinSet::new();
        for number in 0..6 {
            starting.spawn(async move {
                let etcd = Etcd::start(version).await;
                etcd.truth().put("who", number.to_string()).await.unwrap();
                (number, etcd)
            });
        }
        let all = starting.join_all().await;
        for (number, etcd) in &all {
            let kv = etcd.truth().get("who").await.unwrap().expect("it was put");
            assert_eq!(kv.value, number.to_string().into_bytes());
            assert_eq!(kv.version, 1);
        }
        assert!(start.elapsed() < slack(secs(40)));
    })
    .await;
}
