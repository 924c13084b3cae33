//! The kernel's description of this host's network, and its changes: one rtnetlink socket in the
//! executor's set.
//!
//! ```text
//!  kernel ─RTM_NEWLINK, RTM_DELADDR, …─▶ socket ─▶ message ─▶ host (links, addresses) ─▶ Change
//! ```
//!
//! A small parser of our own reads the messages: only five fixed headers and a dozen attributes are
//! needed, and a library for all of rtnetlink (`netlink-packet-route`) would make the program a
//! tenth larger.
//!
//! Invariants: the state of the host is consistent: it comes from a dump of the links and one of
//! the addresses, and then from each change. Both dumps are made again, at most once a second, when
//! the kernel has lost a message (the socket buffer was full), when it reports that a dump was
//! disturbed, or when a table that was full has room again. The tables are bounded:
//! [`host::MAX_LINKS`], [`host::MAX_ADDRESSES`]. Without netlink (a seccomp filter may forbid it)
//! nothing is known. This is not an error; [`Host::is_known`] is false then.

mod host;
mod message;
mod pace;
#[cfg(test)]
mod tests;

use std::{
    cell::OnceCell,
    future::Future,
    io,
    net::IpAddr,
    os::fd::OwnedFd,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use futures_timer::Delay;
use libp2p::{Multiaddr, multiaddr::Protocol};
use rustix::{
    io::Errno,
    net::{
        AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink::SocketAddrNetlink,
    },
};

use super::executor::{Left, ReadySet, Watched, Way};
use host::State;
pub(crate) use host::{Address, Change};
use message::{DONE, DUMP_INTR, ERROR, Message, messages, request};
use pace::{News, Paced, Passes, Storm};

/// Links, addresses and routes of both families (`RTMGRP_…`, rtnetlink(7)).
const GROUPS: u32 = 0x1 | 0x10 | 0x40 | 0x100 | 0x400;

/// The kernel fills at most 8 KiB at a time for a dump; a single message is smaller than this.
const BUFFER: usize = 16 * 1024;

/// Datagrams read in one turn; the rest waits for the next.
const TURN: usize = 32;

/// The pause between two dumps, before a failed dump is tried again, and between two reports of
/// changed routes.
const PAUSE: Duration = Duration::from_secs(1);

/// The local addresses of at most so many own connections are remembered.
const MAX_DIALLED: usize = 64;

thread_local! {
    static OF_THIS_THREAD: OnceCell<Host> = const { OnceCell::new() };
}

/// The host's network as the kernel describes it. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Host(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    link: Option<Netlink>,
    known: bool,
    state: State,
    /// The result of [`State::usable`] after the last message.
    usable: Vec<Address>,
    news: Paced,
    storm: Storm,
    /// Counts the changes of [`Host::addresses`].
    generation: u64,
    /// Connections that we opened: the address that was dialled, and the local address. The most
    /// recent one is last.
    dialled: Vec<(Multiaddr, IpAddr)>,
}

impl Host {
    /// The host, as this thread's socket reports it. The first call opens the socket.
    pub(crate) fn of_this_thread() -> Self {
        OF_THIS_THREAD.with(|host| host.get_or_init(Self::new).clone())
    }

    fn new() -> Self {
        let mut inner = Inner::default();
        match Netlink::open() {
            Ok(link) => (inner.link, inner.known) = (Some(link), true),
            Err(error) => log::warn!(
                "cannot read the addresses of this host from the kernel (netlink: {error}): announces \
                 what own connections use and what peers observe"
            ),
        }
        inner.read();
        Self(Arc::new(Mutex::new(inner)))
    }

    /// Whether the kernel reports the addresses. If not, the host may have any address.
    pub(crate) fn is_known(&self) -> bool {
        self.inner().known
    }

    /// The addresses that others could reach, in the order in which they were added: those of
    /// interfaces that are up and have a carrier, loopback included. Left out are addresses that
    /// are still being checked for duplicates, and link-local IPv6 ones, which cannot be dialled
    /// without a zone.
    pub(crate) fn addresses(&self) -> Vec<Address> {
        self.inner().usable.clone()
    }

    /// Changes when [`Host::addresses`] does.
    pub(crate) fn generation(&self) -> u64 {
        self.inner().generation
    }

    /// Whether an interface of this host has the address, up or not.
    pub(crate) fn has(&self, ip: IpAddr) -> bool {
        self.inner().state.has(ip)
    }

