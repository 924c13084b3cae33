use futures_util::{AsyncReadExt, FutureExt, io::Cursor};
use libp2p::{Multiaddr, core::Endpoint, core::transport::PortUse};

use super::*;

/// What a peer sends, and what is sent to it.
struct Wire {
    sends: Cursor<Vec<u8>>,
    gets: Vec<u8>,
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.sends).poll_read(cx, buf)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        // One byte at a time.
        Pin::new(&mut self.gets).poll_write(cx, buf.get(..1).unwrap_or_default())
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

fn listener() -> ConnectedPoint {
    ConnectedPoint::Listener {
        local_addr: Multiaddr::empty(),
        send_back_addr: Multiaddr::empty(),
    }
}

fn dialler() -> ConnectedPoint {
    ConnectedPoint::Dialer {
        address: Multiaddr::empty(),
        role_override: Endpoint::Dialer,
        port_use: PortUse::New,
    }
}

/// Reads `sent`, `step` bytes at a time. Returns what was read, why it was refused, and what was
/// answered.
fn read(
    layer: Layer,
    point: ConnectedPoint,
    sent: &[u8],
    step: usize,
) -> (Vec<u8>, Option<Why>, Vec<u8>) {
    let refusals = Refusals::default();
    let wire = Wire {
        sends: Cursor::new(sent.to_vec()),
        gets: Vec::new(),
    };
    let mut greeted = Greeted::new(wire, layer, Ends::new(point, refusals.clone()));
    let (mut whole, mut buffer) = (Vec::new(), vec![0; step]);
    while let Ok(n @ 1..) = greeted.read(&mut buffer).now_or_never().unwrap() {
        whole.extend_from_slice(&buffer[..n]);
    }
    let why = refusals.take().map(|refusal| refusal.why);
    (whole, why, greeted.inner.gets)
}

/// Bytes as random ones are.
fn noise(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n * 37 + 200) as u8).collect()
}

#[test]
fn greeting_and_what_follows_is_passed_on_however_it_is_cut() {
    let sent = [&GREETING[..], b"\x07/noise\n", &noise(90)].concat();
    for layer in [Layer::Open, Layer::Deciphered] {
        for step in [1, 19, 20, 21, 200] {
            let (whole, why, answer) = read(layer, listener(), &sent, step);
            assert_eq!((whole, why, answer), (sent.clone(), None, vec![]));
        }
    }
}

#[test]
fn last_byte_of_the_greeting_counts() {
    let mut sent = GREETING.to_vec();
    *sent.last_mut().unwrap() = b' ';
    for step in [1, 20] {
        let (_, why, answer) = read(Layer::Deciphered, listener(), &sent, step);
        assert_eq!((why, &answer[..]), (Some(Why::OtherKey), &GREETING[..]));
    }
}

#[test]
fn end_that_dialled_sends_no_greeting_when_it_refuses() {
    let (whole, why, answer) = read(Layer::Deciphered, dialler(), &noise(64), 64);
    assert_eq!((whole, why, answer), (vec![], Some(Why::OtherKey), vec![]));
}

#[test]
fn greeting_that_is_not_enciphered_shows_a_peer_without_a_key() {
    for step in [1, 20, 24] {
        let sent = [&GREETING[..], &noise(4)].concat();
        let (_, why, answer) = read(Layer::Sealed, listener(), &sent, step);
        assert_eq!((why, answer), (Some(Why::NoKey), vec![]));
    }
    let (whole, why, _) = read(Layer::Sealed, listener(), &noise(24), 24);
    assert_eq!((whole.len(), why), (24, None));
}

#[test]
fn only_a_nonce_is_taken_for_a_key_and_no_other_protocol() {
    let http = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let tls = [&[0x16, 3, 1, 2, 0, 1][..], &noise(18)].concat();
    for (sent, open) in [
        (noise(24), Why::HasKey),
        (noise(23), Why::OtherProtocol),
        (noise(25), Why::OtherProtocol),
        (tls.clone(), Why::OtherProtocol),
        (http.to_vec(), Why::OtherProtocol),
        (http[..24].to_vec(), Why::OtherProtocol),
    ] {
        for step in [1, 64] {
            let (_, why, answer) = read(Layer::Open, listener(), &sent, step);
            assert_eq!((why, &answer[..]), (Some(open), &GREETING[..]), "{sent:?}");
        }
    }
    for sent in [&http[..24], &tls] {
        let (_, why, _) = read(Layer::Sealed, listener(), sent, 24);
        assert_eq!(why, Some(Why::OtherProtocol));
    }
}

/// Each connection keeps it for as long as it lives.
#[test]
fn what_is_beside_the_socket_is_small() {
    assert!(size_of::<Greeted<()>>() <= 3 * size_of::<usize>());
}
