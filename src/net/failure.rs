//! Why a server was not reached, in a person's words.
//!
//! libp2p's own text repeats the cause for each layer of the stack, and for each address of the
//! peer. Here it is said once, with all addresses that have it.
//!
//! Invariant: the kind is that of the cause which says most: what answers, even wrongly, says more
//! than silence.

use std::{error::Error, fmt, io};

use libp2p::{
    Multiaddr, PeerId, core::transport::TransportError, multiaddr::Protocol, swarm::DialError,
};

use super::{
    dns::ResolveError,
    each::short_id,
    tcp::{TcpError, plain, socket_addr},
};

/// What kind of failure it was. The first says least.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum FailureKind {
    /// Any other reason.
    Other,
    /// The host or its network is unreachable, or there is no route.
    Unreachable,
    /// No answer in time.
    TimedOut,
    /// The name was not resolved.
    Unresolved,
    /// Nothing listens at the port.
    Refused,
    /// Something answers, but the handshake failed.
    Handshake,
    /// Another peer answers.
    OtherPeer,
    /// This process itself answers.
    OwnIdentity,
    /// No dial failed: the stream on an open connection did.
    Stream,
    /// The same, because the peer sent what cannot be read.
    Malformed,
}

/// Why a server was not reached, or did not answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// The kind of the cause that says most.
    pub(crate) kind: FailureKind,
    text: String,
}

/// How the sentence about a handshake begins.
const REFUSED: &str = "handshake refused";

/// How the sentence about a dial begins.
pub(crate) const UNREACHABLE: &str = "cannot be reached";

/// Another peer answers than the one that was dialled.
#[derive(Debug)]
pub(crate) struct AnotherPeer(pub(crate) PeerId);

impl fmt::Display for AnotherPeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "another peer answers: {}", self.0)
    }
}

impl Error for AnotherPeer {}

impl Failure {
    /// A failure on an open connection.
    pub(crate) fn of_stream(why: impl fmt::Display) -> Self {
        Self {
            kind: FailureKind::Stream,
            text: why.to_string(),
        }
    }

    /// The peer sent what cannot be read.
    pub(crate) fn malformed(why: impl fmt::Display) -> Self {
        let kind = FailureKind::Malformed;
        Self {
            kind,
            ..Self::of_stream(why)
        }
    }

    /// A dial that failed, of the process with the id `own`.
    pub(crate) fn of_dial(error: &DialError, own: &PeerId) -> Self {
        let one = |kind, text: String| Self { kind, text };
        match error {
            DialError::Transport(failed) => Self::of_addresses(failed, own),
            DialError::LocalPeerId { address } => {
                let causes = [(place(address), another(own, own))];
                Self::joined(causes.into_iter())
            }
            DialError::WrongPeerId { obtained, address } => {
                let causes = [(place(address), another(obtained, own))];
                Self::joined(causes.into_iter())
            }
            DialError::NoAddresses => one(FailureKind::Other, ": no address is known".to_owned()),
            other => one(FailureKind::Other, format!(": {other}")),
        }
    }

    fn of_addresses(failed: &[(Multiaddr, TransportError<io::Error>)], own: &PeerId) -> Self {
        let causes = failed.iter();
        Self::joined(causes.map(|(addr, why)| (place(addr), cause(why, own))))
    }

    /// One sentence for all addresses: each cause once.
    fn joined(causes: impl Iterator<Item = (String, (FailureKind, String))>) -> Self {
        let mut kind = FailureKind::Other;
        let mut groups: Vec<(String, String)> = Vec::new();
        for (place, (of, why)) in causes {
            kind = kind.max(of);
            match groups.iter_mut().find(|(_, known)| *known == why) {
                Some((places, _)) => *places = format!("{places}, {place}"),
                None => groups.push((place, why)),
            }
        }
        let mut text = String::new();
        for (places, why) in groups {
            let begin = if text.is_empty() { " " } else { "; " };
            text = format!("{text}{begin}at {places}: {why}");
        }
        Self { kind, text }
    }

    /// What the peer did or did not do, to be said after its name.
    pub(crate) fn sentence(&self, else_: &str) -> String {
        match self.kind {
            FailureKind::Stream => format!("{else_}: {}", self.text),
            FailureKind::Malformed => format!("sends what cannot be read: {}", self.text),
            _ => format!("{UNREACHABLE}{}", self.text),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text.trim_start_matches([' ', ':']))
    }
}

/// The address for people: `203.0.113.7:4820`, or without `/p2p` if it is a name.
fn place(addr: &Multiaddr) -> String {
    match socket_addr(addr) {
        Some(socket) => socket.to_string(),
        None => addr
            .iter()
            .filter(|part| !matches!(part, Protocol::P2p(_)))
            .collect::<Multiaddr>()
            .to_string(),
    }
}

fn another(peer: &PeerId, own: &PeerId) -> (FailureKind, String) {
    match peer == own {
        true => (
            FailureKind::OwnIdentity,
            "this process itself answers, or another with its identity".to_owned(),
        ),
        false => (
            FailureKind::OtherPeer,
            format!(
                "another peer answers, with the id {}",
                short_id(&peer.to_base58())
            ),
        ),
    }
}

