//! Stories of indexers that are drained.

use crate::script::{
    Op::{self, *},
    Seen::*,
    play,
};

/// An indexer with 20 nodes, and another one.
const TWENTY_NODES_AND_ANOTHER_INDEXER: [Op<'_>; 7] = [
    Native("N", &[]),
    Indexer("I", &["N"]),
    Within(2, Lists("N", "I")),
    Nodes("A", 20, &["N"]),
    Within(3, Under("A*", "I")),
    Indexer("J", &["N"]),
    Within(2, Lists("N", "J")),
];

#[test]
fn nodes_of_a_drained_indexer_hold_a_lease_all_the_time_until_they_are_elsewhere() {
    let drained = [
        Drain("I"),
        For(20, Leased("A*")),
        Within(0, Under("A*", "J")),
        Within(0, LetGo("I", "A*")),
        End("I"),
        For(120, Under("A*", "J")),
    ];
    play(&[&TWENTY_NODES_AND_ANOTHER_INDEXER[..], &drained].concat());
}

#[test]
fn two_indexers_that_are_drained_at_once_send_no_node_to_each_other() {
    let drained = [
        Nodes("B", 10, &["N"]),
        Within(5, Leased("B*")),
        Indexer("K", &["N"]),
        Within(2, Lists("N", "K")),
        Drain("I"),
        Drain("J"),
        For(60, Leased("A*")),
        Within(0, Under("A*", "K")),
        Within(0, Under("B*", "K")),
    ];
    play(&[&TWENTY_NODES_AND_ANOTHER_INDEXER[..], &drained].concat());
}

#[test]
fn nodes_stay_at_a_drained_indexer_while_there_is_no_other_and_newcomers_go_to_the_native() {
    play(&[
        Native("N", &[]),
        Indexer("I", &["N"]),
        Within(2, Lists("N", "I")),
        Nodes("A", 20, &["N"]),
        Within(3, Under("A*", "I")),
        Drain("I"),
        Node("B", &["N"]),
        Within(10, TakenIn("N", "B")),
        For(300, Under("A*", "I")),
        EndDrain("I"),
        Within(60, Under("B", "I")),
    ]);
}

#[test]
fn drain_goes_on_after_the_other_indexer_was_killed_and_has_come_back() {
    let drained = [
        Drain("I"),
        Kill("J"),
        For(60, Leased("A*")),
        Restart("J"),
        Within(120, Under("A*", "J")),
        Within(60, LetGo("I", "A*")),
    ];
    play(&[&TWENTY_NODES_AND_ANOTHER_INDEXER[..], &drained].concat());
}

#[test]
fn node_with_two_leases_does_not_go_back_to_the_indexer_that_is_drained() {
    play(&[
        Wants(2),
        Native("N", &[]),
        Indexer("I", &["N"]),
        Indexer("J", &["N"]),
        Within(2, Lists("N", "J")),
        Within(2, Lists("N", "I")),
        Nodes("A", 10, &["N"]),
        Within(10, Grants("I", "A*")),
        Within(10, Grants("J", "A*")),
        Drain("I"),
        Within(10, LetGo("I", "A*")),
        For(30, LetGo("I", "A*")),
        For(30, Leased("A*")),
    ]);
}
