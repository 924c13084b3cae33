//! Watches between the core, which decides what is reported, and the network: what the core says of
//! nodes becomes rows for the readers here, and its frames go to the watchers of this process.
//!
//! [`Watches::events`] is the only entry, for `oc-discovery watch` and for all other code that
//! follows changes.
//!
//! Invariant: the loop never waits for a reader or a watcher. The core is told at each turn whether
//! a reader has room, and says no more than fits.

mod rows;

use std::collections::HashMap;

use self::rows::{caught_up_row, gone_row, row_of};
use super::{
    environment::Environment,
    machines::MAX_WATCHES,
    report::text,
    request::{MAX_PARTS, Part, Parts},
    status::{NodeQuery, NodeState, WatchRow},
};
use crate::{
    net::{WatchEvent, envelope::Libp2p},
    protocol::{
        Addrs, Instant, PeerId, TableStats,
        codec::watch::decode_ask,
        watch::{
            ChangedNode, ReaderId, WatchAction, WatchId, client::MAX_WATCHED_SERVERS,
            server::READER_PATIENCE,
        },
    },
};
pub(super) use rows::filter_of;

/// Parts that are free while a reader has room: as many as may still come after that, one from each
/// server and a batch of the own directory.
const RESERVE: usize = MAX_PARTS / 2;

/// A reader.
struct Reader {
    id: ReaderId,
    states: Option<Vec<NodeState>>,
    parts: Parts,
}

/// The readers of this process, and their streams.
#[derive(Default)]
pub(super) struct Watches {
    readers: Vec<Reader>,
    /// The reader and the server of each own stream.
    streams: HashMap<WatchId, (ReaderId, PeerId)>,
    next: u64,
}

impl Watches {
    /// Reports the selected nodes, and each change, until the reader leaves.
    pub(super) fn events(&mut self, env: &mut Environment, query: NodeQuery, parts: Parts) {
        let filter = match filter_of(&query) {
            Ok(filter) => filter,
            Err(why) => return parts.refuse(&why),
        };
        let seed = getrandom::u64().unwrap_or(self.next);
        let states = query.states.filter(|states| !states.is_empty());
        let now = env.now();
        match env.endpoint.watches_mut().read(now, seed, filter) {
            Some(id) => self.readers.push(Reader { id, states, parts }),
            None => parts.refuse_for_now(&format!(
                "{MAX_WATCHES} watches are open already: close one, or try again"
            )),
        }
    }

    /// Something happened on a watch stream.
    ///
    /// Returns the peer that sent what cannot be read, and why.
    pub(super) fn on_event(
        &mut self,
        env: &mut Environment,
        event: WatchEvent,
    ) -> Option<(PeerId, String)> {
        let now = env.now();
        let watches = env.endpoint.watches_mut();
        match event {
            WatchEvent::Asked {
                watcher,
                peer,
                body,
            } => {
                let asked = decode_ask(&body)
                    .map(|filter| env.endpoint.watched_by(now, (peer, watcher), filter));
                if asked != Ok(true) {
                    env.net.dismiss_watcher(watcher);
                }
                return asked.err().map(|why| (peer, why.to_string()));
            }
            WatchEvent::Written { watcher } => watches.watchers().written(watcher),
            WatchEvent::Left { watcher, peer, why } => {
                watches.watchers().leave(watcher);
                return why.map(|why| (peer, why));
            }
            WatchEvent::Told { watch, body } => {
                let (reader, server) = self.streams.get(&watch).copied()?;
                let to = self.reader(reader)?;
                let of = (reader, &server);
                let say = &mut |node: &ChangedNode<'_>| to.say(row_of(node));
                let told = env.endpoint.told(now, of, &body, &Libp2p, say);
                to.note_room(env, now);
                if let Err(why) = told {
                    env.net.unwatch(watch);
                    self.streams.remove(&watch);
                    return Some((server, why.to_string()));
                }
            }
            WatchEvent::Ended { watch, why } => {
                if let Some((reader, server)) = self.streams.remove(&watch) {
                    log::debug!("the watch of {} is over: {why}", text(&server));
                    watches.ended(now, (reader, &server));
                }
            }
        }
        None
    }

    /// Tells the core which readers have left, and which have room.
    pub(super) fn note_readers(&mut self, env: &mut Environment) {
        let now = env.now();
        let has_left = |reader: &mut Reader| reader.parts.is_abandoned();
        let left: Vec<_> = self.readers.extract_if(.., has_left).collect();
        for reader in left {
            env.endpoint.watches_mut().leave(now, reader.id);
            self.end_streams(env, reader.id);
        }
        let readers = self.readers.iter();
        readers.for_each(|reader| reader.note_room(env, now));
    }

