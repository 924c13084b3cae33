//! The protocols of our streams: those that a peer may open, and those that we open, with their
//! purpose.
//!
//! Invariant: a node accepts no streams of requests, and opening a stream always has a time limit.

use std::{
    array,
    convert::Infallible,
    future::{Ready, ready},
    time::{Duration, Instant},
};

use libp2p::{
    Stream, StreamProtocol,
    core::upgrade::{InboundUpgrade, UpgradeInfo},
};

use super::{OwnRequestId, identify::IDENTIFY};
use crate::protocol::watch::WatchId;

pub(super) const HEARTBEAT: StreamProtocol = StreamProtocol::new("/oc/heartbeat/1.0.0");
pub(super) const DIRECTORY: StreamProtocol = StreamProtocol::new("/oc/directory/1.0.0");
pub(super) const WATCH: StreamProtocol = StreamProtocol::new("/oc/watch/1.0.0");
pub(super) const PING: StreamProtocol = StreamProtocol::new("/ipfs/ping/1.0.0");

/// How long opening a long-lived stream may take. The core drops a heartbeat stream earlier.
const OPENING_TIMEOUT: Duration = Duration::from_secs(10);

/// What an outbound stream is for.
#[derive(Debug)]
pub(crate) enum Purpose {
    Lease,
    /// A request, and when it must be answered.
    Ask(OwnRequestId, Vec<u8>, Instant),
    /// A ping, and when its pong must have come.
    Probe(Instant),
    /// Changes that a server tells.
    Watch(WatchId),
}

impl Purpose {
    /// The protocol of the stream.
    pub(super) fn protocol(&self) -> StreamProtocol {
        match self {
            Self::Lease => HEARTBEAT,
            Self::Ask(..) => DIRECTORY,
            Self::Probe(..) => PING,
            Self::Watch(_) => WATCH,
        }
    }

    /// How long opening the stream may take. Without a limit it would never end on a silent
    /// connection.
    pub(super) fn patience(&self) -> Duration {
        match self {
            Self::Lease | Self::Watch(_) => OPENING_TIMEOUT,
            Self::Ask(_, _, until) | Self::Probe(until) => {
                until.saturating_duration_since(Instant::now())
            }
        }
    }
}

/// The protocols of the streams that are accepted.
pub(crate) struct Ours {
    /// Ping.
    pub(super) pongs: bool,
    /// Heartbeat, directory and watch.
    pub(super) serves: bool,
    /// Identify.
    pub(super) identifies: bool,
}

impl Ours {
    /// None at all.
    pub(super) const NONE: Self = Self {
        pongs: false,
        serves: false,
        identifies: false,
    };
}

impl UpgradeInfo for Ours {
    type Info = StreamProtocol;
    type InfoIter = std::iter::Flatten<array::IntoIter<Option<StreamProtocol>, 5>>;

    fn protocol_info(&self) -> Self::InfoIter {
        [
            self.pongs.then_some(PING),
            self.serves.then_some(HEARTBEAT),
            self.serves.then_some(DIRECTORY),
            self.serves.then_some(WATCH),
            self.identifies.then_some(IDENTIFY),
        ]
        .into_iter()
        .flatten()
    }
}

impl InboundUpgrade<Stream> for Ours {
    type Output = (StreamProtocol, Stream);
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Infallible>>;

    fn upgrade_inbound(self, io: Stream, protocol: StreamProtocol) -> Self::Future {
        ready(Ok((protocol, io)))
    }
}
