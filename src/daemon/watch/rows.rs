//! The rows that are made of what the core says.

use std::time::Duration;

use crate::{
    daemon::{
        machines::ProgramWatch,
        nodes::millis,
        report::{self, text},
        request::Part,
        status::{CaughtUp, NodeQuery, NodeState, WatchEventName, WatchRow},
    },
    net::envelope::opened,
    protocol::{
        Filter, Name, PeerId, Presence,
        codec::service::to_service_name,
        watch::{ChangedNode, client::Said},
    },
};

/// A row for a node that is there.
pub(super) fn row_of(node: &ChangedNode<'_>) -> WatchRow {
    let record = opened(node.record);
    WatchRow {
        event: match node.said {
            Said::Present => WatchEventName::Present,
            Said::Changed => WatchEventName::Changed,
            Said::Excluded => WatchEventName::Left,
        },
        name: record.info.name.as_str().into(),
        peer_id: text(&record.info.peer),
        state: NodeState::Alive,
        last_beat_ms: millis(node.age),
        addresses: record.addrs.iter().map(ToString::to_string).collect(),
        services: report::services(&record.about),
        tags: report::tags(&record.about),
        version: record.version,
    }
}

/// All servers have caught up, except the silent ones.
pub(super) fn caught_up_row(watch: &ProgramWatch, blind: Duration) -> Part {
    Part::CaughtUp(Box::new(CaughtUp {
        event: WatchEventName::CaughtUp,
        blind_ms: millis(blind),
        silent: watch.silent().map(text).collect(),
        unwatched: watch.unwatched(),
        untracked: watch.untracked(),
    }))
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
