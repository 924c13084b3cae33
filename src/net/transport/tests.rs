use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;

use libp2p::Multiaddr;
use libp2p::core::Endpoint;
use libp2p::core::transport::{DialOpts, ListenerId, PortUse, TransportEvent};

use super::*;
use crate::net::executor::{spawn, waits::block_on, within};
use crate::net::refusals::Why;

type Stack = Boxed<(PeerId, StreamMuxerBox)>;

const OPTS: DialOpts = DialOpts {
    role: Endpoint::Dialer,
    port_use: PortUse::New,
};

/// What is seen at once is seen long before the time limit of a handshake.
const SOON: Duration = Duration::from_secs(5);
/// The time limit of handshakes in these tests.
const SHORT: Duration = Duration::from_millis(500);

fn stack(keypair: &Keypair, psk: Option<[u8; 32]>, limit: Duration) -> Stack {
    let psk = psk.map(PreSharedKey::new);
    stack_of(limit, keypair, psk, &Refusals::default())
}

fn stack_of(
    limit: Duration,
    keypair: &Keypair,
    psk: Option<PreSharedKey>,
    refusals: &Refusals,
) -> Stack {
    let resolver = Resolver::of_this_thread();
    build_within(limit, keypair, psk, resolver, refusals.clone()).unwrap()
}

async fn next_event(
    stack: &mut Stack,
) -> TransportEvent<<Stack as Transport>::ListenerUpgrade, io::Error> {
    poll_fn(|cx| Pin::new(&mut *stack).poll(cx)).await
}

async fn listen(stack: &mut Stack) -> Multiaddr {
    let any = "/ip4/127.0.0.1/tcp/0".parse().unwrap();
    stack.listen_on(ListenerId::next(), any).unwrap();
    next_event(stack).await.into_new_address().unwrap()
}

/// Accepts connections without end, and keeps them open.
async fn serve(mut stack: Stack) {
    loop {
        if let Some((upgrade, _)) = next_event(&mut stack).await.into_incoming() {
            spawn(async move {
                if let Ok((_, muxer)) = upgrade.await {
                    drive(muxer).await;
                }
            });
        }
    }
}

async fn drive(mut muxer: StreamMuxerBox) {
    use libp2p::core::muxing::StreamMuxer;
    poll_fn(|cx| {
        while let Poll::Ready(Ok(_)) = Pin::new(&mut muxer).poll(cx) {}
        Pin::new(&mut muxer).poll_inbound(cx).map(drop)
    })
    .await;
}

/// Dials with the key `theirs` at a listener with `ours`. Returns the server's id, and the peer
/// that answered.
fn connect(
    ours: Option<[u8; 32]>,
    theirs: Option<[u8; 32]>,
    limit: Duration,
) -> (PeerId, io::Result<PeerId>) {
    let (server, client) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
    let result = block_on(async {
        let mut listener = stack(&server, ours, limit);
        let addr = listen(&mut listener).await;
        spawn(serve(listener));
        let dial = stack(&client, theirs, limit).dial(addr, OPTS).unwrap();
        dial.await.map(|(peer, _)| peer)
    });
    (server.public().to_peer_id(), result)
}

#[test]
fn peers_with_the_same_key_or_none_connect() {
    for psk in [None, Some([7; 32])] {
        let (server, result) = connect(psk, psk, LIMIT);
        assert_eq!(result.unwrap(), server);
    }
}

#[test]
fn peers_with_different_keys_do_not_connect() {
    for (ours, theirs) in [
        (Some([7; 32]), Some([8; 32])),
        (Some([7; 32]), None),
        (None, Some([7; 32])),
    ] {
        let (_, result) = connect(ours, theirs, SHORT);
        assert!(result.is_err(), "{ours:?} {theirs:?}");
    }
}

#[test]
fn both_ends_say_at_once_which_key_is_missing_or_another() {
    let (one, other) = (Some([7; 32]), Some([8; 32]));
    for (server, client, seen_by_server, seen_by_client) in [
        (one, other, Why::OtherKey, Why::OtherKey),
        (one, None, Why::NoKey, Why::HasKey),
        (None, one, Why::HasKey, Why::NoKey),
    ] {
        let [at_server, at_client] = [(); 2].map(|()| Refusals::default());
        let (key, psk) = (Keypair::generate_ed25519(), PreSharedKey::new);
        block_on(async {
            let mut listener = stack_of(LIMIT, &key, server.map(psk), &at_server);
            let addr = listen(&mut listener).await;
            spawn(serve(listener));
            let mut stack = stack_of(LIMIT, &key, client.map(psk), &at_client);
            let dial = stack.dial(addr.clone(), OPTS).unwrap();
            assert!(within(SOON, dial).await.is_some_and(|done| done.is_err()));
            let refusal = at_client.take().unwrap();
            assert_eq!((refusal.addr, refusal.is_dialled), (addr, true));
            assert_eq!(refusal.why, seen_by_client, "{server:?} {client:?}");
        });
        let refusal = at_server.take().unwrap();
        assert_eq!((refusal.why, refusal.is_dialled), (seen_by_server, false));
        assert_eq!((at_server.take(), at_client.take()), (None, None));
    }
}

