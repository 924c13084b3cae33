//! The limit of file descriptors, and how it is divided.
//!
//! Each connection takes one. If connections could take all of them, any stranger could prevent
//! that `status` is answered, that the state is saved and that servers are dialled. So some are
//! reserved, and the rest is divided between connections and handshakes. This is computed once, at
//! the start.
//!
//! Invariants: own files, the reserve, connections and handshakes together are never more than the
//! limit; a limit that is too low for a few of each is an error before anything is opened.

use std::fmt;

use super::driver::Plan;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors that a daemon opens, in addition to those that it was started with and one for each
/// listen address: the set of sockets (5), signals (5), the lock, the control socket, the kernel's
/// reports of addresses, the service manager, the start lines.
const OWN: usize = 16;
/// Reserved for clients of the control socket, for saving the state, for name lookups, and for
/// connections that are being made.
const RESERVE: usize = 8;
/// The least number of simultaneous handshakes, and of connections, with which a role can work.
const LEAST_HANDSHAKES: usize = 2;
const LEAST_CONNECTIONS: usize = 4;

/// The limit is too low: the limit, and the number needed at least.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooFew {
    limit: usize,
    least: usize,
}

impl fmt::Display for TooFew {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the limit of {} file descriptors is too low: at least {} are needed; raise it with \
             `ulimit -n`, or LimitNOFILE= of the service",
            self.limit, self.least
        )
    }
}

/// Raises the soft limit as far as needed and allowed, and divides it: at most `wanted`, in
/// addition to `listeners`. Logs it if the plan has less than `wanted`.
///
/// # Errors
/// [`TooFew`].
pub(super) fn plan(wanted: Plan, listeners: usize) -> Result<Plan, TooFew> {
    let own = already_open() + listeners + OWN + RESERVE;
    let all = own + wanted.connections + wanted.handshakes;
    let limit = raise(all);
    let plan = divide(limit, own, wanted)?;
    if plan != wanted {
        log::warn!(
            "the limit of {limit} file descriptors is enough for {} connections of {}: raise it to \
             {all} with `ulimit -n`, or LimitNOFILE= of the service",
            plan.connections,
            wanted.connections
        );
    }
    Ok(plan)
}

/// Raises the soft limit to `wanted`, or to the hard limit if that is lower. Returns the new limit.
fn raise(wanted: usize) -> usize {
    let number = |limit: Option<u64>| {
        limit.map_or(usize::MAX, |limit| {
            usize::try_from(limit).unwrap_or(usize::MAX)
        })
    };
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let (soft, hard) = (number(current), number(maximum));
    let raised = wanted.min(hard);
    if raised <= soft {
        return soft;
    }
    let current = u64::try_from(raised).ok();
    match setrlimit(Resource::Nofile, Rlimit { current, maximum }) {
        Ok(()) => raised,
        Err(_) => soft,
    }
}

/// Plans one handshake for every three connections, but not more than wanted.
fn divide(limit: usize, own: usize, wanted: Plan) -> Result<Plan, TooFew> {
    let least = own + LEAST_HANDSHAKES + LEAST_CONNECTIONS;
    if limit < least {
        return Err(TooFew { limit, least });
    }
    let free = limit - own;
    let handshakes = (free / 4).max(LEAST_HANDSHAKES).min(wanted.handshakes);
    Ok(Plan {
        connections: (free - handshakes).min(wanted.connections),
        handshakes,
    })
}

/// The number of descriptors that the process was started with, standard streams included.
fn already_open() -> usize {
    // One of them is the one that reads this list.
    std::fs::read_dir("/proc/self/fd").map_or(4, Iterator::count)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WANTED: Plan = Plan {
        connections: 1536,
        handshakes: 256,
    };

    fn divided(limit: usize) -> Option<(usize, usize)> {
        let plan = divide(limit, 30, WANTED).ok()?;
        Some((plan.connections, plan.handshakes))
    }

    #[test]
    fn descriptors_are_divided_and_their_sum_is_never_more_than_the_limit() {
        assert_eq!(divided(36), Some((4, 2)));
        assert_eq!(divided(38), Some((6, 2)));
        assert_eq!(divided(130), Some((75, 25)));
        assert_eq!(divided(30 + 1536 + 256), Some((1536, 256)));
        assert_eq!(divided(30 + 1536 + 256 - 1), Some((1535, 256)));
        assert_eq!(divided(usize::MAX), Some((1536, 256)));
        for limit in 36..3000 {
            let (connections, handshakes) = divided(limit).unwrap();
            assert!(30 + connections + handshakes <= limit, "{limit}");
        }
    }

    #[test]
    fn too_low_a_limit_is_a_sentence_with_both_numbers() {
        let error = divide(35, 30, WANTED).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the limit of 35 file descriptors is too low: at least 36 are needed; raise it with \
             `ulimit -n`, or LimitNOFILE= of the service"
        );
        assert!(divide(0, 30, WANTED).is_err());
    }

    #[test]
    fn few_that_are_wanted_are_not_made_more() {
        let wanted = Plan {
            connections: 5,
            handshakes: 5,
        };
        assert_eq!(divide(1000, 30, wanted), Ok(wanted));
    }
}
