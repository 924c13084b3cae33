//! The set of sockets, in which the thread waits until one of them is ready.
//!
//! `async-io` registers a socket again for each wait, and each beat is one wait. Besides, it has a
//! thread of its own, which waits in turn with ours. Here a socket is registered once, for both
//! directions, and the kernel reports changes only (edge-triggered, epoll(7)):
//!
//! ```text
//!  sockets ──changes──▶ epoll set ──▶ wait() ──▶ tasks that wait for a socket
//!  other threads ──────▶ bell ───────┘
//! ```
//!
//! Invariants: a direction counts as ready from the kernel's report until the kernel says that it
//! would block; a task that had to wait is woken by the next report. At most one task waits for
//! each direction of a socket. If the bell is rung while the thread does not wait, the next wait
//! ends at once.

use std::{
    cell::OnceCell,
    io,
    mem::MaybeUninit,
    os::fd::{AsFd, OwnedFd},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    task::{Context, Poll, Wake, Waker},
    thread,
    time::Duration,
};

use rustix::{
    event::{
        EventfdFlags, Timespec,
        epoll::{self, CreateFlags, Event, EventData, EventFlags},
        eventfd,
    },
    io::Errno,
};
use slab::Slab;

use super::remember;

/// Reports taken from the kernel at once: as many as the tasks that run before the next are taken.
const BATCH: usize = super::TURN;

/// The pause after a failure of the set itself. No cause of such a failure is known.
const PAUSE: Duration = Duration::from_millis(100);

const INTEREST: EventFlags = EventFlags::IN
    .union(EventFlags::OUT)
    .union(EventFlags::RDHUP)
    .union(EventFlags::ET);

thread_local! {
    // A failure is kept: the thread would not wait in a set that is made later.
    static OF_THIS_THREAD: OnceCell<Result<ReadySet, Errno>> = const { OnceCell::new() };
}

/// The sockets of the tasks on one thread. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct ReadySet(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    epoll: OwnedFd,
    sockets: Mutex<Slab<Socket>>,
    bell: Arc<Bell>,
}

/// Wakes the thread.
#[derive(Debug)]
struct Bell {
    file: OwnedFd,
    rung: AtomicBool,
    /// The thread waits, or is about to.
    heard: AtomicBool,
}

#[derive(Debug)]
struct Socket {
    reading: Side,
    writing: Side,
    /// The peer has ended its direction. The kernel has reported this, and does so only once.
    ended: bool,
}

#[derive(Debug)]
struct Side {
    /// Whether the direction may be ready. It is true at first, so that the first attempt finds
    /// out.
    ready: bool,
    waiter: Option<Waker>,
}

/// What a piece of work has left in the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Left {
    /// Perhaps there is more.
    Maybe,
    /// There is nothing now.
    Nothing,
}

/// A direction of a socket.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Way {
    Read,
    Write,
}

impl ReadySet {
    /// The set of this thread. The first call makes it.
    ///
    /// # Errors
    ///
    /// An error if the process has no file descriptor left for it.
    pub(crate) fn of_this_thread() -> io::Result<Self> {
        Ok(OF_THIS_THREAD.with(|set| set.get_or_init(Self::new).clone())?)
    }

    fn new() -> Result<Self, Errno> {
        let set = Self(Arc::new(Shared {
            epoll: epoll::create(CreateFlags::CLOEXEC)?,
            sockets: Mutex::default(),
            bell: Arc::new(Bell {
                file: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
                rung: AtomicBool::new(false),
                heard: AtomicBool::new(false),
            }),
        }));
        // It is never read, because each ring is a change. No socket has this number.
        let bell = EventData::new_u64(u64::MAX);
        epoll::add(&set.0.epoll, &set.0.bell.file, bell, INTEREST)?;
        Ok(set)
    }

