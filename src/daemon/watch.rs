//! Watches between the core, which decides what is reported, and the network: notifications of
//! servers become rows for the readers here, and the directory of this process becomes frames for
//! its watchers.
//!
//! [`Watches::events`] is the only entry, for `oc-discovery watch` and for all other code that
//! follows changes.
//!
//! Invariants: the loop never waits for a reader or a watcher. A reader that is behind leaves the
//! frames of its servers unread, and loses its watch after [`READER_PATIENCE`]; a watcher that is
//! behind is closed by the core. Bounds: [`MAX_WATCHES`] readers, each with one stream to each
//! server.

mod reader;
mod rows;

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use self::{
    reader::{Reader, Unread, may_read_on},
    rows::{bodies, gone_row},
};
use super::{
    environment::Environment,
    lookup::Lookups,
    machines::{MAX_WATCHES, ProgramWatch, WatchTables},
    report::text,
    request::Parts,
    status::NodeQuery,
};
use crate::{
    net::WatchEvent,
    protocol::{
        Addrs, Filter, Instant, PeerId, Presence, Role, TableStats,
        codec::watch::decode_ask,
        table::Vacant,
        watch::{
            WatchId, WatcherId,
            client::{Extent, MAX_WATCHED_SERVERS, WatchStep},
            server::{READER_PATIENCE, ServeStep},
        },
    },
};
pub(super) use rows::filter_of;

/// The number of the stream on which a watch reads the own directory is this and its slot.
const OWN: u64 = 1 << 63;

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
    ///
    /// Returns the peer that sent what cannot be read, and why.
    pub(super) fn on_event(
        &mut self,
        env: &mut Environment,
        event: WatchEvent,
    ) -> Option<(PeerId, String)> {
        let watchers = &mut self.core.watchers;
        match event {
            WatchEvent::Asked {
                watcher,
                peer,
                body,
            } => {
                let (now, changes) = (env.now(), env.machine().changes());
                let asked = decode_ask(&body)
                    .map(|filter| watchers.join(now, watcher, Some(peer), filter, changes));
                if asked != Ok(true) {
                    env.net.dismiss_watcher(watcher);
                }
                return asked.err().map(|why| (peer, why.to_string()));
            }
            WatchEvent::Written { watcher } => watchers.written(watcher),
            WatchEvent::Left { watcher, peer, why } => {
                watchers.leave(watcher);
                return why.map(|why| (peer, why));
            }
            WatchEvent::Told { watch, body } => {
                let (slot, server) = self.streams.get(&watch).copied()?;
                let (reader, core) = self.reader(slot)?;
                match reader.take(core, env.now(), (&server, false), &body) {
                    Ok(()) => self.leave_unread(slot, Unread::Server(watch)),
                    Err(why) => {
                        env.net.unwatch(watch);
                        self.ended(env, watch);
                        return Some((server, why.to_string()));
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
        None
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

    /// Carries out the steps of the core, for readers and for watchers. Returns whether a lookup was
    /// begun, so that the endpoint must be polled again.
    pub(super) fn pump(&mut self, env: &mut Environment, lookups: &mut Lookups) -> bool {
        self.note_servers(env);
        self.take_servers(env, lookups);
        let mut looks_up = false;
        for slot in 0..MAX_WATCHES {
            looks_up |= self.advance(env, lookups, slot);
        }
        self.serve(env, env.now());
        looks_up
    }

    /// Notes the servers that this process knows. They are few: natives, and those with leases.
    fn note_servers(&mut self, env: &Environment) {
        if self.readers.iter().all(Option::is_none) {
            return;
        }
        let mut number = 0;
        env.machine().servers(env.now(), &mut |server| {
            let [a, b, c, d, e, f, g, h, ..] = *server.peer.as_bytes();
            number ^= u64::from_be_bytes([a, b, c, d, e, f, g, h]);
        });
        let watches = self.core.watches.iter_mut().zip(&self.readers);
        let watches = watches.filter(|(_, reader)| reader.is_some());
        watches.for_each(|(watch, _)| watch.knows_servers(number));
    }

    /// Takes the servers that were looked up.
    fn take_servers(&mut self, env: &Environment, lookups: &mut Lookups) {
        for (number, servers, extent) in lookups.take_servers() {
            let is_it = |reader: &Reader| reader.number == number;
            let slot = |reader: &Option<Reader>| reader.as_ref().is_some_and(is_it);
            let Some(slot) = self.readers.iter().position(slot) else {
                continue;
            };
            let servers = known_servers(env, servers);
            if let Some((_, watch)) = self.reader(slot) {
                let servers = servers.iter().map(|(peer, addrs)| (*peer, addrs));
                watch.listed(env.now(), servers, extent);
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
            if now - since >= READER_PATIENCE {
                let limit = READER_PATIENCE.as_secs();
                log::info!("a reader of changes has not read for {limit} s, and gets no more");
                if let Some(reader) = self.end(env, slot) {
                    reader.parts.refuse(&format!(
                        "this reader was behind for {limit} s: read faster, or watch with a filter"
                    ));
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
                        let servers = servers.iter().map(|(peer, addrs)| (*peer, addrs));
                        watch.listed(now, servers, Extent::Part);
                    }
                }
                WatchStep::Open { server, addrs } => self.open(env, slot, server, &addrs),
                WatchStep::Gone {
                    peer,
                    name,
                    how,
                    ago,
                } => reader.say(gone_row(&peer, &name, how, ago)),
                WatchStep::CaughtUp { blind } => reader.say_caught_up(watch, blind),
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
            let (id, changes) = (own_id(slot), env.machine().changes());
            if !self
                .core
                .watchers
                .join(env.now(), id, None, filter, changes)
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
            let Some(step) = watchers.poll(now, env.machine(), batch) else {
                return;
            };
            let (ServeStep::Tell(id) | ServeStep::Close(id)) = step;
            let slot = (0..MAX_WATCHES).find(|slot| own_id(*slot) == id);
            let own = env.own;
            match (step, slot) {
                (ServeStep::Tell(id), None) => env.net.tell_watcher(id, batch),
                (ServeStep::Close(id), None) => env.net.dismiss_watcher(id),
                (ServeStep::Tell(id), Some(slot)) => {
                    let place = self.readers.get_mut(slot).and_then(Option::as_mut);
                    if let (Some(reader), Some(watch)) = (place, self.core.watches.get_mut(slot)) {
                        for body in bodies(&self.core.batch) {
                            // Frames of this process can be read, and its records are verified.
                            let _ = reader.take(watch, now, (&own, true), body);
                        }
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
                Some(since) => Some(since + READER_PATIENCE),
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
            capacity: MAX_WATCHES * MAX_WATCHED_SERVERS,
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

fn own_id(slot: usize) -> WatcherId {
    WatcherId(OWN | slot as u64)
}

/// The servers that may list nodes: this process, those that it knows, and the indexers that were
/// found; each once.
fn known_servers(env: &Environment, indexers: Vec<(PeerId, Addrs)>) -> BTreeMap<PeerId, Addrs> {
    let mut servers: BTreeMap<_, _> = indexers.into_iter().collect();
    env.machine().servers(env.now(), &mut |server| {
        let addrs = env.machine().addrs_of(&server.peer);
        servers.insert(server.peer, addrs.cloned().unwrap_or_default());
    });
    if env.machine().role() != Role::Node {
        servers.insert(env.own, Addrs::new());
    }
    servers
}

#[cfg(test)]
mod tests;