/// The cause below all layers of the transport.
fn cause(error: &TransportError<io::Error>, own: &PeerId) -> (FailureKind, String) {
    let TransportError::Other(error) = error else {
        let text = "this kind of address cannot be dialled";
        return (FailureKind::Other, text.to_owned());
    };
    let mut layer: &(dyn Error + 'static) = error;
    loop {
        if let Some(TcpError::Connect { source, .. }) = layer.downcast_ref() {
            return connecting(source);
        }
        if let Some(error) = layer.downcast_ref::<ResolveError>() {
            return (FailureKind::Unresolved, error.problem());
        }
        if let Some(AnotherPeer(peer)) = layer.downcast_ref() {
            return another(peer, own);
        }
        // The source of an I/O error is that of the error in it.
        let inner = layer
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref);
        match inner
            .map(|inner| inner as &(dyn Error + 'static))
            .or(layer.source())
        {
            Some(below) => layer = below,
            None => return handshaking(layer),
        }
    }
}

/// Why a dial failed that the process with the id `own` made without the swarm, in a person's
/// words.
pub(super) fn cause_of(error: io::Error, own: &PeerId) -> (FailureKind, String) {
    cause(&TransportError::Other(error), own)
}

/// Why there is no TCP connection.
fn connecting(error: &io::Error) -> (FailureKind, String) {
    use io::ErrorKind::{ConnectionRefused, HostUnreachable, NetworkUnreachable, TimedOut};
    let kind = match error.kind() {
        ConnectionRefused => FailureKind::Refused,
        TimedOut => FailureKind::TimedOut,
        HostUnreachable | NetworkUnreachable => FailureKind::Unreachable,
        _ => FailureKind::Other,
    };
    (kind, plain(error))
}

/// Why a TCP connection did not become one of ours.
fn handshaking(error: &(dyn Error + 'static)) -> (FailureKind, String) {
    let why = error.to_string();
    // The type of libp2p's time limit depends on the whole stack.
    if why.contains("Timeout") {
        let text = "accepts the connection, but does not answer";
        return (FailureKind::TimedOut, text.to_owned());
    }
    // The layer of the pre-shared key puts words of its own before those of the cause.
    let text = match why.find(REFUSED).and_then(|from| why.get(from..)) {
        Some(refused) => refused.to_owned(),
        None => format!(
            "the connection ended during the handshake ({})",
            why.to_lowercase()
        ),
    };
    (FailureKind::Handshake, text)
}

#[cfg(test)]
mod tests {
    use libp2p::pnet::PnetError;

    use super::*;
    use crate::net::refusals::Why;

    fn own() -> PeerId {
        PeerId::random()
    }

    fn refused(socket: &str) -> (Multiaddr, TransportError<io::Error>) {
        failed(socket, io::Error::from_raw_os_error(111))
    }

    /// As libp2p reports it: wrapped by each layer.
    fn failed(socket: &str, source: io::Error) -> (Multiaddr, TransportError<io::Error>) {
        let addr = socket.parse().unwrap();
        let error = io::Error::other(io::Error::other(TcpError::Connect { addr, source }));
        (
            super::super::tcp::multiaddr(addr),
            TransportError::Other(error),
        )
    }

    #[test]
    fn a_cause_is_said_once_with_all_its_addresses() {
        let late = io::Error::new(io::ErrorKind::TimedOut, "no answer within 5 s");
        let error = DialError::Transport(vec![
            refused("203.0.113.7:4820"),
            failed("[fd00::1]:4820", late),
            refused("10.0.0.1:4820"),
        ]);
        let failure = Failure::of_dial(&error, &own());
        assert_eq!(failure.kind, FailureKind::Refused);
        assert_eq!(
            failure.sentence("does not answer"),
            "cannot be reached at 203.0.113.7:4820, 10.0.0.1:4820: connection refused; \
             at [fd00::1]:4820: no answer within 5 s"
        );
    }

    #[test]
    fn each_kind_of_failure_has_its_words() {
        let os = io::Error::from_raw_os_error;
        let own = own();
        let other = PeerId::random();
        let inner = |error| (refused("192.0.2.1:1").0, TransportError::Other(error));
        for (failed, kind, words) in [
            (
                refused("192.0.2.1:1"),
                FailureKind::Refused,
                "connection refused".to_owned(),
            ),
            (
                failed("192.0.2.1:1", os(110)),
                FailureKind::TimedOut,
                "connection timed out".into(),
            ),
            (
                failed("192.0.2.1:1", os(113)),
                FailureKind::Unreachable,
                "no route to host".into(),
            ),
            (
                failed("192.0.2.1:1", os(101)),
                FailureKind::Unreachable,
                "network is unreachable".into(),
            ),
            (
                inner(io::Error::other(AnotherPeer(other))),
                FailureKind::OtherPeer,
                format!(
                    "another peer answers, with the id {}",
                    short_id(&other.to_base58())
                ),
            ),
            (
                inner(io::Error::other(AnotherPeer(own))),
                FailureKind::OwnIdentity,
                "this process itself answers, or another with its identity".into(),
            ),
            (
                inner(io::Error::other(PnetError::HandshakeError(
                    io::Error::other(Why::NoKey.to_string()),
                ))),
                FailureKind::Handshake,
                Why::NoKey.to_string(),
            ),
            (
                inner(io::ErrorKind::UnexpectedEof.into()),
                FailureKind::Handshake,
                "the connection ended during the handshake (unexpected end of file)".into(),
            ),
        ] {
            let failure = Failure::of_dial(&DialError::Transport(vec![failed]), &own);
            assert_eq!(failure.kind, kind, "{words}");
            assert_eq!(failure.to_string(), format!("at 192.0.2.1:1: {words}"));
        }
    }
}
