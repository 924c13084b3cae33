//! What comes of the core's requests and of its searches of the DHT.

use super::{super::decisions, Driver};
use crate::{
    net::{
        Failure, FailureKind, Frame, OwnRequestId, dht::DhtEvent, each::each, envelope::Libp2p,
        undialable::leave_out,
    },
    protocol::{
        Input, Instant, PeerId, Reason,
        codec::{
            directory::{Response, Room, decode_response},
            grant::Membership,
            record::{Kind, contents},
        },
        listing::Row,
        lookup::{Query, RecordCopy},
    },
};

impl Driver<'_> {
    /// A server has answered a request, or has not.
    pub(super) fn on_response(
        &mut self,
        now: Instant,
        from: &PeerId,
        id: OwnRequestId,
        response: Result<Vec<u8>, Failure>,
    ) {
        if let Err(why) = &response
            && why.kind == FailureKind::Malformed
        {
            self.log_malformed(from, Frame::Response, &why.to_string());
        }
        let mut room = Room::default();
        self.take_response(now, from, id, &response, &mut room);
        leave_out(room.left_out);
    }

    fn take_response<'b>(
        &mut self,
        now: Instant,
        from: &PeerId,
        id: OwnRequestId,
        response: &'b Result<Vec<u8>, Failure>,
        room: &mut Room<'b>,
    ) {
        let response = match response {
            // The server has answered, so it is not silent.
            Ok(body) => Ok(decode_response(body, room).unwrap_or_else(|why| {
                self.log_malformed(from, Frame::Response, &why.to_string());
                let why = format!("what cannot be read: {why}");
                Response::Error(Reason::try_from(why.as_str()).unwrap_or_default())
            })),
            Err(why) => Err(why.clone()),
        };
        self.note_dialed_back(now, id, &response);
        let answer = response.as_ref().ok();
        let Some(query) = self.lookups.answered(id) else {
            return;
        };
        decisions::told_response(&query, &response);
        if let Query::Machine(server) = query {
            self.note_response(now, server, &response);
        }
        let listings = &self.listings;
        let say = &mut |listing, row: &Row<'_>| listings.say(listing, row);
        let endpoint = &mut self.env.endpoint;
        endpoint.responded(now, query, answer, &Libp2p, say);
    }

    /// Notes what a native has answered to a request of the machine, or why it did not.
    fn note_response(
        &mut self,
        now: Instant,
        server: PeerId,
        response: &Result<Response<'_>, Failure>,
    ) {
        let error = match response {
            Err(why) => Some(why.to_string()),
            Ok(Response::Error(why)) => Some(why.escape_debug().to_string()),
            Ok(_) => None,
        };
        if response.is_ok() {
            self.end_refusals(now, &server);
        }
        self.note_what_answers(now, &server, error.as_deref());
        match response {
            Ok(Response::Indexers(_)) => self.note_answer(&server),
            Ok(Response::Error(why)) => {
                let server = self.env.server(&server);
                each!(warn, "{server} answers: {}", why.escape_debug());
            }
            Ok(
                Response::Records { .. }
                | Response::Page(_)
                | Response::Entries(_)
                | Response::DialedBack(_)
                | Response::Revocations(_),
            ) => {}
            Err(why) => self.note_unasked(server, why),
        }
    }

    /// Looks up the record of a server of the DHT that has shown no grant: it may have one.
    pub(super) fn prove(&mut self, peer: PeerId) {
        let search = self.env.net.search(Kind::Indexer, peer);
        let query = Query::Network(peer);
        self.lookups.search_begun(&mut self.env, query, search);
    }

    /// Whether what the DHT brings counts: in a closed network the record of a member alone does.
    fn counts(&self, event: &DhtEvent) -> bool {
        let (kind, envelope) = match event {
            DhtEvent::Found {
                search, envelope, ..
            } => (self.env.net.kind_of(*search), envelope),
            DhtEvent::Offered { envelope, kind, .. } => (Some(*kind), envelope),
            _ => return true,
        };
        let endpoint = &self.env.endpoint;
        kind.is_none_or(|kind| endpoint.admit(kind, envelope, &Libp2p).is_ok())
    }

    /// A search of the DHT has found something or ended, or a peer offers a record.
    pub(super) fn on_dht(&mut self, now: Instant, event: DhtEvent) {
        let own_ms = self.env.own_ms();
        if !self.counts(&event) {
            return;
        }
        match event {
            DhtEvent::Found {
                search,
                record,
                envelope,
            } => {
                let query = self.lookups.search(search);
                if let Some(Query::Network(peer)) = query {
                    let record = contents(Kind::Indexer, &envelope);
                    let shown = Membership {
                        grant: record.map(|record| record.grant),
                        revocations: None,
                    };
                    let times = self.env.times();
                    let endpoint = &mut self.env.endpoint;
                    endpoint.shown(times, &peer, shown, None, &Libp2p);
                } else if let Some(query) = query {
                    decisions::told_of(&query, "found a record for");
                    let copy = RecordCopy {
                        info: &record.info,
                        envelope: &envelope,
                        age: None,
                        claimed: None,
                    };
                    let times = self.env.times();
                    self.env.endpoint.found(times, query, copy);
                }
            }
            DhtEvent::Provided {
                search,
                servers,
                coverage,
            } => {
                if let Some(query) = self.lookups.search(search) {
                    self.env.endpoint.provided(now, query, &servers, coverage);
                }
            }
            DhtEvent::Announced { ref key, end } => self.handle(now, Input::Announced { key, end }),
            DhtEvent::Ended { search, reached } => {
                self.lookups.search_ended(&mut self.env, search, reached);
            }
            DhtEvent::Offered {
                record,
                envelope,
                kind,
                from,
            } => {
                let net = &mut self.env.net;
                net.keep(kind, &record.info, (envelope, from), own_ms);
            }
        }
    }
}
