//! What a peer of a test's own sends: frames on streams, and signed records with keys of libp2p.
//!
//! The load client of `tests/bench` uses it too.

use std::io;
use std::time::Duration;

use libp2p::core::SignedEnvelope;
use libp2p::identity::Keypair;
use libp2p::{Multiaddr, PeerId};
use oc_discovery::protocol::codec::frame::{
    Header, MAX_HEADER, MAX_RESPONSE, header, write_header,
};
use oc_discovery::protocol::codec::record::{Kind, Record, SignError, Signer, sign};
use oc_discovery::protocol::codec::{NoRoom, peer_from_bytes};
use oc_discovery::protocol::{self, MAX_ENVELOPE_LEN};
use smol::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// The body that an encoder of the codec writes.
pub(crate) fn encoded(encode: impl FnOnce(&mut [u8]) -> Result<&[u8], NoRoom>) -> Vec<u8> {
    encode(&mut [0; MAX_RESPONSE]).unwrap().to_vec()
}

/// The frame of a body.
pub(crate) fn frame(body: &[u8]) -> Vec<u8> {
    let mut head = [0; MAX_HEADER];
    [write_header(body.len(), &mut head), body].concat()
}

/// Reads one frame, and nothing after it. Returns its body.
pub(crate) async fn read_frame(
    io: &mut (impl AsyncRead + Unpin),
    limit: usize,
) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    loop {
        let mut byte = [0];
        io.read_exact(&mut byte).await?;
        head.extend(byte);
        if let Some(Header { body: length, .. }) = header(&head, limit).map_err(io::Error::other)? {
            let mut body = vec![0; length];
            io.read_exact(&mut body).await?;
            return Ok(body);
        }
    }
}

/// Writes a body as one frame.
pub(crate) async fn write_frame(io: &mut (impl AsyncWrite + Unpin), body: &[u8]) -> io::Result<()> {
    io.write_all(&frame(body)).await?;
    io.flush().await
}

/// The record of the owner of the key, signed; a node has a name. `issued_at_ms`: ms since the Unix
/// epoch.
pub(crate) fn signed(
    key: &Keypair,
    (kind, name): (Kind, &str),
    (sequence, issued_at_ms, ttl): (u64, u64, Duration),
    addr: &Multiaddr,
) -> Result<Vec<u8>, SignError> {
    let signer = Keys(key);
    let record = Record {
        peer: signer.peer(),
        sequence,
        issued_at_ms,
        ttl,
        addrs: [addr.as_ref()].into_iter().collect(),
        name,
        tags: Default::default(),
        services: Default::default(),
        version: "",
        link_services: Default::default(),
        grant: &[],
    };
    sign(&signer, kind, record, &mut [0; MAX_ENVELOPE_LEN]).map(<[u8]>::to_vec)
}

/// Signs with an Ed25519 key.
struct Keys<'a>(&'a Keypair);

impl Signer for Keys<'_> {
    fn peer(&self) -> protocol::PeerId {
        let id = PeerId::from(self.0.public());
        peer_from_bytes(&id.to_bytes()).unwrap()
    }

    fn seal(&self, kind: Kind, payload: &[u8], to: &mut [u8]) -> Result<Option<usize>, SignError> {
        let (domain, of_type) = (kind.domain().into(), kind.payload_type().to_vec());
        let envelope = SignedEnvelope::new(self.0, domain, of_type, payload.to_vec());
        let bytes = envelope
            .map_err(|_| SignError::Key)?
            .into_protobuf_encoding();
        Ok(to.get_mut(..bytes.len()).map(|room| {
            room.copy_from_slice(&bytes);
            bytes.len()
        }))
    }
}
