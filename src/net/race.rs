//! Dials the addresses of one peer as a race (RFC 8305).
//!
//! ```text
//!  own subnets first, else as given     0 ms     250 ms    500 ms
//!    192.168.77.2   ───────────────────▶├── silent …
//!    172.17.0.1     ────────────────────────────▶├─ refused: the next at once
//!    203.0.113.4    ──────────────────────────────▶├──── answers: the others are dropped
//! ```
//!
//! libp2p's own methods do not do this: its concurrent dial starts all addresses together, and its
//! smart dial sorts them by port and starts the third and all further ones at the same moment.
//!
//! Invariants: an attempt starts [`STAGGER`] after the one before it, or when one has failed; at
//! most [`MAX_AT_ONCE`] of one race are under way; an attempt that reaches another peer has failed.
//! The swarm drops the attempts that lost, together with their sockets. A dropped attempt has left
//! the race. Dials to one peer that begin at the same time share a race, and none waits for an
//! attempt that another has dropped.

use std::{
    collections::VecDeque,
    future::{Future, poll_fn},
    io,
    net::IpAddr,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker, ready},
    time::{Duration, Instant},
};

use futures_timer::Delay;
use futures_util::{StreamExt, stream::FuturesUnordered};
use libp2p::{
    Multiaddr, PeerId,
    core::transport::{DialOpts, ListenerId, Transport, TransportError, TransportEvent},
    multiaddr::Protocol,
};

use super::{
    failure::AnotherPeer,
    netlink::{Address, Host},
    refusals::{Refusal, Refusals, Why},
};
use crate::protocol::{
    address::{Subnet, distance},
    order::sort_few,
};

/// How long after an attempt the next one starts (RFC 8305, section 5).
const STAGGER: Duration = Duration::from_millis(250);
/// Attempts of one race under way at once: as many as a record has addresses.
const MAX_AT_ONCE: usize = 8;

/// The networks in which this host has an address.
pub(crate) fn own_subnets() -> Vec<Subnet> {
    subnets(&Host::of_this_thread().addresses())
}

/// The networks of these addresses. Networks of virtual bridges are left out if there is any other
/// network, because many hosts have a bridge with the same addresses. A container may have no other
/// network.
fn subnets(addresses: &[Address]) -> Vec<Subnet> {
    let is_real = |address: &Address| !address.is_virtual && !address.ip.is_loopback();
    let has_real = addresses.iter().any(is_real);
    let counts = |address: &&Address| !has_real || !address.is_virtual;
    let subnet = |address: &Address| Subnet {
        ip: address.ip,
        prefix: address.prefix,
    };
    addresses.iter().filter(counts).map(subnet).collect()
}

/// The function that gives the networks with the addresses that are tried first: [`own_subnets`],
/// or that of a test.
pub(crate) type Subnets = fn() -> Vec<Subnet>;

/// One race. Clones share it.
#[derive(Clone)]
pub(crate) struct Race(Arc<Mutex<State>>);

struct State {
    /// The address of each attempt that was entered.
    addrs: Vec<Multiaddr>,
    subnets: Subnets,
    /// The first attempt has been polled, so the order is fixed.
    has_begun: bool,
    /// The attempts that have not started, the next one first.
    queue: VecDeque<usize>,
    running: usize,
    /// When the next attempt may start.
    next: Option<Instant>,
    waiting: Vec<Waker>,
}

impl Race {
    pub(crate) fn new(subnets: Subnets) -> Self {
        Self(Arc::new(Mutex::new(State {
            addrs: Vec::new(),
            subnets,
            has_begun: false,
            queue: VecDeque::new(),
            running: 0,
            next: None,
            waiting: Vec::new(),
        })))
    }

