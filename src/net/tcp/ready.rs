//! Which sockets are ready.
//!
//! `async-io` arms a socket anew for each wait, and a beat is one wait. Here a socket is entered once, for both directions, and the
//! kernel reports changes only (edge-triggered, epoll(7)); the set itself is the one file on the reactor:
//!
//! ```text
//!  sockets ──changes──▶ epoll set ──readable──▶ async-io ──▶ report() ──▶ tasks that wait
//! ```
//!
//! With 1000 leases that all beat, a beat takes two system calls instead of five.
//!
//! Invariants: a direction counts as ready from the kernel's report until the kernel says that it would block; whoever was told to
//! wait is woken by the next report. One task waits for each direction of a socket.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::Duration,
};

use async_io::{Async, Timer};
use rustix::{
    buffer::spare_capacity,
    event::{
        Timespec,
        epoll::{self, CreateFlags, Event, EventData, EventFlags},
    },
    io::Errno,
};
use slab::Slab;
use smol::future::yield_now;

use crate::net::executor::{self, remember};

/// Reports taken from the kernel at once. No more than the executor's turn: all are answered before the next are taken.
const BATCH: usize = 16;

/// After a failure of the set itself, of which none is known.
const PAUSE: Duration = Duration::from_millis(100);

const INTEREST: EventFlags = EventFlags::IN
    .union(EventFlags::OUT)
    .union(EventFlags::RDHUP)
    .union(EventFlags::ET);

/// The set. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct ReadySet(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    epoll: Async<OwnedFd>,
    sockets: Mutex<Slab<Socket>>,
}

#[derive(Debug)]
struct Socket {
    reading: Side,
    writing: Side,
    /// The peer says no more: the kernel has reported that, and does so once.
    ended: bool,
}

#[derive(Debug)]
struct Side {
    /// For all that is known: a first try tells.
    ready: bool,
    waiter: Option<Waker>,
}

/// A direction of a socket.
#[derive(Clone, Copy, Debug)]
pub(super) enum Way {
    Read,
    Write,
}

impl ReadySet {
    /// An empty set. Its reports come from a task on the executor.
    pub(super) fn new() -> io::Result<Self> {
        let epoll = Async::new(epoll::create(CreateFlags::CLOEXEC)?)?;
        let set = Self(Arc::new(Shared {
            epoll,
            sockets: Mutex::default(),
        }));
        executor::spawn(set.clone().report());
        Ok(set)
    }

    /// Enters a socket that does not block.
    pub(super) fn watch<T: AsFd>(&self, socket: T) -> io::Result<Watched<T>> {
        let key = self.0.sockets().insert(Socket::new());
        // From here on its end takes it out again.
        let watched = Watched {
            socket,
            key,
            set: self.clone(),
        };
        let data = EventData::new_u64(key as u64);
        epoll::add(self.0.epoll.get_ref(), &watched.socket, data, INTEREST)?;
        Ok(watched)
    }

    async fn report(self) {
        let mut events = Vec::with_capacity(BATCH);
        loop {
            if let Err(error) = self.0.report(&mut events).await {
                log::error!("cannot learn which sockets are ready: {error}");
                Timer::after(PAUSE).await;
            }
        }
    }
}

impl Shared {
    async fn report(&self, events: &mut Vec<Event>) -> io::Result<()> {
        self.epoll.readable().await?;
        while self.take(events)? == BATCH {
            // Those that were woken go first.
            yield_now().await;
        }
        Ok(())
    }

