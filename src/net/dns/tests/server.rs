//! The name server and the host that asks it.

use std::cell::Cell;
use std::fs;
use std::net::{IpAddr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use async_io::Async;
use futures_util::{AsyncReadExt, AsyncWriteExt};
use hickory_resolver::proto::op::{Message, MessageType, OpCode, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, AAAA, TXT};
use hickory_resolver::proto::rr::{Name, RData, Record};

use crate::net::dns::Resolver;
use crate::net::dns::system::Files;
use crate::net::executor::spawn;

/// A longer answer comes over TCP only.
const MAX_UDP: usize = 512;

/// What the server does with a query.
#[derive(Default)]
pub(super) struct Zone {
    pub(super) records: Vec<(String, RData)>,
    /// Answered by nothing at all.
    pub(super) silent: Vec<&'static str>,
    pub(super) queries: Cell<usize>,
    pub(super) tcp_queries: Cell<usize>,
}

impl Zone {
    pub(super) fn txt(mut self, name: &str, value: &str) -> Self {
        // A value longer than 255 bytes takes several character strings.
        let parts = value.as_bytes().chunks(200);
        let parts = parts.map(|part| String::from_utf8(part.to_vec()).unwrap());
        let data = RData::TXT(TXT::new(parts.collect()));
        self.records.push((format!("_dnsaddr.{name}."), data));
        self
    }

    pub(super) fn ip(mut self, name: &str, ip: &str) -> Self {
        let data = match ip.parse().unwrap() {
            IpAddr::V4(ip) => RData::A(A(ip)),
            IpAddr::V6(ip) => RData::AAAA(AAAA(ip)),
        };
        self.records.push((format!("{name}."), data));
        self
    }

    fn answer(&self, query: &[u8], tcp: bool) -> Option<Vec<u8>> {
        let query = Message::from_vec(query).unwrap();
        let asked = query.queries.first().unwrap().clone();
        let name = asked.name().to_lowercase().to_string();
        self.queries.set(self.queries.get() + 1);
        self.tcp_queries
            .set(self.tcp_queries.get() + usize::from(tcp));
        if self
            .silent
            .iter()
            .any(|silent| name == format!("{silent}."))
        {
            return None;
        }
        let mut reply = Message::new(query.metadata.id, MessageType::Response, OpCode::Query);
        reply.metadata.recursion_desired = true;
        reply.metadata.recursion_available = true;
        reply.add_query(asked.clone());
        let known: Vec<_> = self.records.iter().filter(|(n, _)| *n == name).collect();
        if known.is_empty() {
            reply.metadata.response_code = ResponseCode::NXDomain;
        }
        for (name, data) in known {
            if data.record_type() == asked.query_type() {
                let name: Name = name.parse().unwrap();
                reply.add_answer(Record::from_rdata(name, 60, data.clone()));
            }
        }
        let bytes = reply.to_vec().unwrap();
        if tcp || bytes.len() <= MAX_UDP {
            return Some(bytes);
        }
        reply.answers.clear();
        reply.metadata.truncation = true;
        Some(reply.to_vec().unwrap())
    }
}

/// A directory with the two files, removed at the end.
pub(super) struct Host {
    pub(super) dir: PathBuf,
    pub(super) port: u16,
}

impl Host {
    /// A host whose only server answers from `zone`.
    pub(super) fn serving(zone: Zone) -> (Self, Rc<Zone>) {
        let (udp, tcp) = sockets();
        let port = udp.get_ref().local_addr().unwrap().port();
        let zone = Rc::new(zone);
        spawn(serve_udp(udp, zone.clone()));
        spawn(serve_tcp(tcp, zone.clone()));
        (Self::new(port, "nameserver 127.0.0.1\n"), zone)
    }

    pub(super) fn new(port: u16, resolv_conf: &str) -> Self {
        thread_local!(static LAST: Cell<u32> = const { Cell::new(0) });
        LAST.set(LAST.get() + 1);
        let thread = format!("{:?}", std::thread::current().id());
        let unique = format!("oc-dns-{}-{thread}-{}", std::process::id(), LAST.get());
        let dir = std::env::temp_dir().join(unique.replace(['(', ')'], ""));
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("resolv.conf"), resolv_conf).unwrap();
        Self { dir, port }
    }

    pub(super) fn hosts(&self, text: &str) {
        fs::write(self.dir.join("hosts"), text).unwrap();
    }

    pub(super) fn resolver(&self) -> Resolver {
        self.resolver_within(Duration::from_secs(5))
    }

    pub(super) fn resolver_within(&self, limit: Duration) -> Resolver {
        let files = Files {
            resolv_conf: self.dir.join("resolv.conf"),
            hosts: self.dir.join("hosts"),
            port: self.port,
        };
        Resolver::with(files, limit)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// A UDP and a TCP socket on the same port.
fn sockets() -> (Async<UdpSocket>, Async<TcpListener>) {
    loop {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        if let Ok(udp) = UdpSocket::bind(tcp.local_addr().unwrap()) {
            return (Async::new(udp).unwrap(), Async::new(tcp).unwrap());
        }
    }
}

async fn serve_udp(socket: Async<UdpSocket>, zone: Rc<Zone>) {
    let mut buf = [0; 4096];
    while let Ok((n, from)) = socket.recv_from(&mut buf).await {
        if let Some(reply) = zone.answer(&buf[..n], false) {
            socket.send_to(&reply, from).await.unwrap();
        }
    }
}

async fn serve_tcp(socket: Async<TcpListener>, zone: Rc<Zone>) {
    while let Ok((stream, _)) = socket.accept().await {
        spawn(serve_stream(stream, zone.clone()));
    }
}

async fn serve_stream(mut stream: Async<TcpStream>, zone: Rc<Zone>) {
    let mut len = [0; 2];
    while stream.read_exact(&mut len).await.is_ok() {
        let mut query = vec![0; u16::from_be_bytes(len).into()];
        stream.read_exact(&mut query).await.unwrap();
        if let Some(reply) = zone.answer(&query, true) {
            let len = u16::try_from(reply.len()).unwrap();
            stream.write_all(&len.to_be_bytes()).await.unwrap();
            stream.write_all(&reply).await.unwrap();
        }
    }
}
