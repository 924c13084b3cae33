//! Shared by the tests of this module: peers that run as in a daemon, and one that sends arbitrary
//! bytes.

use std::{
    cell::RefCell,
    future::{Future, poll_fn},
    pin::{Pin, pin},
    rc::Rc,
    task::{Poll, Waker},
    time::Duration,
};

use futures_util::{AsyncReadExt, AsyncWriteExt};
use libp2p::{
    Multiaddr, PeerId,
    core::{
        Endpoint, Transport,
        muxing::{StreamMuxerBox, StreamMuxerExt, SubstreamBox},
        transport::{DialOpts, PortUse},
    },
    identity::Keypair,
};

use crate::{
    net::{
        Net, NetBounds, NetEvent,
        addrs::Announce,
        convert,
        dns::Resolver,
        executor,
        frames::{frame, read_frame},
        transport,
    },
    protocol::{
        self, Ack, Addrs, OutBeat, Publisher, Role, StreamId,
        codec::heartbeat::{AckCause, WallReading},
    },
};

/// The deadline of each step.
const DEADLINE: Duration = Duration::from_secs(20);
/// How long these peers wait for the first beat of a stream.
const FIRST_BEAT: Duration = Duration::from_secs(1);
pub(super) const LEASE: Duration = Duration::from_secs(90);
pub(super) const CLOCK: WallReading = WallReading {
    ms: 1_700_000_000_000,
    synchronised: true,
};

pub(super) fn key(seed: u8) -> Keypair {
    Keypair::ed25519_from_bytes([seed; 32]).unwrap()
}

pub(super) fn id_of(key: &Keypair) -> protocol::PeerId {
    protocol::PeerId::try_from(key.public().to_peer_id()).unwrap()
}

/// One peer.
pub(super) struct Peer {
    pub(super) net: Net,
    pub(super) id: protocol::PeerId,
    pub(super) addrs: Addrs,
}

/// A few peers, polled in turn.
pub(super) struct World(pub(super) Vec<Peer>);

impl World {
    /// One peer for each role; all listen.
    pub(super) async fn new(roles: &[Role]) -> Self {
        let mut world = Self(Vec::new());
        for (seed, role) in (1..).zip(roles) {
            let bounds = NetBounds {
                connections: 64,
                handshakes: 32,
                dht_records: 8,
                dht_providers: 64,
                first_beat: FIRST_BEAT,
            };
            let mut net = Net::new(&key(seed), *role, None, bounds, Announce::default()).unwrap();
            net.listen("/ip4/127.0.0.1/tcp/0".parse().unwrap()).unwrap();
            world.0.push(Peer {
                net,
                id: id_of(&key(seed)),
                addrs: Addrs::new(),
            });
            let at = world.0.len() - 1;
            world
                .until(|_, index, event| {
                    (index == at && matches!(event, NetEvent::Addresses)).then_some(())
                })
                .await;
            let listening = world.0[at].net.listening();
            world.0[at].addrs = convert::to_addrs(&listening);
        }
        world
    }

    pub(super) fn net(&mut self, at: usize) -> &mut Net {
        &mut self.0[at].net
    }

    pub(super) fn id(&self, at: usize) -> protocol::PeerId {
        self.0[at].id
    }

    pub(super) fn multiaddr(&self, at: usize) -> Multiaddr {
        convert::to_multiaddr(&self.0[at].addrs[0]).unwrap()
    }

    /// Sends a beat of the peer `from` to the peer `to` that requests a lease of `LEASE`.
    pub(super) fn beat(&mut self, from: usize, to: usize) {
        let (id, addrs) = (self.0[to].id, self.0[to].addrs.clone());
        self.net(from).beat(id, &addrs, &out_beat(), None, &[]);
    }

    /// The next event of any peer. As in a daemon, the stream of an invalid beat is over.
    pub(super) async fn next(&mut self) -> (usize, NetEvent) {
        let next = poll_fn(|cx| {
            for (at, peer) in self.0.iter_mut().enumerate() {
                if let Poll::Ready(event) = pin!(peer.net.next_event()).poll(cx) {
                    return Poll::Ready((at, event));
                }
            }
            Poll::Pending
        });
        let next = executor::within(DEADLINE, next).await;
        let (at, mut event) = next.expect("nothing more happens");
        if let NetEvent::Beat { frame, .. } = &event
            && let Err(why) = self.net(at).read_beat(frame)
        {
            let (peer, stream, why) = (frame.peer, frame.stream, Some(why));
            event = NetEvent::StreamClosed { peer, stream, why };
        }
        (at, event)
    }

    /// Polls until `wanted` returns a value. It may act on the world.
    pub(super) async fn until<T>(
        &mut self,
        mut wanted: impl FnMut(&mut Self, usize, NetEvent) -> Option<T>,
    ) -> T {
        let mut seen = Vec::new();
        let search = async {
            loop {
                let (at, event) = self.next().await;
                seen.push(format!("{at}: {event:?}"));
                if let Some(found) = wanted(self, at, event) {
                    return found;
                }
            }
        };
        match executor::within(DEADLINE, search).await {
            Some(found) => found,
            None => panic!(
                "did not happen; {} events, last {:?}",
                seen.len(),
                seen.last()
            ),
        }
    }

