//! Which of our protocols a stream speaks: those that a peer may open, and those that we open and what for.

use std::{
    array,
    convert::Infallible,
    future::{Ready, ready},
};

use libp2p::{
    Stream, StreamProtocol,
    core::upgrade::{InboundUpgrade, UpgradeInfo},
};

use super::card::IDENTIFY;
use crate::protocol::RequestId;

pub(super) const HEARTBEAT: StreamProtocol = StreamProtocol::new("/oc/heartbeat/1.0.0");
pub(super) const DIRECTORY: StreamProtocol = StreamProtocol::new("/oc/directory/1.0.0");
pub(super) const PING: StreamProtocol = StreamProtocol::new("/ipfs/ping/1.0.0");

/// What an outbound stream is for.
#[derive(Debug)]
pub(crate) enum Purpose {
    Lease,
    Request(RequestId, Vec<u8>),
    Probe,
}

impl Purpose {
    /// What is spoken on it.
    pub(super) fn protocol(&self) -> StreamProtocol {
        match self {
            Self::Lease => HEARTBEAT,
            Self::Request(..) => DIRECTORY,
            Self::Probe => PING,
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
