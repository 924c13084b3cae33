//! Changes as they happen.

use std::time::Duration;

use crate::daemon::{
    request::{Part, Reading},
    status::{NodeRow, WatchEventName, WatchRow},
};

use super::Error;

/// What a [`Watch`] tells.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The node is there: it was when the watch began, or has come since.
    Present(NodeRow),
    /// Its name, addresses, services, tags or version have changed.
    Changed(NodeRow),
    /// It gave its leases up, or the filter no longer selects it: then its state is
    /// [`NodeState::Alive`](super::NodeState::Alive).
    Left(NodeRow),
    /// Its leases ran out.
    Lost(NodeRow),
    /// All servers have said which nodes they have, except the silent ones. It comes after the
    /// nodes that were there when the watch began, and again after a time in which a server was not
    /// heard.
    #[non_exhaustive]
    CaughtUp {
        /// For how long a server was not heard. Changes of that time have been told by now, except
        /// those that were undone meanwhile.
        blind: Duration,
        /// The peer ids of the servers that are not heard.
        silent: Vec<String>,
        /// Servers for which there was no place: their nodes are not told of.
        unwatched: u16,
        /// How often there was no room for a node. The end of such a node is not reported.
        untracked: u64,
    },
}

/// The nodes that a filter selects, as they come, change and go. When it is dropped, it ends. It
/// counts as a clone of its [`Discovery`](super::Discovery).
///
/// Invariants: at most 320 events wait for their reader; while half of them wait, the process reads
/// no further changes from the servers, and does not wait; after 10 s of this the watch ends with
/// [`Error::Behind`].
#[derive(Debug)]
pub struct Watch {
    reading: Reading,
    /// Why it has ended.
    over: Option<Error>,
}

impl Watch {
    pub(super) fn new(reading: Reading) -> Self {
        Self {
            reading,
            over: None,
        }
    }

    /// The next event. It may take any time. After an error there is no other event. No event is
    /// lost if the future is dropped before it is ready.
    ///
    /// # Errors
    /// [`Error::Busy`], [`Error::Behind`], [`Error::Closed`].
    pub async fn next(&mut self) -> Result<Event, Error> {
        loop {
            if let Some(error) = &self.over {
                return Err(error.clone());
            }
            match self.reading.next().await {
                Some(Ok(part)) => {
                    if let Some(event) = event_of(part) {
                        return Ok(event);
                    }
                }
                Some(Err(why)) if why.again == Some(true) => self.over = Some(Error::Busy),
                _ if self.reading.is_ending() => self.over = Some(Error::Closed),
                _ => self.over = Some(Error::Behind),
            }
        }
    }
}

fn event_of(part: Part) -> Option<Event> {
    match part {
        Part::Change(row) => change_of(*row),
        Part::CaughtUp(word) => Some(Event::CaughtUp {
            blind: Duration::from_millis(word.blind_ms),
            silent: word.silent,
            unwatched: word.unwatched,
            untracked: word.untracked,
        }),
        Part::Row(_) | Part::Tally(_) => None,
    }
}

fn change_of(row: WatchRow) -> Option<Event> {
    let (event, row) = row.split();
    match event {
        WatchEventName::Present => Some(Event::Present(row)),
        WatchEventName::Changed => Some(Event::Changed(row)),
        WatchEventName::Left => Some(Event::Left(row)),
        WatchEventName::Lost => Some(Event::Lost(row)),
        WatchEventName::CaughtUp => None,
    }
}

#[cfg(test)]
mod tests {
    use smol::{channel::bounded, future::block_on};

    use super::*;
    use crate::daemon::{
        request::{self, CallEvent, MAX_PARTS},
        status::{CaughtUp, NodeQuery},
    };

    fn word(blind_ms: u64) -> Part {
        Part::CaughtUp(Box::new(CaughtUp {
            event: WatchEventName::CaughtUp,
            blind_ms,
            silent: Vec::new(),
            unwatched: 2,
            untracked: 3,
        }))
    }

    #[test]
    fn reader_that_was_behind_reads_what_waited_and_is_told_then() {
        let (events, asked) = bounded(8);
        let reading = block_on(request::watch(&events, NodeQuery::default())).unwrap();
        let CallEvent::MadeInParts(_, parts) = asked.try_recv().unwrap() else {
            panic!("it is answered in parts");
        };
        // The loop never waits: it is told that there is no room.
        let fits = (0..).take_while(|&ms| parts.send(word(ms))).count();
        assert_eq!(fits, MAX_PARTS);
        let mut watch = Watch::new(reading);
        let mut next = || block_on(watch.next());
        let blind = |ms| Event::CaughtUp {
            blind: Duration::from_millis(ms),
            silent: Vec::new(),
            unwatched: 2,
            untracked: 3,
        };
        for ms in 0..MAX_PARTS as u64 / 2 {
            assert!(asked.is_empty(), "{ms}");
            assert_eq!(next(), Ok(blind(ms)));
        }
        // Half of them are read: the loop is called once.
        assert!(matches!(asked.try_recv(), Ok(CallEvent::Room)));
        parts.refuse("this reader was behind");
        for ms in MAX_PARTS as u64 / 2..MAX_PARTS as u64 {
            assert_eq!(next(), Ok(blind(ms)));
        }
        assert_eq!(next(), Err(Error::Behind));
        assert_eq!(next(), Err(Error::Behind));
    }

    #[test]
    fn watch_that_is_dropped_tells_the_loop() {
        let (events, asked) = bounded(8);
        let reading = block_on(request::watch(&events, NodeQuery::default())).unwrap();
        let CallEvent::MadeInParts(_, parts) = asked.try_recv().unwrap() else {
            panic!("it is answered in parts");
        };
        assert!(!parts.is_abandoned() && asked.is_empty());
        drop(Watch::new(reading));
        assert!(parts.is_abandoned());
        assert!(matches!(asked.try_recv(), Ok(CallEvent::Left)));
    }
}
