//! Carries out the core's actions: one arm for each [`Action`].
//!
//! Invariant: nothing is decided here; each action is carried out as it is.

use super::{decisions, driver::Driver, life::short};
use crate::net::each::{About, each, tell};
use crate::protocol::{
    Ack, Action, AnnounceEnd, IndexersAnswer, Input, Role, Want,
    codec::{directory::Response, record::Kind},
    lookup::Ask,
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
            } => {
                if beat.fresh {
                    self.note_late(&server);
                }
                let record = self.record.envelope();
                let known = self.env.endpoint.machine().beat_known();
                self.env.net.beat(server, &addrs, &beat, record, known);
            }
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
            } => {
                if let Some(end) = ended {
                    self.log_end(&peer, &end);
                }
                self.held_beats.retain(|frame| frame.stream != stream);
                self.env.net.close(peer, stream);
            }
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
            Action::KeepHouse => self.keep_house(),
            Action::End { answered } => {
                self.is_over = true;
                if !answered {
                    log::warn!(
                        "a server did not take a last beat: our leases with it run out by themselves"
                    );
                }
            }
            Action::Release {
                peer,
                stream,
                left,
                offer,
            } => {
                let source = self.env.net.source(&peer);
                self.env.note_release(peer);
                let node = self.env.called_at(Role::Node, &peer, source);
                let about = self.env.about("released", Role::Node.name(), &peer, source);
                match &offer {
                    Some(offer) => {
                        let to = self.env.listening(Role::Indexer, &offer.peer);
                        tell!(info, &about; "releases {node} to {to}");
                    }
                    None => tell!(info, &about; "releases {node}: it is to ask for an indexer"),
                }
                let ack = Ack::released(left, offer.as_slice());
                self.env.net.tell(peer, stream, &ack);
            }
            Action::Probe { peer, addrs } => self.env.net.probe(peer, &addrs),
            Action::Search { query, role, peer } => {
                let search = self.env.net.search(Kind::of(role), peer);
                self.lookups.search_begun(&mut self.env, query, search);
            }
            Action::Providers { query, ref key } => {
                let search = self.env.net.providers(key);
                self.lookups.search_begun(&mut self.env, query, search);
            }
            Action::EndSearch { query } => self.lookups.end_search(&mut self.env, query),
            Action::Announce { ref key } => {
                if !self.env.net.provide(key) {
                    self.handle(
                        self.env.now(),
                        Input::Announced {
                            key,
                            end: AnnounceEnd::Failed,
                        },
                    );
                }
            }
            Action::Refreshed { peer } => {
                let at = self.env.listens_at(&peer);
                let at = at.map_or_else(String::new, |at| format!(" at {at}"));
                let about = About {
                    role: Role::Indexer.name(),
                    ..self.env.about_server("refreshed", &peer)
                };
                each!(
                    info,
                    &about;
                    "native: refreshed indexer from DHT: {}{at} (its record: no heartbeat of it comes here now)",
                    short(&peer)
                );
            }
            Action::Answer { request, takes_in } => {
                let offers = self.env.endpoint.machine().answer_offers();
                let answer = IndexersAnswer { offers, takes_in };
                self.env.net.respond(request, &Response::Indexers(answer));
            }
            Action::Ask {
                query,
                server,
                addrs,
                ask,
                ..
            } => {
                if ask == Ask::Offers(Want::OffersFailed) {
                    self.note_offers_failed(&server);
                }
                let to = (server, &addrs);
                self.lookups.ask(&mut self.env, query, to, &ask.into());
            }
            Action::List {
                query,
                server,
                addrs,
                ask,
            } => {
                if let Some(request) = self.env.endpoint.listings().request(query, ask) {
                    let to = (server, &addrs);
                    self.lookups.ask(&mut self.env, query, to, &request);
                }
            }
            Action::Respond { request, lookup } => {
                if let Some(outcome) = self.env.endpoint.outcome(lookup) {
                    self.env.net.respond(request, &outcome.response());
                }
            }
            watch @ (Action::Watch { .. }
            | Action::ReadOn { .. }
            | Action::Hear { .. }
            | Action::Gone { .. }
            | Action::CaughtUp { .. }
            | Action::Behind { .. }
            | Action::Notify { .. }
            | Action::Dismiss { .. }) => self.watches.perform(&mut self.env, watch),
            ref
            listed @ (Action::Rows { .. } | Action::Progress { .. } | Action::Listed { .. }) => {
                self.listings.perform(&mut self.env, listed);
            }
            Action::Done { lookup } => self.lookups.tell(&mut self.env, lookup),
            Action::Retry => {
                log::info!("the network has changed: tries again at once what did not answer")
            }
            Action::Denied { server, reason } => {
                let called = self.env.server(&server);
                self.note_denial(&server, &called, &reason);
                self.note_denied(server, &reason);
            }
            Action::ProbeStream { peer, stream } => self.env.net.probe_stream(peer, stream),
            Action::Judge { stream, .. } => self.judge(stream),
            Action::Contested(_) => {
                self.counters.contested_identities += 1;
                self.look_for_mistakes(self.env.now());
            }
            Action::Uncontested { peer, evicted } => {
                if evicted {
                    log::warn!(
                        "too many identities go from host to host: two devices that use {} are not told apart until \
                         they have replaced each other again",
                        short(&peer)
                    );
                }
                self.look_for_mistakes(self.env.now());
            }
        }
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
