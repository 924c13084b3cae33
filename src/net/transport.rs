//! The stack under the swarm: names and TCP, a private network if there is a key, Noise, Yamux.
//!
//! Invariants: the addresses of one peer are dialled as a [race](super::race); a connection that is
//! not authenticated and multiplexed within [`LIMIT`] is closed; a connection carries at most
//! [`MAX_STREAMS`] streams; with a pre-shared key, a peer without it learns nothing.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::{AsyncRead, AsyncWrite};
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::{Boxed, Transport, TransportError};
use libp2p::core::upgrade::Version;
use libp2p::identity::Keypair;
use libp2p::pnet::{PnetConfig, PnetError, PreSharedKey};
use libp2p::{PeerId, noise, yamux};

use super::dns::{DnsTransport, Resolver};
use super::file;
use super::goaway;
use super::greeting::{Ends, Greeted, Layer};
use super::muxer::OnceATurn;
use super::race::{Racing, own_subnets};
use super::refusals::Refusals;
use super::tcp::TcpTransport;

/// The time from the first byte, or from the name lookup, to the multiplexed connection.
const LIMIT: Duration = Duration::from_secs(10);

/// Streams of one connection, both directions together. If we or the peer open more, the connection
/// is closed with all its streams. So this limit is above those of the handlers, which are 32 in
/// each direction for Kademlia and about 20 for all others.
const MAX_STREAMS: usize = 128;

/// The transport for `keypair`. With `psk` it connects only to holders of the same key. Its futures
/// must run inside the executor's `block_on`.
///
/// # Errors
///
/// If `keypair` cannot sign the key of the Noise handshake, or the kernel gives no file descriptor
/// to watch sockets with.
pub(crate) fn build(
    keypair: &Keypair,
    psk: Option<PreSharedKey>,
    resolver: Resolver,
    refusals: Refusals,
) -> io::Result<Boxed<(PeerId, StreamMuxerBox)>> {
    build_within(LIMIT, keypair, psk, resolver, refusals)
}

fn build_within(
    limit: Duration,
    keypair: &Keypair,
    psk: Option<PreSharedKey>,
    resolver: Resolver,
    refusals: Refusals,
) -> io::Result<Boxed<(PeerId, StreamMuxerBox)>> {
    let transport = DnsTransport::new(TcpTransport::new()?, resolver);
    let reports = refusals.clone();
    let built = match psk {
        Some(psk) => {
            let private =
                transport.and_then(move |socket, point| {
                    let ends = Ends::new(point, reports);
                    let socket = Greeted::new(socket, Layer::Sealed, ends.clone());
                    let sealed = PnetConfig::new(psk).handshake(socket);
                    async move {
                        Ok::<_, PnetError>(Greeted::new(sealed.await?, Layer::Deciphered, ends))
                    }
                });
            upgraded(limit, keypair, private)
        }
        None => {
            let open = transport.map(move |socket, point| {
                Greeted::new(socket, Layer::Open, Ends::new(point, reports))
            });
            upgraded(limit, keypair, open)
        }
    };
    let built = built.map_err(io::Error::other)?;
    Ok(Racing::new(built, own_subnets, refusals).boxed())
}

fn upgraded<T>(
    limit: Duration,
    keypair: &Keypair,
    transport: T,
) -> Result<Boxed<(PeerId, StreamMuxerBox)>, noise::Error>
where
    T: Transport + Send + Unpin + 'static,
    T::Output: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    T::Error: Send + Sync + 'static,
    T::Dial: Send,
    T::ListenerUpgrade: Send,
{
    let mut yamux = yamux::Config::default();
    yamux.set_max_num_streams(MAX_STREAMS);
    Ok(transport
        .upgrade(Version::V1Lazy)
        .authenticate(noise::Config::new(keypair)?)
        .multiplex(goaway::Config(yamux))
        .timeout(limit)
        .map(|(peer, muxer), _| {
            let muxer = OnceATurn::new(muxer.of(peer));
            (peer, StreamMuxerBox::new(muxer))
        })
        .boxed())
}

/// What a listen or dial error means, in one sentence. libp2p's own text leaves out the cause.
pub(crate) fn sentence(error: &TransportError<io::Error>) -> String {
    match error {
        TransportError::Other(error) => error.to_string(),
        unsupported => unsupported.to_string(),
    }
}

/// The key of a private network.
#[cfg_attr(test, derive(Debug))]
pub(crate) struct Psk {
    pub(crate) key: PreSharedKey,
    /// It was not drawn at random, for certain. The first bytes of a connection are known, so
    /// whoever reads them can try such keys.
    pub(crate) is_weak: bool,
}

