//! Connects the core to everything else: it passes events in and carries actions out.
//!
//! Invariants: the core gets events in the order in which they happened, and after each it is
//! polled until it has no action left; the core makes all decisions. Wall-clock time is read here,
//! only to sign and to judge records.

mod results;
mod status;

use std::time::Duration;

use libp2p::{identity::Keypair, pnet::PreSharedKey};

use super::{
    Error,
    checks::Checks,
    clock,
    counters::Counters,
    decisions,
    dial_back::DialBack,
    environment::Environment,
    invitation::Invitation,
    link::OnLink,
    lookup::Lookups,
    machines::Places,
    mistakes::Files,
    natives::{self, Learned},
    nodes::Listings,
    problems::Problems,
    record::OwnRecord,
    report::{AddressLog, table, text},
    request::{Call, CallAnswer, CallEvent, PartsCall, PendingCall},
    servers::Servers,
    storage::StateFile,
    trim::{Heap, Peaks},
    watch::Watches,
};
use crate::{
    config::{Config, Role},
    net::{
        BeatFrame, FIRST_BEAT_TIMEOUT, Frame, Net, NetBounds, NetEvent, addrs::Announce,
        each::each, limits::MAX_HANDSHAKES, netlink::Change,
    },
    protocol::{
        Entries, Input, Instant, PeerId, RequestId, StreamId,
        capacities::{MAX_DHT_RECORDS, MAX_PROVIDERS},
        clock::WallClock,
        codec::directory::Request,
        endpoint::Endpoint,
        listing,
    },
};

/// How the descriptors are divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// Connections at most.
    pub(super) connections: usize,
    /// Inbound connections before their handshake is done, at most.
    pub(super) handshakes: usize,
}

impl Plan {
    /// This many connections.
    pub(super) const fn of(connections: usize) -> Self {
        let handshakes = match MAX_HANDSHAKES < connections {
            true => MAX_HANDSHAKES,
            false => connections,
        };
        Self {
            connections,
            handshakes,
        }
    }
}

/// Drives one machine.
pub(super) struct Driver<'m> {
    pub(super) env: Environment<'m>,
    pub(super) record: OwnRecord,
    pub(super) state: StateFile,
    pub(super) lookups: Lookups,
    pub(super) listings: Listings,
    pub(super) watches: Watches,
    /// First beats that the core wants to be kept: one for each identity that it checks, 16 at
    /// most.
    pub(super) held_beats: Vec<BeatFrame>,
    /// Whether it has given up its leases and ends now.
    pub(super) is_over: bool,
    /// Whether it is being drained, and it was not logged yet that it is empty.
    #[cfg(feature = "program")]
    pub(super) is_emptied: bool,
    /// What it does on the link to find natives or to be found.
    pub(super) link: OnLink,
    /// The checks of the own services.
    pub(super) checks: Checks,
    /// Whether others reach this process.
    pub(super) dial_back: DialBack,
    /// What was logged about the servers that grant leases to this process.
    pub(super) servers: Servers,
    /// What is wrong.
    pub(super) problems: Problems,
    /// What has happened since the start, by reason.
    pub(super) counters: Counters,
    /// What is to be logged about the addresses of this host.
    pub(super) addresses: AddressLog,
    /// What was logged about the address at which others reach this native.
    pub(super) invitation: Invitation,
    /// Whether the system clock was synchronised at the last housekeeping.
    pub(super) synchronised: bool,
    /// The files whose permissions and presence are watched.
    pub(super) files: Files,
    /// What is known of the configured natives before one is.
    pub(super) given: natives::Given,
    /// The own grant in a closed network; `None` in an open one.
    #[cfg(feature = "program")]
    pub(super) member: Option<super::members::OwnGrant>,
    /// The fingerprint of the pre-shared key, which is no secret; `None`: there is no key.
    pub(super) key: Option<String>,
    pub(super) started: Instant,
    /// Since when the loops have their intervals: the start, or the last reload that changed them.
    pub(super) paced: Instant,
    /// When a record of the DHT store may have run out, and when expired records were last removed.
    pub(super) records: Option<Instant>,
    pub(super) expired: Instant,
    pub(super) peaks: Peaks,
    /// Whether the heap may be trimmed.
    pub(super) heap: Heap,
}

