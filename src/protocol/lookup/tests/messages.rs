//! What a node's lookup costs, requests and responses together, in networks of any size.
//!
//! The model of the DHT: a server knows eight others in the half of the network that the key is in,
//! so it begins four bits nearer. A round of three requests brings it four bits nearer again, until
//! it knows the eight nearest servers, which it then asks.

use super::*;

const MOST: usize = 40;

/// Requests of a search among so many servers, before and to the nearest ones.
fn requests(servers: usize) -> (usize, usize) {
    let bits = (servers / 8).checked_ilog2().unwrap_or(0) as usize;
    let rounds = bits.saturating_sub(4).div_ceil(4);
    (3 * rounds, servers.min(8))
}

/// What the indexer that a node asks finds, and the messages that it costs. The nearest servers
/// name these holders.
fn asked_of_an_indexer(servers: usize, holders: &[u8]) -> (Vec<u8>, usize) {
    let mut desk = Desk::new(Role::Indexer).native(NATIVE);
    desk.begin_for_peer(pump(), Reach::Network);
    let (before, nearest) = requests(servers);
    let mut messages = 2 * before;
    for _ in 0..before {
        desk.names(10, &[], Coverage::Complete);
    }
    for _ in 0..nearest {
        if desk.wanted.is_empty() {
            break;
        }
        messages += 2;
        desk.names(20, holders, Coverage::Complete);
    }
    if !desk.wanted.is_empty() {
        desk.search_ends(30, nearest as u16);
    }
    while let Some(&n) = desk.waiting().first() {
        messages += 2;
        desk.answers(40, n, &[7]);
    }
    (desk.found(), messages)
}

/// What a node finds, and the messages.
fn asked_of_a_node(indexers: usize, holders: &[u8]) -> (Vec<u8>, usize) {
    let mut desk = Desk::new(Role::Node).native(NATIVE).indexer(1);
    desk.begin(pump());
    let mut messages = 0;
    while let Some((server, ask, _)) = desk.asked.first().cloned() {
        messages += 2;
        let n = server.as_bytes()[0];
        match ask {
            Ask::Name {
                reach: Reach::Network,
                ..
            } => {
                // All other indexers, and the native.
                let (found, more) = asked_of_an_indexer(indexers, holders);
                messages += more;
                desk.answers(10, n, &found);
            }
            Ask::Indexers(_) => {
                let listed: Vec<u8> = (1..=indexers.min(MAX_LIST) as u8).collect();
                let next = (indexers > MAX_LIST).then_some(MAX_LIST as u8);
                desk.lists_indexers(20, n, &listed, next);
            }
            _ => desk.answers(20, n, &[]),
        }
    }
    (desk.found(), messages)
}

#[test]
fn lookup_costs_at_most_forty_messages_however_large_the_network_is() {
    for indexers in [1, 10, 16, 17, 1_000, 100_000] {
        let (found, messages) = asked_of_a_node(indexers, &[101, 102]);
        assert_eq!(found, [7]);
        assert!(messages <= MOST, "{messages} for one of {indexers}");
        let (found, messages) = asked_of_a_node(indexers, &[]);
        assert!(found.is_empty());
        // In the largest of small networks, each indexer is asked if no node has the name.
        let most = if indexers == 16 { MOST + 12 } else { MOST };
        assert!(messages <= most, "{messages} for no node,  {indexers}");
    }
}