    /// Carries out an action of the core that is about a watch.
    pub(super) fn perform(&mut self, env: &mut Environment, action: WatchAction) {
        let now = env.now();
        match action {
            WatchAction::Open {
                reader,
                server,
                addrs,
            } => self.open(env, (reader, server), &addrs),
            WatchAction::ReadOn { reader, server } => {
                let of = (reader, server);
                if let Some((watch, _)) = self.streams.iter().find(|(_, it)| **it == of) {
                    env.net.watch_on(*watch);
                }
            }
            WatchAction::Behind { reader } => self.refuse(env, reader),
            WatchAction::Notify { watcher } => {
                let frames = env.endpoint.watches().frames();
                env.net.tell_watcher(watcher, frames);
            }
            WatchAction::Dismiss { watcher } => env.net.dismiss_watcher(watcher),
            WatchAction::Hear { reader } => {
                if let Some(to) = self.reader(reader) {
                    let watches = env.endpoint.watches_mut();
                    watches.hear_own(now, reader, &mut |node| to.say(row_of(node)));
                    to.note_room(env, now);
                }
            }
            WatchAction::Gone {
                reader,
                ref peer,
                ref name,
                how,
                ago,
            } => {
                if let Some(to) = self.reader(reader) {
                    to.say(gone_row(peer, name, how, ago));
                    to.note_room(env, now);
                }
            }
            WatchAction::CaughtUp { reader, blind } => {
                let watch = env.endpoint.watches().of(reader);
                if let Some((to, (_, watch))) = self.reader(reader).zip(watch) {
                    to.parts.send(caught_up_row(watch, blind));
                    to.note_room(env, now);
                }
            }
        }
    }

    fn reader(&self, id: ReaderId) -> Option<&Reader> {
        self.readers.iter().find(|reader| reader.id == id)
    }

    fn open(&mut self, env: &mut Environment, of: (ReaderId, PeerId), addrs: &Addrs) {
        for (watch, _) in self.streams.extract_if(|_, other| *other == of) {
            env.net.unwatch(watch);
        }
        if let Some((filter, _)) = env.endpoint.watches().of(of.0) {
            self.next += 1;
            let watch = WatchId(self.next);
            self.streams.insert(watch, of);
            env.net.watch(of.1, addrs, watch, filter);
        }
    }

    fn end_streams(&mut self, env: &mut Environment, reader: ReaderId) {
        for (watch, _) in self.streams.extract_if(|_, (of, _)| *of == reader) {
            env.net.unwatch(watch);
        }
    }

    /// The watch of a reader that was behind is over.
    fn refuse(&mut self, env: &mut Environment, id: ReaderId) {
        let limit = READER_PATIENCE.as_secs();
        log::info!("a reader of changes has not read for {limit} s, and gets no more");
        self.end_streams(env, id);
        for reader in self.readers.extract_if(.., |reader| reader.id == id) {
            reader.parts.refuse(&format!(
                "this reader was behind for {limit} s: read faster, or watch with a filter"
            ));
        }
    }

    /// The statistics for `status`.
    pub(super) fn stats(&self, env: &Environment) -> [TableStats; 4] {
        let [watches, watched, watchers] = env.endpoint.watches().stats();
        let streams = TableStats {
            name: "watch_streams",
            used: self.streams.len(),
            capacity: MAX_WATCHES * MAX_WATCHED_SERVERS,
            refused: 0,
            evicted: 0,
        };
        [watches, streams, watched, watchers]
    }
}

impl Reader {
    /// Sends a row, if its state is asked for. There is room.
    fn say(&self, row: WatchRow) {
        let is_meant = |states: &Vec<NodeState>| states.contains(&row.state);
        if self.states.as_ref().is_none_or(is_meant) {
            self.parts.send(Part::Change(Box::new(row)));
        }
    }

    fn note_room(&self, env: &mut Environment, now: Instant) {
        let watches = env.endpoint.watches_mut();
        match may_read_on(&self.parts) {
            true => watches.has_room(self.id),
            false => watches.has_no_room(now, self.id),
        }
    }
}

/// Whether the reader has room. This becomes true again when the loop is told of room, and not one
/// part later.
fn may_read_on(parts: &Parts) -> bool {
    parts.room() >= RESERVE
}

#[cfg(test)]
mod tests;
