//! The demo: the whole system as real processes on this machine, with a description of what
//! happens.
//!
//! It runs a list of steps. A step begins with an action, and then polls the status of the
//! processes until it sees the expected state or its deadline has passed. However the demo ends, it
//! leaves no process and no file behind, also after SIGKILL.

use std::fmt;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use smol::Timer;

use super::signals::Signals;
use crate::net::executor::block_on;

mod screen;
mod stage;
mod story;

use screen::Screen;
use stage::Stage;
pub(crate) use stage::end_with_demo;
use story::{Play, STORY};

/// How often a step polls.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// How many times faster than normal the demo runs, 1 to 100.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Speed(u32);

impl Speed {
    /// Takes the value of `--speed`. The default is 30, with which the demo takes well under a
    /// minute.
    ///
    /// # Errors
    /// One sentence, if it is not a number from 1 to 100.
    pub(crate) fn parse(value: Option<&str>) -> Result<Speed, String> {
        let Some(value) = value else {
            return Ok(Speed(30));
        };
        value
            .parse()
            .ok()
            .filter(|speed| (1..=100).contains(speed))
            .map(Speed)
            .ok_or_else(|| {
                let shown: String = value.chars().take(40).collect();
                format!("--speed {shown:?}: give a number from 1 to 100")
            })
    }
}

/// Why the demo ended early. The first line of its text is one sentence.
#[derive(Debug)]
pub(crate) enum Error {
    /// The stage could not be set up or cleared.
    Stage(String),
    /// A signal ended the demo.
    Interrupted,
    /// Its output could not be written.
    Output(io::Error),
    /// A step failed.
    Step {
        /// The step's name.
        name: &'static str,
        /// What went wrong.
        cause: Cause,
        /// The process that the step is about, and the end of its log.
        log: (&'static str, String),
    },
}

/// Why a step failed.
#[derive(Debug)]
pub(crate) enum Cause {
    /// The expected state was not seen by the deadline. What was seen instead.
    Late(Duration, String),
    /// A process ended, with this status.
    Ended(String),
    /// The action of the step failed.
    NotBegun(String),
}

impl Error {
    /// Exit code of the command.
    pub(crate) fn exit_code(&self) -> u8 {
        1
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Stage(problem) => write!(f, "demo: {problem}"),
            Error::Interrupted => write!(f, "demo: interrupted; all processes were ended"),
            Error::Output(error) => write!(f, "demo: stdout cannot be written: {error}"),
            Error::Step { name, cause, log } => {
                write!(f, "demo: step {name:?} did not happen")?;
                let (process, tail) = log;
                match cause {
                    Cause::Late(within, saw) => write!(f, " within {}: {saw}", Secs(*within))?,
                    Cause::Ended(status) => write!(f, ": {process} ended with {status}")?,
                    Cause::NotBegun(problem) => write!(f, ": {problem}")?,
                }
                if tail.is_empty() {
                    return write!(f, "\n{process} has logged nothing");
                }
                write!(f, "\nthe end of {process}'s log:")?;
                tail.lines().try_for_each(|line| write!(f, "\n  {line}"))
            }
        }
    }
}

impl std::error::Error for Error {}

/// Runs the demo with this program, and describes it on stdout, with colour and a clock if it is
/// live.
///
/// # Errors
/// [`Error`]. Everything is cleaned up before it is returned.
pub(crate) fn run(speed: Speed, is_live: bool) -> Result<(), Error> {
    let stage_error = |error: io::Error| Error::Stage(error.to_string());
    let executable = std::env::current_exe().map_err(stage_error)?;
    // Done before the first process is started, so that no signal leaves a process behind.
    let signals = Signals::new().map_err(stage_error)?;
    let stage = Stage::set_up(&std::env::temp_dir())
        .map_err(|error| Error::Stage(format!("no private directory could be made: {error}")))?;
    stage.clear_on_panic();
    let interrupted = async {
        let _ = signals.next().await;
        Err(Error::Interrupted)
    };
    let tempo = Tempo::at(speed);
    let mut out = io::stdout();
    let mut screen = Screen::new(&mut out, is_live);
    let played = block_on(smol::future::or(
        interrupted,
        play(&executable, &stage, tempo, STORY, &mut screen),
    ));
    let clock_gone = screen.clear();
    let cleared = stage.clear().map_err(|error| {
        let dir = stage.dir();
        Error::Stage(format!("{} could not be removed: {error}", dir.display()))
    });
    let took = played?;
    cleared?;
    let told = clock_gone.and_then(|()| summary(&mut screen, took));
    told.map_err(Error::Output)
}

