//! The commands that run a daemon: the options that all roles share, and those of a node.

use argh::FromArgs;

use crate::config::{Flags, NodeFlags};

/// A command that runs a daemon: the options that all roles share, then those of its own.
macro_rules! daemon {
    (
        #[doc = $about:tt]
        $command:tt, $type:ident, listens by default on $listen:tt { $($own:tt)* }
    ) => {
        #[doc = $about]
        #[derive(Debug, FromArgs)]
        #[argh(subcommand, name = $command, help_triggers("-h", "--help", "help"))]
        pub(crate) struct $type {
            /// file of further settings, TOML, after which FILE.d/*.toml without FILE's .toml is
            /// read; options win (default: ROLE.toml in $CONFIGURATION_DIRECTORY or
            /// /etc/oc-discovery, if it is there)
            #[argh(option, arg_name = "file")]
            config: Option<String>,

            /// directory of the identity, the saved state and the control socket (default:
            /// $STATE_DIRECTORY, else oc-discovery/ROLE in $XDG_STATE_HOME or ~/.local/state)
            #[argh(option, arg_name = "dir")]
            data_dir: Option<String>,

            /// address to listen on, /ip4 or /ip6 with /tcp; may be given up to 8 times (default:
            #[doc = $listen]
            #[argh(option, arg_name = "multiaddr")]
            listen: Vec<String>,

            /// address to be announced before all others, for port forwarding and names: /ip4,
            /// /ip6, /dns, /dns4 or /dns6 with /tcp/PORT; may be given up to 8 times (default:
            /// none)
            #[argh(option, arg_name = "multiaddr")]
            announce: Vec<String>,

            /// announce only the addresses of --announce (default: those of this host too)
            #[argh(switch)]
            announce_only: bool,

            /// a native: /ip4, /ip6, /dns, /dns4 or /dns6 with /tcp/PORT/p2p/ID, or
            /// /dnsaddr/NAME; may be given up to 8 times (default: those of the last run)
            #[argh(option, arg_name = "multiaddr")]
            native: Vec<String>,

            /// swarm.key file of a private network (default: anyone may join)
            #[argh(option, arg_name = "file")]
            psk: Option<String>,

            /// id of the closed network: refuse every peer without a grant of it (default: grants
            /// are ignored)
            #[argh(option, arg_name = "id")]
            network: Option<String>,

            /// file with the grant of this device in a closed network (default: the file grant in
            /// the data directory, if it is there)
            #[argh(option, arg_name = "file")]
            grant: Option<String>,

            /// neither announce a native nor ask for natives by multicast DNS (default: UDP port
            /// 5353 of the local links)
            #[cfg(feature = "mdns")]
            #[argh(switch)]
            no_mdns: bool,

            /// without --native: use every native that is found on the network, also unknown ones
            /// (default: only with --psk, or known from an earlier run)
            #[argh(switch)]
            trust_lan: bool,

            /// log level: off, error, warn, info, debug or trace (default: info)
            #[argh(option, arg_name = "level")]
            log: Option<String>,

            /// log more: as --log debug, given twice as --log trace; --log wins over it
            #[argh(switch, short = 'v')]
            verbose: u8,

            /// form of the log's lines: text or json (default: text)
            #[argh(option, arg_name = "format")]
            log_format: Option<String>,

            /// lease granted or asked for, 1s to 20m (default: 90s)
            #[argh(option, arg_name = "duration")]
            lease: Option<String>,

            /// time between beats, 100ms to a third of the lease (default: 30s, or a third of the
            /// lease if that is less)
            #[argh(option, arg_name = "duration")]
            beat_interval: Option<String>,

            /// time between runs of a native's offload loop, 100ms to 1h (default: 30s)
            #[argh(option, arg_name = "duration")]
            offload_interval: Option<String>,

            /// time between runs of a native's refresh loop, 100ms to 1h (default: 30s)
            #[argh(option, arg_name = "duration")]
            refresh_interval: Option<String>,

            /// time between runs of a native's stream GC, 100ms to 1h (default: 30s)
            #[argh(option, arg_name = "duration")]
            gc_interval: Option<String>,

            /// time between rounds of a node's connect-to-natives, 100ms to 1h (default: 60s)
            #[argh(option, arg_name = "duration")]
            connect_interval: Option<String>,

            /// answer programs by DNS here, over UDP and TCP: ADDRESS:PORT (default: nowhere)
            #[cfg(feature = "dns")]
            #[argh(option, arg_name = "address")]
            dns: Option<String>,

            /// with --dns: the zone of the names (default: oc.internal)
            #[cfg(feature = "dns")]
            #[argh(option, arg_name = "zone")]
            dns_zone: Option<String>,

            /// answer monitoring, browsers and scripts by HTTP here: ADDRESS:PORT, for example
            /// 127.0.0.1:7480 (default: nowhere)
            #[cfg(feature = "http")]
            #[argh(option, arg_name = "address")]
            http: Option<String>,

            /// with --http: file with the token that clients must show, needed on any other
            /// address than loopback (default: none is needed)
            #[cfg(feature = "http")]
            #[argh(option, arg_name = "file")]
            http_token: Option<String>,

            /// tell the local links by multicast DNS of this service of the network, for example
            /// http; may be given up to 8 times (default: none)
            #[cfg(feature = "mdns")]
            #[argh(option, arg_name = "service")]
            dns_sd: Vec<String>,

            $($own)*
        }

        impl $type {
            /// The options as they were written.
            pub(crate) fn flags(self) -> Flags {
                let node = self.node_flags();
                Flags {
                    config: self.config,
                    data_dir: self.data_dir,
                    listen: self.listen,
                    announce: self.announce,
                    announce_only: self.announce_only,
                    native: self.native,
                    psk: self.psk,
                    network: self.network,
                    grant: self.grant,
                    #[cfg(feature = "mdns")]
                    mdns: !self.no_mdns,
                    trust_lan: self.trust_lan,
                    log: self.log.or(match self.verbose {
                        0 => None,
                        1 => Some("debug".to_owned()),
                        _ => Some("trace".to_owned()),
                    }),
                    log_format: self.log_format,
                    lease: self.lease,
                    beat_interval: self.beat_interval,
                    offload_interval: self.offload_interval,
                    refresh_interval: self.refresh_interval,
                    gc_interval: self.gc_interval,
                    connect_interval: self.connect_interval,
                    connections: None,
                    #[cfg(feature = "dns")]
                    dns: self.dns,
                    #[cfg(feature = "dns")]
                    dns_zone: self.dns_zone,
                    #[cfg(feature = "http")]
                    http: self.http,
                    #[cfg(feature = "http")]
                    http_token: self.http_token,
                    #[cfg(feature = "mdns")]
                    dns_sd: self.dns_sd,
                    node,
                }
            }
        }
    };
}

