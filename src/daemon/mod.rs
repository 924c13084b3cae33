//! The daemon: one thread, one loop.
//!
//! ```text
//!                 ┌──────────────────────── the loop ────────────────────────┐
//!  libp2p swarm ──▶ NetEvent ┐                                                │
//!  timers ────────▶ now      ├─▶ Driver ─▶ Machine (protocol) ─▶ Action ─▶ Net │
//!  control socket ▶ query    │                                                │
//!  /dnsaddr ──────▶ natives  ┤                                                │
//!  checks ────────▶ ended    ┘                                                │
//!  signals ───────▶ the end                                                   │
//!                 └───────────────────────────────────────────────────────────┘
//! ```
//!
//! Everything runs on the calling thread: libp2p's connections, the resolver and the control socket
//! are tasks of the one executor, and make progress while the loop waits.

mod actions;
mod beats;
#[cfg(feature = "program")]
pub(crate) mod capacity;
mod checks;
#[cfg(feature = "program")]
pub(crate) mod client;
pub(crate) mod clock;
#[cfg(any(feature = "dns", feature = "http"))]
mod connections;
#[cfg(feature = "program")]
pub(crate) mod control;
mod counters;
mod decisions;
#[cfg(feature = "program")]
pub(crate) mod demo;
mod descriptors;
mod dial_back;
#[cfg(feature = "dns")]
pub(crate) mod dns;
#[cfg(feature = "mdns")]
mod dns_sd;
#[cfg(feature = "program")]
pub(crate) mod doctor;
#[cfg(feature = "program")]
pub(crate) mod drain;
mod driver;
pub(crate) mod embedded;
mod entropy;
mod environment;
mod housekeeping;
#[cfg(feature = "http")]
pub(crate) mod http;
mod invitation;
pub(crate) mod keys;
mod life;
mod link;
mod listen;
#[cfg(feature = "program")]
pub(crate) mod logging;
mod lookup;
pub(crate) mod machines;
#[cfg(feature = "program")]
pub(crate) mod members;
#[cfg(feature = "program")]
pub(crate) mod metrics;
mod mistakes;
mod natives;
#[cfg(feature = "program")]
pub(crate) mod network;
mod nodes;
#[cfg(feature = "program")]
mod notify;
#[cfg(feature = "program")]
mod outlet;
mod problems;
#[cfg(feature = "program")]
mod process;
mod record;
#[cfg(feature = "program")]
pub(crate) mod reload;
mod report;
pub(crate) mod request;
mod servers;
#[cfg(feature = "program")]
pub(crate) mod signals;
pub(crate) mod status;
pub(crate) mod storage;
mod summary;
#[cfg(test)]
pub(crate) mod testdir;
mod trim;
#[cfg(feature = "program")]
mod untouched;
mod usage;
mod watch;

use std::{fmt, time::Duration};

use async_io::Timer;
use libp2p::identity::Keypair;
use smol::{channel::Receiver, future::or};

use self::{
    driver::Driver,
    link::LinkEvent,
    natives::Learned,
    request::CallEvent,
    storage::{DataDir, StateFile},
};
use crate::{
    config::{Config, Role},
    net::{NetEvent, executor},
    protocol::{Instant, not_running},
};

#[cfg(feature = "program")]
pub(crate) use self::process::run;
#[cfg(feature = "program")]
pub use self::untouched::Allocator;

/// After an oversleep: how long there must be quiet until all that waited counts as read, and how
/// long that may take.
const QUIET: Duration = Duration::from_millis(50);
const CATCH_UP_TIMEOUT: Duration = Duration::from_millis(600);

/// Why the daemon could not start or had to end: one sentence.
#[derive(Debug)]
pub struct Error(String);

impl Error {
    fn new(why: impl fmt::Display) -> Self {
        Self(why.to_string())
    }

