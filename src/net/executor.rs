//! The one executor of the program's one thread.
//!
//! libp2p's connections, the resolver's exchanges and the daemon's own tasks all run on it. Its
//! tasks make progress only inside [`block_on`], so the daemon's loop is the future that
//! [`block_on`] runs.

mod ready;
#[cfg(test)]
pub(crate) mod waits;

use std::cell::RefCell;
use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_timer::Delay;
use smol::future::{or, yield_now};
use smol::{LocalExecutor, Task};

pub(crate) use ready::{Left, ReadySet, Watched, Way};

/// Steps of tasks before the main future is polled again. The number is small, so that a
/// connection's data is still in the processor's cache between the arrival of its beat and the
/// sending of the ack. With 1000 leases this saves a tenth of the time, and a quarter where other
/// processes are busy.
const TURN: usize = 16;

thread_local! {
    static EXECUTOR: RefCell<Rc<LocalExecutor<'static>>> = RefCell::default();
}

/// Runs `future` as a task of its own on this thread. The task ends by itself or with the process.
pub(crate) fn spawn(future: impl Future<Output = ()> + 'static) {
    owned(future).detach();
}

/// The same, for a task that also ends when its owner drops it.
pub(crate) fn owned<T: 'static>(future: impl Future<Output = T> + 'static) -> Task<T> {
    EXECUTOR.with_borrow(|executor| executor.spawn(future))
}

/// Drives `future` and every spawned task on this thread until `future` is done.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    // Tasks spawn tasks: nothing may be borrowed while they run.
    let executor = EXECUTOR.with_borrow(Rc::clone);
    let all = or(future, run_tasks(&executor));
    match ReadySet::of_this_thread() {
        Ok(sockets) => drive(&sockets, all),
        // Without a set, no task has a socket.
        Err(_) => async_io::block_on(all),
    }
}

/// Drops the tasks that are left, for a thread that ends before its process. A task may use other
/// values of the thread when it is dropped, so that must not wait until the thread drops them all.
pub(crate) fn end() {
    let executor = EXECUTOR.take();
    drop(executor);
}

/// Gives back memory that is no longer needed.
pub(crate) fn shrink() {
    if let Ok(sockets) = ReadySet::of_this_thread() {
        sockets.shrink();
    }
}

fn drive<T>(sockets: &ReadySet, future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let waker = sockets.waker();
    let mut cx = Context::from_waker(&waker);
    loop {
        sockets.listen();
        if let Poll::Ready(done) = future.as_mut().poll(&mut cx) {
            return done;
        }
        sockets.wait();
    }
}

async fn run_tasks<T>(executor: &LocalExecutor<'_>) -> T {
    loop {
        for _ in 0..TURN {
            executor.tick().await;
        }
        yield_now().await;
    }
}

/// The output of `future`. If it takes longer than `limit`, the future is dropped and the result is
/// `None`.
pub(crate) async fn within<T>(limit: Duration, future: impl Future<Output = T>) -> Option<T> {
    or(async { Some(future.await) }, async {
        Delay::new(limit).await;
        None
    })
    .await
}

/// Keeps the waker of the waiting task, unless it is kept already. Returns the waker that it
/// replaces. The caller must drop that one where it holds no lock, because dropping it may end its
/// task.
pub(crate) fn remember(waiter: &mut Option<Waker>, cx: &Context<'_>) -> Option<Waker> {
    let known = waiter.as_ref();
    match known.is_some_and(|known| known.will_wake(cx.waker())) {
        true => None,
        false => waiter.replace(cx.waker().clone()),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::future::pending;

    use super::*;

    #[test]
    fn spawned_task_runs_beside_the_main_future() {
        let done = Rc::new(Cell::new(false));
        let flag = done.clone();
        spawn(async move { flag.set(true) });
        block_on(waits::eventually("the task runs", || done.get()));
    }

    #[test]
    fn limit_ends_a_future_that_never_does() {
        let limit = Duration::from_millis(5);
        assert_eq!(block_on(within(limit, pending::<()>())), None);
        assert_eq!(
            block_on(within(Duration::from_secs(60), async { 1 })),
            Some(1)
        );
    }
}