    /// Runs `other` while the peers run too. `on` receives their events.
    pub(super) async fn meanwhile<T>(
        &mut self,
        other: impl Future<Output = T>,
        mut on: impl FnMut(&mut Self, usize, NetEvent),
    ) -> T {
        let mut other = pin!(other);
        let all = async {
            loop {
                let step = async {
                    let (at, event) = self.next().await;
                    Some((at, event))
                };
                let done = poll_fn(|cx| other.as_mut().poll(cx).map(Ok));
                let next = async { Err(step.await) };
                match smol::future::or(done, next).await {
                    Ok(found) => return found,
                    Err(Some((at, event))) => on(self, at, event),
                    Err(None) => {}
                }
            }
        };
        executor::within(DEADLINE, all)
            .await
            .expect("it takes too long")
    }

    /// Answers the event if it is a beat that the peer `at` received. Returns the stream and the
    /// beat's sequence.
    pub(super) fn answer(
        &mut self,
        at: usize,
        event: &NetEvent,
        ack: &Ack<'_>,
    ) -> Option<(StreamId, u64)> {
        let NetEvent::Beat { frame, .. } = event else {
            return None;
        };
        self.net(at).ack(frame, ack, CLOCK);
        Some((frame.stream, frame.sequence))
    }

    /// Makes the peer `from` obtain a lease of the peer `to`. Returns the stream.
    pub(super) async fn lease(&mut self, from: usize, to: usize) -> StreamId {
        self.beat(from, to);
        let stream = self
            .until(|world, at, event| {
                let (stream, sequence) = world.answer(at, &event, &Ack::accepted(LEASE))?;
                assert_eq!((at, sequence), (to, 0));
                Some(stream)
            })
            .await;
        self.until(|_, at, event| match event {
            NetEvent::Ack { cause, .. } if at == from => {
                assert_eq!(cause, AckCause::Beat);
                Some(())
            }
            _ => None,
        })
        .await;
        stream
    }
}

pub(super) fn out_beat() -> OutBeat {
    OutBeat {
        role: Role::Node,
        lease: LEASE,
        with_record: false,
        fresh: false,
        publisher: Publisher::Receiver,
        load: None,
    }
}

/// A peer that sends arbitrary bytes.
pub(super) struct Raw(Rc<RefCell<Muxer>>);

struct Muxer {
    muxer: StreamMuxerBox,
    /// Wakes the muxer's task, because a new stream is not polled by itself.
    waker: Option<Waker>,
}

impl Raw {
    /// Connects with the key of this seed.
    pub(super) async fn connect(seed: u8, to: Multiaddr) -> Self {
        let mut transport = transport::build(
            &key(seed),
            None,
            Resolver::of_this_thread(),
            Default::default(),
        )
        .unwrap();
        let opts = DialOpts {
            role: Endpoint::Dialer,
            port_use: PortUse::New,
        };
        let (_, muxer): (PeerId, _) = transport.dial(to, opts).unwrap().await.unwrap();
        let shared = Rc::new(RefCell::new(Muxer { muxer, waker: None }));
        let driven = Rc::downgrade(&shared);
        executor::spawn(poll_fn(move |cx| {
            let Some(shared) = driven.upgrade() else {
                return Poll::Ready(());
            };
            let mut shared = shared.borrow_mut();
            shared.waker = Some(cx.waker().clone());
            // Streams that the other side opens are ignored.
            while let Poll::Ready(Ok(stream)) = shared.muxer.poll_inbound_unpin(cx) {
                drop(stream);
            }
            match shared.muxer.poll_unpin(cx) {
                Poll::Ready(Err(_)) => Poll::Ready(()),
                Poll::Ready(Ok(_)) | Poll::Pending => Poll::Pending,
            }
        }));
        Self(shared)
    }

    /// Begins to open a stream; `None` if the connection has ended.
    pub(super) async fn begin(&self) -> Option<SubstreamBox> {
        let opened = poll_fn(|cx| self.0.borrow_mut().muxer.poll_outbound_unpin(cx)).await;
        let mut stream = opened.ok()?;
        if let Some(waker) = self.0.borrow_mut().waker.take() {
            waker.wake();
        }
        let begin = async {
            stream.write_all(&frame(b"/multistream/1.0.0\n")).await?;
            stream.flush().await
        };
        begin.await.ok()?;
        Some(stream)
    }

    /// Opens a stream and negotiates the protocol.
    pub(super) async fn open(&self, protocol: &str) -> SubstreamBox {
        let opened = poll_fn(|cx| self.0.borrow_mut().muxer.poll_outbound_unpin(cx)).await;
        let mut stream = opened.unwrap();
        if let Some(waker) = self.0.borrow_mut().waker.take() {
            waker.wake();
        }
        for line in ["/multistream/1.0.0", protocol] {
            let line = format!("{line}\n");
            stream.write_all(&frame(line.as_bytes())).await.unwrap();
            stream.flush().await.unwrap();
            let answer = read_frame(&mut stream, 1024).await.unwrap();
            assert_eq!(String::from_utf8_lossy(&answer), line);
        }
        stream
    }
}

/// Sends one frame.
pub(super) async fn send(stream: &mut (impl AsyncWriteExt + Unpin), body: &[u8]) {
    stream.write_all(&frame(body)).await.unwrap();
    stream.flush().await.unwrap();
}

/// Whether the other side ends the stream, whatever it sends before.
pub(super) async fn ends(mut stream: Pin<&mut (impl AsyncReadExt + Unpin)>) -> bool {
    let mut rest = [0; 512];
    while matches!(stream.read(&mut rest).await, Ok(n) if n > 0) {}
    true
}
