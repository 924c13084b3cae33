//! Runs numbered runs on all cores, counts them, and prints the first that fail.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
    thread,
};

use crate::{trace::Trace, world::World};

/// Failures that are printed. More would give no further information.
const TOLD: usize = 5;

/// The result of a run.
pub struct Run {
    /// Events in it.
    pub steps: u64,
    /// The trace of them.
    pub trace: Trace,
    /// The longest time in which a node was without a lease in the calm, ms.
    pub longest_bare: u64,
    /// The most requests and attempts of a node within a minute.
    pub most_tries: usize,
    /// The rule that was broken, and when.
    pub outcome: Result<(), String>,
}

impl Run {
    /// The result of a world.
    pub fn of(world: World, outcome: Result<(), String>) -> Self {
        Self {
            steps: world.steps,
            longest_bare: world.longest_bare,
            most_tries: world.most_tries,
            outcome: outcome.map_err(|what| format!("at {} ms: {what}", world.now)),
            trace: world.trace,
        }
    }
}

/// A kind of runs.
pub struct Kind {
    /// The name of one run.
    pub name: &'static str,
    /// The environment variable that selects one.
    pub variable: &'static str,
    /// Runs one; its number determines it.
    pub run: fn(u64, Trace) -> Run,
    /// How many at most.
    pub numbers: u64,
    /// How many steps at most, in all of them.
    pub steps: u64,
}

/// The number in a variable of the environment.
pub fn number(variable: &str) -> Option<u64> {
    let value = std::env::var(variable).ok()?;
    Some(
        value
            .parse()
            .unwrap_or_else(|_| panic!("{variable} is `{value}`, not a number")),
    )
}

/// Runs them all, or the one that the environment chooses; panics if a rule was broken.
pub fn all(kind: &Kind) {
    let Kind {
        name,
        variable,
        run,
        ..
    } = kind;
    if let Some(chosen) = number(variable) {
        let outcome = run(chosen, Trace::Log).outcome;
        return outcome.unwrap_or_else(|what| panic!("{name} {chosen} {what}"));
    }
    let totals = Totals::default();
    let threads = thread::available_parallelism().map_or(1, |n| n.get());
    let mut failed: Vec<(u64, String)> = thread::scope(|scope| {
        let running: Vec<_> = (0..threads)
            .map(|_| scope.spawn(|| work(kind, &totals)))
            .collect();
        running
            .into_iter()
            .flat_map(|thread| thread.join().expect("a worker catches panics"))
            .collect()
    });
    failed.sort();
    println!(
        "{} runs ({name}), {} steps, {} failed; longest time without a lease in a calm {} ms, most asks and tries of a node in a minute {}",
        totals.runs.load(Ordering::Relaxed),
        totals.steps.load(Ordering::Relaxed),
        failed.len(),
        totals.longest_bare.load(Ordering::Relaxed),
        totals.most_tries.load(Ordering::Relaxed),
    );
    for (number, what) in failed.iter().take(TOLD) {
        eprintln!("{name} {number} {what}; replay with {variable}={number}");
    }
    if let Some((number, _)) = failed.first()
        && let Ok(Run {
            trace: Trace::Trail(lines),
            ..
        }) = catch_unwind(AssertUnwindSafe(|| run(*number, Trace::trail())))
    {
        eprintln!("the last events of {name} {number}:");
        lines.iter().for_each(|line| eprintln!("{line}"));
    }
    assert!(failed.is_empty(), "{} failed ({name})", failed.len());
}

#[derive(Default)]
struct Totals {
    next: AtomicU64,
    runs: AtomicU64,
    steps: AtomicU64,
    failed: AtomicUsize,
    longest_bare: AtomicU64,
    most_tries: AtomicUsize,
}

fn work(kind: &Kind, totals: &Totals) -> Vec<(u64, String)> {
    let mut failed = Vec::new();
    loop {
        let number = totals.next.fetch_add(1, Ordering::Relaxed);
        let enough = totals.steps.load(Ordering::Relaxed) >= kind.steps
            || totals.failed.load(Ordering::Relaxed) >= most_failures();
        if number >= kind.numbers || enough {
            return failed;
        }
        let outcome = catch_unwind(AssertUnwindSafe(|| (kind.run)(number, Trace::Off)));
        totals.runs.fetch_add(1, Ordering::Relaxed);
        let outcome = outcome.map_or(Err("panicked".to_owned()), |run| {
            totals.steps.fetch_add(run.steps, Ordering::Relaxed);
            totals
                .longest_bare
                .fetch_max(run.longest_bare, Ordering::Relaxed);
            totals
                .most_tries
                .fetch_max(run.most_tries, Ordering::Relaxed);
            run.outcome
        });
        if let Err(what) = outcome {
            totals.failed.fetch_add(1, Ordering::Relaxed);
            failed.push((number, what));
        }
    }
}

/// The number of failures after which the rest is not run.
fn most_failures() -> usize {
    number("OC_DISCOVERY_FAILURES").map_or(TOLD, |most| most as usize)
}
