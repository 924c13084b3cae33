//! `futures-timer`'s `Delay`, with one [`async_io::Timer`] for all delays.
//!
//! The published crate starts a thread of its own and wakes it for every timer; libp2p uses it for
//! its connection and query timeouts. This package replaces it through `[patch.crates-io]`. Its
//! version must equal the one in `Cargo.lock`; otherwise cargo silently ignores the patch. CI
//! checks that no registry copy is in the tree.
//!
//! Nearly all of these delays are time limits that are dropped long before they end. So the reactor
//! only knows the delay that ends next, and a new delay costs one entry in a map:
//!
//! ```text
//!  Delay ─┐
//!  Delay ─┼─▶ Timetable: waiting, by end ──the earliest──▶ async_io::Timer
//!  Delay ─┘        ▲                                        │
//!                  └───────────── wake ─────────────────────┘
//! ```
//!
//! Invariants: the timer is set to the end of the earliest waiting delay, or earlier; a dropped
//! delay has no entry.

#![forbid(unsafe_code)]
#![warn(missing_docs, unreachable_pub)]

use std::{
    collections::BTreeMap,
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Wake, Waker},
    time::{Duration, Instant},
};

use async_io::Timer;

static TIMETABLE: LazyLock<Arc<Timetable>> = LazyLock::new(Arc::default);

/// A future that is ready once its duration has passed.
pub struct Delay {
    /// When it ends; `None` if never.
    end: Option<Instant>,
    /// Its entry, if it waits.
    entry: Option<Key>,
}

impl Delay {
    /// Ready `duration` from now.
    pub fn new(duration: Duration) -> Self {
        Self {
            end: Instant::now().checked_add(duration),
            entry: None,
        }
    }

    /// Restarts the delay: it is ready `duration` from now, whether it had fired before or not.
    pub fn reset(&mut self, duration: Duration) {
        self.forget();
        self.end = Instant::now().checked_add(duration);
    }

    fn forget(&mut self) {
        if let Some(key) = self.entry.take() {
            // Dropped without the lock, because the drop of a waker may do anything.
            let _gone = TIMETABLE.lock().waiting.remove(&key);
        }
    }
}

impl Future for Delay {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        match self.end {
            Some(end) if end <= Instant::now() => {
                self.forget();
                Poll::Ready(())
            }
            Some(end) => {
                self.entry = Some(TIMETABLE.wait(end, self.entry, cx.waker()));
                Poll::Pending
            }
            None => Poll::Pending,
        }
    }
}

impl Drop for Delay {
    fn drop(&mut self) {
        self.forget();
    }
}

impl fmt::Debug for Delay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Delay").finish()
    }
}

/// When it ends, and a number of its own.
type Key = (Instant, u64);

#[derive(Default)]
struct Timetable(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    waiting: BTreeMap<Key, Waker>,
    /// The number of delays that have waited so far, which is the number of the next.
    named: u64,
    timer: Option<(Instant, Timer)>,
}

impl Timetable {
    /// Wakes `waker` at `end`. `entry` is the result of an earlier call.
    fn wait(self: &Arc<Self>, end: Instant, entry: Option<Key>, waker: &Waker) -> Key {
        // Declared first, so that it is dropped last, without the lock.
        let _old;
        let mut all = self.lock();
        if let Some(key) = entry
            && let Some(known) = all.waiting.get_mut(&key)
        {
            if !known.will_wake(waker) {
                _old = std::mem::replace(known, waker.clone());
            }
            return key;
        }
        all.named += 1;
        let key = (end, all.named);
        all.waiting.insert(key, waker.clone());
        if all.timer.as_ref().is_none_or(|(set, _)| end < *set) {
            self.fire(all);
        }
        key
    }

    /// Wakes the delays with an end in the past, and sets the timer to the next one.
    fn fire(self: &Arc<Self>, mut all: MutexGuard<'_, Waiting>) {
        let waker = Waker::from(self.clone());
        let mut due = Vec::new();
        all.timer = loop {
            let now = Instant::now();
            while let Some(first) = all.waiting.first_entry()
                && first.key().0 <= now
            {
                due.push(first.remove());
            }
            let Some((&(end, _), _)) = all.waiting.first_key_value() else {
                break None;
            };
            let mut timer = Timer::at(end);
            let passed = Pin::new(&mut timer).poll(&mut Context::from_waker(&waker));
            if passed.is_pending() {
                break Some((end, timer));
            }
        };
        drop(all);
        due.into_iter().for_each(Waker::wake);
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // A panic while the lock is held leaves the map consistent.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The timer has fired.
impl Wake for Timetable {
    fn wake(self: Arc<Self>) {
        self.fire(self.lock());
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use async_io::block_on;

    use super::*;

    fn millis(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    /// A delay that was polled once, so that it waits.
    fn waiting(duration: Duration) -> Delay {
        let mut delay = Delay::new(duration);
        let polled = Pin::new(&mut delay).poll(&mut Context::from_waker(Waker::noop()));
        assert!(polled.is_pending());
        delay
    }

    /// Whether the timer is set to the end of this delay, or earlier.
    fn is_set_for(delay: &Delay) -> bool {
        let all = TIMETABLE.lock();
        let set = all.timer.as_ref().map(|(set, _)| *set);
        set.is_some() && set <= delay.end
    }

    // This is one test, because the whole process shares the timetable.
    #[test]
    fn the_earliest_sets_the_timer_each_ends_in_its_turn_and_none_is_left() {
        let long = waiting(millis(60_000));
        let longer = waiting(millis(90_000));
        assert!(is_set_for(&long), "a later one changes nothing");

        let mut delays: Vec<_> = [30, 10, 0, 20, 10].map(|n| Delay::new(millis(n))).into();
        block_on(poll_fn(|cx| {
            delays.retain_mut(|delay| {
                let ready = Pin::new(&mut *delay).poll(cx).is_ready();
                assert_eq!(ready, delay.entry.is_none());
                assert!(!ready || delay.end <= Some(Instant::now()), "too early");
                !ready
            });
            match delays.is_empty() {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        }));
        assert!(is_set_for(&long), "the next is waited for again");
        drop(waiting(millis(30_000)));
        assert!(is_set_for(&long), "the earliest went, and the others wait");

        let mut again = waiting(millis(60_000));
        again.reset(millis(5));
        block_on(&mut again);
        again.reset(Duration::MAX);
        let never = Pin::new(&mut again).poll(&mut Context::from_waker(Waker::noop()));
        assert!(never.is_pending());

        drop((long, longer, again));
        assert!(TIMETABLE.lock().waiting.is_empty());
    }
}
