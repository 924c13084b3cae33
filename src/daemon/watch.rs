//! Watches between the core, which decides what is reported, and the network: notifications of
//! servers become rows for the readers here, and the directory of this process becomes frames for
//! its watchers.
//!
//! [`Watches::events`] is the only entry, for `oc-discovery watch` and for all other code that
//! follows changes.
//!
//! Invariants: the loop never waits for a reader or a watcher. A reader that is behind leaves the
//! frames of its servers unread, and loses its watch after [`PATIENCE`]; a watcher that is behind
//! is closed by the core. Bounds: [`MAX_WATCHES`] readers, each with one stream to each server.

use std::{collections::HashMap, time::Duration};

use super::{
    environment::Environment,
    lookup::Lookups,
    machines::{MAX_WATCHES, ProgramWatch, WatchTables},
    nodes::millis,
    report::{self, text},
    request::{MAX_PARTS, Part, Parts},
    status::{CaughtUp, NodeQuery, NodeState, WatchEventName, WatchRow},
};
use crate::{
    net::{
        WatchEvent,
        envelope::{self, OpenRecord, open_node},
    },
    protocol::{
        Addrs, Entry, Filter, Instant, Name, PeerId, Presence, Role, Subject, TableStats,
        codec::{
            frame::{MAX_FRAME, header},
            record::{Kind, contents},
            service::to_service_name,
            watch::{Notice, decode_ask, decode_notice},
        },
        table::Vacant,
        watch::{
            WatchId, WatcherId,
            client::{MAX_SERVERS, Said, Sighting, WatchStep, Word},
            fingerprint,
            server::{PATIENCE, ServeStep},
        },
    },
};

/// Parts that are free while frames of servers are read: as many as may still come after that, one
/// from each server and a batch of the own directory.
const RESERVE: usize = MAX_PARTS / 2;

/// The number of the stream on which a watch reads the own directory is this and its slot.
const OWN: u64 = 1 << 63;

/// One reader.
struct Reader {
    /// Names the watch in the lookup of its servers.
    number: u64,
    filter: Filter,
    states: Option<Vec<NodeState>>,
    parts: Parts,
    /// Streams with a next frame that is left unread.
    unread: Vec<Unread>,
    /// Since when there is no room.
    behind: Option<Instant>,
    /// The log says already that there are more nodes than fit.
    is_full: bool,
}

/// A stream with a next frame that is left unread.
enum Unread {
    Server(WatchId),
    Own(WatcherId),
}

/// All watches of this process, and all watchers of its directory.
pub(super) struct Watches<'m> {
    core: &'m mut WatchTables,
    readers: [Option<Reader>; MAX_WATCHES],
    /// The reader and the server of each own stream.
    streams: HashMap<WatchId, (usize, PeerId)>,
    next: u64,
    refused: u64,
    /// Nodes that found no place in watches that are over.
    unplaced: u64,
}

impl<'m> Watches<'m> {
    /// No reader and no watcher.
    pub(super) fn new(core: &'m mut WatchTables) -> Self {
        Self {
            core,
            readers: [const { None }; MAX_WATCHES],
            streams: HashMap::new(),
            next: 0,
            refused: 0,
            unplaced: 0,
        }
    }

    /// Reports the selected nodes, and each change, until the reader leaves.
    pub(super) fn events(&mut self, now: Instant, query: NodeQuery, parts: Parts) {
        let filter = match filter_of(&query) {
            Ok(filter) => filter,
            Err(why) => return parts.refuse(&why),
        };
        let Some(slot) = self.readers.iter().position(Option::is_none) else {
            self.refused += 1;
            return parts.refuse_for_now(&format!(
                "{MAX_WATCHES} watches are open already: close one, or try again"
            ));
        };
        let seed = getrandom::u64().unwrap_or(self.next);
        if let Some((place, watch)) = self.slot(slot) {
            let unconfirmed_are = match filter == Filter::default() {
                true => Presence::Lost,
                false => Presence::Left,
            };
            watch.start(now, seed, unconfirmed_are);
            *place = Some(Reader {
                number: 0,
                filter,
                states: query.states,
                parts,
                unread: Vec::new(),
                behind: None,
                is_full: false,
            });
        }
        self.next += 1;
        if let Some(Some(reader)) = self.readers.get_mut(slot) {
            reader.number = self.next;
        }
    }