/// Reads the key of a private network from a `swarm.key` file, in the format of go-libp2p and Kubo.
///
/// # Errors
///
/// If the file cannot be read or does not have that format.
pub(crate) fn psk_from_file(path: &Path) -> Result<Psk, PskError> {
    let error = |problem| PskError {
        path: path.to_owned(),
        problem,
    };
    let text = file::read_patiently(path, MAX_KEY_FILE + 1)
        .map_err(|source| error(PskProblem::Read(source)))?;
    parse_psk(&text).map_err(error)
}

/// What is wrong with a key file, and the format that it must have. The key itself is never shown.
#[derive(Debug)]
pub(crate) struct PskError {
    path: PathBuf,
    problem: PskProblem,
}

#[derive(Debug)]
enum PskProblem {
    Read(io::Error),
    TooLong,
    Type,
    Encoding,
    Length(usize),
    Digit(usize),
}

impl fmt::Display for PskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "key file {}: ", self.path.display())?;
        match &self.problem {
            PskProblem::Read(error) => return write!(f, "{error}"),
            PskProblem::TooLong => write!(f, "it is longer than {MAX_KEY_FILE} bytes"),
            PskProblem::Type => write!(f, "line 1 is not {KEY_TYPE}"),
            PskProblem::Encoding => write!(f, "line 2 is not {KEY_ENCODING}"),
            PskProblem::Length(n) => write!(f, "line 3 has {n} characters instead of {KEY_DIGITS}"),
            PskProblem::Digit(at) => {
                write!(f, "character {at} of line 3 is not a hexadecimal digit")
            }
        }?;
        write!(
            f,
            "; it has three lines: {KEY_TYPE}, {KEY_ENCODING} and {KEY_DIGITS} hexadecimal digits"
        )
    }
}

impl Error for PskError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match &self.problem {
            PskProblem::Read(source) => Some(source),
            _ => None,
        }
    }
}

const KEY_TYPE: &str = "/key/swarm/psk/1.0.0/";
const KEY_ENCODING: &str = "/base16/";
const KEY_DIGITS: usize = 64;
const MAX_KEY_FILE: u64 = 1024;

/// Parses a key file. libp2p's own parser panics on a key line of 64 bytes that is not ASCII, and
/// accepts signs as digits.
fn parse_psk(text: &[u8]) -> Result<Psk, PskProblem> {
    if u64::try_from(text.len()).is_ok_and(|len| len > MAX_KEY_FILE) {
        return Err(PskProblem::TooLong);
    }
    let text = String::from_utf8_lossy(text);
    let mut lines = text.lines().map(str::trim_end);
    if lines.next() != Some(KEY_TYPE) {
        return Err(PskProblem::Type);
    }
    if lines.next() != Some(KEY_ENCODING) {
        return Err(PskProblem::Encoding);
    }
    let digits = lines.next().unwrap_or_default();
    let length = digits.chars().count();
    if length != KEY_DIGITS {
        return Err(PskProblem::Length(length));
    }
    let mut key = [0; KEY_DIGITS / 2];
    for (at, digit) in digits.chars().enumerate() {
        let value = digit
            .to_digit(16)
            .and_then(|value| u8::try_from(value).ok());
        let value = value.ok_or(PskProblem::Digit(at + 1))?;
        if let Some(byte) = key.get_mut(at / 2) {
            *byte = *byte << 4 | value;
        }
    }
    Ok(Psk {
        key: PreSharedKey::new(key),
        is_weak: is_weak(&key),
    })
}

/// Whether the bytes are text, have at most [`FEW`] values, or count up or down. Of 10¹³ keys that
/// are drawn at random, not one is like this.
fn is_weak(key: &[u8; KEY_DIGITS / 2]) -> bool {
    const FEW: usize = 8;
    let is_first = |(at, byte): &(usize, &u8)| !key.iter().take(*at).any(|other| other == *byte);
    let values = key.iter().enumerate().filter(is_first).count();
    let pairs = key.iter().zip(key.iter().skip(1));
    let mut steps = pairs.map(|(one, next)| next.wrapping_sub(*one));
    let step = steps.next();
    let is_text = key
        .iter()
        .all(|byte| matches!(byte, 0 | b'\n' | b' '..=b'~'));
    values <= FEW || steps.all(|other| Some(other) == step) || is_text
}

#[cfg(test)]
mod tests;
