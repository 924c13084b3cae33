//! The loop as a process of its own: it logs to stderr, and handles signals, the control socket,
//! the service manager and the limit of descriptors.
//!
//! Invariant: results go to stdout, everything else to stderr, and the daemon waits for the reader
//! of neither.

use std::{ffi::OsString, io};

use libp2p::Multiaddr;
use smol::future::or;

#[cfg(feature = "mdns")]
use super::dns_sd::Bridge;
#[cfg(feature = "http")]
use super::http::{self, Http};
use super::{
    Call, Error, Host,
    control::Control,
    descriptors::{self, Division},
    driver::Driver,
    keys::read_psk,
    life::short,
    listen, load, logging, machines, members,
    notify::Notifier,
    outlet, reload,
    report::host_and_port,
    request::{self, CallAnswer, CallEvent, PendingCall, Reply},
    run_until_the_end,
    signals::{Signals, Wish},
    status::counted,
    storage::{DataDir, Fresh},
    untouched, wait_for_random_numbers,
};
#[cfg(feature = "dns")]
use super::{connections::MAX_CONNECTIONS, dns::Dns};
use crate::{
    config::{Config, Loaded, NativeAddr, Role, group_socket_dir},
    net::{executor, is_for_this_host},
    protocol::{Instant, codec::service::MAX_SERVICES},
};

/// Runs one role until a signal ends it. `Ok`: it ended in order.
///
/// # Errors
/// It could not start because of the data directory, the key file, a listen address or the control
/// socket. The error is one sentence.
pub(crate) fn run(loaded: Loaded) -> Result<(), Error> {
    let config = &loaded.config;
    // This fails only if a logger is set already, as in a test. Then that logger is used.
    let _ = logging::init(config.log, config.log_format);
    let division = descriptors::plan(
        config.listen.len() + for_dns(config) + for_http(config) + for_link_and_checks(config),
    );
    executor::block_on(serve(loaded, division.map_err(Error::new)?))
}

