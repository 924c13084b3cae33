//! A reader of a watch: what servers say becomes rows for it, if it asks for them.

use std::time::Duration;

use super::rows::{Opened, opened, row_of};
use crate::{
    daemon::{
        machines::ProgramWatch,
        nodes::millis,
        report::text,
        request::{MAX_PARTS, Part, Parts},
        status::{CaughtUp, NodeState, WatchEventName, WatchRow},
    },
    protocol::{
        Filter, Instant, PeerId, Presence, Subject,
        codec::watch::{Notice, decode_notice},
        watch::{
            WatchId, WatcherId,
            client::{Sighting, Statement},
        },
    },
};

/// Parts that are free while frames of servers are read: as many as may still come after that, one
/// from each server and a batch of the own directory.
const RESERVE: usize = MAX_PARTS / 2;

/// One reader.
pub(super) struct Reader {
    /// Names the watch in the lookup of its servers.
    pub(super) number: u64,
    pub(super) filter: Filter,
    pub(super) states: Option<Vec<NodeState>>,
    pub(super) parts: Parts,
    /// Streams with a next frame that is left unread.
    pub(super) unread: Vec<Unread>,
    /// Since when there is no room.
    pub(super) behind: Option<Instant>,
}

/// A stream with a next frame that is left unread.
pub(super) enum Unread {
    Server(WatchId),
    Own(WatcherId),
}

impl Reader {
    /// Takes the frame of a server. `is_own`: the server is this process.
    pub(super) fn take(
        &self,
        watch: &mut ProgramWatch,
        now: Instant,
        (server, is_own): (&PeerId, bool),
        body: &[u8],
    ) -> Result<(), String> {
        let notice = decode_notice(body).map_err(|why| why.to_string())?;
        match notice {
            Some(Notice::CaughtUp) => {
                watch.hear(now, server, Statement::CaughtUp);
            }
            Some(Notice::Gone(entry)) => {
                let (peer, how) = match entry.subject {
                    Subject::Named { peer, name: "" } if entry.presence == Presence::Left => {
                        (peer, Presence::Alive)
                    }
                    Subject::Named { peer, .. } => (peer, entry.presence),
                    Subject::Signed(envelope) => {
                        let peer = opened(&self.filter, envelope, is_own)?.record.info.peer;
                        (peer, entry.presence)
                    }
                };
                watch.hear(now, server, Statement::Gone { peer: &peer, how });
            }
            Some(Notice::Present(entry) | Notice::Changed(entry)) => {
                let Subject::Signed(envelope) = entry.subject else {
                    return Ok(());
                };
                let Opened {
                    record,
                    fingerprint: contents,
                    is_meant,
                } = opened(&self.filter, envelope, is_own)?;
                let sighting = Sighting {
                    peer: &record.info.peer,
                    name: &record.info.name,
                    sequence: record.info.sequence,
                    contents,
                    is_meant,
                };
                let said = watch.hear(now, server, Statement::Here(sighting));
                if let Some(said) = said {
                    self.say(row_of(said, &record, &entry));
                }
            }
            None => {}
        }
        Ok(())
    }

    /// Says that all servers have caught up, except the silent ones.
    pub(super) fn say_caught_up(&self, watch: &ProgramWatch, blind: Duration) {
        self.parts.send(Part::CaughtUp(Box::new(CaughtUp {
            event: WatchEventName::CaughtUp,
            blind_ms: millis(blind),
            silent: watch.silent().map(text).collect(),
            unwatched: watch.unwatched(),
            untracked: watch.untracked(),
        })));
    }

    /// Sends a row, if its state is asked for. There is room.
    pub(super) fn say(&self, row: WatchRow) {
        let is_meant = |states: &Vec<NodeState>| states.is_empty() || states.contains(&row.state);
        if self.states.as_ref().is_none_or(is_meant) {
            self.parts.send(Part::Change(Box::new(row)));
        }
    }

    /// Whether a batch of the own directory was taken, and there may be another.
    pub(super) fn has_own(&self) -> bool {
        let is_own = |stream: &Unread| matches!(stream, Unread::Own(_));
        self.unread.iter().any(is_own)
    }
}

/// Whether frames of servers may be read. This becomes true again when the loop is told of room,
/// and not one part later.
pub(super) fn may_read_on(parts: &Parts) -> bool {
    parts.room() >= RESERVE
}
