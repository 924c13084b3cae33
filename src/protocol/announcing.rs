//! What an indexer or native announces in the DHT: the names and services that its directory lists.

use core::fmt;

use super::{Name, codec::service::ServiceName};

/// What can be looked for in the DHT: its servers name the peers that announced it, and those can
/// say who has it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// The name of a node.
    Name(Name),
    /// A service that nodes offer.
    Service(ServiceName),
}

/// The text whose hash is the key in the DHT (PROTOCOL.md): `/oc/name/…` or `/oc/service/…`.
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => write!(f, "/oc/name/{name}"),
            Self::Service(service) => write!(f, "/oc/service/{service}"),
        }
    }
}
