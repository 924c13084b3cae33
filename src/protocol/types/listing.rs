//! Lists of nodes: which nodes a request selects, and what an entry says of each.
//!
//! Invariants: a filter has at most [`MAX_TAGS`] tags with [`MAX_TAG_BYTES`] bytes in all; a node
//! whose name it does not admit is not selected, whatever its record says.

use core::time::Duration;

use heapless::{String, Vec};

use super::{Cursor, Name, PeerId};
use crate::protocol::codec::{
    record::{MAX_TAG_BYTES, MAX_TAGS, Record, Tags},
    service::ServiceName,
};

/// Entries in one page at most (PROTOCOL.md).
pub const MAX_ENTRIES: usize = 32;

/// Whether a node is there, as the server that tells of it knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// It holds a lease.
    Alive,
    /// It gave its lease up.
    Left,
    /// Its lease ran out.
    Lost,
}

impl Presence {
    /// All states, in the order of their codes.
    pub const ALL: [Self; 3] = [Self::Alive, Self::Left, Self::Lost];

    /// The name of the state, as in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Alive => "alive",
            Self::Left => "left",
            Self::Lost => "lost",
        }
    }
}

/// Which nodes are selected. The default selects all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Those that offer this service.
    pub service: Option<ServiceName>,
    /// Those with a name that begins so. It may be any text, even one that begins no valid name.
    pub prefix: Name,
    tags: TagBuf,
}

/// A part of a list of nodes.
#[derive(Clone, Copy, Debug)]
pub struct Selection<'a> {
    /// Which nodes are meant.
    pub filter: &'a Filter,
    /// Where the part begins.
    pub from: Cursor,
    /// Those that left or were lost, too.
    pub gone: bool,
}

impl<'a> Selection<'a> {
    /// Nodes that hold a lease, and no others.
    pub fn alive(filter: &'a Filter, from: Cursor) -> Self {
        let gone = false;
        Self { filter, from, gone }
    }
}

/// Tags: their keys and values one after another, and where each of those ends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct TagBuf {
    text: String<MAX_TAG_BYTES, u16>,
    ends: Vec<u16, { 2 * MAX_TAGS }, u8>,
}

/// There is no room for another tag: a filter has at most [`MAX_TAGS`] of them, and
/// [`MAX_TAG_BYTES`] bytes in all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManyTags;

impl Filter {
    /// Nodes that offer this service, if one is given, and have a name that begins so.
    pub fn new(service: Option<ServiceName>, prefix: Name) -> Self {
        Self {
            service,
            prefix,
            tags: TagBuf::default(),
        }
    }

    /// Admits only nodes that have this tag, too.
    ///
    /// # Errors
    /// [`TooManyTags`]. The filter is then as before.
    pub fn with_tag(mut self, key: &str, value: &str) -> Result<Self, TooManyTags> {
        for text in [key, value] {
            self.tags.text.push_str(text).map_err(|_| TooManyTags)?;
            let end = self.tags.text.len() as u16;
            self.tags.ends.push(end).map_err(|_| TooManyTags)?;
        }
        Ok(self)
    }

    /// The tags that a node must have.
    pub fn tags(&self) -> Tags<'_> {
        let mut begin = 0;
        let mut texts = self.tags.ends.iter().map(|&end| {
            let text = self.tags.text.get(begin..usize::from(end));
            begin = usize::from(end);
            text.unwrap_or_default()
        });
        let mut tags = Tags::new();
        while let (Some(key), Some(value)) = (texts.next(), texts.next()) {
            // There is room: the filter has at most as many ends as such a list has texts.
            let _ = tags.push((key, value));
        }
        tags
    }

    /// Whether a node of this name may be admitted. It is, if nothing else is asked for.
    pub fn admits_name(&self, name: &str) -> bool {
        name.starts_with(self.prefix.as_str())
    }

    /// Whether the name alone decides.
    pub(crate) fn is_of_names(&self) -> bool {
        self.service.is_none() && self.tags.ends.is_empty()
    }

    /// Whether the node with this record is selected.
    pub fn admits(&self, record: &Record<'_>) -> bool {
        let offers = |service: &ServiceName| record.offers(service);
        self.admits_name(record.name)
            && self.service.as_ref().is_none_or(offers)
            && self.tags().iter().all(|tag| record.tags.contains(tag))
    }
}

/// The node that an entry is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject<'a> {
    /// The subject of this signed node record, which is not verified here.
    Signed(&'a [u8]),
    /// A peer without a stored record. Only the server vouches for it.
    Named {
        /// The peer.
        peer: PeerId,
        /// The name that it had. From the wire it may be any text.
        name: &'a str,
    },
}

/// A node in a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// The node.
    pub subject: Subject<'a>,
    /// Time since its last heartbeat, since it left, or since it was lost.
    pub age: Duration,
    /// Which of these states it has.
    pub presence: Presence,
}

/// The entries of one page.
pub type Entries<'a> = Vec<Entry<'a>, MAX_ENTRIES, u8>;

/// One page of the nodes that a server lists.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EntriesPage<'a> {
    /// Nodes, in the order of their ids; at most [`MAX_ENTRIES`].
    pub entries: &'a [Entry<'a>],
    /// The next page begins after this id; `None`: there is none.
    pub next: Option<PeerId>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::codec::service::{Service, Transport, to_service_name};

    fn record() -> Record<'static> {
        Record {
            peer: PeerId::from_bytes([1; 32]),
            sequence: 1,
            issued_at_ms: 1,
            ttl: Duration::from_secs(1),
            addrs: Default::default(),
            name: "pump-3",
            tags: [("floor", "2"), ("room", "")].into_iter().collect(),
            services: [Service {
                name: to_service_name("http").unwrap(),
                transport: Transport::Tcp,
                port: 80,
            }]
            .into_iter()
            .collect(),
            version: "",
            link_services: Default::default(),
            grant: &[],
        }
    }

    #[test]
    fn an_empty_filter_admits_all() {
        assert!(Filter::default().admits(&record()));
        assert!(Filter::default().is_of_names());
    }

    #[test]
    fn a_node_must_have_all_that_is_asked_for() {
        let of = |prefix: &str, service: &str| {
            Filter::new(to_service_name(service), Name::try_from(prefix).unwrap())
        };
        let with = |key: &str, value: &str| Filter::default().with_tag(key, value).unwrap();
        let fits = [
            of("pump", ""),
            of("pump-3", "http"),
            with("room", ""),
            with("floor", "2").with_tag("room", "").unwrap(),
        ];
        for filter in fits {
            assert!(filter.admits(&record()), "{filter:?}");
        }
        let misses = [
            of("pump-31", ""),
            of("ump", ""),
            of("pump", "https"),
            with("floor", ""),
            with("", "2"),
            with("floor", "2").with_tag("hall", "").unwrap(),
        ];
        for filter in misses {
            assert!(!filter.admits(&record()), "{filter:?}");
        }
    }

    #[test]
    fn eight_tags_and_256_bytes_fit_and_not_one_more() {
        let mut filter = Filter::default();
        for key in ["a", "b", "c", "d", "e", "f", "g", "h"] {
            filter = filter.with_tag(key, "1").unwrap();
        }
        assert_eq!(filter.tags().len(), 8);
        assert_eq!(filter.with_tag("i", "1"), Err(TooManyTags));
        let long = "x".repeat(255);
        assert!(Filter::default().with_tag("k", &long).is_ok());
        assert_eq!(Filter::default().with_tag("kk", &long), Err(TooManyTags));
    }
}
