//! Which of our protocols a stream speaks: those that a peer may open, and those that we open and
//! what for.

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

pub(super) const HEARTBEAT: StreamProtocol = StreamProtocol::new("/oc/heartbeat/1.0.0");
pub(super) const DIRECTORY: StreamProtocol = StreamProtocol::new("/oc/directory/1.0.0");
pub(super) const PING: StreamProtocol = StreamProtocol::new("/ipfs/ping/1.0.0");

/// How long opening a heartbeat stream may take. The core drops it before.
const OPENING_TIMEOUT: Duration = Duration::from_secs(10);

/// What an outbound stream is for.
#[derive(Debug)]
pub(crate) enum Purpose {
    Lease,
    /// A question, and when it has to be answered.
    Request(OwnRequestId, Vec<u8>, Instant),
    /// When the pong has to be there.
    Probe(Instant),
}

impl Purpose {
    /// What is spoken on it.
    pub(super) fn protocol(&self) -> StreamProtocol {
        match self {
            Self::Lease => HEARTBEAT,
            Self::Request(..) => DIRECTORY,
            Self::Probe(..) => PING,
        }
    }

    /// How long opening the stream may take: on a connection that is silent it never ends.
    pub(super) fn patience(&self) -> Duration {
        match self {
            Self::Lease => OPENING_TIMEOUT,
            Self::Request(_, _, until) | Self::Probe(until) => {
                until.saturating_duration_since(Instant::now())
            }
        }
    }
}

/// The protocols that we take streams of.
pub(crate) struct Ours {
    /// Beats and requests.
    pub(super) serves: bool,
    /// The question who we are.
    pub(super) identifies: bool,
}

impl UpgradeInfo for Ours {
    type Info = StreamProtocol;
    type InfoIter = std::iter::Flatten<array::IntoIter<Option<StreamProtocol>, 4>>;

    fn protocol_info(&self) -> Self::InfoIter {
        [
            Some(PING),
            self.serves.then_some(HEARTBEAT),
            self.serves.then_some(DIRECTORY),
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
