//! Where the daemon listens, and what it prints about that at its start.
//!
//! Invariants: without `--listen`, both IP families share one port, which is taken again after a
//! restart, so that firewall rules and records stay valid. The daemon waits for an address that no
//! interface has yet. It is an error only if an address can never be listened on.

use std::io;

use futures_util::FutureExt as _;
use libp2p::{Multiaddr, TransportError};

use super::{Error, driver::Driver};
use crate::{
    config::{Config, INDEXER_PORT, NATIVE_PORT, Role},
    net::{tcp, transport::sentence},
};

/// Listens as configured.
///
/// # Errors
/// Another process has the configured port, or the system does not have the address family.
pub(super) fn listen(driver: &mut Driver, config: &Config) -> Result<(), Error> {
    let addrs = match config.listen.is_empty() {
        true => everywhere(driver, config.role)?,
        false => config.listen.clone(),
    };
    for addr in addrs {
        let listening = driver.env.net.listen(addr.clone());
        listening.map_err(|error| match &error {
            // Its own sentence names the address.
            TransportError::Other(_) => Error::new(sentence(&error)),
            _ => Error::new(format!("cannot listen on {addr}: {}", sentence(&error))),
        })?;
    }
    // Addresses that can be listened on are reported at once.
    while driver.env.net.next_event().now_or_never().is_some() {}
    if driver.env.net.listening().is_empty() {
        log::warn!("there is no address to listen on yet: waits until the network is up");
    }
    Ok(())
}

/// Listens on all addresses, on the port of the role.
fn everywhere(driver: &mut Driver, role: Role) -> Result<Vec<Multiaddr>, Error> {
    let known = driver.state.state().state.port;
    let ports = match (role, known) {
        (Role::Native, _) => vec![NATIVE_PORT],
        (_, Some(port)) => vec![port, 0],
        (Role::Indexer, None) => vec![INDEXER_PORT, 0],
        (Role::Node, None) => vec![0],
    };
    let (mut addrs, mut taken) = (Err(io::ErrorKind::AddrInUse.into()), false);
    for port in ports {
        addrs = tcp::everywhere(port);
        match &addrs {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => taken = true,
            _ => break,
        }
    }
    let addrs = addrs.map_err(|error| match (error.kind(), role) {
        (io::ErrorKind::AddrInUse, Role::Native) => Error::new(format!(
            "cannot listen on port {NATIVE_PORT}: it is in use by another process; end that one, or \
             give another with --listen /ip4/0.0.0.0/tcp/PORT"
        )),
        _ => Error::new(format!("cannot listen: {error}")),
    })?;
    if let Some(port) = addrs.first().map(std::net::SocketAddr::port)
        && role != Role::Native
    {
        let in_use = match known {
            Some(known) => format!("port {known} of the last run"),
            None => format!("port {INDEXER_PORT}"),
        };
        if taken {
            log::warn!(
                "{in_use} is in use by another process: takes {port} from now on, after a restart \
                 too; a firewall rule has to follow"
            );
        }
        driver.state.set_port(driver.env.now(), port);
    }
    Ok(addrs.into_iter().map(tcp::multiaddr).collect())
}
