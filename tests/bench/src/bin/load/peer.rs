//! The work of a simulated peer on its connection, from the first message to the last.

use std::{
    io,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use futures::{AsyncReadExt, AsyncWriteExt};
use libp2p::{Multiaddr, core::PeerRecord, identity::Keypair};
use oc_discovery::{
    protocol::codec::{
        frame::MAX_FRAME,
        grant::Membership,
        heartbeat::{decode_ack, encode_beat},
        record,
    },
    protocol::{AckCode, OutBeat, Publisher, Role, signing::record_ttl},
};
use tokio::{
    sync::{Semaphore, watch},
    time::{Instant, sleep, sleep_until},
};

use crate::{
    Task, Tell,
    link::{Opener, Stream, field},
    wire::{encoded, frame, read_frame, signed, write_frame},
};

/// What a peer requests from the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A lease, kept by beats (PROTOCOL.md), with a signed record or without.
    Lease {
        record: bool,
        /// Time between two beats; a third of the lease at most.
        beat_interval: Duration,
    },
    /// A registration with a libp2p rendezvous server.
    Rendezvous,
    /// Only a connection: the first ping counts as joining.
    Connection,
}

const LEASE: Duration = Duration::from_secs(90);
/// Bytes of a ping, and of the pings that are sent at once.
const PING: usize = 32;
const PINGS: usize = 32 * PING;

/// Joins, follows the commands, and leaves when commanded.
pub(crate) async fn live(
    kind: Kind,
    number: u32,
    key: Keypair,
    link: Opener,
    mut tasks: watch::Receiver<Task>,
    tell: Tell,
) -> io::Result<()> {
    let mut lease = match kind {
        Kind::Lease {
            record,
            beat_interval,
        } => Some(Lease::join(&link, (number, beat_interval), &key, record).await?),
        Kind::Rendezvous => {
            register(&link, &key).await?;
            None
        }
        Kind::Connection => {
            push(&link, PING).await?;
            None
        }
    };
    tell.joined();
    loop {
        let task = *tasks.borrow_and_update();
        match task {
            Task::Hold => {}
            Task::Push { bytes } => {
                let turn = TURNS.acquire().await.map_err(io::Error::other)?;
                push(&link, bytes).await?;
                drop(turn);
                tell.pushed();
            }
            Task::Flood => {
                while let Some(lease) = &mut lease
                    && !tasks.has_changed().map_err(io::Error::other)?
                {
                    lease.beat(LEASE).await?;
                    tell.beaten();
                }
            }
            Task::Leave => {
                // The server may end the stream before its last ack is read.
                return match lease {
                    Some(mut lease) => lease.beat(Duration::ZERO).await.or_else(ended),
                    None => Ok(()),
                };
            }
        }
        while !tasks.has_changed().map_err(io::Error::other)? {
            let due = lease.as_ref().map(|lease| lease.due);
            tokio::select! {
                _ = tasks.changed() => break,
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    if let Some(lease) = &mut lease {
                        let due = lease.due;
                        lease.beat(LEASE).await?;
                        tell.answered(due.elapsed());
                    }
                }
            }
        }
    }
}

fn ended(error: io::Error) -> io::Result<()> {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => Ok(()),
        _ => Err(error),
    }
}

/// A heartbeat stream with a lease.
struct Lease {
    stream: Stream,
    sequence: u64,
    due: Instant,
    interval: Duration,
    /// 0 to 255, to spread the beats.
    jitter: u8,
}

impl Lease {
    /// Asks until the server has room. A server that admits no further newcomers at the moment
    /// answers `full`.
    async fn join(
        link: &Opener,
        (number, interval): (u32, Duration),
        key: &Keypair,
        record: bool,
    ) -> io::Result<Self> {
        const TRIES: u32 = 100;
        let record = record.then(|| sign(number, key)).transpose()?;
        for _ in 0..TRIES {
            let mut lease = Self {
                stream: link.open("/oc/heartbeat/1.0.0").await?,
                sequence: 0,
                due: Instant::now(),
                interval,
                jitter: number.wrapping_mul(151) as u8,
            };
            match lease.ask(LEASE, record.as_deref()).await? {
                AckCode::Accepted => return Ok(lease),
                AckCode::Full => sleep(Duration::from_millis(100)).await,
                other => return Err(io::Error::other(format!("the server answers {other:?}"))),
            }
        }
        Err(io::Error::other("the server is full"))
    }