async fn serve(loaded: Loaded, division: Division) -> Result<(), Error> {
    let config = loaded.config.clone();
    executor::spawn(logging::attend());
    // Done before the signal handlers are installed, so that the first signal ends this wait.
    wait_for_random_numbers()?;
    let dir = config.data_dir.as_deref();
    let dir =
        dir.ok_or_else(|| Error::new("no data directory is given: give one with --data-dir"))?;
    let psk = read_psk(config.psk.as_deref())?;
    let fresh = Fresh::of(dir);
    let dir = DataDir::open(dir).map_err(Error::new)?;
    let signals = Signals::new().map_err(no_signals)?;
    if psk.is_none() && config.network.is_none() && config.role == Role::Native {
        log::warn!(
            "any device that reaches this native may join: give all devices one key file with --psk to close it"
        );
    }
    let places = machines::of_the_program(config.role)
        .ok_or_else(|| Error::new("this process runs a daemon already"))?;
    let peer = load(&dir, config.role)?;
    let own =
        crate::protocol::PeerId::try_from(peer.0.public().to_peer_id()).map_err(Error::new)?;
    let grant = match members::own_grant(&config, &own) {
        Ok(grant) => grant,
        // The error names the new identity, which is to be granted.
        Err(why) => {
            fresh.keep();
            return Err(why);
        }
    };
    let mut driver = untouched::keeping(|| Driver::new(&config, peer, psk, division.net, places))?;
    if let Some(grant) = &grant {
        driver.join(grant, config.network.is_some());
    }
    log::info!("{}", beginning(&driver, &config, division.net.connections));
    listen::listen(&mut driver, &config)?;
    let group_dir = group_socket_dir(&env);
    let control = Control::bind_if_possible(&dir, group_dir.as_deref(), division.control_clients)
        .map_err(|error| Error(format!("cannot make the control socket: {error}")))?;
    #[cfg(feature = "dns")]
    let dns = config
        .dns
        .map(|at| Dns::start(at, &config.dns_zone))
        .transpose()?;
    #[cfg(feature = "http")]
    let http = config.http.map(|at| Http::start(at, &config)).transpose()?;
    #[cfg(feature = "mdns")]
    let bridge = config
        .has_bridge()
        .then(|| Bridge::start(&config.dns_sd, &config.from_dns_sd));
    let mut notifier = Notifier::new(&env, std::process::id(), driver.env.now());
    let further: [Option<String>; 2] = [
        #[cfg(feature = "dns")]
        dns.as_ref().map(Dns::line),
        #[cfg(not(feature = "dns"))]
        None,
        #[cfg(feature = "http")]
        http.as_ref().map(Http::line),
        #[cfg(not(feature = "http"))]
        None,
    ];
    announce(&mut driver, &config, further);
    fresh.keep();
    notifier.ready(|| driver.summary());
    let mut process = Process {
        loaded,
        control,
        signals,
        notifier,
        #[cfg(feature = "dns")]
        dns,
        #[cfg(feature = "http")]
        http,
        #[cfg(feature = "mdns")]
        bridge,
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
    loaded: Loaded,
    control: Control,
    signals: Signals,
    notifier: Notifier,
    #[cfg(feature = "dns")]
    dns: Option<Dns>,
    #[cfg(feature = "http")]
    http: Option<Http>,
    #[cfg(feature = "mdns")]
    bridge: Option<Bridge>,
}

/// Descriptors that `--dns` takes.
fn for_dns(config: &Config) -> usize {
    #[cfg(feature = "dns")]
    if config.dns.is_some() {
        return 2 + MAX_CONNECTIONS;
    }
    let _ = config;
    0
}

/// Descriptors that `--http` takes.
fn for_http(config: &Config) -> usize {
    #[cfg(feature = "http")]
    if config.http.is_some() {
        return http::DESCRIPTORS;
    }
    let _ = config;
    0
}

/// Descriptors for multicast DNS, and for each possible check one connection.
fn for_link_and_checks(config: &Config) -> usize {
    #[cfg(feature = "mdns")]
    let sockets = 2 * usize::from(config.mdns) + 2 * usize::from(config.has_bridge());
    #[cfg(not(feature = "mdns"))]
    let sockets = 0;
    // A reload may give a node more checks.
    let checks = match config.role {
        Role::Node => MAX_SERVICES,
        Role::Native | Role::Indexer => 0,
    };
    sockets + checks
}

impl Process {
    /// What the operator asks, a program by DNS, or the bridge.
    async fn asked(&self) -> CallEvent {
        let programs = or(self.asked_by_dns(), self.asked_by_http());
        let others = or(programs, self.asked_by_bridge());
        #[cfg_attr(
            not(any(feature = "dns", feature = "http", feature = "mdns")),
            expect(unused_mut)
        )]
        let mut event = or(self.control.next(), others).await;
        #[cfg(any(feature = "dns", feature = "http", feature = "mdns"))]
        if let CallEvent::Made(PendingCall {
            call: request::Call::Status(tables),
            ..
        }) = &mut event
        {
            #[cfg(feature = "http")]
            if tables.is_empty() {
                tables.extend(self.control.stats());
            }
            #[cfg(feature = "dns")]
            tables.extend(self.dns.iter().flat_map(Dns::stats));
            #[cfg(feature = "http")]
            tables.extend(self.http.iter().flat_map(Http::stats));
            #[cfg(feature = "mdns")]
            tables.extend(self.bridge.iter().flat_map(Bridge::stats));
        }
        event
    }

    /// The same, or that the process is to reload its configuration. It shows its own settings.
    async fn asked_of_process(&self) -> Call {
        loop {
            match self.asked().await {
                CallEvent::Made(PendingCall {
                    call: request::Call::Reload,
                    reply,
                }) => return Call::Reload(Some(reply)),
                CallEvent::Made(PendingCall {
                    call: request::Call::Config,
                    reply,
                }) => reply.answer(CallAnswer::Config(self.loaded.report())),
                CallEvent::Made(PendingCall {
                    call: request::Call::Log,
                    reply,
                }) => reply.answer(CallAnswer::Log(logging::recent())),
                event => return Call::Answer(event),
            }
        }
    }

    async fn asked_by_dns(&self) -> CallEvent {
        #[cfg(feature = "dns")]
        if let Some(dns) = &self.dns {
            return CallEvent::Resolve(dns.next().await);
        }
        std::future::pending().await
    }

    async fn asked_by_http(&self) -> CallEvent {
        #[cfg(feature = "http")]
        if let Some(http) = &self.http {
            return http.next().await;
        }
        std::future::pending().await
    }

    async fn asked_by_bridge(&self) -> CallEvent {
        #[cfg(feature = "mdns")]
        if let Some(bridge) = &self.bridge {
            return bridge.next().await;
        }
        std::future::pending().await
    }
}

