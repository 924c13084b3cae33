//! Dials that take long, so that a server that cannot be reached keeps no search waiting.
//!
//! Kademlia asks three servers at a time and waits 10 s for each. For the queries under way, a
//! server that is not connected after [`PATIENCE`] counts as failed; the dial itself goes on, and
//! what the server answers later still counts.
//!
//! Invariant: one entry for each dial under way, of which the swarm has a bounded number.

use std::{
    collections::VecDeque,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Instant,
};

use futures_timer::Delay;
use libp2p::{
    PeerId,
    swarm::{
        ConnectionId, DialError, FromSwarm, NetworkBehaviour, SwarmEvent, behaviour::DialFailure,
    },
};

use super::{Kademlia, PATIENCE};

/// The dials under way, the oldest first.
#[derive(Default)]
pub(crate) struct Dials {
    waiting: VecDeque<(Instant, PeerId, ConnectionId)>,
    due: Option<Delay>,
}

impl Dials {
    /// Takes note of the beginning and of the end of a dial.
    pub(in crate::net) fn note<E>(&mut self, event: &SwarmEvent<E>) {
        match event {
            SwarmEvent::Dialing {
                peer_id: Some(peer),
                connection_id,
            } => {
                let due = Instant::now() + PATIENCE;
                self.waiting.push_back((due, *peer, *connection_id));
            }
            SwarmEvent::ConnectionEstablished { connection_id, .. }
            | SwarmEvent::OutgoingConnectionError { connection_id, .. } => {
                self.waiting.retain(|(.., of)| of != connection_id);
            }
            _ => {}
        }
    }

    /// Tells Kademlia of the dials that take longer than it should wait.
    pub(in crate::net) fn poll(
        &mut self,
        kademlia: &mut Kademlia,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        loop {
            if let Some(due) = &mut self.due {
                ready!(Pin::new(due).poll(cx));
                self.due = None;
            }
            let Some((due, peer, connection_id)) = self.waiting.front().copied() else {
                return Poll::Pending;
            };
            let left = due.saturating_duration_since(Instant::now());
            if !left.is_zero() {
                self.due = Some(Delay::new(left));
                continue;
            }
            self.waiting.pop_front();
            kademlia.on_swarm_event(FromSwarm::DialFailure(DialFailure {
                peer_id: Some(peer),
                error: &DialError::Aborted,
                connection_id,
            }));
        }
    }
}
