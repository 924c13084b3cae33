//! What a grant of a closed network allows, and which peers are revoked (PROTOCOL.md, section 8).
//!
//! An endpoint of a closed network asks them ([`closed`](crate::protocol::closed)); so does the
//! program that signs grants and lists.
//!
//! Invariants: a grant is judged for one peer with one role and one name, and never widens any of
//! them; its end is judged by own time alone, and not while that is not trusted
//! ([`WallClock::is_trusted`](super::clock::WallClock::is_trusted)); of all lists that were taken,
//! the one with the highest sequence counts, whole.

use core::fmt;

use heapless::Vec;

use super::{
    PeerId, Role,
    codec::{
        grant::Grant,
        revocation::{MAX_REVOKED, Revocation},
    },
};

/// What a peer is that shows a grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bearer<'a> {
    /// The peer at the other end.
    pub peer: PeerId,
    /// The role that it states.
    pub role: Role,
    /// The name of a node, if it has told it. It is not judged in other roles, which have none.
    pub name: Option<&'a str>,
}

/// Why a grant does not count for its bearer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denial {
    /// None was shown.
    Missing,
    /// It cannot be read, or its signature does not verify.
    Unreadable,
    /// The key of another network has signed it.
    OtherNetwork,
    /// The network's key has revoked its subject.
    Revoked,
    /// It is for another peer.
    OtherPeer,
    /// It does not allow the role.
    Role(Role),
    /// It has names, and the bearer's is none of them.
    Name,
    /// It has no names, and another peer's grant has the bearer's.
    Claimed,
    /// It has ended, so many ms ago.
    Ended {
        /// How long ago, in ms; at least 1.
        ms: u64,
    },
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("no grant of this network was shown"),
            Self::Unreadable => f.write_str("the grant cannot be read"),
            Self::OtherNetwork => f.write_str("the grant is one of another network"),
            Self::Revoked => f.write_str("the key of the network has revoked it"),
            Self::OtherPeer => f.write_str("the grant is for another peer"),
            Self::Role(role) => write!(f, "the grant does not allow the role {role}"),
            Self::Name => f.write_str("the grant does not allow the name"),
            Self::Claimed => f.write_str("the grant of another peer has the name"),
            Self::Ended { ms } => write!(f, "the grant ended {} s ago", ms.div_ceil(1000)),
        }
    }
}

impl core::error::Error for Denial {}

impl Denial {
    /// A word for it, for a label.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Unreadable => "unreadable",
            Self::OtherNetwork => "other_network",
            Self::Revoked => "revoked",
            Self::OtherPeer => "other_peer",
            Self::Role(_) => "role",
            Self::Name => "name",
            Self::Claimed => "claimed",
            Self::Ended { .. } => "ended",
        }
    }
}

impl Grant<'_> {
    /// Judges the grant for its bearer. `own_ms` is own time in ms since the Unix epoch, `None`
    /// while that is not trusted.
    ///
    /// # Errors
    /// The first [`Denial`] that applies.
    pub fn judge(&self, bearer: &Bearer<'_>, own_ms: Option<u64>) -> Result<(), Denial> {
        if self.peer != bearer.peer {
            return Err(Denial::OtherPeer);
        }
        if !self.roles.allow(bearer.role) {
            return Err(Denial::Role(bearer.role));
        }
        if let (Role::Node, Some(name)) = (bearer.role, bearer.name)
            && !self.names.is_empty()
            && !self.has(name)
        {
            return Err(Denial::Name);
        }
        in_time(self.not_after_ms, own_ms)
    }

    /// Whether the name is one of its names.
    pub fn has(&self, name: &str) -> bool {
        self.names.iter().any(|granted| granted.covers(name))
    }
}

/// Judges the end of a grant. `own_ms` is own time in ms since the Unix epoch, `None` while that is
/// not trusted.
///
/// # Errors
/// [`Denial::Ended`].
pub(super) fn in_time(not_after_ms: Option<u64>, own_ms: Option<u64>) -> Result<(), Denial> {
    let late = own_ms.zip(not_after_ms);
    match late.and_then(|(own, end)| own.checked_sub(end)) {
        None | Some(0) => Ok(()),
        Some(ms) => Err(Denial::Ended { ms }),
    }
}

/// Whether a list has replaced the one that counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It counts now.
    Newer,
    /// Another with its sequence, or a higher one, was taken before.
    Old,
}

/// The revocation list that counts, at first an empty one with the sequence 0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Revoked {
    sequence: u64,
    peers: Vec<PeerId, MAX_REVOKED, u8>,
}

impl Revoked {
    /// The list before the first one.
    pub const fn new() -> Self {
        Self {
            sequence: 0,
            peers: Vec::new(),
        }
    }

    /// The sequence of the list, 0 if there was none.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// The peers that are revoked.
    pub fn peers(&self) -> &[PeerId] {
        &self.peers
    }

    /// Whether the peer is revoked.
    pub fn has(&self, peer: &PeerId) -> bool {
        self.peers.contains(peer)
    }

    /// Takes a list whose signature by the network's key was verified. It counts if its sequence is
    /// higher than that of every list before.
    pub fn take(&mut self, list: &Revocation<'_>) -> Taken {
        if list.sequence <= self.sequence {
            return Taken::Old;
        }
        self.sequence = list.sequence;
        // A list that was decoded has room here.
        self.peers = list.peers.iter().take(MAX_REVOKED).collect();
        Taken::Newer
    }
}

#[cfg(test)]
mod tests;