impl<'m> Driver<'m> {
    /// A driver with a machine that has not started.
    pub(super) fn new(
        config: &Config,
        (key, state): (Keypair, StateFile),
        psk: Option<PreSharedKey>,
        plan: Plan,
        places: Places<'m>,
    ) -> Result<Self, Error> {
        let own = PeerId::try_from(key.public().to_peer_id()).map_err(Error::new)?;
        let bounds = NetBounds {
            connections: plan.connections,
            handshakes: plan.handshakes,
            dht_records: MAX_DHT_RECORDS,
            dht_providers: MAX_PROVIDERS,
            first_beat: FIRST_BEAT_TIMEOUT,
        };
        let announce = Announce {
            first: config.announce.clone(),
            only: config.announce_only,
        };
        let key_of_network = psk.map(|psk| psk.fingerprint().to_string());
        let net = Net::new(&key, config.role, psk, bounds, announce).map_err(Error::new)?;
        let seed = getrandom::u64().map_err(Error::new)?;
        let now = Instant::from_millis(clock::boottime());
        let (machine, lookups, watches) =
            places.start(config, &state.state().state, now, own, seed);
        let mut wall = WallClock::new(clock::BUILD_MS);
        let highest_ms = state.state().highest_time_ms;
        wall.remember(highest_ms);
        let own_ms = wall.settled_ms(now, clock::wall()).unwrap_or(highest_ms);
        for lost in state.state().state.lost.iter() {
            machine.remember_lost(now, lost.restored(now, own_ms));
        }
        let checks = Checks::new(config, now, seed);
        let listings = listing::Listings::new(own);
        let endpoint = Endpoint::new(now, machine, lookups, watches, listings, wall);
        let mut endpoint = endpoint.member_of(None);
        // The first record too has no service whose check has not passed yet.
        endpoint.offer(checks.health.offered());
        Ok(Self {
            env: Environment {
                net,
                endpoint,
                own,
                released: Vec::new(),
            },
            record: OwnRecord::new(key, config),
            state,
            lookups: Lookups::default(),
            listings: Listings::default(),
            watches: Watches::default(),
            held_beats: Vec::new(),
            is_over: false,
            #[cfg(feature = "program")]
            is_emptied: false,
            link: OnLink::new(config, own, now, seed),
            checks,
            dial_back: DialBack::new(now, config.role, seed, !config.announce.is_empty()),
            servers: Servers::new(config),
            counters: Counters::default(),
            problems: Problems::default(),
            addresses: AddressLog::default(),
            invitation: Invitation::default(),
            synchronised: clock::synchronised(),
            files: Files::new(config.data_dir.as_deref(), config.psk.as_deref()),
            given: natives::Given::of(&config.natives, &own),
            #[cfg(feature = "program")]
            member: None,
            key: key_of_network,
            started: now,
            paced: now,
            records: None,
            expired: now,
            peaks: Peaks::default(),
            heap: Heap::Own,
        })
    }

    /// Gives the machine its natives: the configured ones, or else those of an earlier run.
    pub(super) fn start(&mut self, config: &Config) {
        let mut known = natives::given(&config.natives);
        if config.natives.is_empty() && self.env.machine().role() != Role::Native {
            known.clone_from(&self.state.state().state.natives);
            match known.len() {
                0 => log::warn!(
                    "no native is known: looks for one on the network; give one with --native \
                     /ip4/ADDRESS/tcp/4820/p2p/ID"
                ),
                n => log::info!("no --native given: uses {n} of an earlier run"),
            }
        }
        known.into_iter().for_each(|native| self.on_learned(native));
        self.remember_addrs();
        self.look_at_addresses(self.env.now());
        self.begin_to_look(self.env.now());
    }

    /// The own peer id as text.
    pub(super) fn own_id(&self) -> String {
        text(&self.env.own)
    }

    /// The multiaddresses that it listens on, each with `/p2p`.
    pub(super) fn listening(&self) -> Vec<String> {
        let (own, listening) = (self.own_id(), self.env.net.listening());
        let listening = listening.iter();
        listening.map(|addr| format!("{addr}/p2p/{own}")).collect()
    }

