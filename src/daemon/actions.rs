//! Carries out the core's actions: one arm for each [`Action`].
//!
//! Invariant: nothing is decided here; each action is carried out as it is.

use std::{slice, time::Duration};

use super::{decisions, driver::Driver, life::short};
use crate::net::each::{About, each, tell};
use crate::protocol::{
    Ack, Action, Addrs, AnnounceEnd, IndexersAnswer, Input, Key, Offer, OutBeat, PeerId, Role,
    StreamId, Want,
    codec::{directory::Response, record::Kind},
    life::LeaseEnd,
    lookup::{Ask, Query},
};

impl Driver<'_> {
    /// Carries out one action.
    pub(super) fn perform(&mut self, action: Action) {
        decisions::decided(&action);
        match action {
            Action::Beat {
                server,
                addrs,
                beat,
            } => self.send_beat(server, &addrs, &beat),
            Action::Drop { server } => {
                self.note_dropped(server);
                self.env.net.drop_lease(server);
            }
            Action::GiveUp { server, role } => {
                self.note_given_up(&server, role);
                let role = self.env.machine().role();
                self.env.net.give_up(server, role);
            }
            Action::Sign => self.sign(),
            Action::Close {
                peer,
                stream,
                ended,
            } => self.close(peer, stream, ended),
            Action::Release {
                peer,
                stream,
                left,
                offer,
            } => self.release((peer, stream), left, offer.as_ref()),
            Action::Probe { peer, addrs } => self.env.net.probe(peer, &addrs),
            Action::ProbeStream { peer, stream } => self.env.net.probe_stream(peer, stream),
            Action::Judge { stream, .. } => self.judge(stream),
            Action::Answer { request, takes_in } => {
                let offers = self.env.endpoint.machine().answer_offers();
                let answer = IndexersAnswer { offers, takes_in };
                self.env.net.respond(request, &Response::Indexers(answer));
            }
            Action::Announce { ref key } => self.announce(key),
            Action::Search { query, role, peer } => {
                let search = self.env.net.search(Kind::of(role), peer);
                self.lookups.search_begun(&mut self.env, query, search);
            }
            Action::Providers { query, ref key } => {
                let search = self.env.net.providers(key);
                self.lookups.search_begun(&mut self.env, query, search);
            }
            Action::EndSearch { query } => self.lookups.end_search(&mut self.env, query),
            Action::Ask {
                query,
                server,
                addrs,
                ask,
                ..
            } => self.ask(query, (server, &addrs), ask),
            Action::Respond { request, lookup } => {
                if let Some(outcome) = self.env.endpoint.outcome(lookup) {
                    self.env.net.respond(request, &outcome.response());
                }
            }
            Action::Done { lookup } => self.lookups.tell(&mut self.env, lookup),
            Action::Listing(action) => {
                let Self { env, lookups, .. } = self;
                self.listings.perform(env, lookups, action);
            }
            Action::Watch(action) => self.watches.perform(&mut self.env, action),
            Action::Slot { peer, is_reserved } => {
                self.env.net.set_slot(peer, is_reserved);
                if !is_reserved {
                    self.env.net.unprotect(&peer);
                }
            }
            Action::Slots => {
                let machine = self.env.endpoint.machine();
                self.env.net.set_slots(|peer| machine.reserves_slot(peer));
            }
            Action::Admit { peer } => self.env.net.admit(peer),
            #[cfg(feature = "program")]
            Action::Expel {
                peer,
                denial,
                had_lease,
            } => self.expel(&peer, &denial, had_lease),
            #[cfg(feature = "program")]
            Action::KeepRevocations => self.keep_revocations(),
            // A node of another program is in an open network.
            #[cfg(not(feature = "program"))]
            Action::Expel { .. } | Action::KeepRevocations => {}
            Action::KeepHouse => self.keep_house(),
            Action::End { answered } => self.end(answered),
            Action::Refreshed { peer } => self.log_refreshed(&peer),
            Action::Retry => {
                log::info!("the network has changed: tries again at once what did not answer")
            }
            Action::Denied { server, reason } => {
                let called = self.env.server(&server);
                self.note_denial(&server, &called, &reason);
                self.note_denied(server, &reason);
            }
            Action::Contested(_) => {
                self.counters.contested_identities += 1;
                self.look_for_mistakes(self.env.now());
            }
            Action::Uncontested { peer, evicted } => self.note_uncontested(&peer, evicted),
        }
    }

    /// Sends a beat, with the own record if it carries that.
    fn send_beat(&mut self, server: PeerId, addrs: &Addrs, beat: &OutBeat) {
        if beat.fresh {
            self.note_late(&server);
        }
        let record = self.record.envelope();
        let known = self.env.endpoint.machine().beat_known();
        self.env.net.beat(server, addrs, beat, record, known);
    }

    /// Closes a heartbeat stream that a peer opened.
    fn close(&mut self, peer: PeerId, stream: StreamId, ended: Option<LeaseEnd>) {
        if let Some(end) = ended {
            self.log_end(&peer, &end);
        }
        self.held_beats.retain(|frame| frame.stream != stream);
        self.env.net.close(peer, stream);
    }

    /// Releases a node on its stream, with the indexer to go to.
    fn release(&mut self, of: (PeerId, StreamId), left: Duration, offer: Option<&Offer>) {
        let (peer, stream) = of;
        let source = self.env.net.source(&peer);
        self.env.note_release(peer);
        let node = self.env.called_at(Role::Node, &peer, source);
        let about = self.env.about("released", Role::Node.name(), &peer, source);
        match offer {
            Some(offer) => {
                let to = self.env.listening(Role::Indexer, &offer.peer);
                tell!(info, &about; "releases {node} to {to}");
            }
            None => tell!(info, &about; "releases {node}: it is to ask for an indexer"),
        }
        let ack = Ack::released(left, offer.map_or(&[], slice::from_ref));
        self.env.net.tell(peer, stream, &ack);
    }

    /// Announces a key in the DHT. What cannot begin has failed.
    fn announce(&mut self, key: &Key) {
        if !self.env.net.provide(key) {
            let end = AnnounceEnd::Failed;
            self.handle(self.env.now(), Input::Announced { key, end });
        }
    }

    /// Asks a server for the machine or a lookup.
    fn ask(&mut self, query: Query, (server, addrs): (PeerId, &Addrs), ask: Ask) {
        if ask == Ask::Offers(Want::OffersFailed) {
            self.note_offers_failed(&server);
        }
        let to = (server, addrs);
        self.lookups.ask(&mut self.env, query, to, &ask.into());
    }

    fn end(&mut self, answered: bool) {
        self.is_over = true;
        if !answered {
            log::warn!(
                "a server did not take a last beat: our leases with it run out by themselves"
            );
        }
    }

    fn log_refreshed(&self, peer: &PeerId) {
        let at = self.env.listens_at(peer);
        let at = at.map_or_else(String::new, |at| format!(" at {at}"));
        let about = About {
            role: Role::Indexer.name(),
            ..self.env.about_server("refreshed", peer)
        };
        each!(
            info,
            &about;
            "native: refreshed indexer from DHT: {}{at} (its record: no heartbeat of it comes here now)",
            short(peer)
        );
    }

    fn note_uncontested(&mut self, peer: &PeerId, evicted: bool) {
        if evicted {
            log::warn!(
                "too many identities go from host to host: two devices that use {} are not told apart until \
                 they have replaced each other again",
                short(peer)
            );
        }
        self.look_for_mistakes(self.env.now());
    }

    /// Signs the own record.
    fn sign(&mut self) {
        let (now, own_ms) = (self.env.now(), self.env.own_ms());
        let (addrs, offered) = (self.env.net.record_addrs(), self.env.endpoint.offered());
        let sequence = self.state.next_sequence(now, own_ms);
        match self.record.sign(sequence, own_ms, addrs, offered) {
            Ok(()) => {
                if let Some(settled) = self.env.settled_ms() {
                    self.state.note_time(settled);
                }
                self.env.endpoint.record_signed(now);
            }
            Err(why) => log::warn!("cannot sign the own record: {why}"),
        }
    }
}