    /// Adds a socket that does not block.
    ///
    /// # Errors
    ///
    /// An error if the kernel refuses it because of /proc/sys/fs/epoll/max_user_watches.
    pub(crate) fn watch<T: AsFd>(&self, socket: T) -> io::Result<Watched<T>> {
        let key = self.0.sockets().insert(Socket::new());
        // From here on, dropping it removes the socket from the set.
        let watched = Watched {
            socket,
            key,
            set: self.clone(),
        };
        let data = EventData::new_u64(key as u64);
        epoll::add(&self.0.epoll, &watched.socket, data, INTEREST)?;
        Ok(watched)
    }

    /// Gives back memory that is no longer needed.
    pub(crate) fn shrink(&self) {
        self.0.sockets().shrink_to_fit();
    }

    /// Ends the wait.
    pub(super) fn waker(&self) -> Waker {
        Waker::from(self.0.bell.clone())
    }

    /// Resets the bell. The caller must now handle the reason for which it was rung.
    pub(super) fn listen(&self) {
        // A swap and not a store, so that everything the task reads afterwards is newer.
        self.0.bell.rung.swap(false, SeqCst);
    }

    /// Waits for reports, or until the bell rings, and wakes the tasks that the reports concern.
    pub(super) fn wait(&self) {
        if let Err(error) = self.0.wait() {
            log::error!("cannot learn which sockets are ready: {error}");
            thread::sleep(PAUSE);
        }
    }
}

impl Shared {
    fn wait(&self) -> io::Result<()> {
        let mut room = [const { MaybeUninit::uninit() }; BATCH];
        self.bell.heard.store(true, SeqCst);
        let at_once = self.bell.rung.load(SeqCst).then_some(Timespec::default());
        let waited = epoll::wait(&self.epoll, &mut room, at_once.as_ref());
        self.bell.heard.store(false, SeqCst);
        match waited {
            Ok((events, _)) => events
                .iter()
                .flat_map(|event| self.note(event))
                .for_each(Waker::wake),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// The tasks that the report wakes. The caller must wake them without the lock, because a task
    /// may end then and remove its socket.
    fn note(&self, event: &Event) -> impl Iterator<Item = Waker> + use<> {
        let Event { flags, data, .. } = *event;
        let ended = flags.intersects(EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR);
        let mut sockets = self.sockets();
        // A report may be older than the socket that has the number now. At worst, that socket is
        // tried in vain.
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
        // No code panics while it holds the lock.
        self.sockets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.rung.store(true, SeqCst);
        if self.heard.swap(false, SeqCst) {
            // It fails only when it has been rung 2^64 times.
            let _ = rustix::io::write(&self.file, &1_u64.to_ne_bytes());
        }
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

    /// The task that the report wakes.
    fn note(&mut self, ready: bool) -> Option<Waker> {
        self.ready |= ready;
        self.waiter.take_if(|_| ready)
    }
}

/// A socket in the set, until it is dropped.
#[derive(Debug)]
pub(crate) struct Watched<T> {
    // Closing it takes it out of the kernel's set.
    socket: T,
    key: usize,
    set: ReadySet,
}

impl<T> Watched<T> {
    /// The socket.
    pub(crate) fn socket(&self) -> &T {
        &self.socket
    }

    /// The set that it is in.
    pub(crate) fn set(&self) -> &ReadySet {
        &self.set
    }

    /// Does `work` if the socket is ready for it. If it would block, the task is woken when the
    /// socket is ready. `work` also returns whether there was [less than it asked for](Left). In
    /// that case the next call waits for the kernel's report.
    pub(crate) fn poll<R>(
        &self,
        way: Way,
        cx: &Context<'_>,
        mut work: impl FnMut(&T) -> io::Result<(R, Left)>,
    ) -> Poll<io::Result<R>> {
        // Declared first, so that it is dropped last, without the lock.
        let _before;
        // The lock is held during the work, so that no report in between is lost.
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
                Err(error) => return Poll::Ready(Err(error)),
                Ok((done, left)) => {
                    // The end of the stream is reported once, perhaps together with its last bytes.
                    side.ready = left == Left::Maybe || socket.ended;
                    return Poll::Ready(Ok(done));
                }
            }
        }
        _before = remember(&mut side.waiter, cx);
        Poll::Pending
    }
}

impl<T> Drop for Watched<T> {
    fn drop(&mut self) {
        // The wakers are dropped without the lock.
        let gone = self.set.0.sockets().try_remove(self.key);
        drop(gone);
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
    use crate::net::executor::{waits::block_on, within};

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
            .poll(Way::Read, cx, |mut stream| {
                Ok((stream.read(buf)?, Left::Nothing))
            })
            .map(Result::unwrap)
    }

