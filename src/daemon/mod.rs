//! The daemon: one thread, one loop.
//!
//! ```text
//!                 ┌──────────────────────── the loop ────────────────────────┐
//!  libp2p swarm ──▶ NetEvent ┐                                                │
//!  timers ────────▶ now      ├─▶ Driver ─▶ Machine (protocol) ─▶ Action ─▶ Net │
//!  control socket ▶ query    │                                                │
//!  /dnsaddr ──────▶ natives  ┘                                                │
//!  signals ───────▶ the end                                                   │
//!                 └───────────────────────────────────────────────────────────┘
//! ```
//!
//! Everything runs on the calling thread: libp2p's connections, the resolver and the control socket
//! are tasks of the one executor, and make progress while the loop waits.

mod actions;
mod beats;
pub mod capacity;
pub mod client;
pub mod clock;
pub mod control;
pub mod demo;
mod descriptors;
mod driver;
mod entropy;
mod environment;
mod housekeeping;
mod invitation;
mod listen;
pub mod logging;
mod lookup;
mod machines;
mod natives;
mod notify;
mod outlet;
mod record;
mod report;
mod servers;
pub mod signals;
pub mod status;
pub mod storage;
mod summary;
#[cfg(test)]
pub(crate) mod testdir;
mod trim;

use std::{fmt, io, time::Duration};

use async_io::Timer;
use smol::future::or;

use self::{
    control::{Control, ControlEvent},
    driver::Driver,
    natives::Learned,
    notify::Notifier,
    signals::Signals,
    storage::DataDir,
};
use crate::{
    config::{Config, Role},
    net::{NetEvent, executor, limits::MAX_HANDSHAKES, transport::psk_from_file},
    protocol::capacities::MAX_CONNECTIONS,
};

/// How long giving the leases up may take at the end.
const FAREWELL_TIMEOUT: Duration = Duration::from_millis(1200);
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

/// Runs one role until a signal ends it. `Ok`: it ended in order.
///
/// # Errors
/// It could not start: the data directory, the key file, a listen address or the control socket.
/// One sentence says what and why.
pub fn run(config: Config) -> Result<(), Error> {
    // Only fails if a logger is set already, as in a test; that one serves as well.
    let _ = logging::init(config.log);
    let wanted = descriptors::Plan {
        connections: MAX_CONNECTIONS,
        handshakes: MAX_HANDSHAKES.min(MAX_CONNECTIONS),
    };
    let plan = descriptors::plan(wanted, config.listen.len()).map_err(Error::new)?;
    executor::block_on(serve(config, plan))
}

async fn serve(config: Config, plan: descriptors::Plan) -> Result<(), Error> {
    executor::spawn(logging::attend());
    // Before the signals are taken over: this wait ends with the first of them.
    entropy::wait()
        .map_err(|error| Error(format!("the system gives no random numbers: {error}")))?;
    let dir = DataDir::open(&config.data_dir).map_err(Error::new)?;
    let signals =
        Signals::new().map_err(|error| Error(format!("cannot wait for signals: {error}")))?;
    let psk = config
        .psk
        .as_deref()
        .map(psk_from_file)
        .transpose()
        .map_err(Error::new)?;
    if psk.is_none() && config.role == Role::Native {
        log::warn!(
            "anyone who reaches this native may join: give all devices one key file with --psk to close it"
        );
    }
    let mut driver = Driver::new(&config, &dir, psk, plan)?;
    listen::listen(&mut driver, &config)?;
    let control = Control::bind_if_possible(&dir)
        .map_err(|error| Error(format!("cannot make the control socket: {error}")))?;
    let env = |variable: &str| std::env::var_os(variable);
    let mut notifier = Notifier::new(&env, std::process::id(), driver.env.now());
    listen::announce(&mut driver, &config);
    notifier.ready(|| driver.summary());
    driver.start(&config);
    let natives = natives::resolve(&config.natives);

    main_loop(&mut driver, &control, &natives, &signals, &mut notifier).await?;

    log::info!("ends: giving leases up");
    notifier.stopping();
    farewell(&mut driver).await;
    driver.save();
    drop(control);
    // Clients that wait for an answer get their error line.
    let _ = executor::within(QUIET, std::future::pending::<()>()).await;
    Ok(())
}

async fn main_loop(
    driver: &mut Driver,
    control: &Control,
    natives: &smol::channel::Receiver<Learned>,
    signals: &Signals,
    notifier: &mut Notifier,
) -> Result<(), Error> {
    let mut timer = Timer::never();
    let mut armed = None;
    loop {
        if driver.overslept() > Duration::ZERO {
            catch_up(driver).await;
        }
        driver.pump();
        notifier.turned(driver.env.now(), || driver.summary());
        let due = notifier
            .timeout()
            .into_iter()
            .fold(driver.timeout(), Ord::min);
        if armed != Some(due) {
            timer.set_after(due - driver.env.now());
            armed = Some(due);
        }
        let net = async { Wake::Net(driver.env.net.next_event().await) };
        let time = async {
            (&mut timer).await;
            Wake::Timer
        };
        let operator = async { Wake::Operator(control.next().await) };
        let learned = async {
            match natives.recv().await {
                Ok(learned) => Wake::Learned(learned),
                Err(_) => std::future::pending().await,
            }
        };
        let end = async { Wake::End(signals.end_requested().await) };
        let wake = or(or(net, time), or(operator, or(learned, end))).await;
        match wake {
            Wake::Net(event) => driver.on_net(event),
            Wake::Timer => armed = None,
            Wake::Operator(event) => driver.on_operator(event),
            Wake::Learned(learned) => driver.on_learned(learned),
            Wake::End(Ok(())) => return Ok(()),
            Wake::End(Err(error)) => {
                return Err(Error(format!("cannot wait for signals: {error}")));
            }
        }
    }
}

/// What ends a wait of the loop.
enum Wake {
    Net(NetEvent),
    Timer,
    Operator(ControlEvent),
    Learned(Learned),
    End(io::Result<()>),
}

/// The process slept, or was stopped: what peers said in the meantime is read first, then their
/// leases move on by the gap.
async fn catch_up(driver: &mut Driver) {
    let gap = driver.overslept();
    log::warn!(
        "was not running for {} s: leases granted move on by as much",
        gap.as_secs_f32()
    );
    let all = async {
        while let Some(event) = executor::within(QUIET, driver.env.net.next_event()).await {
            driver.on_net(event);
        }
    };
    // Input that never ceases is no reason to wait for ever.
    let _ = executor::within(CATCH_UP_TIMEOUT, all).await;
    driver.shift(gap);
}

async fn farewell(driver: &mut Driver) {
    driver.shut_down();
    let all_told = async {
        while driver.is_leaving() {
            let event = driver.env.net.next_event().await;
            driver.on_net(event);
            driver.pump();
        }
    };
    if executor::within(FAREWELL_TIMEOUT, all_told).await.is_none() {
        log::warn!("a server did not take a last beat: our leases with it run out by themselves");
    }
}
