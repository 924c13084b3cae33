//! The builder of an embedded node.
//!
//! Values are texts as on the command line, and are checked when it starts: there is one parser for
//! each, and it has one set of bounds.

use std::{path::PathBuf, thread};

use smol::channel::bounded;

use super::{Discovery, Error};
use crate::{
    config::{Config, Flags, Role},
    daemon::{embedded, machines::Owned},
};

/// Requests that wait for the thread. The caller of a further one waits for room.
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
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            role: Role::Node,
            data_dir: None,
            flags: Flags::default(),
        }
    }
}

impl Builder {
    /// What it is for: a node, if this is not said.
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
        self.flags.node.tag.push(format!("{key}={value}"));
        self
    }

    /// What a node offers: `NAME=PORT` on TCP or `NAME=udp:PORT`, with a name of RFC 6335; at most
    /// 8.
    pub fn service(mut self, service: impl Into<String>) -> Self {
        self.flags.node.service.push(service.into());
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

    /// The lease that is granted or requested, for example `90s`: 1 s to 20 min.
    pub fn lease(mut self, duration: impl Into<String>) -> Self {
        self.flags.lease = Some(duration.into());
        self
    }

    /// The time between two rounds in which a node connects to natives, as `60s`: 100 ms to 1 h.
    pub fn connect_interval(mut self, duration: impl Into<String>) -> Self {
        self.flags.connect_interval = Some(duration.into());
        self
    }

    /// Starts the process on a thread of its own. When this returns, it listens, unless no interface
    /// has the address of [`Builder::listen`] yet: then it waits for it. Leases come later, and
    /// without a reachable server it keeps trying.
    ///
    /// # Errors
    /// [`Error::Setting`], [`Error::Start`].
    pub async fn spawn(self) -> Result<Discovery, Error> {
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