    #[test]
    fn what_would_block_waits_for_a_report_and_is_woken_by_it() {
        block_on(async {
            let set = ReadySet::of_this_thread().unwrap();
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
            let set = ReadySet::of_this_thread().unwrap();
            let (socket, mut other) = pair(&set);
            other.write_all(b"abc").unwrap();
            let mut buf = [0; 4];
            assert_eq!(poll_fn(|cx| read(&socket, cx, &mut buf)).await, 3);
            let asked = once(|cx| socket.poll(Way::Read, cx, |_| Ok(((), Left::Maybe)))).await;
            assert!(asked.is_pending());
        });
    }

    #[test]
    fn an_end_that_was_reported_with_the_last_bytes_is_not_forgotten() {
        block_on(async {
            let set = ReadySet::of_this_thread().unwrap();
            let (socket, mut other) = pair(&set);
            let mut buf = [0; 4];
            assert!(once(|cx| read(&socket, cx, &mut buf)).await.is_pending());
            other.write_all(b"abc").unwrap();
            drop(other);
            assert_eq!(poll_fn(|cx| read(&socket, cx, &mut buf)).await, 3);
            assert_eq!(poll_fn(|cx| read(&socket, cx, &mut buf)).await, 0);
        });
    }

    #[test]
    fn a_full_socket_takes_more_when_its_peer_has_read() {
        block_on(async {
            let set = ReadySet::of_this_thread().unwrap();
            let (socket, mut other) = pair(&set);
            let write = |cx: &mut Context<'_>| {
                socket.poll(Way::Write, cx, |mut stream| {
                    Ok((stream.write(&[0; 4096])?, Left::Maybe))
                })
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
    fn more_sockets_than_one_report_names_are_all_served() {
        block_on(async {
            let set = ReadySet::of_this_thread().unwrap();
            let mut pairs: Vec<_> = (0..3 * BATCH).map(|_| pair(&set)).collect();
            let mut buf = [0; 4];
            for (socket, _) in &pairs {
                assert!(once(|cx| read(socket, cx, &mut buf)).await.is_pending());
            }
            for (_, other) in &mut pairs {
                other.write_all(b"abc").unwrap();
            }
            for (socket, _) in &pairs {
                assert_eq!(poll_fn(|cx| read(socket, cx, &mut buf)).await, 3);
            }
        });
    }

    #[test]
    fn another_thread_ends_the_wait() {
        for pause in [0, 1, 20].map(Duration::from_millis) {
            let (tell, told) = smol::channel::bounded(1);
            let teller = thread::spawn(move || {
                thread::sleep(pause);
                tell.send_blocking(())
            });
            let limit = Duration::from_secs(60);
            assert_eq!(block_on(within(limit, told.recv())), Some(Ok(())));
            teller.join().unwrap().unwrap();
        }
    }

    #[test]
    fn a_dropped_socket_leaves_no_place_taken() {
        let set = ReadySet::of_this_thread().unwrap();
        let (socket, _other) = pair(&set);
        assert_eq!(set.0.sockets().len(), 1);
        drop(socket);
        assert!(set.0.sockets().is_empty());
    }
}
