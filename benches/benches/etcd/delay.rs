//! How long after a put a change is yielded, beside a bare `etcd-client` watch on the same etcd.
//!
//! Both watches stand all the time, each on a prefix of its own with the same number of keys. Puts one
//! at a time go to one and the other in turns; puts at a rate, whether or not those before are done,
//! for half a second to the one and then to the other. So each put wakes one of them only, neither is
//! ever the second to be woken, and whatever else the machine does hits both alike.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use discovery_benches::etcd::{
    DEADLINE, Result, fill, key, start, synced, watch as watch_of_ours, watch_bare as bare_watch,
};
use discovery_benches::{Pairs, Report, Row, VERSIONS, is_measuring, json, percentile};
use discovery_core::Change;
use discovery_test_support::Etcd;
use etcd_client::Client;
use futures::StreamExt as _;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};

const OURS: &str = "/ours/orders/";
const BARE: &str = "/bare/orders/";
/// How many instances each watch has; so many that none is put twice in a turn: of two changes of one,
/// a reader may be told the latter only.
const KEYS: usize = 5_000;
const ROUNDS: usize = 20;
/// Puts one at a time, to each, in a round.
const PUTS: usize = 300;
/// Puts in a millisecond.
const RATES: [usize; 2] = [1, 5];
/// So long they go to the one and then to the other.
const TURN_MS: usize = 500;
const P50: f64 = 1.1;
const P99: f64 = 1.2;

/// What was seen of a put, by what tells it from others, and when.
type Seen = UnboundedReceiver<(usize, Instant)>;

/// A watch, and how its events tell which put they are of.
struct Watch {
    prefix: &'static str,
    seen: Seen,
    /// By the version of the value rather than by its revision.
    by_version: bool,
}

pub(crate) async fn run() -> Result<Report> {
    let etcd = start().await;
    let mut client = Client::connect([etcd.url()], None).await?;
    for prefix in [OURS, BARE] {
        fill(&mut client, prefix, 0..KEYS + 1).await?;
    }
    let mut ours = watch_ours(&etcd).await?;
    let mut bare = watch_bare(&etcd).await?;
    let rounds = if is_measuring() { ROUNDS } else { 1 };
    let title = format!("etcd {}: put -> change yielded, {rounds} rounds", etcd.version());
    let mut report = Report::new(title, "ours", "bare watch");
    let mut puts = 0;
    let mut add = |what: &str, [p50, p99]: [Pairs; 2]| {
        report.add(Row::times(format!("{what}, p50"), &p50, Some(P50)));
        report.add(Row::times(format!("{what}, p99"), &p99, Some(P99)));
    };

    let mut taken = [Pairs::default(), Pairs::default()];
    // The first round warms up.
    for round in 0..=rounds {
        let (mut of_ours, mut of_bare) = (Vec::new(), Vec::new());
        for _ in 0..PUTS {
            puts += 1;
            of_ours.push(put(&mut client, puts, &mut ours).await?);
            of_bare.push(put(&mut client, puts, &mut bare).await?);
        }
        if round > 0 {
            push(&mut taken, &of_ours, &of_bare);
        }
    }
    add(&format!("one at a time, {PUTS} a round"), taken);

    for rate in RATES {
        let mut taken = [Pairs::default(), Pairs::default()];
        for round in 0..=rounds {
            let (of_ours, of_bare) = if round % 2 == 0 {
                let of_ours = put_many(&client, rate, &mut puts, &mut ours).await?;
                (of_ours, put_many(&client, rate, &mut puts, &mut bare).await?)
            } else {
                let of_bare = put_many(&client, rate, &mut puts, &mut bare).await?;
                (put_many(&client, rate, &mut puts, &mut ours).await?, of_bare)
            };
            if round > 0 {
                push(&mut taken, &of_ours, &of_bare);
            }
        }
        add(&format!("{} a second", rate * 1_000), taken);
    }
    Ok(report)
}

