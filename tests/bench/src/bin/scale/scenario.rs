//! The scenarios and their measurements.

use std::time::Instant;

use oc_discovery::protocol::{Rng, Role};

use crate::{
    ledger::Holding,
    lookups::{self, Tally},
    world::{Loss, MakeIndexer, Size, World, indexer},
};

/// How often the nodes under a lease are counted, ms: in the first 20 s, and later.
const LOOKS: (u64, u64) = (20, 200);
/// How long natives and indexers run before the nodes start, ms.
const AHEAD: u64 = 90_000;
/// The time within which indexers start, so that their beats are spread, ms.
const INDEXERS_WITHIN: u64 = 30_000;
/// How long nodes have to settle after their start, before the event, ms.
const SETTLE: u64 = 70_000;

/// Pairs of a process and a node that it looks up in the end.
const PAIRS: usize = 1_000;
/// Messages of a lookup at most.
const MOST_MESSAGES: u64 = 40;

/// The event that begins the measurement.
#[derive(Clone, Copy)]
enum Event {
    /// The nodes start.
    Start,
    /// One of the natives ends, and its connections with it.
    NativeDies,
    /// Every other indexer ends.
    IndexersDie(Loss),
    /// All indexers start, after the natives have taken all nodes in.
    IndexersCome,
}

/// One run.
pub struct Scenario {
    /// The name of the scenario.
    pub name: &'static str,
    size: Size,
    make_indexer: MakeIndexer,
    /// The nodes start within this time, ms.
    within: u64,
    event: Event,
    /// How long the measurement lasts, ms.
    lasts: u64,
    goal: Goal,
}

/// The goal of a run.
#[derive(Clone, Copy)]
enum Goal {
    /// In the end all nodes are where they belong.
    All,
    /// All nodes are where they belong within this time, ms.
    Within(u64),
    /// The same, and the busiest native receives at most 1.5 times the mean number of messages.
    EvenNatives,
    /// Each of 1,000 lookups by name finds its node, with at most 40 messages.
    Found,
    /// All hold a lease, and none holds two from indexers while another holds none.
    Fair,
}

impl Goal {
    /// Why it was missed.
    fn missed(self, row: &Row) -> Option<String> {
        if row.stopped.is_some() {
            return Some("too many messages".into());
        }
        let Some(all) = row.times[2] else {
            return Some("not all nodes are where they belong".into());
        };
        let [two, native, none] = row.shares;
        match self {
            Self::Within(limit) if all > limit => {
                Some(format!("100 % after {all} ms, not {limit}"))
            }
            Self::EvenNatives if row.native.0 as f64 > 1.5 * row.native.1 => {
                Some("the busiest native has more than 1.5 times the mean to do".into())
            }
            Self::Found => row.lookups.as_ref().and_then(|tally| {
                if tally.found < tally.pairs {
                    return Some("a lookup has not found its node".into());
                }
                let most = tally.messages(100);
                (most > MOST_MESSAGES)
                    .then(|| format!("a lookup needs {most} messages, not {MOST_MESSAGES}"))
            }),
            Self::Fair if two > 0.0 && native + none > 0.0 => {
                Some("a node holds two leases while another has none of an indexer".into())
            }
            _ => None,
        }
    }
}

/// The measurements of a run.
pub struct Row {
    pub name: &'static str,
    /// Time until 90, 99 and 100 % of the nodes are permanently where they belong, ms.
    pub times: [Option<u64>; 3],
    /// Messages in the worst second: of the busiest native, and the mean.
    pub native: (u64, f64),
    pub indexer: (u64, f64),
    /// Most leases of an indexer through the mean; 1 is even.
    pub spread: Option<f64>,
    /// Shares of the nodes in the end, in percent: with two indexers' leases, with a native's
    /// alone, with none.
    pub shares: [f64; 3],
    /// When the run was ended because too much happened, ms from the event.
    pub stopped: Option<u64>,
    /// Lookups by name after it, if there are any.
    pub lookups: Option<Tally>,
    /// Why the goal of the scenario was missed.
    pub missed: Option<String>,
    /// Wall-clock time of the run, ms.
    pub wall_ms: u128,
}

