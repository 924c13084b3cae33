//! The builder of an embedded node.
//!
//! Values are checked when it starts, by the parsers of the command line, so that there is one set
//! of bounds.

use std::{path::PathBuf, thread, time::Duration};

use smol::channel::bounded;

use super::{Discovery, Error};
use crate::{
    config::{Config, Flags, Role},
    daemon::{embedded, machines::Owned},
};

/// Requests that wait for the thread. A caller with one more request waits for room.
const MAX_WAITING: usize = 8;
/// Stack of the thread, in addition to what making the machine needs.
const STACK: usize = 2 << 20;

/// Describes a node, or another role. Nothing is checked before [`Builder::spawn`].
#[derive(Clone, Debug)]
#[must_use = "it does nothing before `spawn`"]
pub struct Builder {
    role: Role,
    data_dir: Option<PathBuf>,
    flags: Flags,
    /// The first key of a tag that would be read as another one.
    wrong_tag: Option<String>,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            role: Role::Node,
            data_dir: None,
            flags: Flags::default(),
            wrong_tag: None,
        }
    }
}

impl Builder {
    /// Its role: a node by default.
    pub fn role(mut self, role: Role) -> Self {
        self.role = role;
        self
    }

    /// A native, `/ip4/ADDRESS/tcp/PORT/p2p/ID` or with `/ip6`, `/dns`, `/dns4`, `/dns6`, or
    /// `/dnsaddr/NAME`; at most 8.
    pub fn native(mut self, multiaddr: impl Into<String>) -> Self {
        self.flags.native.push(multiaddr.into());
        self
    }

    /// The name by which a node is found, 1 to 63 of `a-z 0-9 - .`. By default it follows from the
    /// host's name.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.flags.node.name = Some(name.into());
        self
    }

    /// What a node says about itself; at most 8, and 256 bytes in all. The key has no `=`.
    pub fn tag(mut self, key: &str, value: &str) -> Self {
        if key.contains('=') {
            self.wrong_tag.get_or_insert_with(|| key.to_owned());
        }
        self.flags.node.tag.push(format!("{key}={value}"));
        self
    }

    /// What a node offers on this TCP port, under a name of RFC 6335 like `http`; at most 8 with
    /// those of [`Builder::udp_service`].
    pub fn service(mut self, name: &str, port: u16) -> Self {
        self.flags.node.service.push(format!("{name}={port}"));
        self
    }

    /// The same on a UDP port.
    pub fn udp_service(mut self, name: &str, port: u16) -> Self {
        self.flags.node.service.push(format!("{name}=udp:{port}"));
        self
    }

    /// Leases on different indexers that a node holds, 1 to 8; by default 2.
    pub fn min_indexers(mut self, number: u8) -> Self {
        self.flags.node.min_indexers = Some(number.to_string());
        self
    }

    /// An address to listen on, `/ip4` or `/ip6` with `/tcp`; at most 8. Without one it is all
    /// addresses: a native's port is 4820, others take any.
    pub fn listen(mut self, multiaddr: impl Into<String>) -> Self {
        self.flags.listen.push(multiaddr.into());
        self
    }

    /// An address to be announced before all others; at most 8.
    pub fn announce(mut self, multiaddr: impl Into<String>) -> Self {
        self.flags.announce.push(multiaddr.into());
        self
    }

    /// Announces nothing but the addresses of [`Builder::announce`].
    pub fn announce_only(mut self) -> Self {
        self.flags.announce_only = true;
        self
    }

    /// Connections at most, from 4; each takes a file descriptor. By default it is what the build
    /// says, or what the program's limit of descriptors leaves at the start, if that is less.
    pub fn connections(mut self, most: usize) -> Self {
        self.flags.connections = Some(most);
        self
    }

    /// The `swarm.key` file of a private network. Without it any peer may join.
    pub fn psk(mut self, file: impl Into<String>) -> Self {
        self.flags.psk = Some(file.into());
        self
    }

    /// Where the identity and what was learned are kept across restarts; one process each. Without
    /// it each start is a new peer, and nothing is written.
    pub fn data_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.data_dir = Some(dir.into());
        self
    }

    /// The lease that is granted or requested, in whole milliseconds: 1 s to 20 min, by default
    /// 90 s.
    pub fn lease(mut self, duration: Duration) -> Self {
        self.flags.lease = Some(millis(duration));
        self
    }

    /// The time between two rounds in which a node connects to natives, in whole milliseconds:
    /// 100 ms to 1 h, by default 60 s.
    pub fn connect_interval(mut self, duration: Duration) -> Self {
        self.flags.connect_interval = Some(millis(duration));
        self
    }

    /// Starts the process on a thread of its own. When this returns, it listens, unless no
    /// interface has the address of [`Builder::listen`] yet: then it waits for it. Leases come
    /// later, and without a reachable server it keeps trying.
    ///
    /// # Errors
    /// [`Error::Setting`], [`Error::Start`].
    pub async fn spawn(self) -> Result<Discovery, Error> {
        if let Some(key) = self.wrong_tag {
            return Err(Error::wrong_key(&key));
        }
        let config = Config::with_data_dir(self.role, &self.flags, self.data_dir)?;
        let (events, asked) = bounded(MAX_WAITING);
        let (begun, begins) = bounded(1);
        let (ending, ended) = bounded(1);
        let run = move || {
            embedded::run(&config, asked, &begun);
            drop(ending);
        };
        let thread = thread::Builder::new().name("oc-discovery".into());
        let thread = thread
            .stack_size(STACK + Owned::stack(self.role))
            .spawn(run);
        thread.map_err(|error| Error::Start(format!("a thread cannot be started: {error}")))?;
        let started = begins.recv().await.map_err(|_| Error::Closed)??;
        Ok(Discovery {
            events,
            ended,
            started: started.into(),
        })
    }
}

/// The duration as the command line has it.
fn millis(duration: Duration) -> String {
    format!("{}ms", duration.as_millis())
}