fn push([p50, p99]: &mut [Pairs; 2], ours: &[f64], bare: &[f64]) {
    p50.push(percentile(ours, 50), percentile(bare, 50));
    p99.push(percentile(ours, 99), percentile(bare, 99));
}

/// Puts a new value and waits until it was seen; returns the seconds from the start of the put until
/// then. The put's own answer comes later than the change and is waited for, too, so that nothing of
/// it is left over for the next.
async fn put(client: &mut Client, version: usize, watch: &mut Watch) -> Result<f64> {
    let number = version % KEYS;
    let (key, value) = (key(watch.prefix, number), json(number, version));
    let start = Instant::now();
    client.put(key, value, None).await?;
    let (_, at) = timeout(DEADLINE, watch.seen.recv()).await?.ok_or("the watch ended")?;
    Ok(at.duration_since(start).as_secs_f64())
}

/// Puts at a rate and returns the same for each.
async fn put_many(
    client: &Client,
    rate: usize,
    puts: &mut usize,
    watch: &mut Watch,
) -> Result<Vec<f64>> {
    let mut ticks = interval(Duration::from_millis(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut answers = JoinSet::new();
    let by_version = watch.by_version;
    for _ in 0..TURN_MS {
        ticks.tick().await;
        for _ in 0..rate {
            *puts += 1;
            let (number, version) = (*puts % KEYS, *puts % VERSIONS);
            let (key, value) = (key(watch.prefix, number), json(number, version));
            let mut client = client.clone();
            let start = Instant::now();
            answers.spawn(async move {
                let reply = client.put(key, value, None).await;
                reply.map(|reply| (if by_version { version } else { revision(&reply) }, start))
            });
        }
    }
    let mut starts = HashMap::new();
    while let Some(answer) = answers.join_next().await {
        let (id, start) = answer??;
        starts.insert(id, start);
    }
    // What comes last has a key that nothing else has, and is seen last.
    *puts += 1;
    let version = *puts % VERSIONS;
    let reply = client.clone().put(key(watch.prefix, KEYS), json(KEYS, version), None).await?;
    let last = if by_version { version } else { revision(&reply) };
    let mut taken = Vec::new();
    loop {
        let seen = timeout(DEADLINE, watch.seen.recv()).await?;
        let (id, at) = seen.ok_or("the watch ended")?;
        if id == last {
            break;
        }
        let start = starts.get(&id).ok_or("a change that nobody made")?;
        taken.push(at.duration_since(*start).as_secs_f64());
    }
    assert_eq!(taken.len(), starts.len());
    Ok(taken)
}

fn revision(reply: &etcd_client::PutResponse) -> usize {
    let revision = reply.header().map_or(0, etcd_client::ResponseHeader::revision);
    usize::try_from(revision).unwrap_or_default()
}

async fn watch_ours(etcd: &Etcd) -> Result<Watch> {
    let mut changes = watch_of_ours(etcd.url(), "/ours")?;
    assert_eq!(synced(&mut changes).await?, KEYS + 1);
    let (tell, seen) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(change) = changes.next().await {
            if let Change::Insert(_, instance) = change {
                note(&tell, usize::from(instance.weight.get()) - 1);
            }
        }
    });
    Ok(Watch { prefix: OURS, seen, by_version: true })
}

async fn watch_bare(etcd: &Etcd) -> Result<Watch> {
    let mut stream = bare_watch(etcd.url(), BARE).await?;
    let (tell, seen) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok(Some(message)) = stream.message().await {
            for event in message.events() {
                let revision = event.kv().map_or(0, etcd_client::KeyValue::mod_revision);
                note(&tell, usize::try_from(revision).unwrap_or_default());
            }
        }
    });
    Ok(Watch { prefix: BARE, seen, by_version: false })
}

fn note(tell: &UnboundedSender<(usize, Instant)>, id: usize) {
    // Nobody waits any more once the last round is over.
    let _ = tell.send((id, Instant::now()));
}
