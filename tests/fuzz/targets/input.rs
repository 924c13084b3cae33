//! What a sequence of inputs is made of, from the fuzzer's bytes.

use std::time::Duration;

use oc_discovery::protocol::{
    Addr, Addrs, AnnounceEnd, Beat, Cursor, Families, Filter, Host, IndexersAnswer, IndexersPage,
    Key, Load, Name, Offer, Offers, PeerId, Publisher, Reach, Reader, RecordInfo, Role,
    SignedRecord, Terms, TransportAddr, Want,
    codec::{
        directory::{Request, Response},
        record::{Flaw, Kind, Purpose, Verifier, decode_record},
        service::{ServiceName, to_service_name},
    },
    lookup::Question,
};

pub const TERMS: Terms = Terms {
    lease: Duration::from_secs(90),
    beat_interval: Duration::from_secs(30),
};

/// `/ip4/192.0.2.1/tcp/4820`, binary.
pub const ADDR: &[u8] = &[4, 192, 0, 2, 1, 6, 0x12, 0xd4];

/// Peer 0 is the process itself.
pub fn peer(number: u8) -> PeerId {
    PeerId::from_bytes([number; 32])
}

pub fn addrs() -> Addrs {
    Addr::from_slice(ADDR).into_iter().collect()
}

/// Takes every envelope for its payload, signed by its subject.
pub struct Known;

impl Verifier for Known {
    fn open(&self, _: Purpose, envelope: &[u8]) -> Result<(PeerId, impl AsRef<[u8]>), Flaw> {
        let peer = decode_record(Kind::Node, envelope).map(|record| record.peer);
        Ok((peer.unwrap_or(self::peer(1)), envelope))
    }
}

/// The fuzzer's bytes, from the front. When they have ended, they are zero.
pub struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn byte(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        *first
    }

    /// A number below `most`.
    pub fn below(&mut self, most: u8) -> u8 {
        self.byte() % most
    }

    /// A place in a list of this length, which is not 0.
    pub fn at(&mut self, length: usize) -> usize {
        usize::from(self.byte()) % length
    }

    pub fn flag(&mut self) -> bool {
        self.below(2) == 1
    }

    /// Bytes of any length up to 255.
    pub fn frame(&mut self) -> &'a [u8] {
        let length = usize::from(self.byte()).min(self.0.len());
        let (frame, rest) = self.0.split_at(length);
        self.0 = rest;
        frame
    }

    pub fn peer(&mut self, peers: u8) -> PeerId {
        peer(self.below(peers))
    }

    /// None, up to four minutes, or one that nobody may ask for.
    pub fn duration(&mut self) -> Duration {
        match self.byte() {
            255 => Duration::MAX,
            secs => Duration::from_secs(secs.into()),
        }
    }

    pub fn source(&mut self) -> TransportAddr {
        TransportAddr {
            host: Host::V4([192, 0, 2, self.below(3)].into()),
            port: self.byte().into(),
        }
    }

    pub fn reader(&mut self) -> Reader {
        match self.below(4) {
            0 => Reader::default(),
            seen => Reader::far(match seen {
                1 => Families::V4,
                2 => Families::V6,
                _ => Families::NONE,
            }),
        }
    }

    /// Mostly a valid name.
    fn name(&mut self) -> Name {
        let text = ["pump", "lamp-1", "", "*", "a.b"];
        let text = text.get(self.at(text.len())).copied().unwrap_or_default();
        Name::try_from(text).unwrap_or_default()
    }

    fn service(&mut self) -> ServiceName {
        let text = ["http", "ssh"].get(self.at(2)).copied();
        text.and_then(to_service_name).unwrap_or_default()
    }

    pub fn key(&mut self) -> Key {
        match self.flag() {
            true => Key::Name(self.name()),
            false => Key::Service(self.service()),
        }
    }

    pub fn announce_end(&mut self) -> AnnounceEnd {
        match self.flag() {
            true => AnnounceEnd::Taken,
            false => AnnounceEnd::Failed,
        }
    }

    pub fn question(&mut self, peers: u8) -> Question {
        match self.below(4) {
            0 => Question::Indexers,
            1 => Question::Name(self.name()),
            2 => Question::Service(self.service()),
            _ => Question::Peer(self.peer(peers)),
        }
    }

    /// A record that is signed about now, by this peer.
    pub fn record(&mut self, peer: PeerId, now_ms: u64) -> RecordInfo {
        let age_ms = 1_000 * u64::from(self.byte());
        RecordInfo {
            peer,
            sequence: self.byte().into(),
            issued_at_ms: match self.flag() {
                true => now_ms - age_ms,
                false => now_ms + age_ms,
            },
            ttl: self.duration(),
            addrs: match self.below(8) {
                0 => Addrs::new(),
                _ => addrs(),
            },
            name: self.name(),
        }
    }

    /// A beat of this peer, mostly with its own record.
    pub fn beat(&mut self, from: PeerId, now_ms: u64) -> Beat<SignedRecord<'static>> {
        let role = match self.below(4) {
            0 => Role::Native,
            1 => Role::Indexer,
            _ => Role::Node,
        };
        let record = match self.below(6) {
            0 => None,
            1 => Some(peer(self.byte())),
            _ => Some(from),
        };
        let known = (0..self.below(4)).map(|_| peer(self.byte())).collect();
        Beat {
            sequence: self.below(3).into(),
            role,
            lease: self.duration(),
            record: record.map(|peer| SignedRecord {
                info: self.record(peer, now_ms),
                envelope: b"signed",
            }),
            publisher: match self.flag() {
                true => Publisher::Receiver,
                false => Publisher::Another,
            },
            load: self.flag().then(|| Load {
                held: self.byte().into(),
                possible: self.byte().into(),
            }),
            known,
        }
    }

    pub fn offers(&mut self, peers: u8) -> Offers {
        let offers = (0..self.below(4)).map(|_| Offer {
            peer: self.peer(peers),
            addrs: addrs(),
            ttl: self.duration(),
            free: self.flag().then(|| self.byte().into()),
        });
        offers.collect()
    }

    /// A server's answer with indexers, which are put into `offers`.
    pub fn indexers<'o>(&mut self, peers: u8, offers: &'o mut Offers) -> Response<'o> {
        *offers = self.offers(peers);
        match self.flag() {
            true => Response::Indexers(IndexersAnswer {
                offers,
                takes_in: self.flag(),
            }),
            false => Response::Page(IndexersPage {
                offers,
                next: self.flag().then(|| self.peer(peers)),
            }),
        }
    }

    pub fn request(&mut self, peers: u8) -> Request {
        let reach = match self.flag() {
            true => Reach::Network,
            false => Reach::Directory,
        };
        match self.below(4) {
            0 => Request::Indexers {
                most: self.below(17),
                want: match self.below(3) {
                    0 => Want::Lease,
                    1 => Want::OffersFailed,
                    _ => Want::Nothing,
                },
                from: None,
            },
            1 => Request::FindName {
                name: self.name(),
                reach,
            },
            2 => Request::FindPeer {
                peer: self.peer(peers),
                reach,
            },
            _ => Request::List {
                filter: Filter::default(),
                from: Cursor::Start,
                gone: self.flag(),
            },
        }
    }
}
