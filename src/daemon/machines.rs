//! The state machines of the three roles, at the sizes that the build chose.
//!
//! The program has one of each in `.bss` and uses that of its role; processes that are embedded in
//! another program have their own on the heap. A machine is never moved once it has started.

use crate::{
    config::{Config, Role},
    protocol::{
        Indexer, IndexerConfig, Instant, Machine, Native, NativeConfig, Node, NodeConfig, PeerId,
        Terms,
        capacities::{
            MAX_INDEXERS, MAX_KNOWN, MAX_NATIVES, MAX_NODES, MAX_RESPONSIBLE, MAX_WATCHED,
        },
        listing::Listing,
        lookup::Lookups,
        watch::{
            Watches,
            client::Watch,
            server::{MAX_OF_PEER, MAX_WATCHERS},
        },
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
/// Lookups at once of programs that ask by DNS.
pub(super) const MAX_PROGRAM_LOOKUPS: usize = if cfg!(feature = "dns") { 8 } else { 0 };
/// All of them.
pub(super) const MAX_LOOKUPS: usize =
    MAX_FINDS + MAX_LISTS + MAX_PEER_LOOKUPS + MAX_PROGRAM_LOOKUPS;

pub(super) type ProgramLookups =
    Lookups<MAX_FINDS, MAX_LISTS, MAX_PEER_LOOKUPS, MAX_PROGRAM_LOOKUPS>;

/// Listings at once.
pub(super) const MAX_LISTINGS: usize = 2;

/// It is on the heap while it is under way.
pub(super) type ProgramListing = Listing<Vec<u64>>;

/// Watches of this process at once.
pub(super) const MAX_WATCHES: usize = MAX_OF_PEER;

pub(super) type ProgramWatch = Watch<MAX_WATCHED>;

/// The watches of this process, and the watchers of its directory.
pub(super) type ProgramWatches = Watches<MAX_WATCHES, MAX_WATCHED, { MAX_WATCHERS + MAX_OF_PEER }>;

/// The machine of a role.
enum Roles<N, I, O> {
    Native(N),
    Indexer(I),
    Node(O),
}

type Borrowed<'m> = Roles<&'m mut NativeMachine, &'m mut IndexerMachine, &'m mut Node>;

/// The places of one process's machine, its lookups and its watches.
pub(super) struct Places<'m> {
    machine: Borrowed<'m>,
    lookups: &'m mut ProgramLookups,
    watches: &'m mut ProgramWatches,
}

/// The places of the program, which runs one machine. `None`: they are used already.
///
/// They are in `.bss`: pages that no entry touches cost no memory, and nothing moves over the
/// stack.
#[cfg(feature = "program")]
pub(super) fn of_the_program(role: Role) -> Option<Places<'static>> {
    use static_cell::ConstStaticCell;

    static LOOKUPS: ConstStaticCell<ProgramLookups> = ConstStaticCell::new(Lookups::new());
    static WATCHES: ConstStaticCell<ProgramWatches> = ConstStaticCell::new(Watches::new());
    static NATIVE: ConstStaticCell<NativeMachine> = ConstStaticCell::new(Native::new());
    static INDEXER: ConstStaticCell<IndexerMachine> = ConstStaticCell::new(Indexer::new());
    static NODE: ConstStaticCell<Node> = ConstStaticCell::new(Node::new());

    Some(Places {
        machine: match role {
            Role::Native => Roles::Native(NATIVE.try_take()?),
            Role::Indexer => Roles::Indexer(INDEXER.try_take()?),
            Role::Node => Roles::Node(NODE.try_take()?),
        },
        lookups: LOOKUPS.try_take()?,
        watches: WATCHES.try_take()?,
    })
}

/// Places of one of several processes in a program: each has its own.
pub(crate) struct Owned {
    machine: Roles<Box<NativeMachine>, Box<IndexerMachine>, Box<Node>>,
    lookups: Box<ProgramLookups>,
    watches: Box<ProgramWatches>,
}

impl Owned {
    /// Stack that [`Owned::new`] may need: without optimisation a value is moved several times
    /// until it is in its place. The unused part of a stack takes address space only.
    pub(crate) fn stack(role: Role) -> usize {
        8 * size(role)
            .max(size_of::<ProgramLookups>())
            .max(size_of::<ProgramWatches>())
    }

    /// The places of a process with this role.
    pub(crate) fn new(role: Role) -> Self {
        Self {
            machine: match role {
                Role::Native => Roles::Native(boxed(Native::new)),
                Role::Indexer => Roles::Indexer(boxed(Indexer::new)),
                Role::Node => Roles::Node(boxed(Node::new)),
            },
            lookups: boxed(Lookups::new),
            watches: boxed(Watches::new),
        }
    }

    /// To be used once.
    pub(super) fn places(&mut self) -> Places<'_> {
        Places {
            machine: match &mut self.machine {
                Roles::Native(native) => Roles::Native(native),
                Roles::Indexer(indexer) => Roles::Indexer(indexer),
                Roles::Node(node) => Roles::Node(node),
            },
            lookups: &mut self.lookups,
            watches: &mut self.watches,
        }
    }
}

/// The memory is allocated before the value exists, so that the value can be made in its place.
#[inline(never)]
pub(super) fn boxed<T>(make: impl FnOnce() -> T) -> Box<T> {
    Box::write(Box::new_uninit(), make())
}

/// Bytes that a role's machine takes at most.
pub(super) const fn size(role: Role) -> usize {
    match role {
        Role::Native => size_of::<NativeMachine>(),
        Role::Indexer => size_of::<IndexerMachine>(),
        Role::Node => size_of::<Node>(),
    }
}

impl<'m> Places<'m> {
    /// Starts the lookups, the watches and the machine, with what an earlier run knew.
    pub(super) fn start(
        self,
        config: &Config,
        state: &State,
        now: Instant,
        own: PeerId,
        seed: u64,
    ) -> (
        &'m mut dyn Machine,
        &'m mut ProgramLookups,
        &'m mut ProgramWatches,
    ) {
        self.lookups.start(own);
        self.watches.start(own);
        let machine = start(self.machine, config, state, (now, own, seed));
        (machine, self.lookups, self.watches)
    }
}

fn start<'m>(
    machine: Borrowed<'m>,
    config: &Config,
    state: &State,
    (now, own, seed): (Instant, PeerId, u64),
) -> &'m mut dyn Machine {
    let terms = Terms {
        lease: config.lease,
        beat_interval: config.beat_interval,
    };
    let remembered = state.indexers.iter();
    match machine {
        Roles::Native(native) => {
            let native_config = NativeConfig {
                terms,
                offload_interval: config.offload_interval,
                refresh_interval: config.refresh_interval,
                gc_interval: config.gc_interval,
            };
            native.start(now, own, seed, native_config);
            remembered.for_each(|(indexer, _)| native.remember(now, indexer));
            native
        }
        Roles::Indexer(indexer) => {
            let indexer_config = IndexerConfig {
                terms,
                gc_interval: config.gc_interval,
            };
            indexer.start(now, own, seed, indexer_config);
            indexer
        }
        Roles::Node(node) => {
            let node_config = NodeConfig {
                terms,
                connect_interval: config.connect_interval,
                min_indexers: usize::from(config.min_indexers),
            };
            node.start(now, own, seed, node_config);
            remembered.for_each(|(indexer, addrs)| node.remember(*indexer, addrs.clone()));
            node
        }
    }
}
