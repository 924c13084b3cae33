//! The name server and the host that asks it.

use std::cell::Cell;
use std::fs;
use std::net::{IpAddr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use async_io::Async;
use domain::base::iana::{Class, Rcode};
use domain::base::rdata::UnknownRecordData;
use domain::base::{Message, MessageBuilder, Rtype};
use domain::dep::octseq::Array;
use futures_util::{AsyncReadExt, AsyncWriteExt};

use crate::net::dns::Resolver;
use crate::net::dns::message::parse_name;
use crate::net::dns::system::Files;
use crate::net::executor::spawn;

/// A longer answer comes over TCP only.
const MAX_UDP: usize = 512;

/// What the server does with a query.
#[derive(Default)]
pub(super) struct Zone {
    /// Name, type, data.
    pub(super) records: Vec<(String, Rtype, Vec<u8>)>,
    /// Queries for these names get no answer.
    pub(super) silent: Vec<&'static str>,
    /// Queries for this type get no answer.
    pub(super) silent_type: Option<Rtype>,
    /// Answered instead of a record.
    pub(super) code: Option<Rcode>,
    /// Refuses queries with EDNS0.
    pub(super) old: bool,
    /// Wrong answers over UDP before the right one.
    pub(super) forged: usize,
    pub(super) queries: Cell<usize>,
    pub(super) tcp_queries: Cell<usize>,
}

impl Zone {
    pub(super) fn txt(mut self, name: &str, value: &str) -> Self {
        // A value longer than 255 bytes takes several character strings.
        let mut data = Vec::new();
        for part in value.as_bytes().chunks(200) {
            data.push(u8::try_from(part.len()).unwrap());
            data.extend(part);
        }
        self.records
            .push((format!("_dnsaddr.{name}"), Rtype::TXT, data));
        self
    }

    pub(super) fn ip(mut self, name: &str, ip: &str) -> Self {
        let (rtype, data) = match ip.parse().unwrap() {
            IpAddr::V4(ip) => (Rtype::A, ip.octets().to_vec()),
            IpAddr::V6(ip) => (Rtype::AAAA, ip.octets().to_vec()),
        };
        self.records.push((name.to_owned(), rtype, data));
        self
    }

    pub(super) fn cname(mut self, name: &str, target: &str) -> Self {
        let data = parse_name(target).unwrap().as_slice().to_vec();
        self.records.push((name.to_owned(), Rtype::CNAME, data));
        self
    }

    fn answer(&self, query: &[u8], tcp: bool) -> Option<Vec<u8>> {
        let query = Message::from_slice(query).unwrap();
        let asked = query.sole_question().unwrap();
        let mut name = asked.qname().to_string().to_lowercase();
        self.queries.set(self.queries.get() + 1);
        self.tcp_queries
            .set(self.tcp_queries.get() + usize::from(tcp));
        if self.silent.contains(&name.as_str()) || self.silent_type == Some(asked.qtype()) {
            return None;
        }
        let reply = MessageBuilder::from_target(Array::<32_768>::new()).unwrap();
        let mut reply = reply.start_answer(query, Rcode::NOERROR).unwrap();
        let known = self.records.iter().any(|(n, ..)| *n == name);
        let code = match self.code {
            _ if self.old && query.opt().is_some() => Rcode::FORMERR,
            Some(code) => code,
            None if known => Rcode::NOERROR,
            None => Rcode::NXDOMAIN,
        };
        reply.header_mut().set_rcode(code);
        // A name with an alias has no other record; the alias stands before it here.
        for (owner, rtype, data) in &self.records {
            let alias = *rtype == Rtype::CNAME;
            if code == Rcode::NOERROR && *owner == name && (alias || *rtype == asked.qtype()) {
                let owner = parse_name(owner).unwrap();
                let value = UnknownRecordData::from_octets(*rtype, data).unwrap();
                reply.push((owner, Class::IN, 60, value)).unwrap();
                if alias {
                    name = self.target(data);
                }
            }
        }
        if !tcp && reply.as_slice().len() > MAX_UDP {
            reply = reply.tc_rewind_into();
        }
        Some(reply.as_slice().to_vec())
    }

    fn target(&self, data: &[u8]) -> String {
        let names = self.records.iter().map(|(name, ..)| name);
        let mut found =
            names.filter(|name| parse_name(name).unwrap().as_slice() == data.to_ascii_lowercase());
        found.next().cloned().unwrap_or_default()
    }
}

/// A directory with the two files, removed at the end.
pub(super) struct Host {
    pub(super) dir: PathBuf,
    pub(super) port: u16,
}

impl Host {
    /// A host with one server, which answers from `zone`.
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
        let host = Self { dir, port };
        host.resolv_conf(resolv_conf);
        host
    }

    pub(super) fn resolv_conf(&self, text: &str) {
        fs::write(self.dir.join("resolv.conf"), text).unwrap();
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
        let Some(reply) = zone.answer(&buf[..n], false) else {
            continue;
        };
        for wrong in 0..zone.forged {
            let mut forged = reply.clone();
            match wrong % 3 {
                // In turn: another id, another queried name, not a message.
                0 => forged[0] ^= 1,
                1 => forged[13] ^= 1,
                _ => forged.truncate(11),
            }
            socket.send_to(&forged, from).await.unwrap();
        }
        // The resolver may have closed its socket already.
        let _ = socket.send_to(&reply, from).await;
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
            // The resolver closes the connection if the answer is too long.
            let _ = stream.write_all(&len.to_be_bytes()).await;
            let _ = stream.write_all(&reply).await;
        }
    }
}
