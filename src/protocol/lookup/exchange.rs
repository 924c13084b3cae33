//! The meaning of the frames of `/oc/directory/1.0.0`: which part answers a peer's request, and
//! what a server's response means for the lookup that asked.
//!
//! The host encodes and decodes, and need not know the content of a request.

use core::{iter, time::Duration};

use heapless::Vec;

use super::{
    Answer, AnswerRecords, Ask, Begun, Here as _, LookupId, Lookups, Outcome, QueryId, Question,
    RecordCopy,
};
use crate::protocol::{
    Count, Entries, EntriesPage, Filter, Instant, MAX_ENTRIES, MAX_LIST, Machine, Name, PeerId,
    Presence, Reach, Reason, RequestId, Role, Selection, SignedRecord, Subject, Tally, Want,
    codec::{
        directory::{Request, Response, UNKNOWN_AGE, age_ms},
        listing::{MAX_PAGE_BYTES, entry_length},
        record::{Kind, Verifier},
    },
    dial_back::Refusal,
    directory::Claimants,
};

/// The error for a peer or the operator if no slot is free.
pub const FULL: &str = "too many lookups at once: try again in a moment";

/// The error for a node that asks another peer than a native for a lease.
pub const NO_NATIVE: &str = "this is no native: give the address of one with --native";

/// What a native counts that is asked for the id of a server that has taken leave: there was one to
/// ask, and its leave was its answer.
pub(super) const LEFT: Tally = Tally {
    asked: 1,
    answered: 1,
};

/// How a request is answered.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "a response is encoded at once, where it was made"
)]
pub enum Served<'a> {
    /// This is the response.
    Now(Response<'a>),
    /// The response is [`Outcome::response`] of this lookup, when it is done.
    Lookup(LookupId),
    /// The response comes with [`Action::Answer`](crate::protocol::Action::Answer).
    Later,
}

impl<const F: usize, const L: usize, const P: usize, const D: usize> Lookups<F, L, P, D> {
    /// Serves a peer's request, which the machine knows as `id`. The entries of a list are put into
    /// `entries`, which the response borrows.
    pub fn serve<'a: 'r, 'r, M: Machine + ?Sized>(
        &mut self,
        now: Instant,
        from: &PeerId,
        id: RequestId,
        request: Request,
        machine: &'a mut M,
        entries: &'r mut Entries<'a>,
    ) -> Served<'r> {
        let (question, reach) = match request {
            Request::Indexers {
                most,
                want: Want::Nothing,
                from: Some(cursor),
            } => {
                let page = machine.page(now, Some(from), cursor, usize::from(most));
                return Served::Now(Response::Page(page));
            }
            Request::Indexers {
                want: Want::Lease | Want::OffersFailed,
                ..
            } if machine.role() != Role::Native => {
                let reason = Reason::try_from(NO_NATIVE).unwrap_or_default();
                return Served::Now(Response::Error(reason));
            }
            Request::Indexers { most, want, .. } => {
                let most = usize::from(most).min(MAX_LIST);
                let answer = machine.ask(now, from, id, most, want);
                return answer.map_or(Served::Later, |answer| {
                    Served::Now(Response::Indexers(answer))
                });
            }
            Request::FindName { name, reach } => (Question::Name(name), reach),
            Request::FindPeer { peer, reach } => (Question::Peer(peer), reach),
            Request::List { filter, from, gone } => {
                let next = fill(
                    entries,
                    machine,
                    now,
                    Selection {
                        filter: &filter,
                        from,
                        gone,
                    },
                );
                return Served::Now(Response::Entries(EntriesPage { entries, next }));
            }
            Request::DialBack { .. } => {
                // A host that can dial does not give it to this function.
                return Served::Now(Response::DialedBack(Refusal::Never.into()));
            }
            // An open network has none.
            Request::Revocations => return Served::Now(Response::Revocations(&[])),
        };
        match self.begin_for_peer(now, question.clone(), reach, machine) {
            Begun::Lookup(lookup) => Served::Lookup(lookup),
            Begun::Here => Served::Now(listed_here(machine, now, &question, reach)),
            Begun::Full => Served::Now(Response::Error(Reason::try_from(FULL).unwrap_or_default())),
        }
    }

    /// Takes a server's response to a query, or its failure. Records that do not verify are
    /// ignored.
    pub fn responded(
        &mut self,
        now: Instant,
        query: QueryId,
        response: Option<&Response<'_>>,
        verifier: &impl Verifier,
    ) {
        let mut opened: Vec<OpenedRecord<'_>, MAX_ENTRIES> = Vec::new();
        let copies: Vec<RecordCopy<'_>, MAX_ENTRIES>;
        let verified = |envelope, age, claimed| {
            let record = SignedRecord::open(verifier, Kind::Node, envelope).ok()?;
            Some(OpenedRecord {
                record,
                age,
                claimed,
            })
        };
        let answer = match response {
            Some(Response::Records {
                records,
                more,
                tally,
                ages,
                claimants,
                claims,
            }) => {
                let told = records.iter().zip(told(ages)).zip(told(claims));
                opened.extend(
                    told.filter_map(|((envelope, age), claimed)| verified(envelope, age, claimed)),
                );
                copies = opened.iter().map(copy_of).collect();
                Answer::Records(AnswerRecords {
                    records: &copies,
                    more: *more,
                    tally: *tally,
                    claimants: *claimants,
                })
            }
            Some(Response::Indexers(answer)) => Answer::Indexers {
                offers: answer.offers,
                next: None,
            },
            Some(Response::Page(page)) => Answer::Indexers {
                offers: page.offers,
                next: page.next,
            },
            Some(Response::Entries(page)) => {
                let alive = page.entries.iter().filter_map(|entry| match entry.subject {
                    Subject::Signed(envelope) if entry.presence == Presence::Alive => {
                        verified(envelope, Some(entry.age), None)
                    }
                    _ => None,
                });
                opened.extend(alive);
                copies = opened.iter().map(copy_of).collect();
                Answer::Listed {
                    records: &copies,
                    next: page.next,
                }
            }
            Some(Response::Error(_) | Response::DialedBack(_) | Response::Revocations(_)) => {
                Answer::Error
            }
            None => Answer::Failed,
        };
        self.answered(now, query, answer);
    }
}

