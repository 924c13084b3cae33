//! The state machines of the three roles, at the sizes that the build chose.
//!
//! They stand in `.bss`: pages that no entry touches cost no memory, nothing moves over the stack,
//! and a process uses the one of its role only.

use static_cell::ConstStaticCell;

use crate::{
    config::{Config, Role},
    net::convert,
    protocol::{
        Indexer, IndexerConfig, Instant, Machine, Native, NativeConfig, Node, NodeConfig, PeerId,
        Terms,
        capacities::{MAX_INDEXERS, MAX_KNOWN, MAX_NATIVES, MAX_NODES, MAX_RESPONSIBLE},
        lookup::Lookups,
    },
};

use super::storage::State;

/// Leases that a native can grant: to indexers, to nodes taken in, to the same number of released
/// nodes that have not left yet, to fellow natives, and to the same number of guests.
const MAX_NATIVE_LEASES: usize = MAX_INDEXERS + 2 * MAX_RESPONSIBLE + 2 * MAX_NATIVES;

type NativeMachine = Native<MAX_INDEXERS, MAX_KNOWN, MAX_RESPONSIBLE, MAX_NATIVE_LEASES>;
type IndexerMachine = Indexer<MAX_NODES>;

// However many guests there are, there is room for the lease of each configured native.
const _: () = assert!(
    NativeMachine::ROOM_FOR_NATIVES - NativeMachine::MAX_GUESTS >= MAX_NATIVES,
    "guests could take the room of fellow natives"
);

/// Lookups at once: finds and lists of indexers of the operator, and lookups of other peers.
const MAX_FINDS: usize = 8;
const MAX_LISTS: usize = 2;
const MAX_PEER_LOOKUPS: usize = 24;
/// All of them.
pub(super) const MAX_LOOKUPS: usize = MAX_FINDS + MAX_LISTS + MAX_PEER_LOOKUPS;

pub(super) type ProgramLookups = Lookups<MAX_FINDS, MAX_LISTS, MAX_PEER_LOOKUPS>;

static LOOKUPS: ConstStaticCell<ProgramLookups> = ConstStaticCell::new(Lookups::new());
static NATIVE: ConstStaticCell<NativeMachine> = ConstStaticCell::new(Native::new());
static INDEXER: ConstStaticCell<IndexerMachine> = ConstStaticCell::new(Indexer::new());
static NODE: ConstStaticCell<Node> = ConstStaticCell::new(Node::new());

/// Bytes of a role's machine: what it takes at most.
pub(super) const fn size(role: Role) -> usize {
    match role {
        Role::Native => size_of::<NativeMachine>(),
        Role::Indexer => size_of::<IndexerMachine>(),
        Role::Node => size_of::<Node>(),
    }
}

/// The lookups of this process, whose id is `own`. `None`: they are used already.
pub(super) fn lookups(own: PeerId) -> Option<&'static mut ProgramLookups> {
    let lookups = LOOKUPS.try_take()?;
    lookups.start(own);
    Some(lookups)
}

/// Starts the machine of the configured role, with what an earlier run knew. `None`: it runs
/// already in this process.
pub(super) fn start(
    config: &Config,
    state: &State,
    now: Instant,
    own: PeerId,
    seed: u64,
) -> Option<&'static mut dyn Machine> {
    let terms = Terms {
        lease: config.lease,
        beat_interval: config.beat_interval,
    };
    let remembered = state.indexers.iter().filter_map(|known| {
        Some((
            PeerId::try_from(known.peer).ok()?,
            convert::to_addrs(&known.addrs),
        ))
    });
    Some(match config.role {
        Role::Native => {
            let native = NATIVE.try_take()?;
            let native_config = NativeConfig {
                terms,
                offload_interval: config.offload_interval,
                refresh_interval: config.refresh_interval,
                gc_interval: config.gc_interval,
            };
            native.start(now, own, seed, native_config);
            remembered.for_each(|(indexer, _)| native.remember(now, &indexer));
            native
        }
        Role::Indexer => {
            let indexer = INDEXER.try_take()?;
            let indexer_config = IndexerConfig {
                terms,
                gc_interval: config.gc_interval,
            };
            indexer.start(now, own, seed, indexer_config);
            indexer
        }
        Role::Node => {
            let node = NODE.try_take()?;
            let node_config = NodeConfig {
                terms,
                connect_interval: config.connect_interval,
                min_indexers: usize::from(config.min_indexers),
            };
            node.start(now, own, seed, node_config);
            remembered.for_each(|(indexer, addrs)| node.remember(indexer, addrs));
            node
        }
    })
}
