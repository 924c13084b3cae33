//! Frames and records of servers, and the rows that are made of them.

use std::time::Duration;

use crate::{
    daemon::{
        nodes::millis,
        report::{self, text},
        status::{NodeQuery, NodeState, WatchEventName, WatchRow},
    },
    net::envelope::{self, OpenRecord, open_node},
    protocol::{
        Entry, Filter, Name, PeerId, Presence,
        codec::{
            frame::{MAX_FRAME, header},
            record::{Kind, contents},
            service::to_service_name,
        },
        watch::{client::Said, fingerprint},
    },
};

/// The bodies of whole frames.
pub(super) fn bodies(mut frames: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let header = header(frames, MAX_FRAME).ok()??;
        let (frame, rest) = frames.split_at_checked(header.frame())?;
        frames = rest;
        frame.get(header.length..)
    })
}

/// The record of a notice.
pub(super) struct Opened {
    pub(super) record: OpenRecord,
    pub(super) fingerprint: u64,
    /// The reader's filter selects it.
    pub(super) is_meant: bool,
}

/// A record of the own directory was verified when it was listed.
pub(super) fn opened(filter: &Filter, envelope: &[u8], is_own: bool) -> Result<Opened, String> {
    let contents = contents(Kind::Node, envelope).ok_or("it is no record of a node")?;
    let record = match is_own {
        true => envelope::opened(&contents),
        false => open_node(envelope).map_err(|why| why.to_string())?,
    };
    Ok(Opened {
        record,
        fingerprint: fingerprint(&contents),
        is_meant: filter.admits(&contents),
    })
}

pub(super) fn row_of(said: Said, record: &OpenRecord, entry: &Entry<'_>) -> WatchRow {
    WatchRow {
        event: match said {
            Said::Present => WatchEventName::Present,
            Said::Changed => WatchEventName::Changed,
            Said::Excluded => WatchEventName::Left,
        },
        name: record.info.name.as_str().into(),
        peer_id: text(&record.info.peer),
        state: NodeState::Alive,
        last_beat_ms: millis(entry.age),
        addresses: record.addrs.iter().map(ToString::to_string).collect(),
        services: report::services(&record.about),
        tags: report::tags(&record.about),
        version: record.version.clone(),
    }
}

/// What the reader asks for, in the words of the protocol.
pub(in crate::daemon) fn filter_of(query: &NodeQuery) -> Result<Filter, String> {
    let service = match &query.service {
        Some(name) => Some(to_service_name(name).ok_or("a service has 1 to 15 of a-z 0-9 -")?),
        None => None,
    };
    let prefix = Name::try_from(query.name.as_deref().unwrap_or_default());
    let prefix = prefix.map_err(|_| "a name has at most 63 bytes")?;
    let mut filter = Filter::new(service, prefix);
    for (key, value) in query.tags.iter().flatten() {
        let with_tag = filter.with_tag(key, value);
        filter = with_tag.map_err(|_| "tags are at most 8, and 256 bytes in all")?;
    }
    Ok(filter)
}

pub(super) fn gone_row(peer: &PeerId, name: &Name, how: Presence, ago: Duration) -> WatchRow {
    let (event, state) = match how {
        Presence::Lost => (WatchEventName::Lost, NodeState::Lost),
        Presence::Alive | Presence::Left => (WatchEventName::Left, NodeState::Left),
    };
    WatchRow {
        event,
        name: name.as_str().into(),
        peer_id: text(peer),
        state,
        last_beat_ms: millis(ago),
        addresses: Vec::new(),
        services: Vec::new(),
        tags: Default::default(),
        version: String::new(),
    }
}
