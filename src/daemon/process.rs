//! The loop as a process of its own: it logs to stderr, and handles signals, the control socket,
//! the service manager and the limit of descriptors.

use std::io;

use smol::future::or;

use super::{
    Call, Error, Host,
    control::Control,
    descriptors::{self, Division},
    driver::Driver,
    listen, load, logging, machines,
    notify::Notifier,
    outlet, read_psk, run_until_the_end,
    signals::Signals,
    storage::DataDir,
    wait_for_random_numbers,
};
use crate::{
    config::{Config, Role},
    net::{executor, is_for_this_host},
    protocol::Instant,
};

/// Runs one role until a signal ends it. `Ok`: it ended in order.
///
/// # Errors
/// It could not start because of the data directory, the key file, a listen address or the control
/// socket. The error is one sentence.
pub(crate) fn run(config: Config) -> Result<(), Error> {
    // This fails only if a logger is set already, as in a test. Then that logger is used.
    let _ = logging::init(config.log);
    let division = descriptors::plan(config.listen.len());
    executor::block_on(serve(config, division.map_err(Error::new)?))
}

async fn serve(config: Config, division: Division) -> Result<(), Error> {
    executor::spawn(logging::attend());
    // Done before the signal handlers are installed, so that the first signal ends this wait.
    wait_for_random_numbers()?;
    let dir = config.data_dir.as_deref();
    let dir =
        dir.ok_or_else(|| Error::new("no data directory is given: give one with --data-dir"))?;
    let dir = DataDir::open(dir).map_err(Error::new)?;
    let signals = Signals::new().map_err(no_signals)?;
    let psk = read_psk(config.psk.as_deref())?;
    if psk.is_none() && config.role == Role::Native {
        log::warn!(
            "anyone who reaches this native may join: give all devices one key file with --psk to close it"
        );
    }
    let places = machines::of_the_program(config.role)
        .ok_or_else(|| Error::new("this process runs a daemon already"))?;
    let peer = load(&dir, config.role)?;
    let mut driver = Driver::new(&config, peer, psk, division.net, places)?;
    listen::listen(&mut driver, &config)?;
    let control = Control::bind_if_possible(&dir, division.control_clients)
        .map_err(|error| Error(format!("cannot make the control socket: {error}")))?;
    let env = |variable: &str| std::env::var_os(variable);
    let mut notifier = Notifier::new(&env, std::process::id(), driver.env.now());
    announce(&mut driver, &config);
    notifier.ready(|| driver.summary());
    let mut process = Process {
        control,
        signals,
        notifier,
    };
    run_until_the_end(&mut driver, &config, &mut process).await?;

    // Clients that wait for an answer get their error line: those of lookups when the driver goes,
    // the others when the socket does.
    drop(driver);
    drop(process.control);
    let _ = executor::within(super::QUIET, std::future::pending::<()>()).await;
    Ok(())
}

struct Process {
    control: Control,
    signals: Signals,
    notifier: Notifier,
}

impl Host for Process {
    async fn next(&self) -> Call {
        let asked = async { Call::Answer(self.control.next().await) };
        let end = async {
            match self.signals.end_requested().await {
                Ok(()) => Call::End,
                Err(error) => Call::Fail(no_signals(error)),
            }
        };
        or(asked, end).await
    }

    fn turned(&mut self, driver: &Driver<'_>) -> Option<Instant> {
        self.notifier.turned(driver.env.now(), || driver.summary());
        self.notifier.timeout()
    }

    fn stopping(&mut self) {
        self.notifier.stopping();
    }
}

fn no_signals(error: io::Error) -> Error {
    Error(format!("cannot wait for signals: {error}"))
}

/// Prints the addresses to stdout, the best one first. If stdout is closed or full, the daemon
/// neither ends nor waits.
fn announce(driver: &mut Driver, config: &Config) {
    let own = driver.own_id();
    for addr in config.announce.iter().filter(|addr| is_for_this_host(addr)) {
        log::warn!("--announce {addr}: only peers on this host can dial it");
    }
    let mut lines = vec![format!("peer id {own}")];
    let announced = config.announce.iter();
    lines.extend(announced.map(|addr| format!("announces {addr}/p2p/{own}")));
    let listening = driver.listening().into_iter();
    lines.extend(listening.map(|addr| format!("listening on {addr}")));
    if config.role == Role::Native {
        match driver.invitation_to() {
            Some((option, addr)) => {
                lines.push(option);
                driver.invitation.printed(addr);
            }
            None => log::warn!(
                "it is not known yet at which address others reach this native: it is said here as \
                 soon as an address comes, or a connection shows one; --announce gives it"
            ),
        }
    }
    lines.push("ready".to_owned());
    if !outlet::all(io::stdout(), &lines) {
        log::warn!("stdout did not take all lines of the start");
    }
}
