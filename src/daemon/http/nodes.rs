//! Lists of nodes: as JSON, and as targets for Prometheus (HTTP SD).

use std::{collections::BTreeMap, io};

use miniserde::{Serialize, json};
use smol::future::poll_once;

use super::{
    Body, Client, Desk, PIECE,
    answer::{After, Answer, JSON, Length, NOTHING, head},
    query::{self, Filter},
    request::{HttpRequest, Method},
    routes::{NO_ANSWER, refused},
};
use crate::daemon::{
    request::{self, Part, Reading},
    status::{NodeRow, NodeState, Protocol, Refusal, Service},
};

/// Bytes of a list of targets at most: those of some ten thousand.
const MAX_TARGETS: usize = 4 * 1024 * 1024;
/// The beginning of each label, before relabelling.
const LABEL: &str = "__meta_oc_discovery_";

impl Desk {
    /// Answers with the nodes that the query selects, while they are found.
    pub(super) async fn nodes(
        &self,
        client: &Client<'_>,
        request: &HttpRequest,
        after: After,
    ) -> io::Result<After> {
        let (reading, first, _place) = match self.list(request).await {
            Ok(begun) => begun,
            Err(answer) => {
                client.answer(request.method, &answer, after).await?;
                return Ok(after);
            }
        };
        let length = Length::unknown(request.version);
        let begin = head(200, (JSON, NOTHING), (length, after), "");
        client.send(begin.as_bytes()).await?;
        if request.method == Method::Head {
            return Ok(after);
        }
        let body = Body { client, length };
        let mut text = String::from("{\"schema\":1,\"nodes\":[");
        let (mut next, mut separator) = (Some(first), "");
        // If it is cut short, the client sees that the last chunk is missing.
        while let Some(part) = next.take() {
            match part {
                Part::Row(row) => {
                    text.push_str(separator);
                    text.push_str(&json::to_string(&*row));
                    separator = ",\n";
                }
                Part::Tally(tally) if tally.done => {
                    text.push_str("],");
                    // Its fields go on those of the answer.
                    text.push_str(json::to_string(&*tally).trim_start_matches('{'));
                    text.push('\n');
                    body.send(&text).await?;
                    body.end().await?;
                    return Ok(after);
                }
                Part::Tally(_) | Part::Change(_) | Part::CaughtUp(_) => {}
            }
            next = match text.len() < PIECE {
                true => poll_once(reading.next())
                    .await
                    .flatten()
                    .and_then(Result::ok),
                false => None,
            };
            if next.is_none() {
                body.send(&text).await?;
                text.clear();
                next = reading.next().await.and_then(Result::ok);
            }
        }
        Err(io::ErrorKind::ConnectionAborted.into())
    }

    /// Answers with the services of the nodes that the query selects, as targets for Prometheus. A
    /// list may be long, so it has its place until the client has taken it.
    pub(super) async fn targets(
        &self,
        client: &Client<'_>,
        request: &HttpRequest,
        after: After,
    ) -> io::Result<After> {
        let (answer, _place) = match targets(self, request).await {
            Ok((answer, place)) => (answer, Some(place)),
            Err(answer) => (answer, None),
        };
        client.answer(request.method, &answer, after).await?;
        Ok(after)
    }

    /// Begins a list.
    async fn list(&self, request: &HttpRequest) -> Result<(Reading, Part, super::Place), Answer> {
        let filter = query::filter(&request.query).map_err(|why| Answer::error(400, &why))?;
        let place = self.stream()?;
        let reading = request::nodes(&self.events, filter.nodes).await;
        let reading = reading.ok_or_else(|| Answer::again(NO_ANSWER))?;
        let first = part(reading.next().await)?;
        Ok((reading, first, place))
    }
}

fn part(next: Option<Result<Part, Refusal>>) -> Result<Part, Answer> {
    match next {
        Some(Ok(part)) => Ok(part),
        Some(Err(refusal)) => Err(refused(&refusal)),
        None => Err(Answer::again(NO_ANSWER)),
    }
}

