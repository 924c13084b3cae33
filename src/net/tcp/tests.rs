use std::future::poll_fn;
use std::net::{TcpListener, TcpStream};
use std::time::Instant;

use futures_util::task::noop_waker_ref;
use futures_util::{AsyncReadExt, AsyncWriteExt};
use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;

use super::listener::{ACCEPT_PAUSE, bound};
use super::*;
use crate::net::executor::{waits::block_on, within};
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

const OPTS: DialOpts = DialOpts {
    role: Endpoint::Dialer,
    port_use: PortUse::New,
};

async fn next(transport: &mut TcpTransport) -> Event {
    poll_fn(|cx| Pin::new(&mut *transport).poll(cx)).await
}

fn poll_once(transport: &mut TcpTransport) -> Poll<Event> {
    Pin::new(transport).poll(&mut Context::from_waker(noop_waker_ref()))
}

async fn listen(transport: &mut TcpTransport, addr: &str) -> Multiaddr {
    transport
        .listen_on(ListenerId::next(), addr.parse().unwrap())
        .unwrap();
    next(transport).await.into_new_address().unwrap()
}

fn listen_error(transport: &mut TcpTransport, addr: &Multiaddr) -> TcpError {
    match transport.listen_on(ListenerId::next(), addr.clone()) {
        Err(TransportError::Other(error)) => error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn bytes_go_both_ways_over_ipv4_and_ipv6() {
    block_on(async {
        for addr in ["/ip4/127.0.0.1/tcp/0", "/ip6/::1/tcp/0"] {
            let mut transport = TcpTransport::new().unwrap();
            let addr = listen(&mut transport, addr).await;
            let mut out = transport.dial(addr.clone(), OPTS).unwrap().await.unwrap();
            let (upgrade, from) = next(&mut transport).await.into_incoming().unwrap();
            let local = out.socket.socket().local_addr().unwrap();
            assert_eq!(socket_addr(&from), Some(local));
            let mut inc = upgrade.await.unwrap();
            let mut got = [0; 4];
            for _ in 0..3 {
                out.write_all(b"ping").await.unwrap();
                inc.read_exact(&mut got).await.unwrap();
                assert_eq!(&got, b"ping");
                inc.write_all(b"pong").await.unwrap();
                out.read_exact(&mut got).await.unwrap();
                assert_eq!(&got, b"pong");
            }
            out.close().await.unwrap();
            let end = within(Duration::from_secs(5), inc.read(&mut got)).await;
            assert_eq!(end.unwrap().unwrap(), 0);
        }
    });
}

#[test]
fn reads_that_fill_the_buffer_leave_the_rest_for_the_next() {
    block_on(async {
        let mut transport = TcpTransport::new().unwrap();
        let addr = listen(&mut transport, "/ip4/127.0.0.1/tcp/0").await;
        let mut out = transport.dial(addr, OPTS).unwrap().await.unwrap();
        let (upgrade, _) = next(&mut transport).await.into_incoming().unwrap();
        let mut inc = upgrade.await.unwrap();
        for _ in 0..3 {
            out.write_all(b"pingpong").await.unwrap();
            for half in [b"ping", b"pong"] {
                let mut got = [0; 4];
                let read = within(Duration::from_secs(5), inc.read_exact(&mut got)).await;
                read.unwrap().unwrap();
                assert_eq!(&got, half);
            }
        }
    });
}

#[test]
fn connections_have_nodelay_and_keepalive() {
    block_on(async {
        let mut transport = TcpTransport::new().unwrap();
        let addr = listen(&mut transport, "/ip4/127.0.0.1/tcp/0").await;
        let out = transport.dial(addr, OPTS).unwrap().await.unwrap();
        let (upgrade, _) = next(&mut transport).await.into_incoming().unwrap();
        for connection in [out, upgrade.await.unwrap()] {
            let stream = connection.socket.socket();
            assert!(stream.nodelay().unwrap());
            assert!(sockopt::socket_keepalive(stream).unwrap());
            assert!(sockopt::socket_oobinline(stream).unwrap());
            let seconds = |n| Duration::from_secs(n);
            assert_eq!(sockopt::tcp_keepidle(stream).unwrap(), seconds(60));
            assert_eq!(sockopt::tcp_keepintvl(stream).unwrap(), seconds(10));
            assert_eq!(sockopt::tcp_user_timeout(stream).unwrap(), 30_000);
        }
    });
}

#[test]
fn port_of_root_is_said_with_what_to_do() {
    let addr = "192.0.2.1:80".parse().unwrap();
    let source = io::ErrorKind::PermissionDenied.into();
    let said = TcpError::Listen { addr, source }.to_string();
    assert!(
        said.starts_with("cannot listen on 192.0.2.1:80: ports below 1024"),
        "{said}"
    );
    assert!(said.ends_with("CAP_NET_BIND_SERVICE"), "{said}");
}

#[test]
fn port_in_use_is_said_in_one_sentence() {
    block_on(async {
        let mut transport = TcpTransport::new().unwrap();
        let addr = listen(&mut transport, "/ip4/127.0.0.1/tcp/0").await;
        let port = socket_addr(&addr).unwrap().port();
        assert_eq!(
            listen_error(&mut transport, &addr).to_string(),
            format!(
                "cannot listen on 127.0.0.1:{port}: port {port} is in use by another process; end that one, or give another port"
            )
        );
    });
}

#[test]
fn an_address_that_no_interface_has_is_awaited() {
    block_on(async {
        let host = Host::fixed(&["127.0.0.1"]);
        let mut transport = TcpTransport::on(host.clone()).unwrap();
        let id = ListenerId::next();
        let absent: Multiaddr = "/ip4/192.0.2.1/tcp/0".parse().unwrap();
        transport.listen_on(id, absent.clone()).unwrap();
        assert!(poll_once(&mut transport).is_pending());
        // The address is still missing: another one was added.
        host.set(&["127.0.0.1", "192.0.2.7"]);
        assert!(poll_once(&mut transport).is_pending());
        assert_eq!(transport.awaited.len(), 1);
        // The address now exists.
        transport.awaited[0].addr = "127.0.0.1:0".parse().unwrap();
        host.set(&["127.0.0.1"]);
        assert!(next(&mut transport).await.is_new_address());
        assert!(transport.awaited.is_empty() && transport.retry.is_none());

        let id = ListenerId::next();
        transport.listen_on(id, absent).unwrap();
        assert!(transport.remove_listener(id));
        assert!(transport.awaited.is_empty());
    });
}

#[test]
fn an_awaited_address_whose_port_is_taken_when_it_comes_is_said_once() {
    block_on(async {
        let other = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = Host::fixed(&[]);
        let mut transport = TcpTransport::on(host.clone()).unwrap();
        transport.awaited.push(Awaited {
            id: ListenerId::next(),
            addr: other.local_addr().unwrap(),
            complained: false,
        });
        host.set(&["127.0.0.1"]);
        assert!(next(&mut transport).await.is_listener_error());
        host.set(&["127.0.0.1"]);
        assert!(poll_once(&mut transport).is_pending());
        drop(other);
        host.set(&["127.0.0.1"]);
        assert!(next(&mut transport).await.is_new_address());
    });
}

#[test]
fn one_port_for_both_families() {
    let addrs = everywhere(0).unwrap();
    let port = addrs[0].port();
    assert!(port != 0 && addrs.iter().all(|addr| addr.port() == port));
    let families: Vec<_> = addrs.iter().map(SocketAddr::is_ipv6).collect();
    assert_eq!(families, [false, true]);
    for taken in addrs {
        let _other = bound(taken).unwrap();
        let error = everywhere(port).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse, "{taken}");
    }
    assert_eq!(everywhere(port).unwrap()[0].port(), port);
}

#[test]
fn ipv6_listener_leaves_the_ipv4_port_free() {
    block_on(async {
        let mut transport = TcpTransport::new().unwrap();
        let any = "[::]:0".parse().unwrap();
        let six = Listener::bind(ListenerId::next(), any, &transport.ready).unwrap();
        let port = six.addr.port();
        listen(&mut transport, &format!("/ip4/127.0.0.1/tcp/{port}")).await;
    });
}

#[test]
fn unsupported_addresses_are_handed_back() {
    let mut transport = TcpTransport::new().unwrap();
    for addr in [
        "/ip4/127.0.0.1/udp/1/quic-v1",
        "/dns4/localhost/tcp/1",
        "/ip4/127.0.0.1/tcp/1/ws",
        "/ip4/127.0.0.1/tcp/0",
        "/ip4/0.0.0.0/tcp/1",
    ] {
        let addr: Multiaddr = addr.parse().unwrap();
        let Err(TransportError::MultiaddrNotSupported(back)) = transport.dial(addr.clone(), OPTS)
        else {
            panic!("{addr}");
        };
        assert_eq!(back, addr);
    }
}

#[test]
fn refused_connect_names_the_address() {
    block_on(async {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = free.local_addr().unwrap();
        drop(free);
        let dial = TcpTransport::new()
            .unwrap()
            .dial(multiaddr(addr), OPTS)
            .unwrap();
        let error = dial.await.unwrap_err().to_string();
        assert!(
            error.starts_with(&format!("cannot connect to {addr}: ")),
            "{error}"
        );
    });
}

#[test]
fn failed_accept_is_reported_and_pauses_the_listener() {
    // accept() fails at once on a socket that is bound, but does not listen.
    let flags = SocketFlags::NONBLOCK;
    let socket =
        rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None).unwrap();
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    rustix::net::bind(&socket, &any).unwrap();
    block_on(async {
        let mut transport = TcpTransport::new().unwrap();
        let socket = TcpListener::from(socket);
        let again = socket.try_clone().unwrap();
        let listener = Listener::new(ListenerId::next(), socket, &transport.ready).unwrap();
        transport.add_listener(listener);
        assert!(next(&mut transport).await.is_new_address());
        let before = Instant::now();
        assert!(next(&mut transport).await.is_listener_error());
        assert!(poll_once(&mut transport).is_pending());
        assert!(next(&mut transport).await.is_listener_error());
        assert!(before.elapsed() >= ACCEPT_PAUSE);

        rustix::net::listen(&again, 1).unwrap();
        let _client = TcpStream::connect(again.local_addr().unwrap()).unwrap();
        let taken = within(Duration::from_secs(5), next(&mut transport)).await;
        assert!(taken.unwrap().into_incoming().is_some(), "it recovers");
    });
}

