//! Connections that a server of this process takes: a fixed number of places.
//!
//! Invariants: there are at most [`MAX_CONNECTIONS`]; a new connection takes the place of the one
//! that has been idle for the longest, so that no client can hold all places (RFC 7766, section
//! 6.2.3).

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    io,
    net::SocketAddr,
    rc::Rc,
};

use smol::{
    channel::{Sender, bounded},
    future::{or, yield_now},
};

use super::Error;
use crate::protocol::TableStats;

/// Connections of one server at most.
pub(super) const MAX_CONNECTIONS: usize = 16;

/// Why a server has no socket at the address that its option names, and what to do.
pub(super) fn cannot_answer(what: &str, at: SocketAddr, error: &io::Error) -> Error {
    let advice = match error.kind() {
        io::ErrorKind::AddrInUse => {
            "another process has this port: end that one, or give another port"
        }
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 are for root: give another port, or the capability \
             CAP_NET_BIND_SERVICE"
        }
        _ => "give an address of this host",
    };
    Error::new(format!("cannot answer {what} {at}: {error}; {advice}"))
}

/// The connections of one server.
pub(super) struct Connections {
    name: &'static str,
    used: Rc<Cell<usize>>,
    /// Those that wait for a request, the one that waits the longest first. Each ends when its
    /// channel is closed.
    idle: RefCell<VecDeque<Sender<()>>>,
    refused: Cell<u64>,
    evicted: Cell<u64>,
}

impl Connections {
    /// No connections yet, of a table with this name.
    pub(super) fn new(name: &'static str) -> Self {
        Self {
            name,
            used: Rc::default(),
            idle: RefCell::default(),
            refused: Cell::new(0),
            evicted: Cell::new(0),
        }
    }

    /// A place for one more; `None`: all are taken, and none of them is idle.
    pub(super) async fn place(&self) -> Option<Place> {
        if self.used.get() >= MAX_CONNECTIONS {
            let Some(longest) = self.idle.borrow_mut().pop_front() else {
                count(&self.refused);
                return None;
            };
            longest.close();
            count(&self.evicted);
            // Its task ends in its next turn.
            while self.used.get() >= MAX_CONNECTIONS {
                yield_now().await;
            }
        }
        Place::take(&self.used, MAX_CONNECTIONS)
    }

    /// What the connection receives. It ends with an error if another connection needs its place.
    pub(super) async fn while_idle<T>(
        &self,
        received: impl Future<Output = io::Result<T>>,
    ) -> io::Result<T> {
        let (end, ended) = bounded(1);
        self.idle.borrow_mut().push_back(end.clone());
        let ended = async {
            // Nothing is ever sent: it is closed.
            let _ = ended.recv().await;
            Err(io::ErrorKind::ConnectionAborted.into())
        };
        let received = or(ended, received).await;
        self.idle
            .borrow_mut()
            .retain(|other| !other.same_channel(&end));
        received
    }

    /// The statistics for `status`.
    pub(super) fn stats(&self) -> TableStats {
        TableStats {
            name: self.name,
            used: self.used.get(),
            capacity: MAX_CONNECTIONS,
            refused: self.refused.get(),
            evicted: self.evicted.get(),
        }
    }
}

/// One of a number of places, until it is dropped.
pub(super) struct Place(Rc<Cell<usize>>);

impl Place {
    /// A place, if fewer than this many are taken.
    pub(super) fn take(used: &Rc<Cell<usize>>, capacity: usize) -> Option<Self> {
        (used.get() < capacity).then(|| {
            used.set(used.get() + 1);
            Self(used.clone())
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// Counts one more.
pub(super) fn count(counter: &Cell<u64>) {
    counter.set(counter.get().saturating_add(1));
}