    /// When [`Driver::pump`] has work without an event.
    pub(super) fn timeout(&self) -> Instant {
        [
            self.env.endpoint.next_timeout(),
            self.checks.timeout(),
            self.link_timeout(),
            self.records,
            Some(self.dial_back.timeout()),
        ]
        .into_iter()
        .flatten()
        .min()
        .unwrap_or_default()
    }

    /// How long a loop overslept; see [`Endpoint::overslept`].
    pub(super) fn overslept(&self) -> Duration {
        self.env.endpoint.overslept(self.env.now())
    }

    /// Extends the leases granted, and lets watches ask for what they have missed.
    pub(super) fn shift(&mut self, gap: Duration) {
        self.handle(self.env.now(), Input::Overslept { gap });
    }

    /// Carries out everything that is due now.
    pub(super) fn pump(&mut self) {
        let now = self.env.now();
        self.watches.note_readers(&mut self.env);
        self.listings.note_readers(&mut self.env);
        while let Some(action) = self.env.poll(now) {
            self.perform(action);
        }
        self.note_network(false);
        self.tell_troubles(now);
        self.check_if_due(now);
        self.ask_back_if_due(now);
        self.speak_if_due(now);
        self.expire_records_if_due(now);
    }

    /// Gives up all leases.
    pub(super) fn shut_down(&mut self) {
        self.remember();
        self.leave_link();
        self.checks.stop();
        self.handle(self.env.now(), Input::ShutDown);
        self.pump();
    }

    /// Saves the state. Nothing is signed after it.
    pub(super) fn save(&mut self) {
        self.state.flush(self.env.now());
    }

    /// Gives the machine an event that happened at `now`.
    pub(super) fn handle(&mut self, now: Instant, input: Input<'_>) {
        decisions::told(&input);
        self.env.handle(now, input);
    }

    /// A native has become known.
    pub(super) fn on_learned(&mut self, (peer, ref addrs): Learned) {
        let native = &peer;
        self.handle(self.env.now(), Input::NativeLearned { native, addrs });
        self.natives_changed();
    }

    /// A native is not configured any more.
    #[cfg(feature = "program")]
    pub(super) fn on_forgotten(&mut self, peer: PeerId) {
        let native = &peer;
        let now = self.env.now();
        self.handle(now, Input::NativeForgotten { native });
        self.problems
            .over(now, super::mistakes::NO_NATIVE_THERE, &text(native));
        self.end_refusals(now, &peer);
        self.natives_changed();
    }

    fn natives_changed(&mut self) {
        let mut natives = self.env.natives().into_iter();
        let only = natives.next().filter(|_| natives.next().is_none());
        self.env.net.set_only_native(only);
    }

    /// A request of the operator or of the surrounding program; or its caller has left.
    pub(super) fn on_asked(&mut self, event: CallEvent) {
        let PendingCall { call, reply } = match event {
            CallEvent::Made(call) => call,
            CallEvent::MadeInParts(PartsCall::Watch(query), parts) => {
                return self.watches.events(&mut self.env, query, parts);
            }
            CallEvent::MadeInParts(PartsCall::Nodes(query), parts) => {
                return self.listings.begin(&mut self.env, &query, parts);
            }
            #[cfg(feature = "dns")]
            CallEvent::Resolve(lookup) => return self.lookups.resolve(&mut self.env, lookup),
            #[cfg(feature = "mdns")]
            CallEvent::Devices(services) => {
                self.record.list_devices(services);
                return self.env.endpoint.record_changed();
            }
            CallEvent::Left => return self.lookups.give_up(&mut self.env),
            // The work that waited for it goes on when everything is pumped.
            CallEvent::Room => return,
        };
        match call {
            #[cfg(feature = "http")]
            Call::Turn => reply.answer(CallAnswer::Turned),
            Call::Status(tables) => {
                let mut status = self.status();
                status.tables.extend(tables.into_iter().map(table));
                reply.answer(CallAnswer::Status(Box::new(status)));
            }
            #[cfg(feature = "program")]
            Call::Doctor => self.doctor(self.env.now(), reply),
            Call::Indexers => self.lookups.indexers(&mut self.env, reply),
            Call::Find(what) => self.lookups.find(&mut self.env, &what, reply),
            #[cfg(feature = "program")]
            Call::Drain(call) => self.drain(call, reply),
            #[cfg(feature = "program")]
            Call::Revoke(line) => self.revoke(&line, reply),
            // The process around the loop answers these.
            #[cfg(feature = "program")]
            Call::Config | Call::Log | Call::Reload => {}
        }
    }