/// The targets, and the place that they have.
///
/// A list that may lack nodes is an error, unless the query allows it: Prometheus then keeps the
/// targets that it has, and would otherwise drop those that are missing.
async fn targets(desk: &Desk, request: &HttpRequest) -> Result<(Answer, super::Place), Answer> {
    let filter = query::filter(&request.query).map_err(|why| Answer::error(400, &why))?;
    let Filter {
        nodes,
        allows_incomplete,
    } = filter.or_only(NodeState::Alive);
    let place = desk.stream()?;
    let service = nodes.service.clone();
    let reading = request::nodes(&desk.events, nodes).await;
    let reading = reading.ok_or_else(|| Answer::again(NO_ANSWER))?;
    let (mut text, mut separator) = (String::from("["), "");
    loop {
        match part(reading.next().await)? {
            Part::Row(row) => {
                let wanted = |it: &&Service| service.as_ref().is_none_or(|name| it.name == *name);
                for target in row
                    .services
                    .iter()
                    .filter(wanted)
                    .filter_map(|it| target(&row, it))
                {
                    text.push_str(separator);
                    text.push_str(&json::to_string(&target));
                    separator = ",\n";
                }
            }
            Part::Tally(tally) if tally.done => match tally.shortfall() {
                Some(lacks) if !allows_incomplete => {
                    return Err(Answer::again(&format!(
                        "the list is incomplete: {lacks}; add incomplete=allow to have it all the same"
                    )));
                }
                _ => break,
            },
            Part::Tally(_) | Part::Change(_) | Part::CaughtUp(_) => {}
        }
        if text.len() > MAX_TARGETS {
            return Err(Answer::error(
                413,
                "the list is too long: ask for one service, or one tag",
            ));
        }
    }
    text.push_str("]\n");
    Ok((Answer::new(JSON, text.into_bytes()), place))
}

/// A group of one target.
#[derive(Serialize)]
struct Target {
    targets: [String; 1],
    labels: BTreeMap<String, String>,
}

/// The service at its best address; `None`: it has none.
fn target(row: &NodeRow, service: &Service) -> Option<Target> {
    let at = row.addresses_of(service).into_iter().next()?;
    let mut labels = BTreeMap::new();
    let mut label = |name: &str, value: &str| {
        labels.insert(format!("{LABEL}{name}"), value.to_owned());
    };
    for (name, value) in tag_labels(&row.tags) {
        label(&format!("tag_{name}"), value);
    }
    label("name", &row.name);
    label("peer_id", &row.peer_id);
    label("state", row.state.name());
    label("version", &row.version);
    label("service", &service.name);
    label(
        "protocol",
        match service.protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        },
    );
    if let Some(device) = &service.device {
        label("device", device);
    }
    Some(Target {
        targets: [at],
        labels,
    })
}

/// The tags, each with the name of its label. If several have one name, the one with that name as
/// its key is taken, or else the first.
fn tag_labels(tags: &BTreeMap<String, String>) -> BTreeMap<String, &str> {
    let mut labels = BTreeMap::new();
    for (key, value) in tags {
        let name = label_name(key);
        if name == *key || !labels.contains_key(&name) {
            labels.insert(name, &**value);
        }
    }
    labels
}

/// A key with `_` for each character that the name of a label cannot have.
fn label_name(key: &str) -> String {
    let letters = key.chars();
    letters
        .map(|letter| match letter.is_ascii_alphanumeric() {
            true => letter,
            false => '_',
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_tags_with_one_label_the_one_that_is_written_so_is_used() {
        let of = |keys: &[&str]| {
            let tags = keys
                .iter()
                .map(|key| ((*key).to_owned(), (*key).to_owned()));
            let tags: BTreeMap<String, String> = tags.collect();
            let labels = tag_labels(&tags).into_iter();
            let labels = labels.map(|(name, value)| format!("{name}={value}"));
            labels.collect::<Vec<_>>().join(" ")
        };
        assert_eq!(of(&["site", "rack-no"]), "rack_no=rack-no site=site");
        assert_eq!(of(&["a-b", "a.b", "a_b", "aéb"]), "a_b=a_b");
        assert_eq!(of(&["a-b", "a.b", "aéb"]), "a_b=a-b");
    }
}