#[test]
fn silent_peer_is_given_up_at_the_limit() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = crate::net::tcp::multiaddr(silent.local_addr().unwrap());
    let keypair = Keypair::generate_ed25519();
    block_on(async {
        let dial = stack(&keypair, None, SHORT).dial(addr, OPTS).unwrap();
        let ended = within(LIMIT, dial).await;
        assert!(ended.is_some_and(|result| result.is_err()));
    });
}

#[test]
fn errors_keep_their_sentence_through_all_layers() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap();
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let dead = closed.local_addr().unwrap();
    drop(closed);
    let keypair = Keypair::generate_ed25519();
    for psk in [None, Some([7; 32])] {
        let mut stack = stack(&keypair, psk, LIMIT);
        let error = stack
            .listen_on(ListenerId::next(), crate::net::tcp::multiaddr(addr))
            .unwrap_err();
        assert_eq!(
            sentence(&error),
            format!(
                "cannot listen on {addr}: port {} is in use by another process; end that one, or give another port",
                addr.port()
            )
        );
        let odd = "/dns4/name.test/udp/1".parse().unwrap();
        let dial = stack.dial(odd, OPTS).unwrap();
        let error = block_on(dial).map(drop).unwrap_err();
        assert_eq!(
            sentence(&TransportError::Other(error)),
            "cannot resolve /dns4/name.test/udp/1: expected /dns4/NAME/tcp/PORT or /dnsaddr/NAME"
        );
        let unreachable = crate::net::tcp::multiaddr(dead);
        let error = block_on(stack.dial(unreachable, OPTS).unwrap()).map(drop);
        let text = sentence(&TransportError::Other(error.unwrap_err()));
        assert!(
            text.starts_with(&format!("cannot connect to {dead}: ")),
            "{text}"
        );
        let error = stack
            .listen_on(ListenerId::next(), "/dns4/name.test/tcp/1".parse().unwrap())
            .unwrap_err();
        assert_eq!(
            sentence(&error),
            "Multiaddr is not supported: /dns4/name.test/tcp/1"
        );
    }
}

#[test]
fn key_file_as_others_write_it_is_read() {
    let key = PreSharedKey::new([0xa5; 32]);
    let text = key.to_key_file();
    assert!(parse_psk(text.as_bytes()).is_ok_and(|parsed| parsed.key == key));
    let dos = text.replace('\n', "\r\n").to_uppercase();
    let dos = dos
        .replace("KEY/SWARM/PSK", "key/swarm/psk")
        .replace("BASE", "base");
    assert!(parse_psk(dos.as_bytes()).is_ok_and(|parsed| parsed.key == key));
}

#[test]
fn wrong_key_file_says_what_is_wrong_and_how_it_looks() {
    let digits = "0".repeat(63);
    let head = format!("{KEY_TYPE}\n{KEY_ENCODING}\n");
    for (text, problem) in [
        (String::new(), "line 1 is not /key/swarm/psk/1.0.0/"),
        (
            format!("{KEY_TYPE}\n/base64/\nAAAA"),
            "line 2 is not /base16/",
        ),
        (head.clone(), "line 3 has 0 characters instead of 64"),
        (
            format!("{head}{digits}"),
            "line 3 has 63 characters instead of 64",
        ),
        (
            format!("{head}{digits}é"),
            "character 64 of line 3 is not a hexadecimal digit",
        ),
        (
            format!("{head}+{digits}"),
            "character 1 of line 3 is not a hexadecimal digit",
        ),
        (digits.repeat(20), "it is longer than 1024 bytes"),
    ] {
        let error = PskError {
            path: "swarm.key".into(),
            problem: parse_psk(text.as_bytes()).unwrap_err(),
        };
        assert_eq!(
            error.to_string(),
            format!(
                "key file swarm.key: {problem}; it has three lines: /key/swarm/psk/1.0.0/, /base16/ and \
                 64 hexadecimal digits"
            )
        );
    }
}

#[test]
fn missing_key_file_is_named() {
    let path = std::env::temp_dir().join("oc-discovery-no-such-directory/swarm.key");
    let error = psk_from_file(&path).unwrap_err().to_string();
    assert!(
        error.starts_with(&format!("key file {}: ", path.display())),
        "{error}"
    );
}

#[test]
fn key_that_was_not_drawn_at_random_is_weak_and_no_other_is() {
    let of = |byte: &dyn Fn(u8) -> u8| std::array::from_fn(|at| byte(at as u8));
    let text = *b"correct horse battery staple now";
    for weak in [
        of(&|_| 0),
        of(&|_| 0xaa),
        of(&|at| at),
        of(&|at| 7u8.wrapping_sub(at)),
        of(&|at| [0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef][usize::from(at % 8)]),
        of(&|at| u8::from(at == 31) * 7),
        text,
    ] {
        assert!(is_weak(&weak), "{weak:?}");
    }
    let mut nearly = text;
    nearly[31] = 0x80;
    // Bytes of no text: eight values of them, and nine.
    assert!(is_weak(&of(&|at| 1 + at % 8)));
    for random in [nearly, of(&|at| 1 + at % 9)] {
        assert!(!is_weak(&random), "{random:?}");
    }
}