    /// Wakes whom the next reports concern; says how many there were.
    fn take(&self, events: &mut Vec<Event>) -> io::Result<usize> {
        events.clear();
        let now = Timespec::default();
        match epoll::wait(self.epoll.get_ref(), spare_capacity(events), Some(&now)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        events
            .iter()
            .flat_map(|event| self.note(event))
            .for_each(Waker::wake);
        Ok(events.len())
    }

    /// Whom the report wakes, to be done without the lock: a task may end then and take its socket out.
    fn note(&self, event: &Event) -> impl Iterator<Item = Waker> + use<> {
        let Event { flags, data, .. } = *event;
        let ended = flags.intersects(EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR);
        let mut sockets = self.sockets();
        // A report may be older than the socket that has the number now: that one finds out that there is nothing.
        let socket = usize::try_from(data.u64())
            .ok()
            .and_then(|key| sockets.get_mut(key));
        let waiters = socket.map(|socket| {
            socket.ended |= ended;
            [
                socket.reading.note(ended || flags.contains(EventFlags::IN)),
                socket
                    .writing
                    .note(ended || flags.contains(EventFlags::OUT)),
            ]
        });
        waiters.into_iter().flatten().flatten()
    }

    fn sockets(&self) -> MutexGuard<'_, Slab<Socket>> {
        // Nothing panics while it holds the lock.
        self.sockets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Socket {
    fn new() -> Self {
        Self {
            reading: Side::new(),
            writing: Side::new(),
            ended: false,
        }
    }
}

impl Side {
    fn new() -> Self {
        Self {
            ready: true,
            waiter: None,
        }
    }

    /// Whom the report wakes.
    fn note(&mut self, ready: bool) -> Option<Waker> {
        self.ready |= ready;
        self.waiter.take_if(|_| ready)
    }
}

/// A socket in the set, until it is dropped.
#[derive(Debug)]
pub(super) struct Watched<T> {
    // Closing it takes it out of the kernel's set.
    socket: T,
    key: usize,
    set: ReadySet,
}

impl<T> Watched<T> {
    /// The socket.
    pub(super) fn socket(&self) -> &T {
        &self.socket
    }

    /// The set that it is in.
    pub(super) fn set(&self) -> &ReadySet {
        &self.set
    }

    /// Does `work` if the socket is ready for it; if it would block, the task is woken when that has changed.
    pub(super) fn poll<R>(
        &self,
        way: Way,
        cx: &Context<'_>,
        mut work: impl FnMut(&T) -> io::Result<R>,
    ) -> Poll<io::Result<R>> {
        // The lock is held over the work: a report in between would be forgotten.
        let mut sockets = self.set.0.sockets();
        let Some(socket) = sockets.get_mut(self.key) else {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        let side = match way {
            Way::Read => &mut socket.reading,
            Way::Write => &mut socket.writing,
        };
        while side.ready {
            match work(&self.socket) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => side.ready = false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                done => return Poll::Ready(done),
            }
        }
        remember(&mut side.waiter, cx);
        Poll::Pending
    }

    /// A read took less than it could have: there is no more, and the kernel reports what comes. What it has reported once is
    /// not forgotten: the end of the stream.
    pub(super) fn emptied(&self) {
        if let Some(socket) = self.set.0.sockets().get_mut(self.key) {
            socket.reading.ready = socket.ended;
        }
    }
}

impl<T> Drop for Watched<T> {
    fn drop(&mut self) {
        self.set.0.sockets().try_remove(self.key);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::poll_fn,
        io::{Read, Write},
        os::unix::net::UnixStream,
    };

    use super::*;
    use crate::net::executor::block_on;

    fn pair(set: &ReadySet) -> (Watched<UnixStream>, UnixStream) {
        let (watched, other) = UnixStream::pair().unwrap();
        watched.set_nonblocking(true).unwrap();
        (set.watch(watched).unwrap(), other)
    }

    async fn once<T>(mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>) -> Poll<T> {
        poll_fn(|cx| Poll::Ready(poll(cx))).await
    }

    fn read(socket: &Watched<UnixStream>, cx: &Context<'_>, buf: &mut [u8]) -> Poll<usize> {
        socket
            .poll(Way::Read, cx, |mut stream| stream.read(buf))
            .map(Result::unwrap)
    }

    #[test]
    fn what_would_block_waits_for_a_report_and_is_woken_by_it() {
        block_on(async {
            let set = ReadySet::new().unwrap();
            let (socket, mut other) = pair(&set);
            let mut buf = [0; 4];
            for _ in 0..3 {
                assert!(once(|cx| read(&socket, cx, &mut buf)).await.is_pending());
                other.write_all(b"abc").unwrap();
                assert_eq!(poll_fn(|cx| read(&socket, cx, &mut buf)).await, 3);
            }
        });
    }

    #[test]
    fn a_socket_that_was_emptied_is_not_asked_again_before_a_report() {
        block_on(async {
            let set = ReadySet::new().unwrap();
            let (socket, mut other) = pair(&set);
            other.write_all(b"abc").unwrap();
            let mut buf = [0; 4];
            assert_eq!(poll_fn(|cx| read(&socket, cx, &mut buf)).await, 3);
            socket.emptied();
            let asked = once(|cx| socket.poll(Way::Read, cx, |_| Ok(()))).await;
            assert!(asked.is_pending());
        });
    }

    #[test]
    fn an_end_that_was_reported_with_the_last_bytes_is_not_forgotten() {
        block_on(async {
            let set = ReadySet::new().unwrap();
            let (socket, mut other) = pair(&set);
            let mut buf = [0; 4];
            assert!(once(|cx| read(&socket, cx, &mut buf)).await.is_pending());
            other.write_all(b"abc").unwrap();
            drop(other);
            assert_eq!(poll_fn(|cx| read(&socket, cx, &mut buf)).await, 3);
            socket.emptied();
            assert_eq!(poll_fn(|cx| read(&socket, cx, &mut buf)).await, 0);
        });
    }

    #[test]
    fn a_full_socket_takes_more_when_its_peer_has_read() {
        block_on(async {
            let set = ReadySet::new().unwrap();
            let (socket, mut other) = pair(&set);
            let write = |cx: &mut Context<'_>| {
                socket.poll(Way::Write, cx, |mut stream| stream.write(&[0; 4096]))
            };
            let mut sent = 0;
            while let Poll::Ready(n) = once(write).await {
                sent += n.unwrap();
            }
            other.read_exact(&mut vec![0; sent]).unwrap();
            assert!(poll_fn(write).await.is_ok());
        });
    }

    #[test]
    fn a_dropped_socket_leaves_no_place_taken() {
        let set = ReadySet::new().unwrap();
        let (socket, _other) = pair(&set);
        assert_eq!(set.0.sockets().len(), 1);
        drop(socket);
        assert!(set.0.sockets().is_empty());
    }
}