    fn slot(&mut self, slot: usize) -> Option<(&mut Option<Reader>, &mut ProgramWatch)> {
        self.readers
            .get_mut(slot)
            .zip(self.core.watches.get_mut(slot))
    }

    fn reader(&mut self, slot: usize) -> Option<(&mut Reader, &mut ProgramWatch)> {
        let (reader, watch) = self.slot(slot)?;
        Some((reader.as_mut()?, watch))
    }

    /// Something happened on a watch stream.
    pub(super) fn on_event(&mut self, env: &mut Environment, event: WatchEvent) {
        let watchers = &mut self.core.watchers;
        match event {
            WatchEvent::Asked {
                watcher,
                peer,
                body,
            } => {
                let is_served = decode_ask(&body).is_ok_and(|filter| {
                    watchers.join(watcher, Some(peer), filter, env.machine.changes())
                });
                if !is_served {
                    env.net.dismiss_watcher(watcher);
                }
            }
            WatchEvent::Written { watcher } => watchers.written(watcher),
            WatchEvent::Left { watcher } => watchers.leave(watcher),
            WatchEvent::Told { watch, body } => {
                let Some((slot, server)) = self.streams.get(&watch).copied() else {
                    return;
                };
                match self.told(env, slot, &server, &body) {
                    Ok(()) => self.leave_unread(slot, Unread::Server(watch)),
                    Err(why) => {
                        log::debug!("{} tells what cannot be read: {why}", text(&server));
                        env.net.unwatch(watch);
                        self.ended(env, watch);
                    }
                }
            }
            WatchEvent::Ended { watch, why } => {
                if let Some((_, server)) = self.streams.get(&watch) {
                    log::debug!("the watch of {} is over: {why}", text(server));
                }
                self.ended(env, watch);
            }
        }
    }

    fn ended(&mut self, env: &Environment, watch: WatchId) {
        if let Some((slot, server)) = self.streams.remove(&watch)
            && let Some((_, core)) = self.reader(slot)
        {
            core.ended(env.now(), &server);
        }
    }

    /// Reads on when there is room.
    fn leave_unread(&mut self, slot: usize, stream: Unread) {
        if let Some((reader, _)) = self.reader(slot) {
            reader.unread.push(stream);
        }
    }

    /// Takes the frame of a server.
    fn told(
        &mut self,
        env: &Environment,
        slot: usize,
        server: &PeerId,
        body: &[u8],
    ) -> Result<(), String> {
        let now = env.now();
        let notice = decode_notice(body).map_err(|why| why.to_string())?;
        let is_own = *server == env.own;
        let Some((reader, watch)) = self.reader(slot) else {
            return Ok(());
        };
        match notice {
            Some(Notice::CaughtUp) => {
                watch.told(now, server, Word::CaughtUp);
            }
            Some(Notice::Gone(entry)) => {
                let (peer, how) = match entry.subject {
                    Subject::Named { peer, name: "" } if entry.presence == Presence::Left => {
                        (peer, Presence::Alive)
                    }
                    Subject::Named { peer, .. } => (peer, entry.presence),
                    Subject::Signed(envelope) => {
                        let peer = opened(&reader.filter, envelope, is_own)?.record.info.peer;
                        (peer, entry.presence)
                    }
                };
                watch.told(now, server, Word::Gone { peer: &peer, how });
            }
            Some(Notice::Present(entry) | Notice::Changed(entry)) => {
                let Subject::Signed(envelope) = entry.subject else {
                    return Ok(());
                };
                let Opened {
                    record,
                    fingerprint: contents,
                    is_meant,
                } = opened(&reader.filter, envelope, is_own)?;
                let sighting = Sighting {
                    peer: &record.info.peer,
                    name: &record.info.name,
                    sequence: record.info.sequence,
                    contents,
                    is_meant,
                };
                let said = watch.told(now, server, Word::Here(sighting));
                if let Some(said) = said {
                    reader.say(row_of(said, &record, &entry));
                }
                reader.note_full(watch.stats());
            }
            None => {}
        }
        Ok(())
    }

    /// Carries out the steps of the core, for readers and for watchers.
    pub(super) fn pump(&mut self, env: &mut Environment, lookups: &mut Lookups) {
        self.note_servers(env);
        loop {
            self.take_servers(env, lookups);
            let mut looks_up = false;
            for slot in 0..MAX_WATCHES {
                looks_up |= self.advance(env, lookups, slot);
            }
            if !looks_up {
                break;
            }
            lookups.pump(env);
        }
        self.serve(env, env.now());
    }