    /// The next change. Messages that were read together are reported as one change.
    pub(crate) fn poll(&self, cx: &mut Context<'_>) -> Poll<Change> {
        let mut inner = self.inner();
        match inner.poll(cx) {
            Some(change) => Poll::Ready(change),
            None => Poll::Pending,
        }
    }

    /// Remembers that a connection that we opened to `remote` has the local address `local`.
    pub(crate) fn dialled(&self, remote: Multiaddr, local: IpAddr) {
        let (remote, mut inner) = (without_peer(remote), self.inner());
        inner.dialled.retain(|(known, _)| *known != remote);
        if inner.dialled.len() >= MAX_DIALLED {
            inner.dialled.remove(0);
        }
        inner.dialled.push((remote, local.to_canonical()));
    }

    /// Remembers that the connection to `remote` was dialled by this `name`.
    pub(crate) fn also_dialled(&self, name: Multiaddr, remote: &Multiaddr) {
        if let Some(local) = self.local_end(remote) {
            self.dialled(name, local);
        }
    }

    /// The local address of the connection that was opened to `remote` last, with or without `/p2p`
    /// at its end.
    pub(crate) fn local_end(&self, remote: &Multiaddr) -> Option<IpAddr> {
        let remote = without_peer(remote.clone());
        let inner = self.inner();
        let known = inner.dialled.iter().find(|(known, _)| *known == remote);
        known.map(|(_, local)| *local)
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // No code panics while it holds the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
impl Host {
    /// A host with these addresses, each on a physical link of its own.
    pub(crate) fn fixed(ips: &[&str]) -> Self {
        let host = Self(Arc::default());
        host.set(ips);
        host
    }

    /// A host with these addresses, each on a link of its own. Each has a kind of link by the
    /// kernel's name; it is empty for a physical device, and `passing` for one with a temporary
    /// address.
    pub(crate) fn with_links(links: &[(&str, &str)]) -> Self {
        let host = Self(Arc::default());
        let mut inner = host.inner();
        inner.known = true;
        inner.state = State::with_links(links);
        inner.usable = inner.state.usable();
        drop(inner);
        host
    }

    /// A host about which the kernel reports nothing.
    pub(crate) fn unknown() -> Self {
        Self(Arc::default())
    }

    /// Gives the host these addresses instead.
    pub(crate) fn set(&self, ips: &[&str]) {
        let mut inner = self.inner();
        inner.known = true;
        inner.state = State::fixed(ips);
        inner.usable = inner.state.usable();
        inner.generation += 1;
    }
}

impl Inner {
    /// Reads the messages that the kernel has sent already.
    fn read(&mut self) {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        self.poll(&mut cx);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Option<Change> {
        let link = self.link.as_mut()?;
        let read = link.poll(cx, &mut self.state);
        // This runs each time the swarm is polled, and nearly always there is no message.
        let is_over = self.storm.pauses(cx);
        if read.is_none() && !self.news.are_due(cx) && !is_over {
            return None;
        }
        let News { link, route } = self.news.take(read.unwrap_or_default(), cx);
        let usable = self.state.usable();
        let passes = match usable == self.usable {
            true => Passes::AsItIs,
            false => self.storm.take(cx),
        };
        let mut change = match passes {
            Passes::Later => Change::default(),
            Passes::AsItIs | Passes::Joined => Change::between(&self.usable, &self.state),
        };
        change.link = link;
        change.route = route;
        change.joined = passes == Passes::Joined;
        if passes != Passes::Later && usable != self.usable {
            self.generation += 1;
            self.usable = usable;
        }
        change.is_any().then_some(change)
    }
}

#[derive(Debug)]
struct Netlink {
    socket: Watched<OwnedFd>,
    /// The sequence of the dump that was requested last.
    sequence: u32,
    dump: Option<Dump>,
    /// The pause before the next dump, if one is due.
    due: Option<Delay>,
    /// The present failure has been logged. It is logged again only after a success.
    complained: bool,
}

/// What is being dumped, and its content so far.
#[derive(Debug)]
struct Dump {
    what: u16,
    next: State,
}

impl Netlink {
    fn open() -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let family = AddressFamily::NETLINK;
        let socket = rustix::net::socket_with(family, SocketType::RAW, flags, None)?;
        rustix::net::bind(&socket, &SocketAddrNetlink::new(0, GROUPS))?;
        let mut link = Self {
            socket: ReadySet::of_this_thread()?.watch(socket)?,
            sequence: 0,
            dump: None,
            due: None,
            complained: false,
        };
        link.ask(message::GET_LINK, State::default())?;
        Ok(link)
    }

    /// Requests a dump. The kernel answers before `send` returns.
    fn ask(&mut self, what: u16, next: State) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        self.dump = Some(Dump { what, next });
        let request = request(what, self.sequence);
        rustix::net::send(self.socket.socket(), &request, SendFlags::empty())?;
        Ok(())
    }

    /// Reads the messages that have arrived into `state`; `None` if there are none.
    fn poll(&mut self, cx: &mut Context<'_>, state: &mut State) -> Option<News> {
        let mut news = None;
        let mut buffer = Vec::new();
        self.begin_if_due(cx);
        for _ in 0..TURN {
            let read = self
                .socket
                .poll(Way::Read, cx, |fd| receive(fd, &mut buffer));
            match read {
                Poll::Pending => return news,
                Poll::Ready(Ok(length)) => {
                    let bytes = buffer.get(..length).unwrap_or_default();
                    let news = news.get_or_insert_default();
                    for message in messages(bytes) {
                        self.note(message, state, news);
                    }
                }
                // Messages were lost.
                Poll::Ready(Err(error)) if is_lost(&error) => self.again(),
                Poll::Ready(Err(error)) => {
                    self.complain(&error);
                    self.again();
                    self.begin_if_due(cx);
                    return news;
                }
            }
            self.begin_if_due(cx);
        }
        cx.waker().wake_by_ref();
        news
    }

    fn note(&mut self, message: Message<'_>, state: &mut State, news: &mut News) {
        let ours = message.sequence == self.sequence && self.dump.is_some();
        if ours && message.flags & DUMP_INTR != 0 {
            self.again();
        }
        match message.kind {
            DONE if ours => self.dumped(state),
            ERROR if ours => {
                self.complain(&message.error());
                self.again();
            }
            _ => {
                let into = match &mut self.dump {
                    Some(dump) => &mut dump.next,
                    None => state,
                };
                let applied = into.apply(&message);
                if applied.room {
                    self.again();
                }
                // A dump also reports links that were there before.
                news.link |= applied.link && !ours;
                news.route |= applied.route;
            }
        }
    }

    /// One dump is complete. After the links, the addresses are dumped; after these, the state is
    /// complete.
    fn dumped(&mut self, state: &mut State) {
        match self.dump.take() {
            Some(Dump { what, next }) if what == message::GET_LINK => {
                if let Err(error) = self.ask(message::GET_ADDR, next) {
                    self.complain(&error);
                    self.again();
                }
            }
            Some(Dump { next, .. }) => {
                *state = next;
                self.complained = false;
            }
            None => {}
        }
    }

    /// The state may be wrong, so both dumps are due.
    fn again(&mut self) {
        self.due.get_or_insert_with(|| Delay::new(PAUSE));
    }

    fn begin_if_due(&mut self, cx: &mut Context<'_>) {
        while let Some(due) = &mut self.due
            && Pin::new(due).poll(cx).is_ready()
        {
            self.due = None;
            if let Err(error) = self.ask(message::GET_LINK, State::default()) {
                self.complain(&error);
                self.again();
            }
        }
    }

    fn complain(&mut self, error: &io::Error) {
        if !self.complained {
            self.complained = true;
            log::warn!("cannot read the addresses of this host from the kernel: {error}");
        }
    }
}

fn without_peer(mut addr: Multiaddr) -> Multiaddr {
    if let Some(Protocol::P2p(_)) = addr.iter().last() {
        addr.pop();
    }
    addr
}

/// Whether the error means that messages were lost.
fn is_lost(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::NOBUFS.raw_os_error())
}

/// Reads one datagram. The length is 0 if it does not come from the kernel.
fn receive(fd: &OwnedFd, buffer: &mut Vec<u8>) -> io::Result<(usize, Left)> {
    buffer.resize(BUFFER, 0);
    let room = buffer.len();
    let (_, length, from) = rustix::net::recvfrom(fd, buffer.as_mut_slice(), RecvFlags::TRUNC)?;
    let from = from.and_then(|from| SocketAddrNetlink::try_from(from).ok());
    let length = match from.is_some_and(|from| from.pid() == 0) {
        true if length > room => return Err(Errno::NOBUFS.into()),
        true => length,
        false => 0,
    };
    Ok((length, Left::Maybe))
}