    /// An event of the network side.
    pub(super) fn on_net(&mut self, event: NetEvent) {
        let now = self.env.now();
        match event {
            NetEvent::Addresses => {
                self.invite_if_changed(now);
                self.look_at_addresses(now);
            }
            NetEvent::Host(change) => self.on_host(now, &change),
            NetEvent::ListenerError(why) => {
                each!(warn, "a listener could not take a connection: {why}")
            }
            NetEvent::Refused(refusal) => {
                self.counters.handshakes_failed += 1;
                self.note_refusal(now, &refusal);
            }
            NetEvent::Beat { frame, source } => self.on_beat(now, frame, source),
            NetEvent::TooFast { ref peer, stream } => self.on_too_fast(now, peer, stream),
            NetEvent::StreamClosed {
                ref peer,
                stream,
                why,
            } => self.on_stream_closed(now, peer, stream, why),
            NetEvent::Ack {
                server,
                over,
                cause,
                ack,
                clock,
                shown,
            } => {
                self.end_refusals(now, &server);
                let (server, ack) = (&server, &ack.as_ack());
                let input = Input::Acked {
                    server,
                    over,
                    cause,
                    ack,
                    clock,
                };
                self.on_ack(now, server, &shown, input);
                if self.env.endpoint.denial_of_server(server).is_none() {
                    self.log_ack(now, server, cause, ack);
                }
            }
            NetEvent::LeaseClosed { server, why } => {
                let called = self.env.server(&server);
                self.handle(now, Input::LeaseClosed { server: &server });
                self.note_closed(server, called, why.as_ref());
            }
            NetEvent::GaveUp { ref server } => self.handle(now, Input::GaveUp { server }),
            NetEvent::Request { from, id, request } => self.serve(now, &from, id, *request),
            NetEvent::DialedBack(end) => self.on_dial_end(now, &end),
            NetEvent::Response {
                ref server,
                id,
                response,
            } => self.on_response(now, server, id, response),
            NetEvent::Probed { ref peer, verdict } => {
                self.link_probed(peer, verdict);
                self.handle(now, Input::Probed { peer, verdict })
            }
            NetEvent::StreamProbed {
                ref peer,
                stream,
                verdict,
            } => self.handle(
                now,
                Input::StreamProbed {
                    peer,
                    stream,
                    verdict,
                },
            ),
            NetEvent::Dht(event) => self.on_dht(now, event),
            NetEvent::Unproven { peer } => self.prove(peer),
            NetEvent::Watch(event) => {
                if let Some((peer, why)) = self.watches.on_event(&mut self.env, event) {
                    self.log_malformed(&peer, Frame::Watch, &why);
                }
            }
            NetEvent::Malformed {
                ref peer,
                frame,
                why,
            } => self.log_malformed(peer, frame, &why),
        }
    }

    /// An address, a link or a route of this host has changed.
    fn on_host(&mut self, now: Instant, change: &Change) {
        for line in self.addresses.lines(change) {
            log::info!("{line}");
        }
        self.link_changed(now);
        if change.came() {
            self.note_network(true);
            self.handle(now, Input::NetworkChanged);
        }
    }

    /// A heartbeat stream of a peer has ended; `why`: it sent what cannot be read.
    pub(super) fn on_stream_closed(
        &mut self,
        now: Instant,
        peer: &PeerId,
        stream: StreamId,
        why: Option<String>,
    ) {
        if let Some(why) = why {
            self.log_malformed(peer, Frame::Beat, &why);
        }
        self.held_beats.retain(|frame| frame.stream != stream);
        self.handle(now, Input::StreamClosed { peer, stream });
        self.log_silence(peer);
    }

    /// A peer asks.
    fn serve(&mut self, now: Instant, from: &PeerId, id: RequestId, request: Request) {
        if let Request::DialBack { port } = request {
            return self.dial_back(now, from, id, port);
        }
        let Environment { net, endpoint, .. } = &mut self.env;
        let asker = (from, id, net.reader(from));
        let mut entries = Entries::new();
        if let Some(response) = endpoint.serve(now, asker, request, &mut entries) {
            net.respond(id, &response);
        }
    }
}
