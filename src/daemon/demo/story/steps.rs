//! The steps, in the order of the diagram.

use super::{INDEXERS, NODES, SLACK};
use crate::config::Role;
use crate::daemon::demo::Step;

/// The steps in the order of the diagram.
pub(in crate::daemon::demo) const STORY: &[Step] = &[
    Step {
        name: "native up",
        waits_for: "a native that listens and answers `status`",
        within: |_| SLACK,
        begin: |play| play.start_native(),
        look: |play| play.native_up(),
    },
    Step {
        name: "nodes taken in",
        waits_for: "three nodes in `responsible_peers`, since there is no indexer yet",
        within: |tempo| tempo.connect + SLACK,
        begin: |play| play.start_all(Role::Node, &NODES),
        look: |play| play.nodes_taken_in(),
    },
    Step {
        name: "indexers arrive",
        waits_for: "two indexers in `live_indexers`",
        within: |tempo| tempo.beat + SLACK,
        begin: |play| play.start_all(Role::Indexer, &INDEXERS),
        look: |play| play.indexers_live(),
    },
    Step {
        name: "offload",
        waits_for: "`responsible_peers` empty, and every node under an indexer's lease",
        within: |tempo| 2 * tempo.loops + 2 * tempo.connect + SLACK,
        begin: |_| Ok(()),
        look: |play| play.nodes_offloaded(),
    },
    Step {
        name: "indexer silenced",
        waits_for: "the indexer with the most nodes to stop: no beats, its connections open",
        within: |_| SLACK,
        begin: |play| play.silence(),
        look: |play| play.silent(),
    },
    Step {
        name: "stream collected",
        waits_for: "the stream GC to drop its stream record, its `live_indexers` entry untouched",
        within: |tempo| tempo.lease + 2 * tempo.loops + SLACK,
        begin: |_| Ok(()),
        look: |play| play.stream_collected(),
    },
    Step {
        name: "entry refreshed",
        waits_for: "the refresh loop to renew its entry from the DHT: its record lives longer",
        within: |tempo| tempo.lease + 2 * tempo.loops + SLACK,
        begin: |_| Ok(()),
        look: |play| play.entry_refreshed(),
    },
    Step {
        name: "entry run out",
        waits_for: "its signed record, and so its entry, to run out: three leases after signing",
        within: |tempo| 3 * tempo.lease + SLACK,
        begin: |_| Ok(()),
        look: |play| play.entry_run_out(),
    },
    Step {
        name: "nodes back under a lease",
        waits_for: "every node under a lease that is not the silent indexer's",
        within: |tempo| tempo.lease + 2 * tempo.connect + SLACK,
        begin: |_| Ok(()),
        look: |play| play.nodes_elsewhere(),
    },
    Step {
        name: "found by name",
        waits_for: "one node to find another by its name, and where its service is",
        within: |tempo| 2 * tempo.beat + SLACK,
        begin: |_| Ok(()),
        look: |play| play.found(),
    },
    #[cfg(feature = "dns")]
    Step {
        name: "answered by DNS",
        waits_for: "the same node to tell the address to a program that only knows DNS",
        within: |tempo| 2 * tempo.beat + SLACK,
        begin: |_| Ok(()),
        look: |play| play.resolved(),
    },
];
