//! A walk of one node among servers that violate the protocol: natives that always name new
//! indexers, dead ones, or a third party's port; indexers that accept connections and never answer,
//! are full, close streams, release what they have accepted, or grant short leases and break them,
//! with a third party's address beside their own.
//!
//! Whatever they send, the node's requests and attempts are bounded, and so are its dials of that
//! address; an offer is not tried after its time to live; and when one honest native is left, the
//! node soon holds its lease.

use std::{collections::BTreeMap, time::Duration};

use oc_discovery::protocol::{
    Ack, Action, Addr, Addrs, IndexersAnswer, Input, Instant, MAX_LIST, Machine, Node, NodeConfig,
    Offer, Offers, OutBeat, PeerId, Rng, Terms, TransportAddr,
    codec::{
        directory::{Response, Room},
        heartbeat::{AckCause, LastBeat},
    },
    signing::Urgency,
};

use crate::{
    directory::offers_of,
    frames::Frame,
    invariants::{TRIES_A_MINUTE, ensure},
    ledger::Ledger,
    runner::Run,
    trace::Trace,
};

/// How long a walk lasts, ms.
const LENGTH: u64 = 600_000;
/// The time within which a node must hold a lease of an honest native, ms.
const RESCUE: u64 = 30_000;
/// The number of hosts of indexers. Natives have the hosts after them.
const HOSTS: u64 = 200;
/// The number of the honest native, which comes at the end.
const HONEST: u64 = 250;
/// The host of a third party.
const VICTIM: u64 = 251;
/// The lease of servers that soon break it.
const SHORT_LEASE: Duration = Duration::from_secs(1);

/// How a server behaves.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Manner {
    /// It keeps the protocol.
    Honest,
    /// It answers nothing.
    Silent,
    /// It accepts the connection and closes it.
    HangsUp,
    /// It answers that it is full.
    Full,
    /// It accepts, and releases at once.
    SendsAway,
    /// It grants short leases, and then closes the stream or becomes silent. It also names a third
    /// party's address.
    Breaks,
}

struct Walk {
    now: u64,
    rng: Rng,
    node: Box<Node>,
    /// The manner of natives and of indexers now, and how many indexers the natives know.
    manners: (Manner, Manner),
    population: u64,
    ttl: u64,
    /// The streams, with the last beat of each; `None` before the first.
    open: BTreeMap<PeerId, Option<LastBeat>>,
    queue: BTreeMap<(u64, u64), Event>,
    queued: u64,
    offered: BTreeMap<PeerId, u64>,
    held: BTreeMap<PeerId, u64>,
    /// The addresses at which indexers answer.
    hosts: BTreeMap<PeerId, Addr>,
    /// When the third party was dialled.
    victim: Vec<u64>,
    ledger: Ledger,
    most_tries: usize,
    longest_bare: u64,
    steps: u64,
    trace: Trace,
}

#[derive(Debug)]
enum Event {
    Said(PeerId, Frame),
    Closed(PeerId),
    Answer(PeerId, Option<Frame>),
}

/// One walk; its number determines it.
pub fn walk(number: u64, trace: Trace) -> Run {
    let mut rng = Rng::new(!number);
    let lease = Duration::from_secs([12, 30, 90][rng.below(3) as usize]);
    let mut node = Box::new(Node::new());
    let config = NodeConfig {
        terms: Terms {
            lease,
            beat_interval: lease / 3,
        },
        connect_interval: lease * 2 / 3,
        min_indexers: 1 + rng.below(3) as usize,
    };
    let at = Instant::from_millis(0);
    node.start(at, peer(0xff, 0), rng.bits(), config);
    for native in 0..1 + rng.below(3) {
        let addrs = Addrs::from_iter([addr(200 + native)]);
        let (native, addrs) = (&peer(NATIVE, native), &addrs);
        node.handle(at, Input::NativeLearned { native, addrs });
    }
    let mut walk = Walk {
        now: 0,
        rng,
        node,
        manners: (Manner::Honest, Manner::Full),
        population: 40,
        ttl: 60_000,
        open: BTreeMap::new(),
        queue: BTreeMap::new(),
        queued: 0,
        offered: BTreeMap::new(),
        held: BTreeMap::new(),
        hosts: BTreeMap::new(),
        victim: Vec::new(),
        ledger: Ledger::default(),
        most_tries: 0,
        longest_bare: 0,
        steps: 0,
        trace,
    };
    let outcome = walk.go();
    Run {
        steps: walk.steps,
        longest_bare: walk.longest_bare,
        most_tries: walk.most_tries,
        outcome: outcome.map_err(|what| format!("at {} ms: {what}", walk.now)),
        trace: walk.trace,
    }
}

