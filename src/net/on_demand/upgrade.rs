//! Passes streams of peers to a handler that may not exist yet.

use std::{
    convert::Infallible,
    future::{Ready, ready},
};

use futures_util::FutureExt;
use libp2p::{
    Stream, StreamProtocol,
    core::upgrade::{InboundUpgrade, UpgradeInfo},
    swarm::{
        ConnectionHandler,
        handler::{ConnectionEvent, FullyNegotiatedInbound, InboundUpgradeSend, UpgradeInfoSend},
    },
};

/// A stream and what is spoken on it.
pub(super) type Named = (Stream, StreamProtocol);

/// An upgrade by the protocol's name alone: the stream is passed on as it is.
pub(crate) struct Name(pub(super) Option<StreamProtocol>);

impl UpgradeInfo for Name {
    type Info = StreamProtocol;
    type InfoIter = std::option::IntoIter<StreamProtocol>;

    fn protocol_info(&self) -> Self::InfoIter {
        self.0.clone().into_iter()
    }
}

impl InboundUpgrade<Stream> for Name {
    type Output = Named;
    type Error = Infallible;
    type Future = Ready<Result<Named, Infallible>>;

    fn upgrade_inbound(self, stream: Stream, protocol: StreamProtocol) -> Self::Future {
        ready(Ok((stream, protocol)))
    }
}

/// Accepts streams as `U` does, but a stream does not keep its connection open.
///
/// Kademlia waits for requests on a stream without a time limit. So a peer that opens one stream
/// and then sends nothing would keep its connection until TCP ends it, and TCP never does that
/// while the peer's kernel still answers for a frozen process. Each new stream restarts the idle
/// time of its connection, which is several times as long as one exchange.
pub(crate) struct Unheld<U>(pub(super) U);

impl<U: UpgradeInfo> UpgradeInfo for Unheld<U> {
    type Info = U::Info;
    type InfoIter = U::InfoIter;

    fn protocol_info(&self) -> Self::InfoIter {
        self.0.protocol_info()
    }
}

impl<U: InboundUpgrade<Stream>> InboundUpgrade<Stream> for Unheld<U> {
    type Output = U::Output;
    type Error = U::Error;
    type Future = U::Future;

    fn upgrade_inbound(self, mut stream: Stream, info: Self::Info) -> Self::Future {
        stream.ignore_for_keep_alive();
        self.0.upgrade_inbound(stream, info)
    }
}

/// Gives the handler a stream that was accepted before the handler existed.
pub(super) fn give<H: ConnectionHandler>(handler: &mut H, (stream, protocol): Named) {
    let (upgrade, info) = handler.listen_protocol().into_upgrade();
    let named = |name: &_| AsRef::<str>::as_ref(name) == protocol.as_ref();
    let Some(name) = upgrade.protocol_info().find(named) else {
        return;
    };
    // Kademlia's upgrade wraps the stream without waiting.
    if let Some(Ok(protocol)) = upgrade.upgrade_inbound(stream, name).now_or_never() {
        handler.on_connection_event(ConnectionEvent::FullyNegotiatedInbound(
            FullyNegotiatedInbound { protocol, info },
        ));
    }
}