    /// The process's exit code: 1.
    #[cfg(feature = "program")]
    pub fn exit_code(&self) -> u8 {
        1
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

/// The host of a loop: the program itself, or another program in which it is embedded.
trait Host {
    /// The next request, or the request to end. Cancel-safe.
    async fn next(&self) -> Call;

    /// Takes note that the loop has made a turn. Returns when it must make the next one at the
    /// latest.
    fn turned(&mut self, driver: &Driver<'_>) -> Option<Instant>;

    /// Has the driver take over the configuration anew. Returns the natives if they have changed.
    #[cfg(feature = "program")]
    fn reload(
        &mut self,
        _: &mut Driver<'_>,
        _: Option<request::Reply>,
    ) -> Option<Vec<crate::config::NativeAddr>> {
        None
    }

    /// Takes note that the end has begun.
    fn stopping(&mut self);
}

/// What a host wants.
enum Call {
    Answer(CallEvent),
    End,
    /// It is to take over its configuration anew, and to answer if there is a caller.
    #[cfg(feature = "program")]
    Reload(Option<request::Reply>),
    /// It cannot go on, for this reason.
    #[cfg(feature = "program")]
    Fail(Error),
}

/// The identity and the saved state in `dir`.
fn load(dir: &DataDir, role: Role) -> Result<(Keypair, StateFile), Error> {
    let key = dir.identity().map_err(Error::new)?;
    let mut state = dir.state();
    if let Some(before) = state.set_role(role) {
        log::warn!(
            "the data directory {} was that of a process with the role {before}: this {role} goes on with its \
             identity, as the same peer; give another --data-dir to be another one",
            dir.path().display(),
        );
    }
    Ok((key, state))
}

fn wait_for_random_numbers() -> Result<(), Error> {
    entropy::wait().map_err(|error| Error(format!("the system gives no random numbers: {error}")))
}

/// Runs until the host ends it, and then gives up the leases.
async fn run_until_the_end(
    driver: &mut Driver<'_>,
    config: &Config,
    host: &mut impl Host,
) -> Result<(), Error> {
    driver.start(config);
    let natives = natives::resolve(&config.natives);
    main_loop(driver, natives, host).await?;
    log::info!("ends: giving leases up");
    host.stopping();
    farewell(driver).await;
    driver.save();
    Ok(())
}

async fn main_loop(
    driver: &mut Driver<'_>,
    #[cfg_attr(not(feature = "program"), expect(unused_mut))] mut natives: Receiver<Learned>,
    host: &mut impl Host,
) -> Result<(), Error> {
    let checks = driver.checks.ended();
    let link = driver.link.events();
    let mut timer = Timer::never();
    let mut armed = None;
    let mut wakes_at = driver.env.now();
    loop {
        let gap = not_running(driver.overslept(), driver.env.now() - wakes_at);
        if !gap.is_zero() {
            catch_up(driver, gap).await;
        }
        driver.pump();
        let due = host.turned(driver);
        let due = due.into_iter().fold(driver.timeout(), Ord::min);
        // What is due at once may be so since the start.
        wakes_at = due.max(driver.env.now());
        if armed != Some(due) {
            timer.set_after(due - driver.env.now());
            armed = Some(due);
        }
        let net = async { Wake::Net(driver.env.net.next_event().await) };
        let time = async {
            (&mut timer).await;
            Wake::Timer
        };
        let call = async { Wake::Call(host.next().await) };
        let learned = async {
            match natives.recv().await {
                Ok(learned) => Wake::Learned(learned),
                Err(_) => std::future::pending().await,
            }
        };
        let checked = async {
            match checks.recv().await {
                Ok(ended) => Wake::Checked(ended),
                Err(_) => std::future::pending().await,
            }
        };
        let link = async { Wake::Link(link.next().await) };
        let others = or(learned, or(checked, link));
        let wake = or(or(net, time), or(call, others)).await;
        match wake {
            Wake::Net(event) => driver.on_net(event),
            Wake::Timer => armed = None,
            Wake::Learned(learned) => driver.on_learned(learned),
            Wake::Checked(ended) => driver.on_checked(ended),
            Wake::Link(event) => driver.on_link(event),
            Wake::Call(Call::Answer(event)) => driver.on_asked(event),
            Wake::Call(Call::End) => return Ok(()),
            #[cfg(feature = "program")]
            Wake::Call(Call::Reload(reply)) => {
                if let Some(given) = host.reload(driver, reply) {
                    // The names that led to natives before are not looked up any more.
                    natives = natives::resolve(&given);
                }
            }
            #[cfg(feature = "program")]
            Wake::Call(Call::Fail(why)) => return Err(why),
        }
    }
}

/// What ends a wait of the loop.
enum Wake {
    Net(NetEvent),
    Timer,
    Learned(Learned),
    Checked(checks::Ended),
    Link(LinkEvent),
    Call(Call),
}

/// The process slept, or was stopped: what peers said in the meantime is read first, then their
/// leases move on by the gap.
async fn catch_up(driver: &mut Driver<'_>, gap: Duration) {
    log::warn!(
        "did not run for {} s (it was stopped, or the machine slept): extends the leases that it granted by this time",
        gap.as_secs()
    );
    let all = async {
        while let Some(event) = executor::within(QUIET, driver.env.net.next_event()).await {
            driver.on_net(event);
        }
    };
    // Input that never ends must not make this wait for ever.
    let _ = executor::within(CATCH_UP_TIMEOUT, all).await;
    driver.shift(gap);
}

async fn farewell(driver: &mut Driver<'_>) {
    driver.shut_down();
    while !driver.is_over {
        let left = driver.timeout() - driver.env.now();
        if let Some(event) = executor::within(left, driver.env.net.next_event()).await {
            driver.on_net(event);
        }
        driver.pump();
    }
}