    /// Notes the servers that this process knows. They are few: natives, and those with leases.
    fn note_servers(&mut self, env: &Environment) {
        if self.readers.iter().all(Option::is_none) {
            return;
        }
        let mut number = 0;
        env.machine.servers(env.now(), &mut |server| {
            let [a, b, c, d, e, f, g, h, ..] = *server.peer.as_bytes();
            number ^= u64::from_be_bytes([a, b, c, d, e, f, g, h]);
        });
        let watches = self.core.watches.iter_mut().zip(&self.readers);
        let watches = watches.filter(|(_, reader)| reader.is_some());
        watches.for_each(|(watch, _)| watch.knows_servers(number));
    }

    /// Takes the servers that were looked up.
    fn take_servers(&mut self, env: &Environment, lookups: &mut Lookups) {
        for (number, servers, are_all) in lookups.take_servers() {
            let is_it = |reader: &Reader| reader.number == number;
            let slot = |reader: &Option<Reader>| reader.as_ref().is_some_and(is_it);
            let Some(slot) = self.readers.iter().position(slot) else {
                continue;
            };
            let servers = known_servers(env, servers);
            if let Some((_, watch)) = self.reader(slot) {
                watch.listed(env.now(), servers.iter().map(|(p, a)| (*p, a)), are_all);
                if watch.unwatched() > 0 {
                    log::warn!(
                        "there are {} more indexers than can be watched",
                        watch.unwatched()
                    );
                }
            }
        }
    }

    /// Carries out the steps of one reader's watch, as long as there is room for its rows.
    /// Returns whether a lookup was begun.
    fn advance(&mut self, env: &mut Environment, lookups: &mut Lookups, slot: usize) -> bool {
        let now = env.now();
        let Some((reader, _)) = self.reader(slot) else {
            return false;
        };
        if reader.parts.is_abandoned() {
            self.end(env, slot);
            return false;
        }
        if !may_read_on(&reader.parts) {
            let since = *reader.behind.get_or_insert(now);
            if now - since >= PATIENCE {
                log::info!("a reader of changes has not read for 10 s, and gets no more");
                if let Some(reader) = self.end(env, slot) {
                    let why =
                        "this reader was behind for 10 s: read faster, or watch with a filter";
                    reader.parts.refuse(why);
                }
            }
            return false;
        }
        reader.behind = None;
        for stream in std::mem::take(&mut reader.unread) {
            match stream {
                Unread::Server(watch) => env.net.watch_on(watch),
                Unread::Own(watcher) => self.core.watchers.written(watcher),
            }
        }
        let mut looks_up = false;
        while let Some((reader, watch)) = self.reader(slot)
            && may_read_on(&reader.parts)
            && let Some(step) = watch.poll(now)
        {
            match step {
                WatchStep::List => {
                    let number = reader.number;
                    if lookups.servers_for_watch(env, number) {
                        looks_up = true;
                    } else {
                        let servers = known_servers(env, Vec::new());
                        watch.listed(now, servers.iter().map(|(p, a)| (*p, a)), false);
                    }
                }
                WatchStep::Open { server, addrs } => self.open(env, slot, server, &addrs),
                WatchStep::Gone {
                    peer,
                    name,
                    how,
                    ago,
                } => reader.say(gone_row(&peer, &name, how, ago)),
                WatchStep::CaughtUp { blind } => {
                    let silent = watch.silent().map(text).collect();
                    reader.parts.send(Part::CaughtUp(Box::new(CaughtUp {
                        event: WatchEventName::CaughtUp,
                        blind_ms: millis(blind),
                        silent,
                    })));
                }
            }
        }
        looks_up
    }

    fn open(&mut self, env: &mut Environment, slot: usize, server: PeerId, addrs: &Addrs) {
        let old = |_: &WatchId, of: &mut (usize, PeerId)| *of == (slot, server);
        for (watch, _) in self.streams.extract_if(old) {
            env.net.unwatch(watch);
        }
        let Some((reader, _)) = self.reader(slot) else {
            return;
        };
        let filter = reader.filter.clone();
        if server == env.own {
            self.core.watchers.leave(own_id(slot));
            let (id, changes) = (own_id(slot), env.machine.changes());
            if !self.core.watchers.join(id, None, filter, changes)
                && let Some((_, watch)) = self.reader(slot)
            {
                watch.ended(env.now(), &server);
            }
            return;
        }
        self.next += 1;
        let id = WatchId(self.next);
        self.streams.insert(id, (slot, server));
        env.net.watch(server, addrs, id, &filter);
    }

