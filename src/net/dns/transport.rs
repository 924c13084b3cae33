//! Dials names: a transport around another one that dials their addresses.
//!
//! Invariants: an address that is no name goes to the other transport unchanged; a name costs one
//! resolution, with the bounds of [`Resolver`].

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use futures_util::TryFutureExt;
use futures_util::future::MapErr;
use libp2p::Multiaddr;
use libp2p::core::transport::{DialOpts, ListenerId, Transport, TransportError, TransportEvent};

use super::{Problem, ResolveError, Resolver, error, is_name};
use crate::net::netlink::Host;
use crate::net::race::{own_subnets, race};

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Why a dial failed. The address may have begun with a name.
#[derive(Debug)]
pub(crate) enum DnsError<E> {
    /// The name gave no address.
    Resolve(ResolveError),
    /// The wrapped transport failed; for a name, with the last of its addresses.
    Transport(E),
}

impl<E: fmt::Display> fmt::Display for DnsError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Resolve(error) => error.fmt(f),
            Self::Transport(error) => error.fmt(f),
        }
    }
}

impl<E: Error + 'static> Error for DnsError<E> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Resolve(error) => Some(error),
            Self::Transport(error) => Some(error),
        }
    }
}

/// A transport that also dials names: it dials their addresses as a race.
pub(crate) struct DnsTransport<T> {
    /// Shared with the dials that still resolve their name.
    inner: Arc<Mutex<T>>,
    resolver: Resolver,
}

impl<T> DnsTransport<T> {
    /// Makes a transport that dials over `inner` what `resolver` finds.
    pub(crate) fn new(inner: T, resolver: Resolver) -> Self {
        Self {
            inner: Arc::new(Mutex::new(inner)),
            resolver,
        }
    }
}

impl<T> Transport for DnsTransport<T>
where
    T: Transport + Send + Unpin + 'static,
    T::Dial: Send + 'static,
    T::Error: Send + 'static,
    T::Output: Send + 'static,
{
    type Output = T::Output;
    type Error = DnsError<T::Error>;
    type ListenerUpgrade = MapErr<T::ListenerUpgrade, fn(T::Error) -> Self::Error>;
    type Dial = Pin<Box<dyn Future<Output = Result<T::Output, Self::Error>> + Send>>;

    fn listen_on(
        &mut self,
        id: ListenerId,
        addr: Multiaddr,
    ) -> Result<(), TransportError<Self::Error>> {
        let listening = lock(&self.inner).listen_on(id, addr);
        listening.map_err(|error| error.map(DnsError::Transport))
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        lock(&self.inner).remove_listener(id)
    }

    fn dial(
        &mut self,
        addr: Multiaddr,
        opts: DialOpts,
    ) -> Result<Self::Dial, TransportError<Self::Error>> {
        if is_name(&addr) {
            let (inner, resolver) = (self.inner.clone(), self.resolver.clone());
            return Ok(Box::pin(dial_name(inner, resolver, addr, opts)));
        }
        let dial = lock(&self.inner).dial(addr, opts);
        let dial = dial.map_err(|error| error.map(DnsError::Transport))?;
        Ok(Box::pin(async { dial.await.map_err(DnsError::Transport) }))
    }

    fn poll(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<TransportEvent<Self::ListenerUpgrade, Self::Error>> {
        Pin::new(&mut *lock(&self.inner)).poll(cx).map(|event| {
            event
                .map_upgrade(|upgrade| upgrade.map_err(DnsError::Transport as fn(_) -> _))
                .map_err(DnsError::Transport)
        })
    }
}

async fn dial_name<T: Transport>(
    inner: Arc<Mutex<T>>,
    resolver: Resolver,
    addr: Multiaddr,
    opts: DialOpts,
) -> Result<T::Output, DnsError<T::Error>> {
    let addrs = resolver.resolve(&addr).await.map_err(DnsError::Resolve)?;
    let attempts = addrs.into_iter().map(|found| {
        let dial = lock(&inner).dial(found.clone(), opts);
        let (name, reached) = (addr.clone(), found.clone());
        let attempt = async move {
            let output = match dial {
                Ok(dial) => dial.await.map_err(DnsError::Transport)?,
                Err(TransportError::Other(error)) => return Err(DnsError::Transport(error)),
                Err(TransportError::MultiaddrNotSupported(addr)) => {
                    return Err(DnsError::Resolve(error(&addr, Problem::Unsupported)));
                }
            };
            Host::of_this_thread().also_dialled(name, &reached);
            Ok(output)
        };
        (found, attempt)
    });
    race(own_subnets, attempts)
        .await
        .unwrap_or_else(|| Err(DnsError::Resolve(error(&addr, Problem::NotFound))))
}
