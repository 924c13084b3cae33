//! The driver of a process: it gives events in order, polls until no action is left, and carries
//! the actions out.
//!
//! It has the part of `src/daemon` for the simulated network, and makes no decisions either.

use oc_discovery::protocol::{
    self, Ack, Action, Addrs, Coverage, IndexersAnswer, Offer, OutBeat, PeerId, PeerList, StreamId,
    Verdict,
    codec::{directory::Response, record::Kind},
    lookup::{MAX_NAMED, Query, RecordCopy},
    restart,
};

use crate::{
    device::DeviceNo,
    dht,
    frames::{Frame, opened, verified},
    network::Input,
    world::World,
};

/// Actions in a row at one instant that no machine may exceed.
const MOST_ACTIONS: usize = 1000;

impl World {
    /// One turn of a process's loop: what has arrived, then everything that follows.
    pub fn step(&mut self, no: DeviceNo, inputs: Vec<Input>) -> Result<(), String> {
        let now = self.devices[no].instant(self.now);
        let gap = self.devices[no].endpoint.overslept(now);
        self.catching_up = !gap.is_zero();
        let holders = match self.catching_up {
            true => self.holders(no),
            false => Vec::new(),
        };
        for input in inputs {
            self.take(no, input)?;
            if gap.is_zero() {
                self.drain(no)?;
            }
        }
        if !gap.is_zero() {
            let overslept = protocol::Input::Overslept { gap };
            self.devices[no].handle(self.now, overslept);
            self.check_caught_up(no, &holders)?;
        }
        self.drain(no)?;
        if !self.devices[no].is_up() {
            return Ok(());
        }
        self.ledger.polled(self.now, no);
        self.check(no)?;
        self.set_timer(no)
    }

    /// Polls until there is no action left.
    pub fn drain(&mut self, no: DeviceNo) -> Result<(), String> {
        for _ in 0..MOST_ACTIONS {
            self.read_rows(no);
            let device = &mut self.devices[no];
            let (now, system_ms) = (device.instant(self.now), device.system_ms(self.now));
            device.endpoint.announce([&*device.addr()].into_iter());
            let Some(action) = device.endpoint.poll(now, system_ms) else {
                self.check_listing(no)?;
                return self.check_watches(no);
            };
            self.trace.note(self.now, &(no, &action));
            self.ledger.polled(self.now, no);
            self.act(no, action)?;
        }
        Err(format!(
            "device {no} had {MOST_ACTIONS} actions at one instant"
        ))
    }

    fn take(&mut self, no: DeviceNo, input: Input) -> Result<(), String> {
        let device = &mut self.devices[no];
        let times = (device.instant(self.now), device.system_ms(self.now));
        match input {
            Input::Beat { stream, frame } => return self.take_beat(no, stream, &frame),
            Input::Ack { stream, frame } => return self.take_ack(no, stream, &frame),
            Input::End { stream } => {
                self.take_end(no, stream);
                self.take_watch_end(no, stream);
            }
            Input::Watch { stream, frame } => return self.take_watch(no, stream, &frame),
            Input::Notices { stream, frames } => return self.take_notices(no, stream, &frames),
            Input::Written { stream } => self.take_written(no, stream),
            Input::Request {
                from,
                number,
                frame,
            } => return self.take_request(no, (from, number), &frame),
            Input::Response { number, frame } => return self.take_response(no, number, frame),
            Input::Ping { from, life, number } => {
                let verdict = Verdict::Reachable;
                self.reply(no, (from, life), Input::Pong { number, verdict });
            }
            Input::Pong { number, verdict } => {
                let device = &mut self.devices[no];
                match device.pings.remove(&number) {
                    Some((ref peer, None)) => {
                        let ended = protocol::Input::Probed { peer, verdict };
                        device.handle(self.now, ended);
                        let indexer = self.number_of(peer);
                        let alive = verdict == Verdict::Reachable;
                        self.ledger.probe_ended(self.now, no, indexer, alive);
                    }
                    Some((ref peer, Some(stream))) => {
                        let ended = protocol::Input::StreamProbed {
                            peer,
                            stream,
                            verdict,
                        };
                        device.handle(self.now, ended);
                    }
                    None => {}
                }
            }
            Input::Value { search, envelope } => {
                if let Some(query) = device.searches.get(&search).copied() {
                    let info = &opened(&envelope).map_err(|why| why.to_string())?;
                    let copy = RecordCopy {
                        info,
                        envelope: &envelope,
                        age: None,
                        claimed: None,
                    };
                    device.endpoint.found(times, query, copy);
                }
            }
            Input::Provided { search, providers } => {
                if let Some(query) = device.searches.get(&search).copied() {
                    let coverage = match providers.len() < MAX_NAMED {
                        true => Coverage::Complete,
                        false => Coverage::Partial,
                    };
                    device
                        .endpoint
                        .provided(times.0, query, &providers, coverage);
                }
            }
            Input::Announced { ref key, end } => {
                let ended = protocol::Input::Announced { key, end };
                self.devices[no].handle(self.now, ended);
            }
            Input::SearchEnd { search, reached } => {
                if let Some(query) = device.searches.remove(&search) {
                    device.endpoint.searched(times, query, reached);
                }
            }
        }
        Ok(())
    }

