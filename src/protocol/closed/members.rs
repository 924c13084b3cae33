//! The peers that have shown a grant of the network, with what it allows.
//!
//! Invariants: each was signed by the network's key; a full table lets the member go that has shown
//! its grant the longest ago and has no lease with this process, and if there is none it refuses.

use heapless::{String, Vec};

use crate::protocol::{
    Instant, MAX_NAME_LEN, PeerId, Role,
    capacities::{MAX_INDEXERS, MAX_NATIVES, MAX_NODES, MAX_RESPONSIBLE},
    codec::grant::{Grant, GrantName, MAX_GRANT_NAMES, Roles},
    grants::{Bearer, Denial, in_time},
    table::{Keyed, Table, TableStats},
};

/// Members that are known at most: all that can hold a lease in any role, the servers, and some
/// that are not decided yet.
pub const MAX_MEMBERS: usize = {
    let of_native = MAX_INDEXERS + 2 * MAX_RESPONSIBLE + 2 * MAX_NATIVES;
    let most = if MAX_NODES > of_native {
        MAX_NODES
    } else {
        of_native
    };
    let all = most + 64;
    if all < u16::MAX as usize {
        all
    } else {
        u16::MAX as usize
    }
};

/// One member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Member {
    peer: PeerId,
    roles: Roles,
    names: Vec<String<MAX_NAME_LEN, u8>, MAX_GRANT_NAMES, u8>,
    not_after_ms: Option<u64>,
    shown: Instant,
}

impl Keyed for Member {
    fn peer(&self) -> &PeerId {
        &self.peer
    }
}

impl Member {
    /// The subject of a grant that was shown at `now`.
    pub(super) fn of(now: Instant, grant: &Grant<'_>) -> Self {
        let names = grant.names.iter();
        Self {
            peer: grant.peer,
            roles: grant.roles,
            names: names
                .filter_map(|name| String::try_from(name.as_str()).ok())
                .collect(),
            not_after_ms: grant.not_after_ms,
            shown: now,
        }
    }

    /// As [`Grant::judge`].
    pub(super) fn judge(&self, bearer: &Bearer<'_>, own_ms: Option<u64>) -> Result<(), Denial> {
        self.grant().judge(bearer, own_ms)
    }

    /// Whether it may be an indexer or a native.
    pub(super) fn is_server(&self) -> bool {
        self.roles.allow(Role::Indexer) || self.roles.allow(Role::Native)
    }

    /// Whether it has names of its own.
    pub(super) fn has_names(&self) -> bool {
        !self.names.is_empty()
    }

    fn grant(&self) -> Grant<'_> {
        let names = self.names.iter();
        Grant {
            peer: self.peer,
            roles: self.roles,
            names: names.filter_map(|name| GrantName::new(name)).collect(),
            issued_at_ms: 0,
            not_after_ms: self.not_after_ms,
        }
    }
}

/// The members that are known.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Members {
    table: Table<Member, MAX_MEMBERS>,
    /// The first end of all of them, ms since the Unix epoch.
    first_end: Option<u64>,
}

impl Members {
    /// None.
    pub(super) const fn new() -> Self {
        Self {
            table: Table::new(),
            first_end: None,
        }
    }

    /// The member.
    pub(super) fn find(&self, peer: &PeerId) -> Option<&Member> {
        self.table.find(peer)
    }

    /// Adds a member, or replaces what was known of it. `is_needed`: it has a lease with this
    /// process. Returns whether it is new.
    pub(super) fn put(&mut self, member: Member, is_needed: &dyn Fn(&PeerId) -> bool) -> bool {
        let is_new = !self.table.contains(&member.peer);
        if is_new && self.table.is_full() {
            let others = self.table.iter().filter(|old| !is_needed(&old.peer));
            if let Some(oldest) = others.min_by_key(|old| old.shown).map(|old| old.peer) {
                self.table.evict(&oldest);
            }
        }
        let is_kept = self.table.insert(member).is_ok();
        self.find_first_end();
        is_new && is_kept
    }

    /// Removes a member.
    pub(super) fn remove(&mut self, peer: &PeerId) {
        self.table.remove(peer);
        self.find_first_end();
    }

    /// A member whose grant has ended at this time, and why it is none any more.
    pub(super) fn ended(&self, own_ms: u64) -> Option<(PeerId, Denial)> {
        self.first_end.filter(|end| *end < own_ms)?;
        self.table.iter().find_map(|member| {
            let denial = in_time(member.not_after_ms, Some(own_ms)).err()?;
            Some((member.peer, denial))
        })
    }

    /// The first end of a grant, ms since the Unix epoch.
    pub(super) fn first_end(&self) -> Option<u64> {
        self.first_end
    }

    fn find_first_end(&mut self) {
        let ends = self.table.iter().filter_map(|member| member.not_after_ms);
        self.first_end = ends.min();
    }

    /// Whether the grant of another member has the name.
    pub(super) fn is_of_another(&self, name: &str, peer: &PeerId) -> bool {
        let covers = |granted: &String<MAX_NAME_LEN, u8>| {
            GrantName::new(granted).is_some_and(|granted| granted.covers(name))
        };
        let mut all = self.table.iter();
        all.any(|member| member.peer != *peer && member.names.iter().any(covers))
    }

    /// The statistics for `status`.
    pub(super) fn stats(&self) -> TableStats {
        self.table.stats("members")
    }
}
