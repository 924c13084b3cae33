//! DHT servers that answer a search with any values that the test gives them, valid or not.

use std::future::{self, Ready};
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use libp2p::core::transport::{DialOpts, ListenerId, TransportError, TransportEvent};
use libp2p::core::upgrade::Version;
use libp2p::identity::Keypair;
use libp2p::kad::store::{MemoryStore, RecordStore as _};
use libp2p::kad::{self, Mode, Record, RecordKey, StoreInserts};
use libp2p::multiaddr::Protocol;
use libp2p::swarm::{self, NetworkBehaviour, Swarm, SwarmEvent};
use libp2p::{Multiaddr, StreamProtocol, Transport, identify, noise, yamux};
use smol::Async;
use smol::channel::{Receiver, Sender};

/// Servers that each have a value for one key.
pub(crate) struct DhtServers {
    asked: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<()>>,
    /// Closing it ends the servers.
    end: Sender<()>,
}

impl DhtServers {
    /// Connects a server for each value to the native.
    pub(crate) fn connect(native: &str, key: &RecordKey, values: Vec<Vec<u8>>) -> DhtServers {
        let native: Multiaddr = native.parse().unwrap();
        let asked: Arc<AtomicUsize> = Arc::default();
        let (end, ended) = smol::channel::bounded(1);
        let start = |value| {
            let serve = serve(native.clone(), key.clone(), value, asked.clone());
            let ended: Receiver<()> = ended.clone();
            let end = async move { ended.recv().await.unwrap_or_default() };
            thread::spawn(move || smol::block_on(smol::future::or(serve, end)))
        };
        DhtServers {
            threads: values.into_iter().map(start).collect(),
            asked,
            end,
        }
    }

    /// How often they were asked in total.
    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

impl Drop for DhtServers {
    fn drop(&mut self) {
        self.end.close();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

#[derive(NetworkBehaviour)]
#[behaviour(prelude = "libp2p::swarm::derive_prelude")]
struct Behaviour {
    identify: identify::Behaviour,
    kademlia: kad::Behaviour<MemoryStore>,
}

async fn serve(native: Multiaddr, key: RecordKey, value: Vec<u8>, asked: Arc<AtomicUsize>) {
    let mut swarm = swarm();
    // Only a peer that can be dialled gets into a routing table.
    swarm
        .listen_on("/ip4/127.0.0.1/tcp/0".parse().unwrap())
        .unwrap();
    let mut native = Some(native);
    let record = Record::new(key, value);
    swarm
        .behaviour_mut()
        .kademlia
        .store_mut()
        .put(record)
        .unwrap();
    loop {
        let event = swarm.select_next_some().await;
        if let SwarmEvent::NewListenAddr { address, .. } = &event {
            swarm.add_external_address(address.clone());
            if let Some(native) = native.take() {
                swarm.dial(native).unwrap();
            }
        }
        if let SwarmEvent::Behaviour(BehaviourEvent::Kademlia(kad::Event::InboundRequest {
            request: kad::InboundRequest::GetRecord { .. },
        })) = event
        {
            asked.fetch_add(1, Ordering::SeqCst);
        }
    }
}

fn swarm() -> Swarm<Behaviour> {
    let key = Keypair::generate_ed25519();
    let own = key.public().to_peer_id();
    let mut config = kad::Config::new(StreamProtocol::new("/oc/kad/1.0.0"));
    config
        .set_record_filtering(StoreInserts::FilterBoth)
        .set_periodic_bootstrap_interval(None);
    let mut kademlia = kad::Behaviour::with_config(own, MemoryStore::new(own), config);
    kademlia.set_mode(Some(Mode::Server));
    let identify = identify::Config::new("/oc/1.0.0".into(), key.public());
    let transport = Tcp::default()
        .upgrade(Version::V1Lazy)
        .authenticate(noise::Config::new(&key).unwrap())
        .multiplex(yamux::Config::default())
        .boxed();
    Swarm::new(
        transport,
        Behaviour {
            identify: identify::Behaviour::new(identify),
            kademlia,
        },
        own,
        swarm::Config::without_executor().with_idle_connection_timeout(Duration::from_secs(60)),
    )
}

/// TCP with one listener.
#[derive(Default)]
struct Tcp {
    listener: Option<(ListenerId, Async<TcpListener>)>,
    /// The address of a listener that is new.
    listens: Option<Multiaddr>,
}

fn multiaddr(at: SocketAddr) -> Multiaddr {
    Multiaddr::empty()
        .with(at.ip().into())
        .with(Protocol::Tcp(at.port()))
}

impl Transport for Tcp {
    type Output = Async<TcpStream>;
    type Error = io::Error;
    type ListenerUpgrade = Ready<io::Result<Self::Output>>;
    type Dial = BoxFuture<'static, io::Result<Self::Output>>;

    fn listen_on(&mut self, id: ListenerId, _: Multiaddr) -> Result<(), TransportError<io::Error>> {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let listener = Async::<TcpListener>::bind(any).map_err(TransportError::Other)?;
        let at = listener.get_ref().local_addr();
        self.listens = Some(multiaddr(at.map_err(TransportError::Other)?));
        self.listener = Some((id, listener));
        Ok(())
    }

    fn remove_listener(&mut self, _: ListenerId) -> bool {
        false
    }

    fn dial(
        &mut self,
        to: Multiaddr,
        _: DialOpts,
    ) -> Result<Self::Dial, TransportError<io::Error>> {
        let mut parts = to.iter();
        let (Some(Protocol::Ip4(ip)), Some(Protocol::Tcp(port))) = (parts.next(), parts.next())
        else {
            return Err(TransportError::MultiaddrNotSupported(to));
        };
        let to = SocketAddr::from((ip, port));
        Ok(Box::pin(Async::<TcpStream>::connect(to)))
    }

    fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<TransportEvent<Self::ListenerUpgrade, io::Error>> {
        let listens = self.listens.take();
        let Some((id, listener)) = &self.listener else {
            return Poll::Pending;
        };
        let listener_id = *id;
        if let Some(listen_addr) = listens {
            return Poll::Ready(TransportEvent::NewAddress {
                listener_id,
                listen_addr,
            });
        }
        loop {
            if let Ok((stream, from)) = listener.get_ref().accept() {
                let local_addr = multiaddr(stream.local_addr().unwrap());
                return Poll::Ready(TransportEvent::Incoming {
                    listener_id,
                    upgrade: future::ready(Async::new(stream)),
                    local_addr,
                    send_back_addr: multiaddr(from),
                });
            }
            ready!(listener.poll_readable(cx)).unwrap();
        }
    }
}