    /// Notes what the client may try, and until when.
    pub fn note_offers<'a>(&mut self, no: DeviceNo, offers: impl Iterator<Item = &'a Offer>) {
        for offer in offers {
            let until = self.now + offer.ttl.as_millis() as u64;
            let indexer = self.number_of(&offer.peer);
            let known = self.ledger.offered.entry((no, indexer)).or_default();
            *known = until.max(*known);
        }
    }

    fn act(&mut self, no: DeviceNo, action: Action) -> Result<(), String> {
        match action {
            Action::Beat {
                server,
                addrs,
                beat,
            } => {
                let known =
                    PeerList::from_iter(self.devices[no].machine().beat_known().iter().copied());
                self.check_beat(no, &server, &beat, &known)?;
                self.send_beat(no, server, &addrs, beat, &known)?;
            }
            Action::Drop { server } => self.drop_stream(no, &server),
            Action::GiveUp { server, .. } => match self.devices[no].out.get(&server).copied() {
                Some(stream) => {
                    let last = OutBeat::last(self.devices[no].role);
                    // The stream is open.
                    self.send_beat(no, server, &Addrs::new(), last, &[])?;
                    self.devices[no].left.insert(stream, server);
                    self.drop_stream(no, &server);
                }
                None => {
                    let server = &server;
                    self.devices[no].handle(self.now, protocol::Input::GaveUp { server });
                }
            },
            Action::Sign => self.sign(no)?,
            Action::Slot { peer, is_reserved } => {
                let slots = &mut self.devices[no].slots;
                match is_reserved {
                    true => slots.insert(peer),
                    false => slots.remove(&peer),
                };
            }
            Action::Slots => {
                self.devices[no].slots = self.slots_to_reserve(no);
            }
            Action::KeepHouse => {
                self.check_slots(no)?;
                self.keep_house(no);
                self.ask_around(no)?;
            }
            Action::End { .. } => self.end(no),
            Action::Close { peer, stream, .. } => return self.close_stream(no, &peer, stream),
            Action::Release {
                peer,
                stream,
                left,
                offer,
            } => {
                let ack = Ack::released(left, offer.as_slice());
                self.check_release(no, &ack)?;
                let inbound = &self.devices[no].inbound;
                let key = inbound.iter().find(|(_, id)| **id == stream);
                if let Some((&key, _)) = key {
                    debug_assert_eq!(self.devices[self.network.streams[key].client.0].peer, peer);
                    let last = self.network.streams[key].received.saturating_sub(1);
                    self.send_ack(no, key, Frame::ack(last, &ack, None)?);
                }
            }
            Action::Probe { peer, addrs } => self.probe(no, peer, &addrs),
            Action::Search { query, role, peer } => {
                self.search(no, query, (Kind::of(role), &peer));
            }
            Action::Providers { query, key } => self.search_providers(no, query, &key),
            Action::EndSearch { query } => {
                let searches = &mut self.devices[no].searches;
                searches.retain(|_, of| *of != query);
            }
            Action::Answer { request, takes_in } => {
                let offers = self.devices[no].machine().answer_offers();
                let offers = &offers.to_vec();
                let answer = IndexersAnswer { offers, takes_in };
                self.check_offer(no, request, &answer)?;
                let frame = Frame::response(&Response::Indexers(answer))?;
                self.respond(no, request, frame);
            }
            Action::Ask {
                query,
                lookup,
                server,
                addrs,
                ask,
            } => {
                match lookup {
                    Some(lookup) => self.note_asked(no, lookup, (query, server), &ask),
                    None => self.check_pace(no)?,
                }
                // An earlier request that still waits here has long ended on the network.
                self.devices[no].asked.retain(|_, asked| *asked != query);
                self.request(no, (server, &addrs), query, &ask.into())?;
            }
            Action::Respond { request, lookup } => {
                let outcome = self.devices[no].endpoint.outcome(lookup);
                let outcome = outcome.ok_or("a lookup that is over has no outcome")?;
                let frame = Frame::response(&outcome.response())?;
                self.respond(no, request, frame);
            }
            Action::Done { lookup } => self.lookup_done(no, lookup)?,
            Action::ProbeStream { peer, stream } => self.probe_stream(no, peer, stream),
            Action::Judge { stream, .. } => return self.judge(no, stream),
            Action::Announce { key } => self.announce(no, key),
            Action::Refreshed { .. }
            | Action::Retry
            | Action::Denied { .. }
            | Action::Contested(_)
            | Action::Uncontested { .. }
            // Its networks are open ones.
            | Action::Admit { .. }
            | Action::Expel { .. }
            | Action::KeepRevocations => {}
            Action::Listing(action) => return self.act_on_listing(no, action),
            Action::Watch(action) => return self.act_on_watch(no, action),
        }
        Ok(())
    }

    /// Sends a request, a ping or an answer. Returns whether it arrives.
    pub fn reply(&mut self, no: DeviceNo, to: (DeviceNo, u64), input: Input) -> bool {
        let arrives = self.network.pass(self.now, no, to.0, &mut self.rng);
        if let Some(at) = arrives {
            self.send(at, to, input);
        }
        arrives.is_some()
    }

    fn probe(&mut self, no: DeviceNo, peer: PeerId, addrs: &Addrs) {
        let to = self.number_of(&peer);
        self.ledger.probe_began(self.now, no, to);
        let to = self.dialled(addrs, to);
        self.ping(no, to, (peer, None));
    }

    /// Pings over the connection of a stream that another opened here.
    fn probe_stream(&mut self, no: DeviceNo, peer: PeerId, stream: StreamId) {
        let mut inbound = self.devices[no].inbound.iter();
        if let Some((&key, _)) = inbound.find(|(_, id)| **id == stream) {
            let to = self.network.streams[key].client;
            self.ping(no, to, (peer, Some(stream)));
        }
    }

    fn ping(&mut self, no: DeviceNo, to: (DeviceNo, u64), of: (PeerId, Option<StreamId>)) {
        let device = &mut self.devices[no];
        let number = device.number();
        device.pings.insert(number, of);
        let ping = Input::Ping {
            from: no,
            life: device.life,
            number,
        };
        self.reply(no, to, ping);
    }

    /// Searches the DHT.
    pub fn search(&mut self, no: DeviceNo, sought: Query, of: (Kind, &PeerId)) {
        let (found, end) = self
            .dht
            .search(self.now, of, self.network.faulty, &mut self.rng);
        let device = &mut self.devices[no];
        let search = device.number();
        device.searches.insert(search, sought);
        let to = (no, device.life);
        for (late, envelope) in found {
            self.send(self.now + late, to, Input::Value { search, envelope });
        }
        let reached = self.servers_that_answer(no);
        self.send(self.now + end, to, Input::SearchEnd { search, reached });
    }

    /// The housekeeping of the daemon: notes the time and the peers to try after a restart.
    fn keep_house(&mut self, no: DeviceNo) {
        let device = &mut self.devices[no];
        let now = device.instant(self.now);
        let machine = device.endpoint.machine();
        let known = |peer: &PeerId| Some((*peer, machine.addrs_of(peer)?.clone()));
        if let Some(indexers) = restart::indexers(machine, now) {
            let indexers = indexers.iter().filter_map(known);
            device.flash.set_indexers(indexers.collect());
        }
        device.note_time(self.now);
        device.flash.save_if_due(now);
    }

    /// Signs the own record.
    fn sign(&mut self, no: DeviceNo) -> Result<(), String> {
        let lease = self.plan.terms.lease;
        let device = &mut self.devices[no];
        let (now, own_ms) = (device.instant(self.now), device.own_ms(self.now));
        let sequence = device.flash.next_sequence(now, own_ms);
        let (kind, name, addr) = (Kind::of(device.role), device.name(no), device.addr());
        let signed = (sequence, own_ms);
        let record = dht::record(kind, device.peer, signed, lease, &addr, &name)?;
        let expires = verified(kind, &record)?.expires_at_ms();
        device.note_time(self.now);
        self.ledger.signed.insert((no, sequence), expires);
        device.record = Some(record);
        device.endpoint.record_signed(now);
        Ok(())
    }
}