daemon! {
    /// Run a native: the well-known entry that knows which indexers are alive.
    "native", Native, listens by default on " port 4820 of all addresses, IPv4 and IPv6)" {}
}

impl Native {
    fn node_flags(&self) -> NodeFlags {
        NodeFlags::default()
    }
}

daemon! {
    /// Run an indexer: it keeps the leases of nodes and answers lookups.
    "indexer", Indexer, listens by default on
    " one port of all addresses, IPv4 and IPv6: that of the last run, else 4821 if it is free)" {}
}

impl Indexer {
    fn node_flags(&self) -> NodeFlags {
        NodeFlags::default()
    }
}

daemon! {
    /// Run a node: it can be found and finds others.
    "node", Node, listens by default on
    " one port of all addresses, IPv4 and IPv6: that of the last run, else any)" {
        /// name to be found by, 1 to 63 of . - a-z 0-9 (default: the host's name)
        #[argh(option, arg_name = "name")]
        name: Option<String>,

        /// KEY=VALUE that the node says about itself; may be given up to 8 times, 256 bytes in
        /// all (default: none)
        #[argh(option, arg_name = "tag")]
        tag: Vec<String>,

        /// NAME=PORT or NAME=udp:PORT that the node offers; may be given up to 8 times (default:
        /// none)
        #[argh(option, arg_name = "service")]
        service: Vec<String>,

        /// SERVICE=tcp, SERVICE=http:/PATH or SERVICE=exec:COMMAND: how a service is checked; one
        /// that failed 3 times in a row is not announced until it passes (default: no check)
        #[argh(option, arg_name = "check")]
        check: Vec<String>,

        /// time between two runs of a check, 100ms to 1h (default: 10s)
        #[argh(option, arg_name = "duration")]
        check_interval: Option<String>,

        /// let --check run commands, as the user that this process runs as (default: refuse)
        #[argh(switch)]
        allow_exec: bool,

        /// list what devices of the local links announce of this service by multicast DNS, for
        /// example ipp; may be given up to 8 times (default: none)
        #[cfg(feature = "mdns")]
        #[argh(option, arg_name = "service")]
        from_dns_sd: Vec<String>,

        /// leases to hold on different indexers, 1 to 8, fewer if fewer exist (default: 2)
        #[argh(option, arg_name = "number")]
        min_indexers: Option<String>,
    }
}

impl Node {
    fn node_flags(&self) -> NodeFlags {
        NodeFlags {
            name: self.name.clone(),
            tag: self.tag.clone(),
            service: self.service.clone(),
            check: self.check.clone(),
            check_interval: self.check_interval.clone(),
            allow_exec: self.allow_exec,
            min_indexers: self.min_indexers.clone(),
            #[cfg(feature = "mdns")]
            from_dns_sd: self.from_dns_sd.clone(),
        }
    }
}