const NATIVE: u8 = 1;
const INDEXER: u8 = 2;

fn peer(kind: u8, number: u64) -> PeerId {
    let mut id = [kind; 32];
    id[8..16].copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
    PeerId::from_bytes(id)
}

fn is_native(peer: &PeerId) -> bool {
    peer.as_bytes()[0] == NATIVE
}

fn addr(host: u64) -> Addr {
    [4, 10, 0, host as u8, 1, 6, 0x12, 0xd5]
        .into_iter()
        .collect()
}

impl Walk {
    fn go(&mut self) -> Result<(), String> {
        let mut next_change = 0;
        while self.now < LENGTH {
            if self.now >= next_change {
                next_change = self.now + 1_000 + self.rng.below(90_000);
                self.change();
            }
            self.turn(next_change)?;
        }
        self.rescue()
    }

    /// Changes how the servers behave.
    fn change(&mut self) {
        let any = |rng: &mut Rng| {
            [
                Manner::Honest,
                Manner::Silent,
                Manner::HangsUp,
                Manner::Full,
                Manner::SendsAway,
                Manner::Breaks,
            ][rng.below(6) as usize]
        };
        self.manners = (any(&mut self.rng), any(&mut self.rng));
        self.population = [0, 1, 3, 20, 48, 1_000_000][self.rng.below(6) as usize];
        self.ttl = [500, 5_000, 60_000, 270_000][self.rng.below(4) as usize];
        self.trace
            .note(self.now, &("manners", self.manners, self.population));
    }

    /// Checks that the node soon holds a lease after an honest native without indexers has become
    /// known.
    fn rescue(&mut self) -> Result<(), String> {
        let addrs = Addrs::from_iter([addr(HONEST)]);
        let now = Instant::from_millis(self.now);
        let (native, addrs) = (&peer(NATIVE, HONEST), &addrs);
        self.node
            .handle(now, Input::NativeLearned { native, addrs });
        (self.manners, self.population) = ((Manner::Honest, Manner::Silent), 0);
        let begun = self.now;
        while !self.is_under_a_lease() {
            ensure(
                self.now <= begun + RESCUE,
                0,
                "a node is without a lease although a native takes it in",
            )?;
            self.turn(self.now + 1_000)?;
        }
        self.longest_bare = self.now - begun;
        Ok(())
    }

    fn is_under_a_lease(&self) -> bool {
        self.held.values().any(|until| self.now <= *until)
    }

    /// Runs everything up to the next event.
    fn turn(&mut self, latest: u64) -> Result<(), String> {
        for _ in 0..1_000 {
            let Some(action) = self.node.poll(Instant::from_millis(self.now), self.now) else {
                let timer = self
                    .node
                    .next_timeout()
                    .map_or(u64::MAX, Instant::as_millis);
                let event = self.queue.first_key_value().map(|((at, _), _)| *at);
                let next = timer.min(latest).min(event.unwrap_or(u64::MAX));
                self.now = next.max(self.now);
                return self.arrive();
            };
            self.steps += 1;
            self.trace.note(self.now, &action);
            self.act(action)?;
        }
        Err("1000 actions at one instant".into())
    }

