//! Addresses that do not answer, and connections that become silent.

use std::{
    cell::Cell,
    io,
    net::{SocketAddr, TcpListener, TcpStream},
    rc::Rc,
    time::{Duration, Instant},
};

use async_io::Async;
use futures_util::AsyncWriteExt;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use smol::{future::or, io::AsyncReadExt};

use super::world::{LEASE, World, out_beat};
use crate::{
    net::{
        NetEvent, convert,
        executor::{spawn, waits::block_on},
        tcp::{close_connections_from, multiaddr, socket_addr},
    },
    protocol::{Ack, Addrs, OutBeat, Role, Verdict, codec::heartbeat::AckCause},
};

const PAIR: [Role; 2] = [Role::Indexer, Role::Node];

fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

fn addrs(of: &[SocketAddr]) -> Addrs {
    convert::to_addrs(&of.iter().map(|addr| multiaddr(*addr)).collect::<Vec<_>>())
}

/// A listener with a full backlog: the kernel drops new connections, as a firewall does.
struct BlackHole {
    addr: SocketAddr,
    _listener: TcpListener,
    _waiting: Vec<TcpStream>,
}

impl BlackHole {
    fn new() -> Self {
        let flags = SocketFlags::CLOEXEC;
        let socket =
            rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None).unwrap();
        rustix::net::bind(&socket, &loopback()).unwrap();
        rustix::net::listen(&socket, 0).unwrap();
        let listener = TcpListener::from(socket);
        let addr = listener.local_addr().unwrap();
        let soon = Duration::from_millis(200);
        let mut waiting = Vec::new();
        while let Ok(stream) = TcpStream::connect_timeout(&addr, soon) {
            waiting.push(stream);
        }
        Self {
            addr,
            _listener: listener,
            _waiting: waiting,
        }
    }
}

/// A proxy between the peers that can make one connection silent without ending it.
struct Between {
    addr: SocketAddr,
    /// Connections so far.
    made: Rc<Cell<usize>>,
    /// Connections up to this one are silent.
    silent_to: Rc<Cell<usize>>,
    /// Connections that the client has closed.
    closed: Rc<Cell<usize>>,
}

impl Between {
    fn new(server: SocketAddr) -> Self {
        let listener = Async::<TcpListener>::bind(loopback()).unwrap();
        let between = Self {
            addr: listener.get_ref().local_addr().unwrap(),
            made: Rc::default(),
            silent_to: Rc::default(),
            closed: Rc::default(),
        };
        let (made, silent_to) = (between.made.clone(), between.silent_to.clone());
        let closed = between.closed.clone();
        spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                made.set(made.get() + 1);
                let (number, silent_to, closed) = (made.get(), silent_to.clone(), closed.clone());
                spawn(async move {
                    let server = Async::<TcpStream>::connect(server).await.unwrap();
                    let is_silent = || number <= silent_to.get();
                    let there = pass_on(&client, &server, &is_silent);
                    let back = pass_on(&server, &client, &is_silent);
                    // The server's end stays open.
                    or(async { drop(there.await) }, async {
                        drop(back.await);
                        std::future::pending::<()>().await;
                    })
                    .await;
                    closed.set(closed.get() + 1);
                });
            }
        });
        between
    }
}

async fn pass_on(
    mut from: &Async<TcpStream>,
    mut to: &Async<TcpStream>,
    is_silent: &impl Fn() -> bool,
) -> io::Result<()> {
    let mut bytes = [0; 4096];
    loop {
        let n = from.read(&mut bytes).await?;
        if n == 0 {
            return Ok(());
        }
        if !is_silent() {
            to.write_all(bytes.get(..n).unwrap_or_default()).await?;
        }
    }
}

fn server_addr(world: &World) -> SocketAddr {
    socket_addr(&world.multiaddr(0)).unwrap()
}

fn fresh() -> OutBeat {
    OutBeat {
        fresh: true,
        ..out_beat()
    }
}

