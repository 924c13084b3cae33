//! The own signed record: its content and its latest envelope. The core decides when it is signed.
//!
//! Invariant: name, tags and services come from the configuration and change only when that is
//! reloaded; the addresses and the services offered change by themselves.

use std::{collections::BTreeMap, time::Duration};

use libp2p::{Multiaddr, identity::Keypair};

#[cfg(feature = "mdns")]
use crate::net::envelope::DeviceService;
use crate::{
    config::{Config, Role, name_of_host},
    net::envelope::{About, Stamp, sign_own},
    protocol::{codec::record::SignError, signing::record_ttl},
};

/// The own record and its content.
pub(super) struct OwnRecord {
    key: Keypair,
    /// What a node announces about itself.
    about: Option<About>,
    ttl: Duration,
    /// The envelope of the own grant in a closed network; empty in an open one.
    grant: Vec<u8>,
    envelope: Option<Vec<u8>>,
}

impl OwnRecord {
    /// The record of a process with this configuration; not signed yet.
    pub(super) fn new(key: Keypair, config: &Config) -> Self {
        let about = (config.role == Role::Node).then(|| About {
            name: config.name.clone().unwrap_or_else(host_name),
            tags: to_list(&config.tags),
            services: config.services.clone(),
            link_services: Vec::new(),
        });
        Self {
            key,
            about,
            ttl: record_ttl(config.lease),
            grant: Vec::new(),
            envelope: None,
        }
    }

    /// The record has this grant when it is signed next.
    #[cfg(feature = "program")]
    pub(super) fn has_grant(&mut self, grant: Vec<u8>) {
        self.grant = grant;
    }

    /// What a node announces about itself.
    pub(super) fn about(&self) -> Option<&About> {
        self.about.as_ref()
    }

    /// Has a node announce the tags and services of this configuration when it signs next.
    #[cfg(feature = "program")]
    pub(super) fn describe(&mut self, config: &Config) {
        if let Some(about) = &mut self.about {
            about.tags = to_list(&config.tags);
            about.services.clone_from(&config.services);
        }
    }

    /// Has a node list these services of devices of its link when it signs next.
    #[cfg(feature = "mdns")]
    pub(super) fn list_devices(&mut self, services: Vec<DeviceService>) {
        if let Some(about) = &mut self.about {
            about.link_services = services;
        }
    }

    /// The signed envelope.
    pub(super) fn envelope(&self) -> Option<&[u8]> {
        self.envelope.as_deref()
    }

    /// Signs the record with these addresses and with the services that have their bit set.
    pub(super) fn sign(
        &mut self,
        sequence: u64,
        own_ms: u64,
        addrs: &[Multiaddr],
        offered: u8,
    ) -> Result<(), SignError> {
        let stamp = Stamp {
            sequence,
            issued_at_ms: own_ms,
            ttl: self.ttl,
            grant: &self.grant,
        };
        let about = self.about.as_ref().map(|about| offers(about, offered));
        let envelope = sign_own(&self.key, stamp, addrs, about.as_ref())?;
        self.envelope = Some(envelope);
        Ok(())
    }
}

/// The same, with only the services that have their bit set.
fn offers(about: &About, offered: u8) -> About {
    let is_offered = |at: &usize| {
        offered
            .checked_shr(*at as u32)
            .is_some_and(|bits| bits & 1 == 1)
    };
    let services = about.services.iter().enumerate();
    let services = services.filter(|(at, _)| is_offered(at));
    About {
        services: services.map(|(_, service)| service.clone()).collect(),
        ..about.clone()
    }
}

fn to_list(tags: &BTreeMap<String, String>) -> Vec<(String, String)> {
    tags.iter()
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

/// The name of a node without a configured one. It is logged, because others search for it.
fn host_name() -> String {
    let system = rustix::system::uname();
    let host = system.nodename().to_string_lossy();
    let name = name_of_host(&host);
    log::info!("is named {name}, after the host name {host:?}: --name gives another");
    name
}

#[cfg(all(test, feature = "program"))]
mod tests {
    use super::*;
    use crate::{config::Flags, net::envelope::open_indexer};

    fn record() -> OwnRecord {
        let flags = Flags {
            data_dir: Some("unused".into()),
            ..Flags::default()
        };
        let config = Config::parse(Role::Indexer, &flags, &|_| None).unwrap();
        OwnRecord::new(Keypair::generate_ed25519(), &config)
    }

    #[test]
    fn a_record_lives_three_leases() {
        let mut record = record();
        let addrs = ["/ip4/192.0.2.1/tcp/1".parse().unwrap()];
        record.sign(1, 1_000_000, &addrs, u8::MAX).unwrap();
        let opened = open_indexer(record.envelope().unwrap()).unwrap();
        assert_eq!(opened.info.ttl, Duration::from_secs(270));
    }

    #[test]
    fn a_host_always_has_a_name_that_a_node_may_have() {
        assert!(crate::protocol::codec::to_name(&host_name()).is_some());
    }
}