    async fn beat(&mut self, lease: Duration) -> io::Result<()> {
        match self.ask(lease, None).await? {
            AckCode::Accepted => Ok(()),
            other => Err(io::Error::other(format!("the server answers {other:?}"))),
        }
    }

    async fn ask(&mut self, lease: Duration, record: Option<&[u8]>) -> io::Result<AckCode> {
        let beat = OutBeat {
            role: Role::Node,
            lease,
            with_record: record.is_some(),
            fresh: false,
            publisher: Publisher::Receiver,
            load: None,
        };
        let bytes = frame(&encoded(|buffer| {
            encode_beat(self.sequence, &beat, record, &[], Membership::OPEN, buffer)
        }));
        self.sequence += 1;
        self.stream.write_all(&bytes).await?;
        self.stream.flush().await?;
        let ack = read_frame(&mut self.stream, MAX_FRAME).await?;
        let ack = decode_ack(&ack).map_err(io::Error::other)?.ack;
        let between = self.interval.min(ack.lease / 3);
        self.due = Instant::now() + between.mul_f64(0.80 + 0.15 * f64::from(self.jitter) / 255.0);
        Ok(ack.code)
    }
}

fn sign(number: u32, key: &Keypair) -> io::Result<Vec<u8>> {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_err(io::Error::other)?;
    let now = u64::try_from(now.as_millis()).map_err(io::Error::other)?;
    let node = (record::Kind::Node, &*format!("bench-{number}"));
    signed(key, node, (1, now, record_ttl(LEASE)), &address(number))
        .map_err(|error| io::Error::other(error.to_string()))
}

/// An address to announce. No host has it (RFC 5737).
fn address(number: u32) -> Multiaddr {
    let [_, _, high, low] = number.to_be_bytes();
    let ip = std::net::Ipv4Addr::new(192, 0, 2, low);
    Multiaddr::from(ip).with(libp2p::multiaddr::Protocol::Tcp(4820 + u16::from(high)))
}

/// Peers that push at once. The memory that connections keep is measured, and not the memory that
/// they need while all of them push.
static TURNS: Semaphore = Semaphore::const_new(16);

/// Sends this many bytes as pings, and reads as many.
async fn push(link: &Opener, bytes: usize) -> io::Result<()> {
    let mut stream = link.open("/ipfs/ping/1.0.0").await?;
    let mut left = bytes.next_multiple_of(PING);
    while left > 0 {
        let mut pings = vec![0x5a; left.min(PINGS)];
        left -= pings.len();
        stream.write_all(&pings).await?;
        stream.flush().await?;
        stream.read_exact(&mut pings).await?;
    }
    stream.close().await
}

/// Registers with a rendezvous server (libp2p specification, rendezvous; protobuf).
async fn register(link: &Opener, key: &Keypair) -> io::Result<()> {
    const OK: &[u8] = &[0x08, 0x01];
    let record = PeerRecord::new(key, vec![address(1)]).map_err(io::Error::other)?;
    let mut register = Vec::new();
    field(&mut register, 1, b"bench");
    field(
        &mut register,
        2,
        &record.into_signed_envelope().into_protobuf_encoding(),
    );
    let mut message = vec![0x08, 0x00];
    field(&mut message, 2, &register);
    let mut stream = link.open("/rendezvous/1.0.0").await?;
    write_frame(&mut stream, &message).await?;
    let answer = read_frame(&mut stream, MAX_FRAME).await?;
    if answer.starts_with(OK) {
        stream.close().await
    } else {
        Err(io::Error::other(format!("not registered: {answer:02x?}")))
    }
}
