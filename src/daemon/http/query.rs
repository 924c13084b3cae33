//! The part of a target after `?`: which nodes are asked for.

use crate::daemon::status::{NodeQuery, NodeState};

/// The filter of `nodes` and `watch`, and what else the target says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Filter {
    pub(super) nodes: NodeQuery,
    /// A list that lacks nodes is better than none.
    pub(super) allows_incomplete: bool,
}

/// Reads `service`, `name`, and any number of `tag` and `state`, as the options of `nodes` are
/// read; for `http_sd`, `incomplete=allow` too.
///
/// # Errors
/// A sentence that names the field and its value.
pub(super) fn filter(query: &str) -> Result<Filter, String> {
    let (mut service, mut name) = (None, None);
    let (mut tags, mut states) = (Vec::new(), Vec::new());
    let mut allows_incomplete = false;
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (field, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = decoded(value).ok_or_else(|| format!("{field}: the value is no UTF-8 text"))?;
        let twice = |old: Option<String>| match old {
            None => Ok(()),
            Some(_) => Err(format!("{field} is given twice; give it once")),
        };
        match (field, value.as_str()) {
            ("service", _) => twice(service.replace(value))?,
            ("name", _) => twice(name.replace(value))?,
            ("tag", _) => tags.push(value),
            ("state", _) => states.push(value),
            ("incomplete", "allow") => allows_incomplete = true,
            _ => {
                return Err(format!(
                    "{field}={value} is not known: give service=NAME, name=PREFIX, tag=KEY=VALUE, \
                     state=alive, left or lost, or for http_sd incomplete=allow"
                ));
            }
        }
    }
    let nodes = NodeQuery::of(service.as_deref(), &tags, name.as_deref(), &states);
    let nodes = nodes.map_err(|why| why.trim_start_matches('-').to_owned())?;
    Ok(Filter {
        nodes,
        allows_incomplete,
    })
}

impl Filter {
    /// The nodes of these states, if the target names none.
    pub(super) fn or_only(mut self, state: NodeState) -> Self {
        let states = self.nodes.states.get_or_insert_default();
        if states.is_empty() {
            states.push(state);
        }
        self
    }
}

/// The text that was written with `%` and `+` (URL standard, application/x-www-form-urlencoded). A
/// `%` without two hexadecimal digits stands for itself.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        let digits = after.first_chunk().and_then(hexadecimal);
        match (first, digits) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = after.get(2..).unwrap_or_default();
            }
            (b'+', _) => bytes.push(b' '),
            _ => bytes.push(*first),
        }
    }
    String::from_utf8(bytes).ok()
}

fn hexadecimal(digits: &[u8; 2]) -> Option<u8> {
    let [high, low] = digits.map(|digit| char::from(digit).to_digit(16));
    u8::try_from(high? << 4 | low?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_a_target_are_the_options_of_nodes() {
        let got = filter(
            "service=ipp&tag=site%3Dnorth%20hall&tag=a=b+c&state=alive&&state=lost&name=cam",
        )
        .unwrap();
        assert_eq!(got.nodes.service.as_deref(), Some("ipp"));
        assert_eq!(got.nodes.name.as_deref(), Some("cam"));
        let tags =
            [("a", "b c"), ("site", "north hall")].map(|(k, v)| (k.to_owned(), v.to_owned()));
        assert_eq!(got.nodes.tags, Some(tags.into()));
        assert_eq!(
            got.nodes.states,
            Some(vec![NodeState::Alive, NodeState::Lost])
        );
        assert!(!got.allows_incomplete);
        assert!(filter("incomplete=allow").unwrap().allows_incomplete);
    }

    #[test]
    fn state_is_that_of_the_target_or_else_the_default() {
        let states = |query| {
            filter(query)
                .unwrap()
                .or_only(NodeState::Alive)
                .nodes
                .states
        };
        assert_eq!(states(""), Some(vec![NodeState::Alive]));
        assert_eq!(states("state=lost"), Some(vec![NodeState::Lost]));
    }

    #[test]
    fn wrong_fields_are_named() {
        for (query, expected) in [
            ("colour=red", "colour=red is not known"),
            ("incomplete=no", "incomplete=no is not known"),
            ("service=_", "service \"_\""),
            ("state=dead", "state \"dead\""),
            ("tag=x", "tag \"x\""),
            ("name=a&name=b", "name is given twice"),
            ("name=%ff", "name: the value is no UTF-8"),
        ] {
            let why = filter(query).unwrap_err();
            assert!(why.starts_with(expected), "{why}");
        }
    }

    #[test]
    fn what_is_no_escape_stands_for_itself() {
        for (text, expected) in [
            ("100%", "100%"),
            ("%4", "%4"),
            ("%zz%41", "%zzA"),
            ("%+4", "% 4"),
        ] {
            assert_eq!(decoded(text).as_deref(), Some(expected));
        }
    }
}