    fn arrive(&mut self) -> Result<(), String> {
        let Some(first) = self.queue.first_entry() else {
            return Ok(());
        };
        if first.key().0 > self.now {
            return Ok(());
        }
        let event = first.remove();
        self.steps += 1;
        self.trace.note(self.now, &event);
        let now = Instant::from_millis(self.now);
        match event {
            Event::Said(server, frame) => self.heard(now, &server, &frame)?,
            Event::Closed(server) => {
                if self.open.remove(&server).is_some() {
                    let server = &server;
                    self.node.handle(now, Input::LeaseClosed { server });
                }
            }
            Event::Answer(native, frame) => {
                let mut room = Room::default();
                let response = frame.as_ref();
                let response = response.map(|frame| frame.read_response(&mut room));
                let answer = response.transpose()?.and_then(offers_of);
                self.note_offers(answer.iter().flat_map(|answer| answer.offers));
                let native = &native;
                self.node.handle(now, Input::Answered { native, answer });
            }
        }
        Ok(())
    }

    /// Processes a frame of a server on the node's stream.
    fn heard(&mut self, now: Instant, server: &PeerId, frame: &Frame) -> Result<(), String> {
        let Some(Some(last)) = self.open.get_mut(server) else {
            return Ok(());
        };
        let ack = frame.read_ack()?;
        let cause = ack.cause(*last).map_err(|why| why.to_string())?;
        last.is_awaited &= cause != AckCause::Beat;
        self.note_offers(ack.ack.offers.iter());
        let ack = &ack.ack.as_ack();
        if cause == AckCause::Beat && !ack.lease.is_zero() {
            let until = self.now + ack.lease.as_millis() as u64;
            self.held.insert(*server, until);
        }
        let (over, clock) = (
            self.hosts.get(server).map(|host| TransportAddr::of(host)),
            None,
        );
        let input = Input::Acked {
            server,
            over,
            cause,
            ack,
            clock,
        };
        self.node.handle(now, input);
        Ok(())
    }

