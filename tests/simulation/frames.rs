//! The messages between hosts: frames, which the program's codec writes and reads, and records in
//! envelopes. So data that a frame cannot carry does not arrive here either.
//!
//! Rule: a message of a device fits its frame, and a message of a device that keeps the protocol is
//! read without an error. Otherwise the run fails.

use std::fmt::{self, Display};

use oc_discovery::protocol::{
    Ack, Beat, Filter, MAX_ENVELOPE_LEN, OutBeat, PeerId, RecordInfo,
    codec::{
        NoRoom,
        directory::{
            Request, Response, Room, decode_request, decode_response, encode_request,
            encode_response,
        },
        frame::{MAX_FRAME, MAX_HEADER, MAX_RESPONSE, header, write_header},
        grant::Membership,
        heartbeat::{WallReading, WireAck, decode_ack, decode_beat, encode_ack, encode_beat},
        record::{
            Flaw, Kind, Purpose, Record, RecordError, SignError, Signer, Verifier, open, sign,
        },
        watch::{decode_ask, encode_ask},
    },
};

use crate::trace::Fnv;

/// A beat, an ack, a request or a response as a frame: header and body.
#[derive(Clone, PartialEq)]
pub struct Frame {
    content: Content,
    bytes: Box<[u8]>,
}

#[derive(Clone, Copy, PartialEq)]
enum Content {
    Beat,
    Ack,
    Request,
    Response,
    Watch,
}

impl Content {
    fn limit(self) -> usize {
        match self {
            Self::Response => MAX_RESPONSE,
            Self::Beat | Self::Ack | Self::Request | Self::Watch => MAX_FRAME,
        }
    }
}

impl Frame {
    /// A beat; see [`encode_beat`].
    pub fn beat(
        sequence: u64,
        beat: &OutBeat,
        record: Option<&[u8]>,
        known: &[PeerId],
    ) -> Result<Self, String> {
        let mut buffer = [0; MAX_FRAME];
        let body = encode_beat(sequence, beat, record, known, Membership::OPEN, &mut buffer);
        Self::new(Content::Beat, body)
    }

    /// An ack on a heartbeat stream; see [`encode_ack`].
    pub fn ack(sequence: u64, ack: &Ack<'_>, clock: Option<WallReading>) -> Result<Self, String> {
        let mut buffer = [0; MAX_FRAME];
        Self::new(
            Content::Ack,
            encode_ack(sequence, ack, clock, Membership::OPEN, &mut buffer),
        )
    }

    /// A directory request.
    pub fn request(request: &Request) -> Result<Self, String> {
        let mut buffer = [0; MAX_FRAME];
        Self::new(Content::Request, encode_request(request, &mut buffer))
    }

    /// A directory response.
    pub fn response(response: &Response<'_>) -> Result<Self, String> {
        let mut buffer = [0; MAX_RESPONSE];
        Self::new(Content::Response, encode_response(response, &mut buffer))
    }

    /// What a peer wants to be told of.
    pub fn watch(filter: &Filter) -> Result<Self, String> {
        let mut buffer = [0; MAX_FRAME];
        Self::new(Content::Watch, encode_ask(filter, &mut buffer))
    }

    fn new(content: Content, body: Result<&[u8], NoRoom>) -> Result<Self, String> {
        let body = body.map_err(|why| format!("a frame cannot be written: {why}"))?;
        let mut buffer = [0; MAX_HEADER];
        let bytes = [write_header(body.len(), &mut buffer), body].concat();
        let bytes = bytes.into_boxed_slice();
        let frame = Self { content, bytes };
        frame.body()?;
        Ok(frame)
    }

    /// The body, if nothing follows it and it is within the limit.
    fn body(&self) -> Result<&[u8], String> {
        let found = header(&self.bytes, self.content.limit()).map_err(unreadable)?;
        found
            .filter(|header| self.bytes.len() == header.frame())
            .and_then(|header| self.bytes.get(header.length..))
            .ok_or_else(|| unreadable("the header announces another length"))
    }

    /// The beat in it.
    pub fn read_beat(&self) -> Result<Beat<&[u8]>, String> {
        let read = decode_beat(self.body()?).map_err(unreadable)?;
        Ok(read.beat)
    }

    /// The ack in it.
    pub fn read_ack(&self) -> Result<WireAck<'_>, String> {
        decode_ack(self.body()?).map_err(unreadable)
    }

    /// The request in it.
    pub fn read_request(&self) -> Result<Request, String> {
        decode_request(self.body()?).map_err(unreadable)
    }

    /// What is watched.
    pub fn read_watch(&self) -> Result<Filter, String> {
        decode_ask(self.body()?).map_err(unreadable)
    }

    /// The response in it, with its lists in `room`.
    pub fn read_response<'a: 'r, 'r>(
        &'a self,
        room: &'r mut Room<'a>,
    ) -> Result<Response<'r>, String> {
        decode_response(self.body()?, room).map_err(unreadable)
    }
}

