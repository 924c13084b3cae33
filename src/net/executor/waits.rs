//! The waits of tests: each has a deadline.

use super::*;

/// More than a whole test takes on a busy machine.
pub(crate) const LONGEST: Duration = Duration::from_secs(60);
/// More than anything takes that a test waits for on a busy machine.
const DEADLINE: Duration = Duration::from_secs(20);
/// Time between two polls.
const PAUSE: Duration = Duration::from_millis(1);

/// As [`super::block_on`], for a test that is done within [`LONGEST`].
#[track_caller]
pub(crate) fn block_on<T>(test: impl Future<Output = T>) -> T {
    block_on_for(LONGEST, test)
}

/// As [`super::block_on`], for a test that is done within `limit`.
#[track_caller]
pub(crate) fn block_on_for<T>(limit: Duration, test: impl Future<Output = T>) -> T {
    match super::block_on(within(limit, test)) {
        Some(done) => done,
        None => panic!("the test is not done within {limit:?}"),
    }
}

/// Polls until `is_so`, while the tasks of this thread run.
pub(crate) async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let polling = async {
        while !is_so() {
            Delay::new(PAUSE).await;
        }
    };
    let seen = within(DEADLINE, polling).await;
    assert!(seen.is_some(), "not seen within {DEADLINE:?}: {what}");
}
