//! All three roles together in virtual time: delay, loss, links cut in one or both directions,
//! connections that end or become silent, partitions, crashes and restarts, stopped processes,
//! clocks that are stepped, a late DHT, tables that are too small, an indexer that overstates its
//! room.
//!
//! - **Scenarios**: each seed is a plan of faults for a few to 47 devices; when they are over,
//!   every device holds a lease again.
//! - **Random walks**: small worlds in which each step is any event that may come next, in any
//!   order that the network allows.
//! - **Lookups**: scenarios in which devices look each other up and list all nodes all the time,
//!   and at the end without faults.
//! - **Stories**: scripts of a few operations each, that say what an operator sees (`stories`).
//! - **Hostile servers**: a walk of a node among servers that violate the protocol.
//!
//! Stories that take minutes without optimisation are ignored, unless `--include-ignored` is given:
//! `.ci/run test` runs them in an optimised build.
//!
//! After every step the rules in `invariants` are checked. A failure prints its number, the rule
//! and the last events, and its number replays it exactly.
//!
//! | variable | what it sets |
//! |---|---|
//! | `OC_DISCOVERY_SEEDS` | how many scenarios are run |
//! | `OC_DISCOVERY_LOOKUP_SEEDS` | how many of them are run with lookups |
//! | `OC_DISCOVERY_WALK_STEPS` | how many steps are walked, in walks of a few thousand each |
//! | `OC_DISCOVERY_HOSTILE_STEPS` | the same among hostile servers |
//! | `OC_DISCOVERY_SEED`, `OC_DISCOVERY_LOOKUP_SEED` | one scenario, with each event on stderr |
//! | `OC_DISCOVERY_WALK`, `OC_DISCOVERY_HOSTILE` | one walk, with each event on stderr |

mod claimants;
mod device;
mod dht;
mod directory;
mod draining;
mod driver;
mod faults;
mod flash;
mod frames;
mod heartbeat;
mod hostile;
mod invariants;
mod ledger;
mod listing;
mod listings;
mod lookup;
mod network;
mod providers;
mod runner;
mod scenario;
mod script;
mod settled;
mod spread;
mod stories;
mod trace;
mod view;
mod walk;
mod watches;
mod watching;
mod words;
mod world;

use runner::{Kind, number};
use trace::Trace;
use world::World;

/// Scenarios that are run unless the environment says otherwise.
const SEEDS: u64 = 25;
/// Scenarios that are run with lookups.
const LOOKUP_SEEDS: u64 = 15;
/// Steps that are walked.
const WALK_STEPS: u64 = 20_000;
/// Steps among hostile servers.
const HOSTILE_STEPS: u64 = 20_000;

fn scenario(seed: u64, trace: Trace) -> runner::Run {
    let mut world = World::new(seed, trace);
    let outcome = world.run();
    runner::Run::of(world, outcome)
}

fn lookups(seed: u64, trace: Trace) -> runner::Run {
    let mut world = World::new(!seed, trace);
    world.plan.asks = true;
    let outcome = world
        .run()
        .and_then(|()| world.any_finds_any())
        .and_then(|()| world.any_lists_all())
        .and_then(|()| world.lookups_were_some());
    runner::Run::of(world, outcome)
}

#[test]
fn after_the_faults_everybody_is_under_a_lease_again() {
    let seeds = number("OC_DISCOVERY_SEEDS").unwrap_or(SEEDS);
    assert!(seeds > 0, "OC_DISCOVERY_SEEDS is 0: nothing would be run");
    runner::all(&Kind {
        name: "seed",
        variable: "OC_DISCOVERY_SEED",
        run: scenario,
        numbers: seeds,
        steps: u64::MAX,
    });
}

#[test]
fn lookups_end_in_time_and_find_what_the_servers_list_that_they_ask() {
    let seeds = number("OC_DISCOVERY_LOOKUP_SEEDS").unwrap_or(LOOKUP_SEEDS);
    assert!(
        seeds > 0,
        "OC_DISCOVERY_LOOKUP_SEEDS is 0: nothing would be run"
    );
    runner::all(&Kind {
        name: "lookup seed",
        variable: "OC_DISCOVERY_LOOKUP_SEED",
        run: lookups,
        numbers: seeds,
        steps: u64::MAX,
    });
}

#[test]
fn a_random_walk_breaks_no_rule() {
    runner::all(&Kind {
        name: "walk",
        variable: "OC_DISCOVERY_WALK",
        run: walk::walk,
        numbers: u64::MAX,
        steps: number("OC_DISCOVERY_WALK_STEPS").unwrap_or(WALK_STEPS),
    });
}

#[test]
fn a_node_among_hostile_servers_keeps_its_pace_and_finds_the_honest_one() {
    runner::all(&Kind {
        name: "hostile walk",
        variable: "OC_DISCOVERY_HOSTILE",
        run: hostile::walk,
        numbers: u64::MAX,
        steps: number("OC_DISCOVERY_HOSTILE_STEPS").unwrap_or(HOSTILE_STEPS),
    });
}

#[test]
fn a_seed_replays_event_for_event() {
    let hash = |seed| scenario(seed, Trace::hash()).trace.value();
    assert_eq!(hash(7), hash(7));
    assert_ne!(hash(7), hash(8));
}
