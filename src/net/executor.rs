//! The one executor of the program's one thread.
//!
//! libp2p's connections, the resolver's exchanges and the daemon's own tasks all run on it. Its
//! tasks make progress only inside [`block_on`], so the daemon's loop is the future that is given
//! there.

mod ready;

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_timer::Delay;
use smol::LocalExecutor;
use smol::future::{or, yield_now};

pub(crate) use ready::{Left, ReadySet, Watched, Way};

/// Steps of tasks between two looks at the main future. Few, so that what a connection has in the
/// processor's cache when its beat arrives is still there when the ack leaves: with 1000 leases
/// that is a tenth of the time, a quarter beside busy neighbours.
const TURN: usize = 16;

thread_local! {
    static EXECUTOR: LocalExecutor<'static> = const { LocalExecutor::new() };
}

/// Runs `future` as a task of its own on this thread. It ends by itself or with the process.
pub(crate) fn spawn(future: impl Future<Output = ()> + 'static) {
    EXECUTOR.with(|executor| executor.spawn(future).detach());
}

/// Drives `future` and every spawned task on this thread until `future` is done.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    EXECUTOR.with(|executor| {
        let all = or(future, run_tasks(executor));
        match ReadySet::of_this_thread() {
            Ok(sockets) => drive(&sockets, all),
            // Without a set nobody has a socket in it.
            Err(_) => async_io::block_on(all),
        }
    })
}

/// Gives memory back that more sockets have needed.
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

/// The output of `future`, or `None` if it takes longer than `limit`. It is dropped then.
pub(crate) async fn within<T>(limit: Duration, future: impl Future<Output = T>) -> Option<T> {
    or(async { Some(future.await) }, async {
        Delay::new(limit).await;
        None
    })
    .await
}

/// Keeps the waker of the task that waits, if it is not kept already. The one before is to be
/// dropped where no lock is held: that may end its task.
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
    use std::rc::Rc;

    use super::*;

    #[test]
    fn spawned_task_runs_beside_the_main_future() {
        let done = Rc::new(Cell::new(false));
        let flag = done.clone();
        spawn(async move { flag.set(true) });
        let seen = async {
            while !done.get() {
                yield_now().await;
            }
        };
        assert_eq!(
            block_on(within(Duration::from_secs(60), seen)),
            Some(()),
            "the task did not run"
        );
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