/// The node's beat to the server at these addresses is acked.
async fn acked(world: &mut World, addrs: &Addrs, beat: &OutBeat) {
    let server = world.id(0);
    world.net(1).beat(server, addrs, beat, None, &[]);
    world
        .until(|world, at, event| {
            world.answer(at, &event, &Ack::accepted(LEASE));
            match event {
                NetEvent::Ack {
                    cause: AckCause::Beat,
                    ..
                } if at == 1 => Some(()),
                NetEvent::LeaseClosed { why, .. } => panic!("{why:?}"),
                _ => None,
            }
        })
        .await;
}

#[test]
fn addresses_that_do_not_answer_cost_250_ms_each() {
    block_on(async {
        let mut world = World::new(&PAIR).await;
        let holes = [BlackHole::new(), BlackHole::new()];
        let all = addrs(&[holes[0].addr, holes[1].addr, server_addr(&world)]);
        let begun = Instant::now();
        acked(&mut world, &all, &out_beat()).await;
        let took = begun.elapsed();
        // One after another, the attempts would take 10 s.
        assert!(
            took >= Duration::from_millis(500) && took < Duration::from_secs(4),
            "{took:?}"
        );
    });
}

#[test]
fn an_address_at_which_another_peer_answers_is_passed_over() {
    block_on(async {
        let mut world = World::new(&[Role::Indexer, Role::Node, Role::Indexer]).await;
        let other = socket_addr(&world.multiaddr(2)).unwrap();
        let both = addrs(&[other, server_addr(&world)]);
        acked(&mut world, &both, &out_beat()).await;
    });
}

#[test]
fn a_connection_that_falls_silent_is_replaced_by_a_new_one_and_closed() {
    block_on(async {
        let mut world = World::new(&PAIR).await;
        let between = Between::new(server_addr(&world));
        let way = addrs(&[between.addr]);
        acked(&mut world, &way, &out_beat()).await;
        between.silent_to.set(1);
        let server = world.id(0);
        world.net(1).beat(server, &way, &out_beat(), None, &[]);
        acked(&mut world, &way, &fresh()).await;
        assert_eq!(between.made.get(), 2);
        let closed = between.closed.clone();
        let silent_is_closed = std::future::poll_fn(|cx| match closed.get() {
            0 => {
                cx.waker().wake_by_ref();
                std::task::Poll::Pending
            }
            _ => std::task::Poll::Ready(()),
        });
        world.meanwhile(silent_is_closed, |_, _, _| {}).await;
        acked(&mut world, &way, &out_beat()).await;
        assert_eq!(between.made.get(), 2, "the lease goes on over the new one");
    });
}

#[test]
fn a_silent_connection_does_not_answer_probes_and_the_next_probe_makes_a_new_one() {
    block_on(async {
        let mut world = World::new(&PAIR).await;
        let between = Between::new(server_addr(&world));
        let way = addrs(&[between.addr]);
        acked(&mut world, &way, &out_beat()).await;
        between.silent_to.set(1);
        let server = world.id(0);
        for expected in [Verdict::Silent, Verdict::Reachable] {
            world.net(1).probe(server, &way);
            let verdict = world
                .until(|_, _, event| match event {
                    NetEvent::Probed { verdict, .. } => Some(verdict),
                    _ => None,
                })
                .await;
            assert_eq!(verdict, expected);
        }
        assert_eq!(between.made.get(), 2);
    });
}

#[test]
fn connections_from_an_address_that_is_gone_are_closed_and_no_others() {
    block_on(async {
        let mut world = World::new(&PAIR).await;
        world.lease(1, 0).await;
        assert_eq!(close_connections_from([127, 0, 0, 9].into()), 0);
        // Both ends of the connection are in this process.
        assert_eq!(close_connections_from([127, 0, 0, 1].into()), 2);
        let (mut client, mut server) = (false, false);
        world
            .until(|_, at, event| {
                match event {
                    NetEvent::LeaseClosed { .. } => client |= at == 1,
                    NetEvent::StreamClosed { .. } => server |= at == 0,
                    _ => {}
                }
                (client && server).then_some(())
            })
            .await;
    });
}