/// The intervals of all processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Tempo {
    speed: u32,
    lease: Duration,
    beat: Duration,
    /// The interval of the offload and refresh loops.
    loops: Duration,
    /// The interval of the stream GC. It is short, so that a silent indexer's entry in
    /// `live_indexers` outlives its stream record: GC's condition holds at two thirds of the lease,
    /// and the loop runs at most 1.1 times this interval later.
    gc: Duration,
    connect: Duration,
}

impl Tempo {
    /// The normal defaults, divided by the speed, within the bounds of the options.
    fn at(Speed(speed): Speed) -> Tempo {
        use crate::{config::INTERVAL_MIN, protocol::time::MIN_LEASE};
        let scaled = |seconds, min: Duration| {
            let millis = Duration::from_secs(seconds).as_millis() / u128::from(speed);
            Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX)).max(min)
        };
        Tempo {
            speed,
            lease: scaled(90, MIN_LEASE),
            beat: scaled(30, INTERVAL_MIN),
            loops: scaled(30, INTERVAL_MIN),
            gc: scaled(20, INTERVAL_MIN),
            connect: scaled(60, INTERVAL_MIN),
        }
    }
}

/// One step of the demo.
#[derive(Clone, Copy)]
struct Step {
    name: &'static str,
    waits_for: &'static str,
    /// The longest time until the expected state is seen.
    within: fn(&Tempo) -> Duration,
    begin: fn(&mut Play<'_>) -> Result<(), String>,
    look: fn(&mut Play<'_>) -> Sight,
}

/// The result of one poll of the processes.
enum Sight {
    /// The expected state, in words.
    Seen(String),
    /// Another state, in words, and the process that may have the reason in its log.
    NotYet(&'static str, String),
}

/// Runs the steps with a program, and describes them as they happen. Returns how many there were
/// and how long they took.
async fn play(
    executable: &Path,
    stage: &Stage,
    tempo: Tempo,
    steps: &[Step],
    screen: &mut Screen<'_>,
) -> Result<(usize, Duration), Error> {
    let start = Instant::now();
    prologue(screen, &tempo).map_err(Error::Output)?;
    let mut play = Play::new(executable, stage, tempo);
    for (index, step) in steps.iter().enumerate() {
        screen
            .begin(index + 1, step.name, step.waits_for)
            .map_err(Error::Output)?;
        let begun = Instant::now();
        let saw = perform(step, &mut play, begun, screen).await?;
        screen.end(&saw, begun.elapsed()).map_err(Error::Output)?;
    }
    Ok((steps.len(), start.elapsed()))
}

async fn perform(
    step: &Step,
    play: &mut Play<'_>,
    begun: Instant,
    screen: &mut Screen<'_>,
) -> Result<String, Error> {
    let stage = play.stage();
    let failed = |process, cause| Error::Step {
        name: step.name,
        cause,
        log: (process, stage.log_tail(process)),
    };
    (step.begin)(play).map_err(|problem| failed(story::NATIVE, Cause::NotBegun(problem)))?;
    let within = (step.within)(play.tempo());
    loop {
        if let Some((process, status)) = stage.first_ended() {
            return Err(failed(process, Cause::Ended(status)));
        }
        match (step.look)(play) {
            Sight::Seen(saw) => return Ok(saw),
            Sight::NotYet(process, saw) if begun.elapsed() >= within => {
                return Err(failed(process, Cause::Late(within, saw)));
            }
            Sight::NotYet(..) => {
                screen.tick(begun.elapsed()).map_err(Error::Output)?;
                Timer::after(LOOK_EVERY).await;
            }
        }
    }
}

fn prologue(screen: &mut Screen<'_>, tempo: &Tempo) -> io::Result<()> {
    screen.tell(&format!(
        "Six processes on this machine: a native knows which indexers there are, two indexers \
         hold the leases of nodes, and three nodes find each other by name. All runs {} times as \
         fast as normal: a lease ends after {} unless it is renewed, which is done every {}. The \
         native looks after its peers every {}, and for silent ones every {}.",
        tempo.speed,
        Secs(tempo.lease),
        Secs(tempo.beat),
        Secs(tempo.loops),
        Secs(tempo.gc),
    ))?;
    screen.tell("")
}

fn summary(screen: &mut Screen<'_>, (steps, took): (usize, Duration)) -> io::Result<()> {
    screen.tell(&format!(
        "All {steps} steps happened, in {}. Every process was ended and every file removed.",
        Secs(took)
    ))
}

/// A duration in seconds with one decimal.
struct Secs(Duration);

impl fmt::Display for Secs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} s", self.0.as_secs_f64())
    }
}

#[cfg(test)]
mod tests;