    /// Enters an attempt; `None` if the race has begun or has the address already.
    pub(crate) fn enter(&self, addr: &Multiaddr) -> Option<Entry> {
        let mut state = self.state();
        if state.has_begun || state.addrs.contains(addr) {
            return None;
        }
        let number = state.addrs.len();
        state.addrs.push(addr.clone());
        state.queue.push_back(number);
        let race = self.clone();
        Some(Entry { race, number })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No code panics while it holds the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An attempt's part in a race, which ends when it is dropped.
pub(crate) struct Entry {
    race: Race,
    number: usize,
}

impl Entry {
    /// Makes the attempt when its turn comes.
    pub(crate) async fn run<T, E>(
        self,
        attempt: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let mut pause = None;
        poll_fn(|cx| self.poll_turn(&mut pause, cx)).await;
        let outcome = attempt.await;
        if outcome.is_err() {
            self.race.state().next = None;
        }
        outcome
    }

    /// Ready when the attempt may start; until then it waits for `pause`.
    fn poll_turn(&self, pause: &mut Option<Delay>, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let woken = {
                let mut state = self.race.state();
                state.begin();
                let is_next = state.queue.front() == Some(&self.number);
                if !is_next || state.running >= MAX_AT_ONCE {
                    state.waiting.push(cx.waker().clone());
                    return Poll::Pending;
                }
                let left = state
                    .next
                    .map(|next| next.saturating_duration_since(Instant::now()));
                match left {
                    Some(left) if !left.is_zero() => {
                        *pause = Some(Delay::new(left));
                        // A failure of another attempt starts it earlier.
                        state.waiting.push(cx.waker().clone());
                        None
                    }
                    _ => Some(state.start()),
                }
            };
            if let Some(woken) = woken {
                woken.into_iter().for_each(Waker::wake);
                return Poll::Ready(());
            }
            if let Some(pause) = pause {
                ready!(Pin::new(pause).poll(cx));
            }
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let woken = self.race.state().leave(self.number);
        woken.into_iter().for_each(Waker::wake);
    }
}

impl State {
    /// Fixes the order: addresses in a network of this host come first; otherwise the order of
    /// entry is kept.
    fn begin(&mut self) {
        if std::mem::replace(&mut self.has_begun, true) {
            return;
        }
        let subnets = match self.queue.len() {
            0 | 1 => Vec::new(),
            _ => (self.subnets)(),
        };
        let addrs = &self.addrs;
        let is_far = |number: &usize| {
            let ip = addrs.get(*number).and_then(ip);
            ip.is_none_or(|ip| distance(ip, &subnets, None) > 0)
        };
        sort_few(self.queue.make_contiguous(), is_far);
    }

    /// Starts the next attempt. Returns the wakers of those that wait, which check again.
    fn start(&mut self) -> Vec<Waker> {
        self.queue.pop_front();
        self.running += 1;
        self.next = Some(Instant::now() + STAGGER);
        std::mem::take(&mut self.waiting)
    }

    /// Takes note that an attempt has ended, or will not start. Returns the wakers of those that
    /// wait, which check again.
    fn leave(&mut self, number: usize) -> Vec<Waker> {
        match self.queue.iter().position(|waits| *waits == number) {
            Some(at) => _ = self.queue.remove(at),
            None => self.running = self.running.saturating_sub(1),
        }
        std::mem::take(&mut self.waiting)
    }
}

fn ip(addr: &Multiaddr) -> Option<IpAddr> {
    match addr.iter().next()? {
        Protocol::Ip4(ip) => Some(ip.into()),
        Protocol::Ip6(ip) => Some(ip.into()),
        _ => None,
    }
}

/// Makes the attempts as a race. Returns the first success, or the error of the last failure, if
/// there was one.
pub(crate) async fn race<T, E, F>(
    subnets: Subnets,
    attempts: impl Iterator<Item = (Multiaddr, F)>,
) -> Option<Result<T, E>>
where
    F: Future<Output = Result<T, E>>,
{
    let race = Race::new(subnets);
    let attempts = attempts.filter_map(|(addr, attempt)| Some(race.enter(&addr)?.run(attempt)));
    let mut attempts: FuturesUnordered<_> = attempts.collect();
    let mut failed = None;
    while let Some(outcome) = attempts.next().await {
        match outcome {
            Ok(done) => return Some(Ok(done)),
            Err(error) => failed = Some(Err(error)),
        }
    }
    failed
}

/// A transport in which dials to one peer race each other.
pub(crate) struct Racing<T> {
    inner: T,
    subnets: Subnets,
    refusals: Refusals,
    /// The race that the swarm is entering addresses into: it dials all addresses of a peer in a
    /// row.
    latest: Option<(PeerId, Race)>,
}

impl<T> Racing<T> {
    pub(super) fn new(inner: T, subnets: Subnets, refusals: Refusals) -> Self {
        Self {
            inner,
            subnets,
            refusals,
            latest: None,
        }
    }

    /// Enters this dial into the race for the peer.
    fn enter(&mut self, peer: PeerId, addr: &Multiaddr) -> Option<Entry> {
        if let Some((dialled, race)) = &self.latest
            && *dialled == peer
            && let Some(entry) = race.enter(addr)
        {
            return Some(entry);
        }
        let race = Race::new(self.subnets);
        let entry = race.enter(addr)?;
        self.latest = Some((peer, race));
        Some(entry)
    }
}

impl<T, M> Transport for Racing<T>
where
    T: Transport<Output = (PeerId, M), Error = io::Error> + Unpin,
    T::Dial: Send + 'static,
    M: 'static,
{
    type Output = T::Output;
    type Error = io::Error;
    type ListenerUpgrade = T::ListenerUpgrade;
    type Dial = Pin<Box<dyn Future<Output = io::Result<T::Output>> + Send>>;

    fn listen_on(
        &mut self,
        id: ListenerId,
        addr: Multiaddr,
    ) -> Result<(), TransportError<io::Error>> {
        self.inner.listen_on(id, addr)
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.inner.remove_listener(id)
    }

    fn dial(
        &mut self,
        addr: Multiaddr,
        opts: DialOpts,
    ) -> Result<Self::Dial, TransportError<io::Error>> {
        let dial = self.inner.dial(addr.clone(), opts)?;
        let meant = match addr.iter().last() {
            Some(Protocol::P2p(peer)) => peer,
            _ => return Ok(Box::pin(dial)),
        };
        let (refusals, dialled) = (self.refusals.clone(), addr.clone());
        let attempt = async move {
            match dial.await? {
                (peer, muxer) if peer == meant => Ok((peer, muxer)),
                (found, _) => {
                    let why = Why::OtherPeer { meant, found };
                    refusals.put(Refusal {
                        addr: dialled,
                        is_dialled: true,
                        why,
                    });
                    Err(io::Error::other(AnotherPeer(found)))
                }
            }
        };
        Ok(match self.enter(meant, &addr) {
            Some(entry) => Box::pin(entry.run(attempt)),
            None => Box::pin(attempt),
        })
    }

    fn poll(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<TransportEvent<Self::ListenerUpgrade, io::Error>> {
        let this = self.get_mut();
        this.latest = None;
        Pin::new(&mut this.inner).poll(cx)
    }
}

#[cfg(test)]
mod tests;
