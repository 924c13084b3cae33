//! `oc-discovery drain`: an indexer hands its nodes over, and the command says how far this is.
//!
//! Invariant: the daemon drains by itself. The command only looks, so ending it changes nothing.

use std::thread;
use std::time::{Duration, Instant};

use super::{Failure, ask, note, one_dir, print};
use crate::cli;
use crate::daemon::client::{self, Answer, OperatorRequest};
use crate::daemon::drain::{DrainCall, Drained, DrainedNode};
use crate::daemon::status::{Plain, counted};

/// Time between two looks.
const LOOK: Duration = Duration::from_millis(500);
/// After this time without a place elsewhere, the command says so.
const PLACELESS: Duration = Duration::from_secs(3);
/// After this time without a node that has moved, the command says why and ends.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs the command.
pub(super) fn run(args: &cli::Drain) -> Result<(), Failure> {
    let dir = one_dir(&args.data_dir, &args.dir)?;
    let ask = |call| ask::<Drained>(dir, &OperatorRequest::Drain(call));
    if args.undo {
        let was_draining = ask(DrainCall::Look)?.value.draining;
        let answer = ask(DrainCall::Undo)?;
        let here = nodes(answer.value.nodes);
        return match (args.json, was_draining) {
            (true, _) => print(&answer.json),
            (false, true) => print(format_args!("it takes nodes again; still here: {here}")),
            (false, false) => print(format_args!(
                "there is no drain to undo: it takes nodes as before, and has {here}"
            )),
        };
    }
    let answer = ask(DrainCall::Begin)?;
    if args.json {
        return print(&answer.json);
    }
    follow(answer.value, || ask(DrainCall::Look))
}

/// Shows each node that has moved, until none is left.
fn follow(
    mut seen: Drained,
    look: impl Fn() -> Result<Answer<Drained>, client::Error>,
) -> Result<(), Failure> {
    print(format_args!("hands over {}", nodes(seen.nodes)))?;
    let (mut moved_at, mut is_said) = (Instant::now(), false);
    while seen.nodes > 0 {
        thread::sleep(LOOK);
        let now = look()?.value;
        if !now.draining {
            let sentence = format!("the drain was undone; still here: {}", nodes(now.nodes));
            return Err(Failure::new(1, sentence));
        }
        if now.places == 0 && now.moving == 0 && moved_at.elapsed() > PLACELESS && !is_said {
            is_said = true;
            note("no other indexer has a free lease so far, so the nodes stay: waits for one");
        }
        let is_here = |gone: &DrainedNode| now.left.iter().any(|it| it.peer_id == gone.peer_id);
        // Beyond a thousand, those that are gone from the list may only be further down in it.
        let is_whole = now.left.len() == now.nodes && seen.left.len() == seen.nodes;
        let gone = seen.left.iter().filter(|it| is_whole && !is_here(it));
        let gone: Vec<&DrainedNode> = gone.collect();
        let moved = now.handed_over.saturating_sub(seen.handed_over);
        let word = match u64::try_from(gone.len()).is_ok_and(|gone| gone <= moved) {
            true => "has moved",
            false => "is here no more",
        };
        for node in gone {
            let name = node.name.as_deref().unwrap_or(&node.peer_id);
            print(format_args!("  {} {word}", Plain(name)))?;
        }
        if now.nodes < seen.nodes {
            moved_at = Instant::now();
        }
        if moved_at.elapsed() > PATIENCE {
            return Err(stuck(&now));
        }
        seen = now;
    }
    print("empty: it can be stopped now")
}

fn stuck(now: &Drained) -> Failure {
    let why = match now.places {
        0 => "no other indexer has a free lease for them: start one",
        _ => "they do not move to the others: see its log, and whether they reach those",
    };
    note("the drain goes on; end it with `oc-discovery drain --undo`");
    let left = nodes(now.nodes);
    Failure::new(1, format!("still here: {left}; {why}"))
}

fn nodes(count: usize) -> String {
    counted(&count, "node")
}