/// The bodies of the frames that a server sends its watcher.
pub fn bodies(mut frames: &[u8]) -> Result<Vec<Vec<u8>>, String> {
    let mut bodies = Vec::new();
    while !frames.is_empty() {
        let header = header(frames, MAX_FRAME).map_err(unreadable)?;
        let header = header.ok_or_else(|| unreadable("it is cut"))?;
        let frame = frames.split_at_checked(header.frame());
        let (frame, rest) = frame.ok_or_else(|| unreadable("it is cut"))?;
        bodies.push(frame[header.length..].to_vec());
        frames = rest;
    }
    Ok(bodies)
}

fn unreadable(why: impl Display) -> String {
    format!("a frame cannot be read: {why}")
}

/// A log shows the content of a frame.
impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.content {
            Content::Beat => match self.read_beat() {
                Ok(mut beat) => {
                    let record = beat.record.take().map(opened);
                    write!(f, "{beat:?} with {record:?}")
                }
                Err(why) => f.write_str(&why),
            },
            Content::Ack => write!(f, "{:?}", self.read_ack()),
            Content::Watch => write!(f, "{:?}", self.read_watch()),
            Content::Request => write!(f, "{:?}", self.read_request()),
            Content::Response => write!(f, "{:?}", self.read_response(&mut Room::default())),
        }
    }
}

/// The content of a record of either kind.
pub fn opened(envelope: &[u8]) -> Result<RecordInfo, RecordError> {
    let of_node = open(&Seals, Kind::Node, envelope, |record| record.info());
    of_node.or_else(|_| open(&Seals, Kind::Indexer, envelope, |record| record.info()))
}

/// Signs for one peer. Its signature is a hash, because no peer forges signatures here.
pub struct Seal(pub PeerId);

/// Verifies what a [`Seal`] signed.
pub struct Seals;

impl Signer for Seal {
    fn peer(&self) -> PeerId {
        self.0
    }

    fn seal(
        &self,
        kind: Kind,
        payload: &[u8],
        buffer: &mut [u8],
    ) -> Result<Option<usize>, SignError> {
        let seal = [seal_of(Purpose::Record(kind), &self.0, payload), [0; 8]].concat();
        // The fields of RFC 0002: the key, the type, the payload, the signature.
        let fields = [
            (0x0a, &self.0.as_bytes()[..]),
            (0x12, kind.payload_type()),
            (0x1a, payload),
            (0x2a, &seal.repeat(4)),
        ];
        let mut length = 0;
        for (tag, bytes) in fields {
            let [low, high] = [bytes.len() as u8 | 0x80, (bytes.len() >> 7) as u8];
            for part in [&[tag, low, high][..], bytes] {
                let Some(place) = buffer.get_mut(length..length + part.len()) else {
                    return Ok(None);
                };
                place.copy_from_slice(part);
                length += part.len();
            }
        }
        Ok(Some(length))
    }
}

impl Verifier for Seals {
    fn open(&self, purpose: Purpose, envelope: &[u8]) -> Result<(PeerId, impl AsRef<[u8]>), Flaw> {
        let field = |at: &mut usize| {
            let length = usize::from(envelope.get(*at + 1)? & 0x7f);
            let length = length | usize::from(*envelope.get(*at + 2)?) << 7;
            let bytes = envelope.get(*at + 3..*at + 3 + length)?;
            *at += 3 + length;
            Some(bytes)
        };
        let fields = |at: &mut usize| Some([field(at)?, field(at)?, field(at)?, field(at)?]);
        let fields = fields(&mut 0).ok_or(Flaw::NotAnEnvelope)?;
        let [key, payload_type, payload, seal] = fields;
        let signer = <[u8; 32]>::try_from(key).map_err(|_| Flaw::NotAnEnvelope)?;
        let signer = PeerId::from_bytes(signer);
        let is_sealed = seal.starts_with(&seal_of(purpose, &signer, payload));
        match is_sealed && payload_type == purpose.payload_type() {
            true => Ok((signer, payload)),
            false => Err(Flaw::BadSignature),
        }
    }
}

fn seal_of(purpose: Purpose, signer: &PeerId, payload: &[u8]) -> [u8; 8] {
    let mut hash = Fnv::new();
    hash.add(purpose.domain().as_bytes());
    hash.add(signer.as_bytes());
    hash.add(payload);
    hash.0.to_le_bytes()
}

/// Signs a record, as its subject.
pub fn signed(kind: Kind, record: Record<'_>) -> Result<Box<[u8]>, String> {
    let mut buffer = [0; MAX_ENVELOPE_LEN];
    let envelope = sign(&Seal(record.peer), kind, record, &mut buffer);
    envelope.map(Into::into).map_err(|why| why.to_string())
}

/// Opens a record that its subject has signed.
pub fn verified(kind: Kind, envelope: &[u8]) -> Result<RecordInfo, String> {
    open(&Seals, kind, envelope, |record| record.info()).map_err(unreadable)
}