#[test]
fn removed_listener_is_reported_and_its_port_is_free_again() {
    block_on(async {
        let mut transport = TcpTransport::new().unwrap();
        let id = ListenerId::next();
        transport
            .listen_on(id, "/ip4/127.0.0.1/tcp/0".parse().unwrap())
            .unwrap();
        let addr = next(&mut transport).await.into_new_address().unwrap();
        assert!(transport.remove_listener(id) && !transport.remove_listener(id));
        assert!(matches!(
            next(&mut transport).await,
            TransportEvent::ListenerClosed { listener_id, reason: Ok(()) } if listener_id == id
        ));
        assert_eq!(listen(&mut transport, &addr.to_string()).await, addr);
    });
}

#[test]
fn unspecified_listener_follows_the_interfaces() {
    block_on(async {
        let host = Host::fixed(&["127.0.0.1", "::1", "192.0.2.1"]);
        let mut transport = TcpTransport::on(host.clone()).unwrap();
        let first = listen(&mut transport, "/ip4/0.0.0.0/tcp/0").await;
        let port = socket_addr(&first).unwrap().port();
        assert_eq!(
            first,
            multiaddr(SocketAddr::new([127, 0, 0, 1].into(), port))
        );
        let second = next(&mut transport).await.into_new_address().unwrap();
        assert_eq!(second.to_string(), format!("/ip4/192.0.2.1/tcp/{port}"));

        host.set(&["127.0.0.1", "192.0.2.2"]);
        let gone = next(&mut transport).await.into_address_expired().unwrap();
        assert_eq!(gone, second);
        let new = next(&mut transport).await.into_new_address().unwrap();
        assert_eq!(new.to_string(), format!("/ip4/192.0.2.2/tcp/{port}"));
    });
}

