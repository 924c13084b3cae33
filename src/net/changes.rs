//! Changes of the host's network, reported after the connections that they break have ended.
//!
//! Invariants: a connection from an address that the host no longer has is closed; the failures
//! that follow are reported before the change, so that the core does not count them against a
//! server; changes are reported in order, and at most [`MAX_WAITING`] wait.

use std::{
    collections::VecDeque,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures_timer::Delay;

use super::{
    counted,
    netlink::{Change, Host},
    tcp::close_connections_from,
};

/// How long closed connections take to end, with all streams on them: a few turns of the loop.
const ENDING: Duration = Duration::from_millis(50);
/// Changes that may wait at a time; further ones are read later.
const MAX_WAITING: usize = 16;

/// The changes that the kernel reports, in order.
pub(super) struct Changes {
    host: Host,
    waiting: VecDeque<Change>,
    ending: Option<Delay>,
}

impl Changes {
    pub(super) fn new(host: Host) -> Self {
        Self {
            host,
            waiting: VecDeque::new(),
            ending: None,
        }
    }

    /// The host.
    pub(super) fn host(&self) -> &Host {
        &self.host
    }

    /// The next change.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Change> {
        while self.waiting.len() < MAX_WAITING
            && let Poll::Ready(change) = self.host.poll(cx)
        {
            if self.close_orphans(&change) > 0 {
                self.ending = Some(Delay::new(ENDING));
            }
            self.waiting.push_back(change);
        }
        if let Some(ending) = &mut self.ending {
            ready!(Pin::new(ending).poll(cx));
            self.ending = None;
        }
        self.waiting.pop_front().map_or(Poll::Pending, Poll::Ready)
    }

    /// Closes connections from addresses that are gone, and returns how many. An interface that is
    /// only down keeps its addresses.
    fn close_orphans(&self, change: &Change) -> usize {
        let gone = change.gone.iter().map(|(address, _)| address.ip);
        let closed = gone.filter(|ip| !self.host.has(*ip)).map(|ip| {
            let closed = close_connections_from(ip);
            if closed > 0 {
                let closed = counted(&closed, "connection");
                log::info!("closes {closed} from {ip}, which is gone");
            }
            closed
        });
        closed.sum()
    }
}
