//! What the core was told and what it decided, for the level debug of the log.
//!
//! Invariant: nothing is formatted unless the level is logged. A line has no secret: ids,
//! addresses, counts and verdicts.

use std::fmt::{self, Formatter};

use super::{life::short, report::place_of};
use crate::{
    net::Failure,
    protocol::{
        Ack, Action, Addrs, Input, OutBeat, PeerId, Verdict, Want,
        codec::{directory::Response, heartbeat::AckCause},
        listing::{ListingAction, ListingId},
        lookup::{Ask, Query},
        watch::WatchAction,
    },
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

/// Logs what the core is told of one of its requests or searches.
pub(super) fn told_of(query: &Query, what: &str) {
    log::debug!("told: {what}{}", of(query));
}

/// Logs the response to a request of the core, or why there is none.
pub(super) fn told_response(query: &Query, response: &Result<Response<'_>, Failure>) {
    match response {
        Err(why) => log::debug!("told: no answer to{}: {why}", of(query)),
        Ok(Response::Indexers(answer)) => {
            let takes_in = if answer.takes_in { ", takes us in" } else { "" };
            let answer = answer.offers.len();
            log::debug!("told: {answer} indexers{takes_in} to{}", of(query));
        }
        Ok(_) => told_of(query, "answer to"),
    }
}

/// Logs what the core has decided. What has a line at a lower level is left out, and so are the
/// frames of watches and the rows of listings.
pub(super) fn decided(action: &Action) {
    let is_left_out = matches!(
        action,
        Action::Contested(_)
            | Action::Denied { .. }
            | Action::Refreshed { .. }
            | Action::Expel { .. }
            | Action::KeepRevocations
            | Action::Retry
            | Action::Slots
            | Action::Uncontested { .. }
            | Action::Listing(ListingAction::Rows { .. } | ListingAction::Progress { .. })
            | Action::Watch(
                WatchAction::Behind { .. }
                    | WatchAction::Hear { .. }
                    | WatchAction::Notify { .. }
                    | WatchAction::ReadOn { .. }
            )
    );
    if !is_left_out {
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
            } => ("beats to", Some(server), at(addrs) + &manner(beat)),
            Action::Drop { server } => ("drops the stream to", Some(server), String::new()),
            Action::GiveUp { server, .. } => ("gives up", Some(server), String::new()),
            Action::Close { peer, .. } => ("closes the stream of", Some(peer), String::new()),
            Action::Release { peer, .. } => ("releases", Some(peer), String::new()),
            Action::Probe { peer, addrs } => ("pings", Some(peer), at(addrs)),
            Action::ProbeStream { peer, .. } => {
                ("pings", Some(peer), " over its connection".to_owned())
            }
            Action::Search { peer, .. } => ("searches the DHT for", Some(peer), String::new()),
            Action::Providers { key, .. } => {
                ("searches the DHT for providers of", None, format!(" {key}"))
            }
            Action::EndSearch { query } => ("ends the search of", None, of(query)),
            Action::Announce { key } => ("announces", None, format!(" {key}")),
            Action::Answer { takes_in, .. } => {
                let verdict = if *takes_in { ", takes the node in" } else { "" };
                ("answers a request for indexers", None, verdict.to_owned())
            }
            Action::Ask {
                query,
                server,
                addrs,
                ask,
                ..
            } => ("asks", Some(server), at(addrs) + &reason(ask, query)),
            Action::Listing(action) => listing(action),
            Action::Watch(action) => watching(action),
            Action::Respond { lookup, .. } | Action::Done { lookup } => {
                ("has ended lookup", None, format!(" {}", lookup.0))
            }
            Action::Judge { peer, .. } => ("reads the held beat of", Some(peer), String::new()),
            Action::Sign => ("signs the own record", None, String::new()),
            Action::Slot { peer, is_reserved } => {
                let what = if *is_reserved { "reserves" } else { "releases" };
                (what, Some(peer), ": the slot of its connection".to_owned())
            }
            Action::Admit { peer } => ("admits", Some(peer), " to the closed network".to_owned()),
            Action::KeepHouse => ("keeps house", None, String::new()),
            Action::End { .. } => ("ends", None, String::new()),
            _ => ("something else", None, String::new()),
        };
        write(f, "decides:", what, peer, &more)
    }
}

/// What is done, with which peer, and more about it.
type Line<'a> = (&'static str, Option<&'a PeerId>, String);

fn listing(action: &ListingAction) -> Line<'_> {
    match action {
        ListingAction::Ask {
            query,
            server,
            addrs,
            ..
        } => {
            let why = format!("{}, for{}", at(addrs), of(query));
            ("asks", Some(server), why)
        }
        ListingAction::Rows { listing } => ("makes rows of listing", None, number(*listing)),
        ListingAction::Progress { listing } => ("goes on with listing", None, number(*listing)),
        ListingAction::Done { listing } => ("has ended listing", None, number(*listing)),
    }
}

fn number(listing: ListingId) -> String {
    format!(" {}", listing.0)
}

fn watching(action: &WatchAction) -> Line<'_> {
    match action {
        WatchAction::Open { server, addrs, .. } => ("watches", Some(server), at(addrs)),
        WatchAction::Gone { peer, .. } => {
            ("tells a reader of the end of", Some(peer), String::new())
        }
        WatchAction::CaughtUp { .. } => ("has caught up for a reader", None, String::new()),
        WatchAction::Dismiss { .. } => ("ends the stream of a watcher", None, String::new()),
        WatchAction::ReadOn { .. }
        | WatchAction::Hear { .. }
        | WatchAction::Behind { .. }
        | WatchAction::Notify { .. } => ("goes on with a watch", None, String::new()),
    }
}

/// How a beat is sent.
fn manner(beat: &OutBeat) -> String {
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
    format!("{how}{record}")
}

/// What a server is asked for, and why.
fn reason(ask: &Ask, query: &Query) -> String {
    match ask {
        Ask::Offers(Want::Nothing) => " for indexers".to_owned(),
        Ask::Offers(Want::Lease) => " for indexers, for a lease".to_owned(),
        Ask::Offers(Want::OffersFailed) => " for indexers, because every offer failed".to_owned(),
        _ => format!(", for{}", of(query)),
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

/// Which request or search it is: of the machine by its peer, of a lookup or a listing by its
/// number.
fn of(query: &Query) -> String {
    match query {
        Query::Machine(peer) | Query::Network(peer) => format!(" {}", short(peer)),
        Query::Lookup(query) => format!(" question {} of a lookup", query.0),
        Query::Listing { query, .. } => format!(" question {} of a listing", query.0),
    }
}

fn at(addrs: &Addrs) -> String {
    let mut text = String::new();
    for addr in addrs {
        let begin = if text.is_empty() { " at" } else { "," };
        text = format!("{text}{begin} {}", place_of(addr));
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
