//! The options of a daemon before they are checked.

use super::{Error, Role};

/// The options of a daemon as they were written. An absent option has its default value.
#[derive(Clone, Debug, Default)]
pub(crate) struct Flags {
    /// The file with further settings.
    #[cfg(feature = "program")]
    pub config: Option<String>,
    #[cfg(feature = "program")]
    pub data_dir: Option<String>,
    pub listen: Vec<String>,
    pub announce: Vec<String>,
    pub announce_only: bool,
    pub native: Vec<String>,
    pub psk: Option<String>,
    pub network: Option<String>,
    pub grant: Option<String>,
    /// Multicast DNS is used, which the command line turns on unless it is told otherwise.
    #[cfg(feature = "mdns")]
    pub mdns: bool,
    pub trust_lan: bool,
    #[cfg(feature = "program")]
    pub log: Option<String>,
    #[cfg(feature = "program")]
    pub log_format: Option<String>,
    pub lease: Option<String>,
    pub beat_interval: Option<String>,
    pub offload_interval: Option<String>,
    pub refresh_interval: Option<String>,
    pub gc_interval: Option<String>,
    pub connect_interval: Option<String>,
    pub connections: Option<usize>,
    #[cfg(feature = "dns")]
    pub dns: Option<String>,
    #[cfg(feature = "dns")]
    pub dns_zone: Option<String>,
    #[cfg(feature = "http")]
    pub http: Option<String>,
    #[cfg(feature = "http")]
    pub http_token: Option<String>,
    #[cfg(feature = "mdns")]
    pub dns_sd: Vec<String>,
    /// The options that only a node has.
    pub node: NodeFlags,
}

/// The options that only a node has, as they were written.
#[derive(Clone, Debug, Default)]
pub(crate) struct NodeFlags {
    pub name: Option<String>,
    pub tag: Vec<String>,
    pub service: Vec<String>,
    pub check: Vec<String>,
    pub check_interval: Option<String>,
    pub allow_exec: bool,
    pub min_indexers: Option<String>,
    #[cfg(feature = "mdns")]
    pub from_dns_sd: Vec<String>,
}

impl NodeFlags {
    /// The command line does not have them for other roles, but a program can give them.
    pub(super) fn check(&self, role: Role) -> Result<(), Error> {
        let given = [
            ("--name", self.name.as_ref()),
            ("--tag", self.tag.first()),
            ("--service", self.service.first()),
            ("--check", self.check.first()),
            ("--check-interval", self.check_interval.as_ref()),
            ("--min-indexers", self.min_indexers.as_ref()),
            #[cfg(feature = "mdns")]
            ("--from-dns-sd", self.from_dns_sd.first()),
        ];
        for (option, value) in given {
            if let Some(value) = value.filter(|_| role != Role::Node) {
                return Err(Error::new(option, value, "only a node has this option"));
            }
        }
        Ok(())
    }
}