#[test]
fn unspecified_listener_of_an_unknown_host_reports_loopback_alone() {
    block_on(async {
        for (addr, reported) in [
            ("/ip4/0.0.0.0/tcp/0", "/ip4/127.0.0.1/"),
            ("/ip6/::/tcp/0", "/ip6/::1/"),
        ] {
            let mut transport = TcpTransport::on(Host::unknown()).unwrap();
            let addr = listen(&mut transport, addr).await.to_string();
            assert!(addr.starts_with(reported), "{addr}");
            assert!(poll_once(&mut transport).is_pending());
        }
    });
}

#[test]
fn the_own_end_of_a_dialled_connection_is_known() {
    block_on(async {
        let host = Host::fixed(&["127.0.0.1"]);
        let mut transport = TcpTransport::on(host.clone()).unwrap();
        let addr = listen(&mut transport, "/ip4/127.0.0.1/tcp/0").await;
        assert_eq!(host.local_end(&addr), None);
        transport.dial(addr.clone(), OPTS).unwrap().await.unwrap();
        assert_eq!(host.local_end(&addr), Some([127, 0, 0, 1].into()));
    });
}

#[test]
fn connections_from_an_address_that_is_gone_end_and_no_others() {
    block_on(async {
        let mut transport = TcpTransport::new().unwrap();
        let mut made = Vec::new();
        for ip in ["127.0.0.5", "127.0.0.6"] {
            let addr = listen(&mut transport, &format!("/ip4/{ip}/tcp/0")).await;
            let out = transport.dial(addr, OPTS).unwrap().await.unwrap();
            let (upgrade, _) = next(&mut transport).await.into_incoming().unwrap();
            made.push((out, upgrade.await.unwrap()));
        }
        // The accepted connections have this local address; the other ends are at 127.0.0.1.
        assert_eq!(close_connections_from([127, 0, 0, 5].into()), 1);
        let [(gone, _), (out, inc)] = &mut made[..] else {
            panic!("two were made");
        };
        let soon = Duration::from_secs(5);
        let mut got = [0; 4];
        let end = within(soon, gone.read(&mut got)).await;
        assert_eq!(end.unwrap().unwrap(), 0);
        inc.write_all(b"ping").await.unwrap();
        out.read_exact(&mut got).await.unwrap();
        drop(made);
        assert_eq!(close_connections_from([127, 0, 0, 6].into()), 0);
    });
}

#[test]
fn a_connect_from_an_address_that_is_gone_fails_at_once() {
    // Connects there get no answer, because the backlog is full.
    let flags = SocketFlags::CLOEXEC;
    let family = AddressFamily::INET;
    let silent = rustix::net::socket_with(family, SocketType::STREAM, flags, None).unwrap();
    rustix::net::bind(&silent, &SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    rustix::net::listen(&silent, 0).unwrap();
    let silent = TcpListener::from(silent);
    let addr = silent.local_addr().unwrap();
    let mut waiting = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&addr, Duration::from_millis(200)) {
        waiting.push(stream);
    }
    block_on(async {
        let mut transport = TcpTransport::new().unwrap();
        let mut dial = transport.dial(multiaddr(addr), OPTS).unwrap();
        let mut cx = Context::from_waker(noop_waker_ref());
        assert!(dial.as_mut().poll(&mut cx).is_pending());
        assert_eq!(close_connections_from(addr.ip()), 1);
        let begun = Instant::now();
        assert!(dial.await.is_err());
        assert!(begun.elapsed() < Duration::from_secs(1));
    });
}
