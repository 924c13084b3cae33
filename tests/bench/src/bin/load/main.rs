//! The load client: many peers in one process and one thread, for any server that speaks libp2p
//! over TCP, Noise and Yamux.
//!
//! It is driven by lines on stdin and answers each with one JSON object on a line of stdout:
//!
//! | line | what happens |
//! |---|---|
//! | `join N RATE` | N more peers connect and join, RATE a second |
//! | `churn N RATE` | N peers join and leave at once, RATE a second, while the others go on |
//! | `push BYTES` | each peer sends and receives so many bytes as pings, sixteen at a time |
//! | `beat SECONDS` | the leases beat as always; tells their times, and how many are late |
//! | `flood SECONDS` | each lease beats as soon as its last beat is answered |
//! | `leave` | each peer gives up what it holds and disconnects |
//!
//! It ends at the end of stdin. Peers that fail because of the server are counted, and the first
//! reasons are written to stderr. Peers of the kind `echo` are plain TCP connections; `flood` sends
//! `--question` bytes and reads `--answer` bytes.

mod echo;
mod link;
mod peer;
#[path = "../../../../end_to_end/wire.rs"]
mod wire;

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use argh::FromArgs;
use libp2p::identity::Keypair;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    sync::watch,
    time::sleep,
};

use crate::peer::Kind;

/// opens many connections to a server on loopback or at a private address; told what to do on stdin
#[derive(FromArgs)]
struct Args {
    /// the server, IP:PORT
    #[argh(positional)]
    server: SocketAddr,

    /// what a peer is: lease, record (a lease with a signed record), rendezvous, connection or echo
    #[argh(positional)]
    kind: String,

    /// lease and record: the time between two beats, ms (default: 30000)
    #[argh(option, default = "30_000")]
    beat_ms: u64,

    /// number of the first peer, which its name ends with (default: 0)
    #[argh(option, default = "0")]
    first: u32,

    /// echo: bytes sent at once
    #[argh(option, default = "45")]
    question: usize,

    /// echo: bytes read then
    #[argh(option, default = "58")]
    answer: usize,
}

/// The command for all peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Task {
    Hold,
    Push { bytes: usize },
    Flood,
    Leave,
}

/// Peers that may be joining at once.
const JOINING: u64 = 32;
/// How long a command may take in addition to the time in its arguments.
const LIMIT: Duration = Duration::from_secs(400);
const MAX_PEERS: u32 = 20_000;
const SHOWN_ERRORS: u64 = 5;

#[derive(Default)]
struct Counters {
    started: AtomicU64,
    joined: AtomicU64,
    pushed: AtomicU64,
    beats: AtomicU64,
    left: AtomicU64,
    failed: AtomicU64,
    join_us: Mutex<Vec<u64>>,
    /// Of each beat that was due: time until its answer.
    beat_us: Mutex<Vec<u64>>,
}

impl Counters {
    fn held(&self) -> u64 {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        load(&self.joined).saturating_sub(load(&self.left))
    }
}

/// The channel on which a peer reports.
#[derive(Clone)]
pub(crate) struct Tell {
    counters: Arc<Counters>,
    began: Instant,
}

impl Tell {
    fn joined(&self) {
        self.counters.joined.fetch_add(1, Ordering::Relaxed);
        if let Ok(mut times) = self.counters.join_us.lock() {
            times.push(u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX));
        }
    }

    fn pushed(&self) {
        self.counters.pushed.fetch_add(1, Ordering::Relaxed);
    }

    /// A beat was answered so long after it was due.
    fn answered(&self, after: Duration) {
        if let Ok(mut times) = self.counters.beat_us.lock() {
            times.push(u64::try_from(after.as_micros()).unwrap_or(u64::MAX));
        }
    }

    fn beaten(&self) {
        self.counters.beats.fetch_add(1, Ordering::Relaxed);
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), String> {
    let args: Args = argh::from_env();
    // Never a server of somebody else: a private address is one of a network of the tests.
    let is_ours = match args.server.ip() {
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_private(),
        IpAddr::V6(ip) => ip.is_loopback(),
    };
    if !is_ours {
        return Err(format!("{} is not on this machine", args.server));
    }
    let lease = |record| Kind::Lease {
        record,
        beat_interval: Duration::from_millis(args.beat_ms),
    };
    let kind = match args.kind.as_str() {
        "lease" => Some(lease(false)),
        "record" => Some(lease(true)),
        "rendezvous" => Some(Kind::Rendezvous),
        "connection" => Some(Kind::Connection),
        "echo" => None,
        other => return Err(format!("`{other}` is no kind of peer")),
    };
    let mut load = Load {
        args,
        kind,
        counters: Arc::default(),
        tasks: watch::Sender::new(Task::Hold),
    };
    let mut lines = BufReader::new(tokio_stdin()?).lines();
    while let Some(line) = lines.next_line().await.map_err(|error| error.to_string())? {
        println!("{}", load.command(&line).await?);
    }
    Ok(())
}

