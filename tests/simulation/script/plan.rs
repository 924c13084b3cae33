//! The world of a story: the devices that it starts, and its intervals.

use std::time::Duration;

use oc_discovery::protocol::Role;

use super::Op;
use crate::scenario::{Plan, Size};

impl Op<'_> {
    /// The names of the devices of this role that it starts.
    pub(super) fn names(self, of: Role) -> Vec<String> {
        let many = |name: &str, count| (1..=count).map(|n| format!("{name}{n}")).collect();
        match (self, of) {
            (Self::Native(name, _), Role::Native)
            | (Self::Indexer(name, _), Role::Indexer)
            | (Self::Node(name, _) | Self::Twin(name, _), Role::Node) => vec![name.to_owned()],
            (Self::Nodes(name, count, _), Role::Node)
            | (
                Self::Indexers(name, count, _)
                | Self::Liars(name, count, _)
                | Self::LiarsOnOneHost(name, count, _),
                Role::Indexer,
            ) => many(name, count),
            _ => Vec::new(),
        }
    }
}

/// The plan of a story with so many natives, indexers and nodes.
pub(super) fn plan(story: &[Op<'_>], [natives, indexers, nodes]: [usize; 3]) -> Plan {
    let lease = story.iter().find_map(|op| match op {
        Op::Lease(seconds) => Some(*seconds),
        _ => None,
    });
    let wants = story.iter().find_map(|op| match op {
        Op::Wants(leases) => Some(*leases),
        _ => None,
    });
    let lease = Duration::from_secs(lease.unwrap_or(90));
    Plan {
        natives,
        indexers,
        nodes,
        min_indexers: wants.unwrap_or(1),
        size: if indexers > 16 {
            Size::Vast
        } else {
            Size::Roomy
        },
        asks: true,
        ..Plan::of(lease)
    }
}
