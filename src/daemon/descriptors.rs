//! The limit of file descriptors, and how it is divided.
//!
//! Each connection takes one. If connections could take all of them, any stranger could stop the
//! answers to `status`, the saving of the state, and the dialling of servers. So some are
//! reserved, and the rest is divided between clients of the control socket, connections and
//! handshakes. This is computed once, at the start.
//!
//! Invariants: own files, the reserve, control clients, connections and handshakes together are
//! never more than the limit; a limit that is too low for a few of each is an error before anything
//! is opened.

use std::fmt;

#[cfg(feature = "program")]
use rustix::process::{Rlimit, setrlimit};
use rustix::{
    io::Errno,
    process::{Resource, getrlimit},
};

#[cfg(feature = "program")]
use super::control::MAX_CLIENTS;
use super::driver::Plan;
use crate::config::MIN_CONNECTIONS;
#[cfg(feature = "program")]
use crate::protocol::capacities::MAX_CONNECTIONS;

/// Descriptors that a daemon opens, in addition to those that it was started with and one for each
/// listen address: the set of sockets (5), signals (5), the lock, the control socket, the kernel's
/// reports of addresses, the service manager, the start lines.
const OWN: usize = 16;
/// Reserved for the client of the control socket that waits for a place, for saving the state, for
/// name lookups, and for connections that are being made.
const RESERVE: usize = 4;
/// The least number of clients of the control socket, of simultaneous handshakes, and of
/// connections, with which a role can work.
const LEAST_CLIENTS: usize = 4;
const LEAST_HANDSHAKES: usize = 2;
const LEAST_CONNECTIONS: usize = MIN_CONNECTIONS;

/// What each part may have at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Division {
    pub(super) net: Plan,
    /// Clients of the control socket that are served at once.
    pub(super) control_clients: usize,
}

impl Division {
    /// As many as the tables hold.
    #[cfg(feature = "program")]
    const FULL: Self = Self {
        net: Plan::of(MAX_CONNECTIONS),
        control_clients: MAX_CLIENTS,
    };

    #[cfg(any(feature = "program", test))]
    fn descriptors(self) -> usize {
        self.net.connections + self.net.handshakes + self.control_clients
    }
}

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

/// Raises the soft limit as far as needed and allowed, and divides what it leaves in addition to
/// `listeners`. Logs it if that is less than the tables hold.
///
/// # Errors
/// [`TooFew`].
#[cfg(feature = "program")]
pub(super) fn plan(listeners: usize) -> Result<Division, TooFew> {
    let own = already_open() + listeners + OWN + RESERVE;
    let all = own + Division::FULL.descriptors();
    let limit = raise(all);
    let division = divide(limit, own, Division::FULL)?;
    if division != Division::FULL {
        log::warn!(
            "the limit of {limit} file descriptors is enough for {} connections of {}: raise it to \
             {all} with `ulimit -n`, or LimitNOFILE= of the service",
            division.net.connections,
            MAX_CONNECTIONS
        );
    }
    Ok(division)
}

/// Divides what the soft limit leaves, in addition to `listeners` and to what is open already, of a
/// program that sets its limit itself.
///
/// # Errors
/// [`TooFew`].
pub(super) fn plan_in_program(listeners: usize, connections: usize) -> Result<Plan, TooFew> {
    let own = already_open() + listeners + OWN + RESERVE;
    let wanted = Division {
        net: Plan::of(connections),
        control_clients: 0,
    };
    let limit = number(getrlimit(Resource::Nofile).current);
    let net = divide(limit, own, wanted)?.net;
    if net != wanted.net {
        log::warn!(
            "the limit of {limit} file descriptors, of which {} are open, is enough for {} \
             connections of {connections}",
            own - listeners - OWN - RESERVE,
            net.connections,
        );
    }
    Ok(net)
}

fn number(limit: Option<u64>) -> usize {
    limit.map_or(usize::MAX, |limit| {
        usize::try_from(limit).unwrap_or(usize::MAX)
    })
}

/// Raises the soft limit to `wanted`, or to the hard limit if that is lower. Returns the new limit.
#[cfg(feature = "program")]
fn raise(wanted: usize) -> usize {
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

/// Plans a third for control clients, and of the rest one handshake for every three connections,
/// but not more than wanted.
fn divide(limit: usize, own: usize, wanted: Division) -> Result<Division, TooFew> {
    let least = own + LEAST_CLIENTS + LEAST_HANDSHAKES + LEAST_CONNECTIONS;
    if limit < least {
        return Err(TooFew { limit, least });
    }
    let Division { net, .. } = wanted;
    let free = limit - own;
    let control_clients = (free / 3).max(LEAST_CLIENTS).min(wanted.control_clients);
    let free = free - control_clients;
    let handshakes = (free / 4).max(LEAST_HANDSHAKES).min(net.handshakes);
    Ok(Division {
        net: Plan {
            connections: (free - handshakes).min(net.connections),
            handshakes,
        },
        control_clients,
    })
}

/// The number of descriptors that are open, standard streams included.
fn already_open() -> usize {
    match std::fs::read_dir("/proc/self/fd") {
        // One of them is used to read this list.
        Ok(all) => all.count(),
        // No descriptor is left to read the list.
        Err(error) if Errno::from_io_error(&error) == Some(Errno::MFILE) => {
            number(getrlimit(Resource::Nofile).current)
        }
        Err(_) => 4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WANTED: Division = wanted(1536, 256, 40);

    const fn wanted(connections: usize, handshakes: usize, control_clients: usize) -> Division {
        Division {
            net: Plan {
                connections,
                handshakes,
            },
            control_clients,
        }
    }

    #[test]
    fn descriptors_are_divided_and_their_sum_is_never_more_than_the_limit() {
        for (free, (connections, handshakes, control_clients)) in [
            (10, (4, 2, 4)),
            (14, (8, 2, 4)),
            (15, (8, 2, 5)),
            (100, (51, 16, 33)),
            (119, (60, 20, 39)),
            (120, (60, 20, 40)),
            (123, (63, 20, 40)),
            (1536 + 256 + 40 - 1, (1535, 256, 40)),
            (1536 + 256 + 40, (1536, 256, 40)),
            (usize::MAX - 30, (1536, 256, 40)),
        ] {
            let divided = divide(30 + free, 30, WANTED);
            let expected = wanted(connections, handshakes, control_clients);
            assert_eq!(divided, Ok(expected), "{free}");
        }
        for limit in 40..3000 {
            let division = divide(limit, 30, WANTED).unwrap();
            assert!(30 + division.descriptors() <= limit, "{limit}");
        }
    }

    #[test]
    fn too_low_a_limit_is_a_sentence_with_both_numbers() {
        let error = divide(39, 30, WANTED).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the limit of 39 file descriptors is too low: at least 40 are needed; raise it with \
             `ulimit -n`, or LimitNOFILE= of the service"
        );
        assert!(divide(0, 30, WANTED).is_err());
    }

    #[test]
    fn few_that_are_wanted_are_not_made_more() {
        let few = wanted(5, 5, 5);
        assert_eq!(divide(1000, 30, few), Ok(few));
    }
}
