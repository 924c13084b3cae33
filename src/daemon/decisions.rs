//! What the core was told and what it decided, for the level debug of the log.
//!
//! Invariant: nothing is formatted unless the level is logged. A line has no secret: ids,
//! addresses, counts and verdicts.

use std::fmt::{self, Formatter};

use super::life::short;
use crate::protocol::{
    Ack, Action, Addrs, Endpoint, Input, PeerId, Verdict, Want, codec::heartbeat::AckCause,
};

/// An action of the core.
struct Decided<'a>(&'a Action);

/// An input of the core.
struct Told<'a>(&'a Input<'a>);

/// Logs what the core is told.
pub(super) fn told(input: &Input<'_>) {
    // It comes with each request, and decides nothing alone.
    if !matches!(input, Input::Seen { .. }) {
        log::debug!("{}", Told(input));
    }
}

/// Logs what the core has decided. What has a line at a lower level is left out.
pub(super) fn decided(action: &Action) {
    use Action::{Contested, Denied, Refreshed, Retry, Uncontested};
    let has_line = matches!(
        action,
        Contested(_) | Denied { .. } | Refreshed { .. } | Retry | Uncontested { .. }
    );
    if !has_line {
        log::debug!("{}", Decided(action));
    }
}

impl fmt::Display for Decided<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (what, peer, more) = match self.0 {
            Action::Beat {
                server,
                addrs,
                beat,
            } => {
                let how = if beat.fresh {
                    ", over a new connection"
                } else {
                    ""
                };
                let record = if beat.with_record {
                    ", with the record"
                } else {
                    ""
                };
                (
                    "beats to",
                    Some(server),
                    format!("{}{how}{record}", at(addrs)),
                )
            }
            Action::Drop { server } => ("drops the stream to", Some(server), String::new()),
            Action::GiveUp { server } => ("gives up", Some(server), String::new()),
            Action::Close { peer, .. } => ("closes the stream of", Some(peer), String::new()),
            Action::Release { peer, .. } => ("releases", Some(peer), String::new()),
            Action::Probe { peer, addrs } => ("pings", Some(peer), at(addrs)),
            Action::ProbeStream { peer, .. } => {
                ("pings", Some(peer), " over its connection".to_owned())
            }
            Action::Search { peer } => ("searches the DHT for", Some(peer), String::new()),
            Action::EndSearch { peer } => ("ends the search for", Some(peer), String::new()),
            Action::Announce { key } => ("announces", None, format!(" {key}")),
            Action::Answer { takes_in, .. } => {
                let verdict = if *takes_in { ", takes the node in" } else { "" };
                ("answers a request for indexers", None, verdict.to_owned())
            }
            Action::Ask {
                native,
                addrs,
                want,
            } => {
                let why = match want {
                    Want::Nothing => "",
                    Want::Lease => ", for a lease",
                    Want::OffersFailed => ", because every offer failed",
                };
                let more = format!("{} for indexers{why}", at(addrs));
                ("asks", Some(native), more)
            }
            Action::Judge { peer, .. } => ("reads the held beat of", Some(peer), String::new()),
            Action::Sign => ("signs the own record", None, String::new()),
            Action::Slot { peer, is_reserved } => {
                let what = if *is_reserved { "reserves" } else { "releases" };
                (what, Some(peer), ": the slot of its connection".to_owned())
            }
            Action::KeepHouse => ("keeps house", None, String::new()),
            Action::End { .. } => ("ends", None, String::new()),
            _ => ("something else", None, String::new()),
        };
        write(f, "decides:", what, peer, &more)
    }
}

impl fmt::Display for Told<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (what, peer, more) = match self.0 {
            Input::StreamClosed { peer, .. } => (
                "the heartbeat stream has ended of",
                Some(*peer),
                String::new(),
            ),
            Input::Probed { peer, verdict } | Input::StreamProbed { peer, verdict, .. } => {
                let verdict = match verdict {
                    Verdict::Reachable => ": it answers",
                    Verdict::Silent => ": no answer",
                };
                ("the ping has ended of", Some(*peer), verdict.to_owned())
            }
            Input::SearchValue { peer, .. } => ("found a record of", Some(*peer), String::new()),
            Input::SearchEnded { peer, .. } => {
                ("the search has ended for", Some(*peer), String::new())
            }
            Input::Announced { key, end } => ("announced", None, format!(" {key}: {end:?}")),
            Input::Acked {
                server, cause, ack, ..
            } => {
                let what = match cause {
                    AckCause::Beat => "ack of",
                    AckCause::Unsolicited => "unasked ack of",
                };
                (what, Some(*server), verdict(ack))
            }
            Input::GaveUp { server } => ("has given up", Some(*server), String::new()),
            Input::LeaseClosed { server } => ("no stream to", Some(*server), String::new()),
            Input::Answered { native, answer } => {
                let answer = match answer {
                    None => ": none".to_owned(),
                    Some(answer) => {
                        let takes_in = if answer.takes_in { ", takes us in" } else { "" };
                        format!(": {} indexers{takes_in}", answer.offers.len())
                    }
                };
                ("answer of", Some(*native), answer)
            }
            Input::RecordSigned { .. } => ("the own record is signed", None, String::new()),
            Input::NativeLearned { native, addrs } => {
                ("knows the native", Some(*native), at(addrs))
            }
            Input::NetworkChanged => ("the network has changed", None, String::new()),
            Input::ShutDown => ("ends", None, String::new()),
            _ => ("something else", None, String::new()),
        };
        write(f, "told:", what, peer, &more)
    }
}

fn write(
    f: &mut Formatter<'_>,
    begin: &str,
    what: &str,
    peer: Option<&PeerId>,
    more: &str,
) -> fmt::Result {
    write!(f, "{begin} {what}")?;
    if let Some(peer) = peer {
        write!(f, " {}", short(peer))?;
    }
    f.write_str(more)
}

fn at(addrs: &Addrs) -> String {
    let mut text = String::new();
    for addr in addrs {
        let Endpoint { host, port } = Endpoint::of(addr);
        let begin = if text.is_empty() { " at" } else { "," };
        text = format!("{text}{begin} {host}:{port}");
    }
    text
}

fn verdict(ack: &Ack<'_>) -> String {
    let Ack {
        code,
        lease,
        offers,
        ..
    } = ack;
    format!(
        ": {code:?} for {} ms, {} offers",
        lease.as_millis(),
        offers.len()
    )
}
