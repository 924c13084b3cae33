//! Admission of inbound connections: gives each one a place until its handshake is done, and ends
//! the one that has to [give way](Handshakes).
//!
//! libp2p does not end a pending inbound connection on request: its behaviours can refuse one only
//! when it arrives. So this transport wraps the whole stack and keeps each handshake where it can
//! be dropped at once, together with its socket. This must not wait for the task of the handshake:
//! hundreds of connections may arrive before those tasks run.
//!
//! Invariants: a handshake that has a place is polled by its task alone; one that gave way is
//! dropped before the newcomer is handed on; a place is free again when its handshake is done,
//! fails, or is dropped; connections that gave way before their tasks have run are never more than
//! there are places, because libp2p keeps memory for the most that it ever had at once; a source
//! that makes too many connections gets no handshake (`handshakes/quota.rs`).

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use async_io::Timer;
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::{
    Boxed, DialOpts, ListenerId, Transport, TransportError, TransportEvent,
};
use libp2p::{Multiaddr, PeerId};

use super::each::each;
use super::executor::spawn;
use super::handshakes::{Entered, Handshakes};
use super::limits::source;

/// How often this module checks whether an episode is over.
const LOOK: Duration = Duration::from_secs(1);

type Stack = Boxed<(PeerId, StreamMuxerBox)>;
type Upgrade = <Stack as Transport>::ListenerUpgrade;

/// The places, shared with the code that reports which sources are known.
#[derive(Clone)]
pub(super) struct Places(Arc<Mutex<Handshakes<Slot>>>);

impl Places {
    /// Makes `max` places.
    pub(super) fn new(max: usize) -> Self {
        Self(Arc::new(Mutex::new(Handshakes::new(max))))
    }

    /// Locks the places. No code panics while it holds this lock.
    pub(super) fn lock(&self) -> MutexGuard<'_, Handshakes<Slot>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether to hand the event on: a connection is closed at once if its source has made too
    /// many.
    fn admits<U, E>(&self, event: &TransportEvent<U, E>) -> bool {
        let TransportEvent::Incoming { send_back_addr, .. } = event else {
            return true;
        };
        let source = source(send_back_addr);
        let admitted = self.lock().admits(Instant::now(), source);
        if !admitted && let Some(source) = source {
            each!(
                warn,
                "refused a connection from {source}: too many come from there"
            );
        }
        admitted
    }

    /// Gives a newcomer's handshake a place, and guards it.
    fn enter(&self, upgrade: Upgrade, from: &Multiaddr) -> Guarded {
        let slot = Slot::default();
        slot.fill(upgrade);
        let mut places = self.lock();
        let was_crowded = places.is_crowded();
        let entered = places.enter(source(from), slot.clone(), Instant::now());
        let begins = !was_crowded && places.is_crowded();
        drop(places);
        if begins {
            log::warn!(
                "all places for handshakes are taken: for each newcomer the oldest connection of the source with the most gives way"
            );
            spawn(tell(self.clone()));
        }
        let id = match entered {
            Entered::Waits(id) => id,
            Entered::Displaced(id, gives_way) => {
                gives_way.end();
                id
            }
        };
        let places = self.clone();
        Guarded { slot, places, id }
    }
}

/// Logs, when an episode is over, which sources caused it.
async fn tell(places: Places) {
    while places.lock().is_crowded() {
        Timer::after(LOOK).await;
        let ended = places.lock().ended(Instant::now());
        if let Some(episode) = ended {
            log::warn!("{episode}");
        }
    }
}

/// Where a handshake is kept.
#[derive(Clone, Default)]
pub(super) struct Slot(Arc<Mutex<Kept>>);

#[derive(Default)]
struct Kept {
    upgrade: Option<Upgrade>,
    waiter: Option<Waker>,
}

impl Slot {
    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    fn fill(&self, upgrade: Upgrade) {
        self.lock().upgrade = Some(upgrade);
    }

    /// Drops the handshake, and wakes its task.
    fn end(&self) {
        let mut kept = self.lock();
        let (upgrade, waiter) = (kept.upgrade.take(), kept.waiter.take());
        drop(kept);
        drop(upgrade);
        if let Some(waiter) = waiter {
            waiter.wake();
        }
    }
}

/// A handshake with a place.
struct Guarded {
    slot: Slot,
    places: Places,
    id: u64,
}

impl Future for Guarded {
    type Output = io::Result<(PeerId, StreamMuxerBox)>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut kept = self.slot.lock();
        let Some(upgrade) = &mut kept.upgrade else {
            let why = "gave way to a newcomer before the handshake was done";
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionAborted, why)));
        };
        match Pin::new(upgrade).poll(cx) {
            Poll::Ready(done) => Poll::Ready(done),
            Poll::Pending => {
                kept.waiter = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        self.places.lock().leave(self.id);
    }
}

/// The transport, with admission to these places.
pub(super) fn with_door(stack: Stack, places: Places) -> Stack {
    Door { stack, places }.boxed()
}

struct Door {
    stack: Stack,
    places: Places,
}

impl Transport for Door {
    type Output = (PeerId, StreamMuxerBox);
    type Error = io::Error;
    type ListenerUpgrade = Guarded;
    type Dial = <Stack as Transport>::Dial;

    fn listen_on(
        &mut self,
        id: ListenerId,
        addr: Multiaddr,
    ) -> Result<(), TransportError<io::Error>> {
        self.stack.listen_on(id, addr)
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.stack.remove_listener(id)
    }

    fn dial(
        &mut self,
        addr: Multiaddr,
        opts: DialOpts,
    ) -> Result<Self::Dial, TransportError<io::Error>> {
        self.stack.dial(addr, opts)
    }

    fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<TransportEvent<Guarded, io::Error>> {
        if self.places.lock().is_behind() {
            // The tasks of those that gave way run before the loop looks here again.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let event = loop {
            let event = ready!(Pin::new(&mut self.stack).poll(cx));
            if self.places.admits(&event) {
                break event;
            }
        };
        let event = match event {
            TransportEvent::Incoming {
                listener_id,
                upgrade,
                local_addr,
                send_back_addr,
            } => TransportEvent::Incoming {
                listener_id,
                upgrade: self.places.enter(upgrade, &send_back_addr),
                local_addr,
                send_back_addr,
            },
            TransportEvent::NewAddress {
                listener_id,
                listen_addr,
            } => TransportEvent::NewAddress {
                listener_id,
                listen_addr,
            },
            TransportEvent::AddressExpired {
                listener_id,
                listen_addr,
            } => TransportEvent::AddressExpired {
                listener_id,
                listen_addr,
            },
            TransportEvent::ListenerClosed {
                listener_id,
                reason,
            } => TransportEvent::ListenerClosed {
                listener_id,
                reason,
            },
            TransportEvent::ListenerError { listener_id, error } => {
                TransportEvent::ListenerError { listener_id, error }
            }
        };
        Poll::Ready(event)
    }
}
