//! A story of a name that fifty nodes claim.

use crate::script::{Op::*, Seen::*, play};

/// The nodes of the simulation share four names, one after another: of 196 that follow it, 49 claim
/// the name of `PUMP`.
#[test]
fn of_fifty_claimants_the_oldest_is_shown_first_and_who_was_found_before_even_if_it_is_not() {
    let story = [
        Native("N", &[]),
        Indexers("I", 8, &["N"]),
        Within(10, Lists("N", "I*")),
        Node("PUMP", &["N"]),
        Node("PANEL", &["N"]),
        Within(10, Leased("P*")),
        // Until the holders have announced that they can name it.
        Wait(20),
        LookUpName("PANEL", "PUMP"),
        Within(3, FirstOf("PUMP", 1)),
        Nodes("LIAR", 196, &["N"]),
        Within(60, Leased("LIAR*")),
        Wait(60),
        LookUpName("N", "PUMP"),
        Within(3, FirstOf("PUMP", 50)),
        LookUpName("PANEL", "PUMP"),
        Within(3, FirstOf("PUMP", 50)),
        // Then its claim is the youngest. Only this node has found it before.
        End("PUMP"),
        Within(10, Ended("PUMP")),
        Restart("PUMP"),
        Within(10, Leased("PUMP")),
        Wait(60),
        LookUpName("PANEL", "PUMP"),
        Within(5, FirstOf("PUMP", 50)),
    ];
    play(&story);
}