/// All scenarios.
pub fn all(size: Size) -> Vec<Scenario> {
    let ample: MakeIndexer = indexer::<1024>;
    let scenario = |name, within, event, lasts| Scenario {
        name,
        size,
        make_indexer: ample,
        within,
        event,
        lasts,
        goal: Goal::All,
    };
    let with_goal = |scenario, goal| Scenario { goal, ..scenario };
    let short = |name, make_indexer| Scenario {
        name,
        size: Size {
            indexers: (size.nodes / 100).max(1),
            ..size
        },
        make_indexer,
        within: 10_000,
        event: Event::Start,
        lasts: 90_000,
        goal: Goal::Fair,
    };
    let alone = Size {
        indexers: 0,
        ..size
    };
    let few = Size {
        natives: 1,
        indexers: 1,
        nodes: 200,
    };
    vec![
        with_goal(
            scenario("start within 0.1 s", 100, Event::Start, 40_000),
            Goal::EvenNatives,
        ),
        with_goal(
            scenario("start within 10 s", 10_000, Event::Start, 60_000),
            Goal::Found,
        ),
        scenario("start within 120 s", 120_000, Event::Start, 160_000),
        scenario("a native dies", 10_000, Event::NativeDies, 60_000),
        scenario(
            "half of the indexers die, told",
            10_000,
            Event::IndexersDie(Loss::Noticed),
            60_000,
        ),
        with_goal(
            scenario(
                "half of the indexers die, silent",
                10_000,
                Event::IndexersDie(Loss::Silent),
                100_000,
            ),
            Goal::Within(45_000),
        ),
        short("places for 1.2 leases a node", indexer::<120>),
        short("places for 0.8 leases a node", indexer::<80>),
        Scenario {
            size: alone,
            ..scenario("no indexer", 10_000, Event::Start, 120_000)
        },
        scenario("all indexers come", 10_000, Event::IndexersCome, 60_000),
        Scenario {
            size: few,
            goal: Goal::Within(2_000),
            ..scenario(
                "an indexer comes to 200 nodes",
                1_000,
                Event::IndexersCome,
                60_000,
            )
        },
    ]
}

impl Scenario {
    /// Runs the scenario.
    pub fn run(&self, seed: u64) -> Row {
        let begun = Instant::now();
        let mut world = World::new(self.size, self.make_indexer, seed);
        world.start(world.all(Role::Native), 1_000);
        if !matches!(self.event, Event::IndexersCome) {
            world.start(world.all(Role::Indexer), INDEXERS_WITHIN);
        }
        world.run(AHEAD);
        if !matches!(self.event, Event::Start) {
            world.start(world.all(Role::Node), self.within);
            world.run(AHEAD + SETTLE);
        }
        world.reset_work();
        let (times, stopped) = self.watch(&mut world);
        let nodes: Vec<_> = holdings(&world).collect();
        let percent = |is: fn(&Holding) -> bool| {
            let count = nodes.iter().filter(|holding| is(holding)).count();
            100.0 * count as f64 / nodes.len() as f64
        };
        let loads = world.loads();
        let most = loads.iter().max().copied().unwrap_or_default();
        let mut row = Row {
            name: self.name,
            times,
            native: busiest(&world.peaks(Role::Native)),
            indexer: busiest(&world.peaks(Role::Indexer)),
            spread: (most > 0).then(|| most as f64 / mean(&loads)),
            shares: [
                percent(|holding| holding.indexers >= 2),
                percent(|holding| holding.native && holding.indexers == 0),
                percent(|holding| !holding.native && holding.indexers == 0),
            ],
            stopped,
            lookups: None,
            missed: None,
            wall_ms: begun.elapsed().as_millis(),
        };
        if matches!(self.goal, Goal::Found) {
            let mut rng = Rng::new(seed);
            row.lookups = Some(lookups::of_random_pairs(&mut world, PAIRS, &mut rng));
        }
        row.missed = self.goal.missed(&row);
        row
    }

    /// Runs the event and what follows. Returns how long it took until 90, 99 and 100 % of the
    /// nodes were where they belong, and when the run was stopped because too much happened.
    fn watch(&self, world: &mut World) -> ([Option<u64>; 3], Option<u64>) {
        let start = world.now();
        match self.event {
            Event::Start => world.start(world.all(Role::Node), self.within),
            Event::NativeDies => world.kill(0..1, Loss::Noticed),
            Event::IndexersDie(loss) => world.kill(world.all(Role::Indexer).step_by(2), loss),
            Event::IndexersCome => world.start(world.all(Role::Indexer), 0),
        }
        let belongs = match self.event {
            Event::IndexersCome => |holding: Holding| holding.indexers > 0,
            _ => |holding: Holding| holding.native || holding.indexers > 0,
        };
        let mut times = [None; 3];
        while world.now() < start + self.lasts {
            let there = holdings(world).filter(|holding| belongs(*holding)).count();
            for (time, percent) in times.iter_mut().zip([90, 99, 100]) {
                let enough = there * 100 >= self.size.nodes * percent;
                *time = if enough {
                    time.or(Some(world.now() - start))
                } else {
                    None
                };
            }
            let look = if world.now() < start + 20_000 {
                LOOKS.0
            } else {
                LOOKS.1
            };
            if !world.run(world.now() + look) {
                return (times, Some(world.now() - start));
            }
        }
        (times, None)
    }
}

fn holdings(world: &World) -> impl Iterator<Item = Holding> {
    world.all(Role::Node).map(|node| world.holding(node))
}

fn busiest(peaks: &[u64]) -> (u64, f64) {
    (peaks.iter().max().copied().unwrap_or_default(), mean(peaks))
}

fn mean(values: &[u64]) -> f64 {
    values.iter().sum::<u64>() as f64 / values.len().max(1) as f64
}