/// A record that verified.
struct OpenedRecord<'a> {
    record: SignedRecord<'a>,
    /// How long ago the last heartbeat of its subject was.
    age: Option<Duration>,
    /// How long ago its name was claimed.
    claimed: Option<Duration>,
}

fn copy_of<'a>(opened: &'a OpenedRecord<'_>) -> RecordCopy<'a> {
    RecordCopy {
        info: &opened.record.info,
        envelope: opened.record.envelope,
        age: opened.age,
        claimed: opened.claimed,
    }
}

/// Ages as they are told, each `None` if it is not.
fn told(ages: &[u32]) -> impl Iterator<Item = Option<Duration>> {
    let told = ages.iter().map(|&age| age_of(age));
    told.chain(iter::repeat(None))
}

/// The age that a server tells in ms.
fn age_of(told: u32) -> Option<Duration> {
    (told != UNKNOWN_AGE).then(|| Duration::from_millis(told.into()))
}

impl From<Ask> for Request {
    fn from(ask: Ask) -> Self {
        match ask {
            Ask::Offers(want) => Self::Indexers {
                most: MAX_LIST as u8,
                want,
                from: None,
            },
            Ask::Indexers(cursor) => Self::Indexers {
                most: MAX_LIST as u8,
                want: Want::Nothing,
                from: Some(cursor),
            },
            Ask::Name { name, reach } => Self::FindName { name, reach },
            Ask::Service { service, from } => Self::List {
                filter: Filter::new(Some(service), Name::default()),
                from,
                gone: false,
            },
            Ask::Claimants { name, from } => Self::List {
                filter: Filter::new(None, name),
                from,
                gone: false,
            },
            Ask::Peer { peer, reach } => Self::FindPeer { peer, reach },
            Ask::Revocations => Self::Revocations,
        }
    }
}

impl<'a> Outcome<'a> {
    /// The response to the peer that asked. If something is missing that the tally does not show
    /// (a search of the DHT that was cut off, a server that lacked an answer itself), it counts as
    /// one more server that has not answered. So the peer does not take the answer for complete.
    pub fn response(&self) -> Response<'a> {
        let records = self.records.iter().take(MAX_LIST);
        let ages = records.clone().map(|record| age_ms(record.age()));
        let is_name = matches!(self.question, Question::Name(_));
        let claims = records.clone().filter(|_| is_name);
        let claims = claims.map(|record| age_ms(record.claimed()));
        let more = self.more || self.records.len() > MAX_LIST;
        let mut tally = self.tally;
        let shows = more || tally.answered < tally.asked;
        tally.asked += u32::from(!self.is_complete && !shows);
        Response::Records {
            records: records.map(|record| record.envelope()).collect(),
            more,
            tally: Some(tally),
            ages: ages.collect(),
            claimants: is_name.then_some(self.claimants),
            claims: claims.collect(),
        }
    }
}

/// Fills one page with entries of the own directory. Returns the id after which the next begins.
fn fill<'a, M: Machine + ?Sized>(
    entries: &mut Entries<'a>,
    machine: &'a M,
    now: Instant,
    which: Selection<'_>,
) -> Option<PeerId> {
    let mut room = MAX_PAGE_BYTES;
    machine.entries(now, which, &mut |entry| {
        let rest = room.checked_sub(entry_length(&entry));
        room = rest.unwrap_or(room);
        rest.is_some() && entries.push(entry).is_ok()
    })
}

/// The response from the own directory alone.
fn listed_here<'a, M: Machine + ?Sized>(
    machine: &'a M,
    now: Instant,
    question: &Question,
    reach: Reach,
) -> Response<'a> {
    let Claimants { nodes, more, count } = match question {
        Question::Name(name) => machine.claimants(now, name),
        Question::Peer(peer) => Claimants {
            nodes: machine.listed(now, peer).into_iter().collect(),
            ..Claimants::default()
        },
        Question::Indexers | Question::Service(_) => Claimants::default(),
    };
    let age_of = |at: Option<Instant>| age_ms(at.map(|at| now - at));
    let ages = nodes.iter().map(|found| age_of(found.last_seen()));
    let is_name = matches!(question, Question::Name(_));
    let claims = nodes.iter().filter(|_| is_name);
    let claims = claims.map(|found| age_of(Some(found.since())));
    let claimants = is_name.then_some(Count {
        nodes: u32::try_from(count).unwrap_or(u32::MAX),
        are_all: true,
    });
    let tally = match (reach, question) {
        // If no other server had to be asked, none is counted.
        (Reach::Network, _) => Some(Tally::default()),
        (Reach::Directory, Question::Peer(peer)) if machine.has_left(now, peer) => Some(LEFT),
        (Reach::Directory, _) => None,
    };
    Response::Records {
        records: nodes.iter().map(|found| found.envelope()).collect(),
        more,
        tally,
        ages: ages.collect(),
        claimants,
        claims: claims.collect(),
    }
}
