//! The system at scale: the real core in virtual time, 20,000 nodes in one thread.
//!
//! Only the network is a model: messages take a few milliseconds and none is lost. The machines are
//! those of `oc_discovery::protocol`, and `world` does for them what `src/daemon` does for the
//! program. The seed determines every run.

mod kademlia;
mod ledger;
mod lookups;
mod network;
mod report;
mod scenario;
mod world;

use std::process::ExitCode;

use argh::FromArgs;

use scenario::Scenario;

/// runs the core at scale in virtual time and prints how long nodes are without a lease, and what
/// it costs
#[derive(FromArgs)]
struct Args {
    /// nodes (default: 20000)
    #[argh(option, default = "20_000")]
    nodes: usize,

    /// indexers (default: 200)
    #[argh(option, default = "200")]
    indexers: usize,

    /// natives (default: 10)
    #[argh(option, default = "10")]
    natives: usize,

    /// decides about everything random (default: 1)
    #[argh(option, default = "1")]
    seed: u64,

    /// only scenarios with this in their name
    #[argh(option)]
    only: Option<String>,

    /// print JSON
    #[argh(switch)]
    json: bool,
}

/// The stack size. A native for 20,000 nodes is large, and may be on the stack before it is moved
/// to the heap.
const STACK: usize = 256 << 20;

fn main() -> ExitCode {
    let args: Args = argh::from_env();
    let runs = std::thread::Builder::new()
        .stack_size(STACK)
        .spawn(|| run(args))
        .map_err(|error| format!("no thread with a stack of {STACK} bytes: {error}"));
    let done = runs.and_then(|runs| {
        let failed = |_| Err("a run has failed".into());
        runs.join().unwrap_or_else(failed)
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("scale: {why}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: Args) -> Result<(), String> {
    let size = world::Size {
        natives: args.natives,
        indexers: args.indexers,
        nodes: args.nodes,
    };
    size.check()?;
    let wanted = |scenario: &Scenario| {
        let only = args.only.as_deref().unwrap_or_default();
        scenario.name.contains(only)
    };
    let scenarios: Vec<_> = scenario::all(size).into_iter().filter(wanted).collect();
    if scenarios.is_empty() {
        return Err("no scenario has such a name".into());
    }
    let mut rows = Vec::new();
    for scenario in &scenarios {
        eprintln!("scale: {}", scenario.name);
        rows.push(scenario.run(args.seed));
    }
    let print = if args.json {
        report::json
    } else {
        report::table
    };
    print(&rows);
    let missed = rows.iter().filter_map(|row| {
        let why = row.missed.as_ref()?;
        Some(format!("{}: {why}", row.name))
    });
    match missed.collect::<Vec<_>>() {
        none if none.is_empty() => Ok(()),
        some => Err(format!("goals were missed: {}", some.join("; "))),
    }
}
