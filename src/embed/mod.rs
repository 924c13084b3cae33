//! A node inside a program.
//!
//! [`Discovery::builder`] describes it, [`Builder::spawn`] starts it on a thread of its own, and
//! the [`Discovery`] that comes back asks it. Its methods are `async` and run on any executor. A
//! program may have several. It takes nothing of the process for itself: it sets no logger (its
//! lines go to the `log` facade), handles no signal, opens no socket for commands, and without
//! [`Builder::data_dir`] no file.
//!
//! ```no_run
//! # async fn example() -> Result<(), oc_discovery::embed::Error> {
//! use oc_discovery::embed::Discovery;
//!
//! let discovery = Discovery::builder()
//!     .native("/ip4/203.0.113.7/tcp/4820/p2p/12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp")
//!     .name("lamp-1")
//!     .service("http", 8080)
//!     .spawn()
//!     .await?;
//! for record in discovery.find("pump-3").await?.records {
//!     for service in &record.services {
//!         println!("{}: {:?}", service.name, record.addresses_of(service));
//!     }
//! }
//! discovery.close().await;
//! # Ok(()) }
//! ```
//!
//! [`Discovery::nodes`] lists nodes, and [`Discovery::watch`] tells of changes as they happen; both
//! take a [`Filter`]:
//!
//! ```no_run
//! # async fn example(discovery: oc_discovery::embed::Discovery) -> Result<(), oc_discovery::embed::Error> {
//! use oc_discovery::embed::{Event, Filter};
//!
//! let mut watch = discovery.watch(Filter::all().service("http")).await?;
//! loop {
//!     match watch.next().await? {
//!         Event::Present(node) | Event::Changed(node) => println!("up {}", node.name),
//!         Event::Left(node) | Event::Lost(node) => println!("down {}", node.name),
//!         Event::CaughtUp { silent, .. } => println!("all but {silent:?} have told theirs"),
//!         _ => {}
//!     }
//! }
//! # }
//! ```
//!
//! Invariants: requests that wait for the thread are bounded, and so is what it answers at once
//! ([`Error::Busy`]); when the last clone of a [`Discovery`] is gone, the leases are given up and
//! the thread ends within two seconds. A program that ends at once calls [`Discovery::close`]
//! first.

mod builder;
mod error;
mod nodes;
mod watch;

use std::sync::Arc;

use smol::channel::{Receiver, Sender};

pub use self::{
    builder::Builder,
    error::Error,
    nodes::{Filter, MAX_LISTED, NodeList},
    watch::{Event, Watch},
};
pub use crate::{
    config::Role,
    daemon::status::{
        CheckState, Contested, Found, FoundRecord, IndexerList, KnownIndexer, Lease, LiveIndexer,
        LoopStatus, NodeRow, NodeState, PeerState, Problem, Protocol, Reachable, ReachableState,
        ResponsiblePeer, Server, ServerState, Service, ServiceCheck, Severity, Source, Status,
        StreamRecord, Table, Trouble, Verdict, VerdictState,
    },
};
use crate::{
    daemon::{
        embedded::Started,
        request::{self, Call, CallAnswer, CallEvent, PendingCall},
        status::Refusal,
    },
    protocol::codec::to_name,
};

/// A node, or another role, that runs in this program. All clones stand for the same process.
#[derive(Clone, Debug)]
pub struct Discovery {
    events: Sender<CallEvent>,
    /// Closed when the thread has ended.
    ended: Receiver<()>,
    started: Arc<Started>,
}

impl Discovery {
    /// Makes a builder.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Its peer id, in base58.
    pub fn peer_id(&self) -> &str {
        &self.started.peer_id
    }

    /// The multiaddresses that it listened on when it started, each with `/p2p`: of a native, what
    /// [`Builder::native`] takes.
    pub fn addresses(&self) -> &[String] {
        &self.started.addresses
    }

    /// Looks up a name, or a peer id in base58. Returns every node that claims the name, best
    /// first. Names are not owned; only the peer id is proven. It takes at most some seconds.
    /// [`Found::complete`] tells whether every server that was asked has answered.
    ///
    /// # Errors
    /// [`Error::NotAName`], [`Error::Busy`], [`Error::Closed`].
    pub async fn find(&self, name_or_peer_id: &str) -> Result<Found, Error> {
        let name = name_or_peer_id.to_ascii_lowercase();
        if to_name(&name).is_none() {
            return Err(Error::NotAName(name_or_peer_id.to_owned()));
        }
        match self.ask(Call::Find(name_or_peer_id.to_owned())).await? {
            CallAnswer::Found(found) => Ok(found),
            _ => Err(Error::Closed),
        }
    }

    /// Lists the nodes of the network that the filter selects, and those that left or were lost. It
    /// takes at most some ten seconds; two lists are made at once.
    ///
    /// # Errors
    /// [`Error::Setting`], [`Error::Busy`], [`Error::Closed`].
    pub async fn nodes(&self, filter: Filter) -> Result<NodeList, Error> {
        let reading = request::nodes(&self.events, filter.query()?).await;
        nodes::collect(reading.ok_or(Error::Closed)?, MAX_LISTED).await
    }

    /// Watches the nodes of the network that the filter selects: [`Watch::next`] returns those that
    /// are there, then each change. Four watches are open at once.
    ///
    /// # Errors
    /// [`Error::Setting`], [`Error::Closed`].
    pub async fn watch(&self, filter: Filter) -> Result<Watch, Error> {
        let reading = request::watch(&self.events, filter.query()?).await;
        Ok(Watch::new(reading.ok_or(Error::Closed)?))
    }

    /// Lists the indexers that this process or its natives know.
    ///
    /// # Errors
    /// [`Error::Busy`], [`Error::Closed`].
    pub async fn indexers(&self) -> Result<IndexerList, Error> {
        match self.ask(Call::Indexers).await? {
            CallAnswer::Indexers(list) => Ok(list),
            _ => Err(Error::Closed),
        }
    }

    /// What this process knows itself. No other peer is asked.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub async fn status(&self) -> Result<Status, Error> {
        match self.ask(Call::Status(Vec::new())).await? {
            CallAnswer::Status(status) => Ok(*status),
            _ => Err(Error::Closed),
        }
    }

    /// Gives up the leases, so that they do not have to expire, saves the state and ends the
    /// thread, for all clones. This takes at most two seconds, even if servers do not answer.
    pub async fn close(&self) {
        self.events.close();
        // Nothing is ever sent. The channel closes when the thread has dropped its end.
        let _ = self.ended.recv().await;
    }

    async fn ask(&self, call: Call) -> Result<CallAnswer, Error> {
        let (request, answer) = PendingCall::new(call);
        let asked = self.events.send(CallEvent::Made(request)).await;
        asked.map_err(|_| Error::Closed)?;
        let waiting = Waiting {
            answer,
            events: &self.events,
        };
        match waiting.answer.recv().await {
            Ok(answer) => answer.map_err(|_| Error::Busy),
            Err(_) => Err(Error::Closed),
        }
    }
}

/// An answer that is awaited. If it is no longer awaited, its lookup frees its place.
struct Waiting<'a> {
    answer: Receiver<Result<CallAnswer, Refusal>>,
    events: &'a Sender<CallEvent>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        // This is false if there is an answer already.
        if self.answer.close() {
            // If there is no room, the loop notices it when the next caller leaves.
            let _ = self.events.try_send(CallEvent::Left);
        }
    }
}