    /// Sends watchers their next batches. A reader here takes one batch, and the next one in
    /// the next turn of the loop.
    fn serve(&mut self, env: &mut Environment, now: Instant) {
        loop {
            let WatchTables {
                watchers, batch, ..
            } = &mut *self.core;
            let Some(step) = watchers.poll(now, &*env.machine, batch) else {
                return;
            };
            let (ServeStep::Tell(id) | ServeStep::Close(id)) = step;
            let slot = (0..MAX_WATCHES).find(|slot| own_id(*slot) == id);
            let own = env.own;
            match (step, slot) {
                (ServeStep::Tell(id), None) => env.net.tell_watcher(id, batch),
                (ServeStep::Close(id), None) => env.net.dismiss_watcher(id),
                (ServeStep::Tell(id), Some(slot)) => {
                    let frames = batch.clone();
                    for body in bodies(&frames) {
                        // Frames of this process can be read, and its records are verified.
                        let _ = self.told(env, slot, &own, body);
                    }
                    self.leave_unread(slot, Unread::Own(id));
                }
                (ServeStep::Close(_), Some(slot)) => {
                    if let Some((_, watch)) = self.reader(slot) {
                        watch.ended(now, &own);
                    }
                }
            }
        }
    }

    /// Ends a reader's watch, and returns the reader.
    fn end(&mut self, env: &mut Environment, slot: usize) -> Option<Reader> {
        for (watch, _) in self.streams.extract_if(|_, (of, _)| *of == slot) {
            env.net.unwatch(watch);
        }
        self.core.watchers.leave(own_id(slot));
        if let Some(watch) = self.core.watches.get_mut(slot) {
            self.unplaced += watch.stats().refused;
            watch.start(env.now(), 0, Presence::Lost);
        }
        self.readers.get_mut(slot)?.take()
    }

    /// The process did not run for this time.
    pub(super) fn overslept(&mut self, now: Instant, gap: Duration) {
        let watches = self.core.watches.iter_mut();
        watches.for_each(|watch| watch.overslept(now, gap));
    }

    /// When [`Watches::pump`] has a step without an event.
    pub(super) fn timeout(&self) -> Option<Instant> {
        let readers = self.readers.iter().zip(&self.core.watches);
        let due = readers.filter_map(|(reader, watch)| {
            let reader = reader.as_ref()?;
            match reader.behind {
                Some(since) => Some(since + PATIENCE),
                None if reader.has_own() => Some(Instant::default()),
                None => watch.timeout(),
            }
        });
        due.chain(self.core.watchers.timeout()).min()
    }

    /// The unused memory of the watches.
    pub(super) fn spare(&mut self) -> impl Iterator<Item = Vacant<'_>> {
        self.core.watches.iter_mut().map(ProgramWatch::spare)
    }

    /// The statistics for `status`.
    pub(super) fn stats(&self) -> [TableStats; 4] {
        let watches = TableStats {
            name: "watches",
            used: self.readers.iter().flatten().count(),
            capacity: MAX_WATCHES,
            refused: self.refused,
            evicted: 0,
        };
        let streams = TableStats {
            name: "watch_streams",
            used: self.streams.len(),
            capacity: MAX_WATCHES * MAX_SERVERS,
            refused: 0,
            evicted: 0,
        };
        // Of several watches, the one that knows most; refused were nodes of all.
        let each = || self.core.watches.iter().map(ProgramWatch::stats);
        let most = each().max_by_key(|stats| stats.used);
        let mut watched = most.unwrap_or(watches);
        watched.refused = self.unplaced + each().map(|stats| stats.refused).sum::<u64>();
        [watches, streams, watched, self.core.watchers.stats()]
    }
}

impl Reader {
    /// Sends a row, if its state is asked for. There is room.
    fn say(&self, row: WatchRow) {
        let is_meant = |states: &Vec<NodeState>| states.is_empty() || states.contains(&row.state);
        if self.states.as_ref().is_none_or(is_meant) {
            self.parts.send(Part::Change(Box::new(row)));
        }
    }