    fn note_offers<'a>(&mut self, offers: impl Iterator<Item = &'a Offer>) {
        for offer in offers {
            let until = self.now + offer.ttl.as_millis() as u64;
            let known = self.offered.entry(offer.peer).or_default();
            *known = until.max(*known);
        }
    }

    fn act(&mut self, action: Action) -> Result<(), String> {
        match action {
            Action::Ask { server: native, .. } => {
                self.pace()?;
                self.asked(native)?;
            }
            Action::Beat {
                server,
                addrs,
                beat,
            } => {
                let is_open = self.open.contains_key(&server);
                if beat.fresh || !is_open {
                    self.dialled(&addrs)?;
                }
                let host = self.hosts.get(&server);
                let is_reached = host.is_none_or(|host| addrs.contains(host));
                if !is_open {
                    self.pace()?;
                    let holds = self
                        .held
                        .get(&server)
                        .is_some_and(|until| self.now <= *until);
                    let offered = self.offered.get(&server);
                    let may = offered.is_some_and(|until| self.now <= *until);
                    ensure(
                        is_native(&server) || holds || may,
                        0,
                        "tries an offer after its time to live",
                    )?;
                }
                if beat.fresh || !is_open {
                    // Messages under way on the old stream are lost with it.
                    self.forget(&server);
                    self.open.insert(server, None);
                }
                match is_reached {
                    true => self.beaten(server, &beat)?,
                    false => self.push(Event::Closed(server)),
                }
            }
            Action::Drop { server } | Action::GiveUp { server, .. } => {
                self.open.remove(&server);
                self.forget(&server);
                self.held.remove(&server);
            }
            Action::Sign => self.node.handle(
                Instant::from_millis(self.now),
                Input::RecordSigned {
                    urgency: Urgency::NextBeat,
                },
            ),
            _ => {}
        }
        Ok(())
    }

    fn pace(&mut self) -> Result<(), String> {
        let tries = self.ledger.tries(self.now, 0);
        self.most_tries = self.most_tries.max(tries);
        ensure(
            tries <= TRIES_A_MINUTE,
            0,
            "a node asks and tries more often than its pace allows",
        )
    }

    /// Checks that the third party is dialled as rarely as the README states.
    fn dialled(&mut self, addrs: &Addrs) -> Result<(), String> {
        if !addrs.contains(&addr(VICTIM)) {
            return Ok(());
        }
        self.victim.push(self.now);
        for (time, most) in [(20_000, 5), (60_000, 7), (600_000, 11)] {
            let since = |at: &&u64| **at + time > self.now;
            let times = self.victim.iter().rev().take_while(since).count();
            ensure(times <= most, 0, "a third party is dialled too often")?;
        }
        Ok(())
    }

    fn forget(&mut self, server: &PeerId) {
        self.queue.retain(|_, event| match event {
            Event::Said(from, _) | Event::Closed(from) => from != server,
            Event::Answer(..) => true,
        });
    }

    fn asked(&mut self, native: PeerId) -> Result<(), String> {
        let takes_in = match self.manners.0 {
            Manner::Silent => return Ok(()),
            Manner::HangsUp => {
                self.push(Event::Answer(native, None));
                return Ok(());
            }
            Manner::Honest | Manner::SendsAway | Manner::Breaks => self.population == 0,
            // It overstates its room.
            Manner::Full => true,
        };
        let offers = &self.offers();
        let answer = IndexersAnswer { offers, takes_in };
        let frame = Frame::response(&Response::Indexers(answer))?;
        self.push(Event::Answer(native, Some(frame)));
        Ok(())
    }

    /// Up to 16 of the existing indexers, at any of the hosts.
    fn offers(&mut self) -> Offers {
        let mut offers = Offers::new();
        for _ in 0..(MAX_LIST as u64).min(self.population) {
            let number = self.rng.below(self.population);
            let free = [None, Some(3), Some(65_535)][self.rng.below(3) as usize];
            let host = addr(number % HOSTS);
            self.hosts.insert(peer(INDEXER, number), host.clone());
            let others = (self.manners.1 == Manner::Breaks).then(|| addr(VICTIM));
            let offer = Offer {
                peer: peer(INDEXER, number),
                addrs: [host].into_iter().chain(others).collect(),
                ttl: Duration::from_millis(self.ttl),
                free,
            };
            if offers.iter().all(|other: &Offer| other.peer != offer.peer) {
                offers.extend([offer]);
            }
        }
        offers
    }

    fn beaten(&mut self, server: PeerId, beat: &OutBeat) -> Result<(), String> {
        let open = self.open.entry(server).or_default();
        let sequence = open.map_or(0, |last| last.sequence + 1);
        *open = Some(LastBeat {
            sequence,
            is_awaited: true,
        });
        let lease = Frame::beat(sequence, beat, None, &[])?.read_beat()?.lease;
        let said =
            |ack: Ack<'_>| Ok::<_, String>(Event::Said(server, Frame::ack(sequence, &ack, None)?));
        let manner = match is_native(&server) {
            true => self.manners.0,
            false => self.manners.1,
        };
        match manner {
            Manner::Honest => self.push(said(Ack::accepted(lease))?),
            Manner::Silent => {}
            Manner::HangsUp => self.push(Event::Closed(server)),
            Manner::Full => {
                self.push(said(Ack::full("no room"))?);
                self.push(Event::Closed(server));
            }
            Manner::Breaks => {
                let accepted = Ack::accepted(lease.min(SHORT_LEASE));
                match self.rng.below(4) {
                    0 => {}
                    1 => self.push(Event::Closed(server)),
                    _ => self.push(said(accepted)?),
                }
            }
            Manner::SendsAway => {
                self.push(said(Ack::accepted(lease))?);
                let offers = self.offers();
                let away = Ack::released(lease, &offers);
                self.push(said(away)?);
            }
        }
        Ok(())
    }

    fn push(&mut self, event: Event) {
        self.queued += 1;
        let at = self.now + 1 + self.rng.below(4);
        // The events of one server keep their order.
        let last = self.queue.last_key_value().map_or(0, |((at, _), _)| *at);
        self.queue.insert((at.max(last), self.queued), event);
    }
}