impl Host for Process {
    async fn next(&self) -> Call {
        let asked = self.asked_of_process();
        let end = async {
            match self.signals.next().await {
                Ok(Wish::End) => Call::End,
                Ok(Wish::Reload) => Call::Reload(None),
                Err(error) => Call::Fail(no_signals(error)),
            }
        };
        or(asked, end).await
    }

    fn turned(&mut self, driver: &Driver<'_>) -> Option<Instant> {
        self.notifier.turned(driver.env.now(), || driver.summary());
        #[cfg(feature = "mdns")]
        self.bridge.iter_mut().for_each(Bridge::turned);
        self.notifier.timeout()
    }

    fn reload(&mut self, driver: &mut Driver<'_>, reply: Option<Reply>) -> Option<Vec<NativeAddr>> {
        self.notifier.reloading();
        let before = self.loaded.config.natives.clone();
        let fresh = self.loaded.again(&env);
        let reloaded = reload::reload(driver, &mut self.loaded, fresh);
        self.notifier.ready(|| driver.summary());
        if let Some(reply) = reply {
            reply.answer(CallAnswer::Reloaded(reloaded));
        }
        let after = &self.loaded.config.natives;
        (before != *after).then(|| after.clone())
    }

    fn stopping(&mut self) {
        self.notifier.stopping();
        #[cfg(feature = "mdns")]
        self.bridge.iter().for_each(Bridge::leave);
    }
}

fn env(variable: &str) -> Option<OsString> {
    std::env::var_os(variable)
}

fn no_signals(error: io::Error) -> Error {
    Error(format!("cannot wait for signals: {error}"))
}

/// The first line of the log: what starts here, and with which limits.
fn beginning(driver: &Driver<'_>, config: &Config, connections: usize) -> String {
    let name = driver
        .record
        .about()
        .map(|about| format!(" {}", about.name));
    let network = match (config.network, &config.psk) {
        (Some(_), _) => "in a closed network",
        (None, Some(_)) => "in the network of the key file",
        (None, None) => "in an open network",
    };
    let natives = match config.natives.len() {
        0 => "no native configured".to_owned(),
        some => format!("{} configured", counted(&some, "native")),
    };
    format!(
        "{role}{} ({}) of version {} starts {network}: {natives}, leases of {} s, {connections} connections at most",
        name.unwrap_or_default(),
        short(&driver.env.own),
        env!("CARGO_PKG_VERSION"),
        config.lease.as_secs(),
        role = config.role,
    )
}

/// The second line of the log: where it listens, which addresses it announces, and its natives.
fn places(driver: &Driver<'_>, config: &Config) -> String {
    let all = |addrs: &mut dyn Iterator<Item = &Multiaddr>| {
        let addrs: Vec<_> = addrs.map(host_and_port).collect();
        match addrs.is_empty() {
            true => "no address".to_owned(),
            false => addrs.join(", "),
        }
    };
    let natives = match config.natives.is_empty() {
        true => String::new(),
        false => {
            let mut natives = config.natives.iter().map(|native| &native.addr);
            format!(", with the natives {}", all(&mut natives))
        }
    };
    format!(
        "listens on {}, announces {}{natives}",
        all(&mut driver.env.net.listening().iter()),
        all(&mut driver.env.net.record_addrs().iter()),
    )
}

/// Prints the addresses to stdout, the best one first. If stdout is closed or full, the daemon
/// neither ends nor waits.
fn announce(driver: &mut Driver, config: &Config, further: [Option<String>; 2]) {
    log::info!("{}", places(driver, config));
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
    lines.extend(further.into_iter().flatten());
    lines.push("ready".to_owned());
    let lines: Vec<_> = lines.into_iter().map(logging::on_stdout).collect();
    if !outlet::all(io::stdout(), &lines) {
        log::warn!("stdout did not take all lines of the start");
    }
}