/// Stdin as a pipe that the one thread can wait for.
fn tokio_stdin() -> Result<tokio::net::unix::pipe::Receiver, String> {
    let pipe = std::fs::File::open("/dev/stdin").map_err(|error| error.to_string())?;
    tokio::net::unix::pipe::Receiver::from_file(pipe)
        .map_err(|error| format!("stdin must be a pipe: {error}"))
}

struct Load {
    args: Args,
    kind: Option<Kind>,
    counters: Arc<Counters>,
    tasks: watch::Sender<Task>,
}

impl Load {
    async fn command(&mut self, line: &str) -> Result<String, String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let number = |text: &str| {
            text.parse::<u32>()
                .map_err(|_| format!("`{line}` is no command"))
        };
        match words.as_slice() {
            ["join", peers, rate] => Ok(self.join(number(peers)?, number(rate)?).await),
            ["churn", peers, rate] => Ok(self.churn(number(peers)?, number(rate)?).await),
            ["push", bytes] => Ok(self.push(number(bytes)? as usize).await),
            ["beat", seconds] => Ok(self.beat(number(seconds)?).await),
            ["flood", seconds] => Ok(self.flood(number(seconds)?).await),
            ["leave"] => Ok(self.leave().await),
            _ => Err(format!("`{line}` is no command")),
        }
    }

    async fn join(&mut self, peers: u32, rate: u32) -> String {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        self.tasks.send_replace(Task::Hold);
        let began = Instant::now();
        if let Ok(mut times) = self.counters.join_us.lock() {
            times.clear();
        }
        let first = load(&self.counters.started) as u32;
        let joined = load(&self.counters.joined);
        let failed = load(&self.counters.failed);
        let rate = rate.max(1);
        let limit = LIMIT + Duration::from_secs(1) * peers / rate;
        for index in 0..peers.min(MAX_PEERS.saturating_sub(first)) {
            let due = Duration::from_secs(1) * index / rate;
            sleep(due.saturating_sub(began.elapsed())).await;
            let ended =
                || load(&self.counters.joined) - joined + load(&self.counters.failed) - failed;
            while u64::from(index) >= ended() + JOINING && began.elapsed() < limit {
                sleep(Duration::from_millis(1)).await;
            }
            self.counters.started.fetch_add(1, Ordering::Relaxed);
            let tasks = self.tasks.subscribe();
            self.start(self.args.first + first + index, tasks);
        }
        let ended = || load(&self.counters.joined) + load(&self.counters.failed);
        while ended() < joined + failed + u64::from(peers) && began.elapsed() < limit {
            sleep(Duration::from_millis(2)).await;
        }
        let [median, p99, _] = spread(&self.counters.join_us);
        format!(
            r#"{{"held":{},"joined":{},"failed":{},"seconds":{:.3},"median_ms":{:.3},"p99_ms":{:.3}}}"#,
            self.counters.held(),
            load(&self.counters.joined) - joined,
            load(&self.counters.failed) - failed,
            began.elapsed().as_secs_f64(),
            median,
            p99,
        )
    }

    /// Each of these peers finds, when it has joined, that it is to leave.
    async fn churn(&mut self, peers: u32, rate: u32) -> String {
        let over = || {
            self.counters.left.load(Ordering::Relaxed)
                + self.counters.failed.load(Ordering::Relaxed)
        };
        let leave = watch::Sender::new(Task::Leave);
        let (began, before, rate) = (Instant::now(), over(), rate.max(1));
        let left = self.counters.left.load(Ordering::Relaxed);
        let limit = LIMIT + Duration::from_secs(1) * peers / rate;
        for index in 0..peers {
            let due = Duration::from_secs(1) * index / rate;
            sleep(due.saturating_sub(began.elapsed())).await;
            while u64::from(index) >= over() - before + JOINING && began.elapsed() < limit {
                sleep(Duration::from_millis(1)).await;
            }
            self.start(self.args.first + index, leave.subscribe());
        }
        while over() < before + u64::from(peers) && began.elapsed() < limit {
            sleep(Duration::from_millis(2)).await;
        }
        // The time that each took is of no use, and there are many.
        if let Ok(mut times) = self.counters.join_us.lock() {
            times.clear();
        }
        format!(
            r#"{{"left":{},"seconds":{:.3}}}"#,
            self.counters.left.load(Ordering::Relaxed) - left,
            began.elapsed().as_secs_f64()
        )
    }

    fn start(&self, number: u32, tasks: watch::Receiver<Task>) {
        let tell = Tell {
            counters: self.counters.clone(),
            began: Instant::now(),
        };
        let Args {
            server,
            question,
            answer,
            ..
        } = self.args;
        let kind = self.kind;
        tokio::spawn(async move {
            let counters = tell.counters.clone();
            let ended = match kind {
                Some(kind) => {
                    let key = Keypair::generate_ed25519();
                    let own = key.clone();
                    link::run(server, number, &key, |link| {
                        peer::live(kind, number, own, link, tasks, tell)
                    })
                    .await
                }
                None => echo::live(server, question, answer, tasks, tell).await,
            };
            match ended {
                Ok(()) => {
                    counters.left.fetch_add(1, Ordering::Relaxed);
                }
                Err(error) => {
                    if counters.failed.fetch_add(1, Ordering::Relaxed) < SHOWN_ERRORS {
                        eprintln!("peer {number}: {error}");
                    }
                }
            }
        });
    }

    async fn push(&mut self, bytes: usize) -> String {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let began = Instant::now();
        let before = load(&self.counters.pushed) + load(&self.counters.failed);
        let peers = self.counters.held();
        self.tasks.send_replace(Task::Push { bytes });
        while load(&self.counters.pushed) + load(&self.counters.failed) < before + peers
            && began.elapsed() < LIMIT
        {
            sleep(Duration::from_millis(2)).await;
        }
        self.tasks.send_replace(Task::Hold);
        format!(
            r#"{{"held":{},"failed":{},"seconds":{:.3}}}"#,
            self.counters.held(),
            load(&self.counters.failed),
            began.elapsed().as_secs_f64()
        )
    }

    async fn beat(&mut self, seconds: u32) -> String {
        let times = &self.counters.beat_us;
        if let Ok(mut times) = times.lock() {
            times.clear();
        }
        self.tasks.send_replace(Task::Hold);
        sleep(Duration::from_secs(u64::from(seconds))).await;
        let [median, p99, longest] = spread(times);
        // A beat is due when 0.95 of the interval have passed at the latest.
        let limit_us = self.args.beat_ms * 50;
        let late = |us: &&u64| **us > limit_us;
        let (answered, late) = times.lock().map_or((0, 0), |times| {
            (times.len(), times.iter().filter(late).count())
        });
        format!(
            r#"{{"held":{},"answered":{answered},"late":{late},"median_ms":{median:.3},"p99_ms":{p99:.3},"longest_ms":{longest:.3}}}"#,
            self.counters.held(),
        )
    }

    async fn flood(&mut self, seconds: u32) -> String {
        let counts = || {
            [&self.counters.beats, &link::SENT, &link::RECEIVED]
                .map(|counter| counter.load(Ordering::Relaxed))
        };
        let before = counts();
        let began = Instant::now();
        self.tasks.send_replace(Task::Flood);
        sleep(Duration::from_secs(u64::from(seconds))).await;
        let after = counts();
        let elapsed = began.elapsed().as_secs_f64();
        self.tasks.send_replace(Task::Hold);
        let [beats, sent, received] = [0, 1, 2].map(|at: usize| (after[at] - before[at]) as f64);
        format!(
            r#"{{"held":{},"answered":{beats},"seconds":{elapsed:.3},"sent_bytes":{:.1},"received_bytes":{:.1}}}"#,
            self.counters.held(),
            sent / beats.max(1.0),
            received / beats.max(1.0)
        )
    }

    async fn leave(&mut self) -> String {
        let began = Instant::now();
        let failed = self.counters.failed.load(Ordering::Relaxed);
        let peers = self.counters.held();
        let before = self.counters.left.load(Ordering::Relaxed);
        self.tasks.send_replace(Task::Leave);
        let gone = || {
            self.counters.left.load(Ordering::Relaxed) - before
                + self.counters.failed.load(Ordering::Relaxed)
                - failed
        };
        while gone() < peers && began.elapsed() < LIMIT {
            sleep(Duration::from_millis(2)).await;
        }
        format!(
            r#"{{"left":{},"seconds":{:.3}}}"#,
            gone(),
            began.elapsed().as_secs_f64()
        )
    }
}

/// The median, the 99th percentile and the longest, ms.
fn spread(times: &Mutex<Vec<u64>>) -> [f64; 3] {
    let Ok(mut times) = times.lock() else {
        return [0.0; 3];
    };
    times.sort_unstable();
    let last = times.len().saturating_sub(1);
    [times.len() / 2, last.min(times.len() * 99 / 100), last]
        .map(|at| times.get(at).map_or(0.0, |us| *us as f64 / 1000.0))
}
