//! Answers identify requests of peers that dialled us (libp2p identify specification).
//!
//! Connections that we dial use libp2p's own identify. Its handler takes 3.4 KiB of every
//! connection, and its tables take 0.8 KiB more. It cannot be added to a connection later, because
//! only the swarm can give a handler the local protocols. The peers that dial us, a thousand at a
//! time, need only this one message.
//!
//! Invariant: the message has at most [`MAX_MESSAGE`] bytes, because the addresses that we announce
//! are few.

use std::sync::{Arc, Mutex, PoisonError};

use futures_util::AsyncWriteExt;
use libp2p::{Multiaddr, Stream, StreamProtocol, identity::PublicKey};
use prost::Message;

use crate::net::executor::within;

use super::exchange::{EXCHANGE_TIMEOUT, too_late};

/// The protocol's name.
pub(crate) const IDENTIFY: StreamProtocol = StreamProtocol::new("/ipfs/id/1.0.0");
/// The family of protocols that we speak (libp2p identify specification, `protocolVersion`).
pub(crate) const PROTOCOL_VERSION: &str = "/oc/1.0.0";
/// The name and version of this program (`agentVersion`).
pub(crate) const AGENT_VERSION: &str = concat!("oc-discovery/", env!("CARGO_PKG_VERSION"));
/// Bytes that libp2p reads at most.
const MAX_MESSAGE: usize = 4096;

/// The message of the specification.
#[derive(Clone, PartialEq, Message)]
struct Identify {
    #[prost(bytes = "vec", tag = "1")]
    public_key: Vec<u8>,
    #[prost(bytes = "vec", repeated, tag = "2")]
    listen_addrs: Vec<Vec<u8>>,
    #[prost(string, repeated, tag = "3")]
    protocols: Vec<String>,
    #[prost(bytes = "vec", tag = "4")]
    observed_addr: Vec<u8>,
    #[prost(string, tag = "5")]
    protocol_version: String,
    #[prost(string, tag = "6")]
    agent_version: String,
}

/// The message that all connections send. Clones share it.
#[derive(Clone)]
pub(crate) struct LocalInfo(Arc<Mutex<Identify>>);

impl LocalInfo {
    /// The message for this key and these protocols, without an address yet.
    pub(crate) fn new(key: &PublicKey, protocols: &[StreamProtocol]) -> Self {
        Self(Arc::new(Mutex::new(Identify {
            public_key: key.encode_protobuf(),
            listen_addrs: Vec::new(),
            protocols: protocols.iter().map(ToString::to_string).collect(),
            observed_addr: Vec::new(),
            protocol_version: PROTOCOL_VERSION.into(),
            agent_version: AGENT_VERSION.into(),
        })))
    }

    /// Announces these addresses from now on.
    pub(crate) fn announce(&self, addrs: &[Multiaddr]) {
        let mut local_info = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        local_info.listen_addrs = addrs.iter().map(Multiaddr::to_vec).collect();
    }

    /// The message, with its length, for a peer that we observe at this address.
    fn message(&self, observed: &Multiaddr) -> Vec<u8> {
        let local_info = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let message = Identify {
            observed_addr: observed.to_vec(),
            ..local_info.clone()
        };
        debug_assert!(message.encoded_len() <= MAX_MESSAGE);
        message.encode_length_delimited_to_vec()
    }
}

/// Sends the message to the peer.
pub(super) async fn answer(
    mut io: Stream,
    local_info: LocalInfo,
    observed: Multiaddr,
) -> std::io::Result<()> {
    let exchange = async {
        io.write_all(&local_info.message(&observed)).await?;
        io.close().await
    };
    within(EXCHANGE_TIMEOUT, exchange)
        .await
        .unwrap_or_else(too_late)
}

#[cfg(test)]
mod tests {
    use libp2p::identity::Keypair;

    use super::*;

    fn read(message: &[u8]) -> Identify {
        Identify::decode_length_delimited(message).unwrap()
    }

    #[test]
    fn everyone_is_told_where_it_is_seen_and_what_is_announced_now() {
        let key = Keypair::generate_ed25519().public();
        let local_info = LocalInfo::new(&key, &[IDENTIFY]);
        let [seen, ours]: [Multiaddr; 2] = [1, 2].map(|n| {
            let addr = format!("/ip4/192.0.2.{n}/tcp/1");
            addr.parse().unwrap()
        });
        let first = read(&local_info.message(&seen));
        assert_eq!(first.public_key, key.encode_protobuf());
        assert_eq!(first.protocols, ["/ipfs/id/1.0.0"]);
        assert_eq!(first.observed_addr, seen.to_vec());
        assert!(first.listen_addrs.is_empty());
        local_info.clone().announce(std::slice::from_ref(&ours));
        let second = read(&local_info.message(&ours));
        assert_eq!(second.listen_addrs, [ours.to_vec()]);
        assert_eq!(second.observed_addr, ours.to_vec());
    }
}
