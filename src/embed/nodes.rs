//! Lists of nodes: which nodes, and how complete the list is.

use crate::{
    config,
    daemon::{
        request::{Part, Reading},
        status::{ListTally, NodeQuery, NodeRow, NodeState, shortfall},
    },
};

use super::Error;

/// Most nodes of a [`NodeList`]. A larger network is listed with a filter, or watched.
pub const MAX_LISTED: usize = 65_536;

/// Selects nodes: by default all. Nothing is checked before it is used.
#[derive(Clone, Debug, Default)]
#[must_use = "it does nothing before it is used"]
pub struct Filter {
    service: Option<String>,
    tags: Vec<String>,
    /// The first key of a tag that would be read as another one.
    wrong_tag: Option<String>,
    name_prefix: Option<String>,
    states: Vec<NodeState>,
}

impl Filter {
    /// All nodes.
    pub fn all() -> Self {
        Self::default()
    }

    /// Those that offer this service.
    pub fn service(mut self, name: impl Into<String>) -> Self {
        self.service = Some(name.into());
        self
    }

    /// Those with this tag, and with all others that are given; at most 8, and 256 bytes in all.
    /// The key has no `=`.
    pub fn tag(mut self, key: &str, value: &str) -> Self {
        if key.contains('=') {
            self.wrong_tag.get_or_insert_with(|| key.to_owned());
        }
        self.tags.push(format!("{key}={value}"));
        self
    }

    /// Those with a name that begins so, 1 to 63 of `a-z 0-9 - .`.
    pub fn name_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.name_prefix = Some(prefix.into());
        self
    }

    /// Those in this state, or in another one that is given.
    pub fn state(mut self, state: NodeState) -> Self {
        self.states.push(state);
        self
    }

    pub(super) fn query(self) -> Result<NodeQuery, Error> {
        if let Some(key) = self.wrong_tag {
            return Err(Error::wrong_key(&key));
        }
        let service = self.service.as_deref().map(config::service_name);
        let name = self.name_prefix.as_deref().map(config::name).transpose();
        Ok(NodeQuery {
            service: service.transpose()?,
            tags: Some(config::tags(&self.tags)?),
            name: name.map_err(|why| Error::Setting {
                setting: "name_prefix",
                reason: why.with_name("name_prefix"),
            })?,
            states: Some(self.states),
        })
    }
}

/// The nodes of the network, and how complete the list is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NodeList {
    /// Every server asked has answered, and nothing was left out.
    pub complete: bool,
    /// Servers that were asked.
    pub asked: u64,
    /// Servers that answered.
    pub answered: u64,
    /// The peer ids of those that did not answer.
    pub silent: Vec<String>,
    /// The peer ids of those that answered with an error.
    pub refused: Vec<String>,
    /// The peer ids of those whose answer was cut short.
    pub partial: Vec<String>,
    /// There are more than [`MAX_LISTED`] nodes, and the others were left out.
    pub more: bool,
    /// The nodes in the order in which they were heard of, those that vanished at the end.
    pub nodes: Vec<NodeRow>,
}

impl NodeList {
    /// What the list lacks; `None`: nothing.
    pub fn shortfall(&self) -> Option<String> {
        let lacks = [&self.silent, &self.refused, &self.partial];
        shortfall(self.complete, self.asked, lacks)
    }
}

/// Reads a list to its end, and keeps `most` of its nodes.
pub(super) async fn collect(reading: Reading, most: usize) -> Result<NodeList, Error> {
    let (mut nodes, mut more) = (Vec::new(), false);
    loop {
        match reading.next().await {
            Some(Ok(Part::Row(_))) if nodes.len() >= most => more = true,
            Some(Ok(Part::Row(row))) => nodes.push(*row),
            Some(Ok(Part::Tally(tally))) if tally.done => return Ok(list_of(*tally, nodes, more)),
            Some(Ok(_)) => {}
            // The filter was checked, so the loop has refused it for lack of room.
            Some(Err(_)) => return Err(Error::Busy),
            None => return Err(Error::Closed),
        }
    }
}

fn list_of(tally: ListTally, nodes: Vec<NodeRow>, more: bool) -> NodeList {
    NodeList {
        complete: tally.complete && !more,
        asked: tally.asked,
        answered: tally.answered,
        silent: tally.silent,
        refused: tally.refused,
        partial: tally.partial,
        more,
        nodes,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use smol::{channel::bounded, future::block_on};

    use super::*;
    use crate::daemon::request::{self, CallEvent};

    fn row() -> Part {
        Part::Row(Box::new(NodeRow {
            name: "lamp".into(),
            peer_id: String::new(),
            state: NodeState::Alive,
            last_beat_ms: 0,
            addresses: Vec::new(),
            services: Vec::new(),
            tags: BTreeMap::new(),
            version: String::new(),
            server: None,
        }))
    }

    fn tally(done: bool) -> Part {
        Part::Tally(Box::new(ListTally {
            done,
            complete: done,
            asked: 1,
            answered: 1,
            silent: Vec::new(),
            refused: Vec::new(),
            partial: Vec::new(),
        }))
    }

    /// The list of a network with this many nodes, of which three fit.
    fn list_of_three(nodes: usize) -> NodeList {
        let (events, asked) = bounded(8);
        let reading = block_on(request::nodes(&events, NodeQuery::default())).unwrap();
        let CallEvent::MadeInParts(_, parts) = asked.try_recv().unwrap() else {
            panic!("it is answered in parts");
        };
        parts.send(tally(false));
        for _ in 0..nodes {
            parts.send(row());
        }
        parts.send(tally(true));
        block_on(collect(reading, 3)).unwrap()
    }

    #[test]
    fn list_with_more_nodes_than_fit_says_so() {
        for (nodes, listed, more) in [(2, 2, false), (3, 3, false), (4, 3, true)] {
            let list = list_of_three(nodes);
            assert_eq!((list.nodes.len(), list.more), (listed, more));
            assert_eq!(list.complete, !more);
            assert_eq!(list.shortfall().is_some(), more);
        }
    }
}