    /// Whether a batch of the own directory was taken, and there may be another.
    fn has_own(&self) -> bool {
        let is_own = |stream: &Unread| matches!(stream, Unread::Own(_));
        self.unread.iter().any(is_own)
    }

    /// Logs once that there are more nodes than fit.
    fn note_full(&mut self, stats: TableStats) {
        if stats.refused > 0 && !self.is_full {
            self.is_full = true;
            log::warn!(
                "there are more than {} nodes: of the others a watch does not say that they are gone; build with a \
                 larger OC_DISCOVERY_MAX_WATCHED, or watch with a filter",
                stats.capacity
            );
        }
    }
}

/// Whether frames of servers may be read. This becomes true again when the loop is told of room,
/// and not one part later.
fn may_read_on(parts: &Parts) -> bool {
    parts.room() >= RESERVE
}

fn own_id(slot: usize) -> WatcherId {
    WatcherId(OWN | slot as u64)
}

/// The bodies of whole frames.
fn bodies(mut frames: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (head, length) = header(frames, MAX_FRAME).ok()??;
        let (frame, rest) = frames.split_at_checked(head + length)?;
        frames = rest;
        frame.get(head..)
    })
}

/// The record of a notice.
struct Opened {
    record: OpenRecord,
    fingerprint: u64,
    /// The reader's filter selects it.
    is_meant: bool,
}

/// A record of the own directory was verified when it was listed.
fn opened(filter: &Filter, envelope: &[u8], is_own: bool) -> Result<Opened, String> {
    let contents = contents(Kind::Node, envelope).ok_or("it is no record of a node")?;
    let record = match is_own {
        true => envelope::opened(&contents),
        false => open_node(envelope).map_err(|why| why.to_string())?,
    };
    Ok(Opened {
        record,
        fingerprint: fingerprint(&contents),
        is_meant: filter.admits(&contents),
    })
}

/// The servers that may list nodes: this process, those that it knows, and the indexers that were
/// found.
fn known_servers(env: &Environment, indexers: Vec<(PeerId, Addrs)>) -> Vec<(PeerId, Addrs)> {
    let mut servers = Vec::new();
    if env.machine.role() != Role::Node {
        servers.push((env.own, Addrs::new()));
    }
    env.machine.servers(env.now(), &mut |server| {
        let addrs = env.machine.addrs_of(&server.peer);
        servers.push((server.peer, addrs.cloned().unwrap_or_default()));
    });
    servers.extend(indexers);
    servers
}

fn row_of(said: Said, record: &OpenRecord, entry: &Entry<'_>) -> WatchRow {
    WatchRow {
        event: match said {
            Said::Present => WatchEventName::Present,
            Said::Changed => WatchEventName::Changed,
            Said::Excluded => WatchEventName::Left,
        },
        name: record.info.name.as_str().into(),
        peer_id: text(&record.info.peer),
        state: NodeState::Alive,
        last_beat_ms: millis(entry.age),
        addresses: record.addrs.iter().map(ToString::to_string).collect(),
        services: report::services(&record.about),
        tags: report::tags(&record.about),
        version: record.version.clone(),
    }
}

/// What the reader asks for, in the words of the protocol.
pub(super) fn filter_of(query: &NodeQuery) -> Result<Filter, String> {
    let service = match &query.service {
        Some(name) => Some(to_service_name(name).ok_or("a service has 1 to 15 of a-z 0-9 -")?),
        None => None,
    };
    let prefix = Name::try_from(query.name.as_deref().unwrap_or_default());
    let prefix = prefix.map_err(|_| "a name has at most 63 bytes")?;
    let mut filter = Filter::new(service, prefix);
    for (key, value) in query.tags.iter().flatten() {
        let with_tag = filter.with_tag(key, value);
        filter = with_tag.map_err(|_| "tags are at most 8, and 256 bytes in all")?;
    }
    Ok(filter)
}

fn gone_row(peer: &PeerId, name: &Name, how: Presence, ago: Duration) -> WatchRow {
    let (event, state) = match how {
        Presence::Lost => (WatchEventName::Lost, NodeState::Lost),
        Presence::Alive | Presence::Left => (WatchEventName::Left, NodeState::Left),
    };
    WatchRow {
        event,
        name: name.as_str().into(),
        peer_id: text(peer),
        state,
        last_beat_ms: millis(ago),
        addresses: Vec::new(),
        services: Vec::new(),
        tags: Default::default(),
        version: String::new(),
    }
}

#[cfg(test)]
mod tests;
