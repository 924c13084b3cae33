//! What is heard on the links of what the desk announces: questions, known answers of askers, and
//! records of others with the same names.
//!
//! Invariants: a packet is compared with all adverts without an allocation for each pair; it is
//! answered by one unicast message at most.

use std::net::SocketAddr;

use super::{Advertised, Desk, Names, Record};
use crate::{
    net::mdns::{
        links::PORT,
        service::{Data, HeardRecord, Meaning, Packet, same, split_service, unicast},
    },
    protocol::{
        Instant,
        dns_sd::{Asker, LinkSet, QuestionKind},
    },
};

/// Bytes of the numbers in an SRV record, before the name.
const SRV_NUMBERS: usize = 6;

impl Desk {
    /// Takes a packet.
    pub(in super::super) fn hear(
        &mut self,
        now: Instant,
        packet: &Packet,
        from: SocketAddr,
        links: LinkSet,
    ) {
        if packet.is_answer {
            if from.port() == PORT {
                self.hear_records(now, packet, links);
                self.browse
                    .iter_mut()
                    .for_each(|browse| browse.hear(now, packet, links));
            }
            return;
        }
        self.hear_claims(now, packet, links);
        if packet.questions.is_empty() {
            self.hear_known(packet, from, links);
        } else if let Some(message) = self.answer(now, packet, from, links) {
            self.links.reply(from, message.as_ref());
        }
    }

    /// Takes questions. Returns what to answer by unicast.
    fn answer(
        &mut self,
        now: Instant,
        packet: &Packet,
        from: SocketAddr,
        links: LinkSet,
    ) -> Option<impl AsRef<[u8]> + use<>> {
        let legacy_id = (from.port() != PORT).then_some(packet.id);
        // A resolver that knows nothing of multicast DNS asks one question at a time.
        let count = match legacy_id {
            Some(_) => 1,
            None => packet.questions.len(),
        };
        let questions = packet.questions.get(..count)?;
        let can_reply = self.adverts.can_reply(now);
        let mut kinds = Vec::new();
        let mut slots = Vec::new();
        for (slot, advertised) in self.advertised.iter().enumerate() {
            let Some(Advertised { names, .. }) = advertised
                .as_ref()
                .filter(|_| self.adverts.is_announced(slot))
            else {
                continue;
            };
            let knowledge = Knowledge::of(packet, names);
            let mut is_wanted = false;
            for question in questions {
                let Some(meaning) = question.meaning(names) else {
                    continue;
                };
                // One of each kind says that there is this kind.
                let is_said = meaning == Meaning::Kinds && kinds.contains(&&names.kind);
                let Some(how) = knowledge.asks(meaning).filter(|_| !is_said) else {
                    continue;
                };
                kinds.push(&names.kind);
                let asker = Asker {
                    ip: from.ip(),
                    links,
                    wants_unicast: question.wants_unicast && can_reply,
                };
                is_wanted |= legacy_id.is_some() || self.adverts.asked(now, slot, how, &asker);
            }
            if is_wanted {
                slots.push(slot);
            }
        }
        if slots.is_empty() || !self.adverts.reply(now) {
            return None;
        }
        let records = slots.iter().flat_map(|slot| self.records(*slot, links));
        let records: Vec<Record> = records.collect();
        let message = (!records.is_empty()).then(|| unicast(questions, records, legacy_id));
        message.flatten()
    }

    /// Takes what an asker knows beside what it said before.
    fn hear_known(&mut self, packet: &Packet, from: SocketAddr, links: LinkSet) {
        let asker = Asker {
            ip: from.ip(),
            links,
            wants_unicast: false,
        };
        for (slot, advertised) in self.advertised.iter().enumerate() {
            let known = advertised
                .as_ref()
                .map(|advertised| Knowledge::of(packet, &advertised.names));
            if known.is_some_and(|known| known.kind) {
                self.adverts.known(slot, &asker);
            }
        }
    }

    /// Takes what another would announce if it had a name: the later data wins.
    fn hear_claims(&mut self, now: Instant, packet: &Packet, links: LinkSet) {
        for (slot, advertised) in self.advertised.iter().enumerate() {
            let Some(advertised) = advertised else {
                continue;
            };
            let wins = |claim: &HeardRecord| match &claim.data {
                Data::Service(data) => *data > advertised.instance.srv(),
                _ => false,
            };
            let mut claims = packet.claims.iter();
            if claims.any(|claim| same(&claim.owner, &advertised.names.name) && wins(claim))
                && self.links_of(advertised) & links != 0
            {
                self.adverts.lost_tie(now, slot);
            }
        }
    }

    /// Takes what another announces of a name that is announced here, too.
    fn hear_records(&mut self, now: Instant, packet: &Packet, links: LinkSet) {
        for slot in 0..self.advertised.len() {
            let Some(advertised) = self.advertised.get(slot).and_then(Option::as_ref) else {
                continue;
            };
            let own = advertised.instance.srv();
            let (mut is_taken, mut is_gone) = (false, false);
            for record in &packet.records {
                let Data::Service(data) = &record.data else {
                    continue;
                };
                if !same(&record.owner, &advertised.names.name) {
                    continue;
                }
                // Another bridge may not know yet that the node has another port.
                let is_same_host = same(split_service(data).1, &advertised.names.host);
                is_taken |= !is_same_host && record.ttl > 0;
                // Another bridge knows the node, too, and says that it is gone.
                is_gone |= is_same_service(data, &own) && record.ttl == 0;
            }
            if !(is_taken || is_gone) || self.links_of(advertised) & links == 0 {
                continue;
            }
            if is_gone && !is_taken {
                self.adverts.changed(now, slot);
                continue;
            }
            self.adverts.conflict(now, slot);
            let label = self.adverts.label(slot).unwrap_or_default();
            log::debug!("its name is taken on the link: {label:?} is tried");
            if let Some(advertised) = self.advertised.get_mut(slot).and_then(Option::as_mut) {
                advertised.rename(&label);
            }
        }
    }
}

/// What a packet that asks says of an offer.
struct Knowledge {
    /// The asker knows its kind.
    kinds: bool,
    /// The asker knows it as one of its kind.
    kind: bool,
    /// The asker wants its name.
    is_claimed: bool,
    /// The asker says more in another packet.
    has_more: bool,
}

impl Knowledge {
    fn of(packet: &Packet, names: &Names) -> Self {
        let knows = |meaning| packet.records.iter().any(|it| it.is_known(meaning, names));
        let mut claims = packet.claims.iter();
        Self {
            kinds: knows(Meaning::Kinds),
            kind: knows(Meaning::Kind),
            is_claimed: claims.any(|it| same(&it.owner, &names.name)),
            has_more: packet.has_more,
        }
    }

    /// How a question of this meaning asks for it; `None` if the asker knows the answer.
    fn asks(&self, meaning: Meaning) -> Option<QuestionKind> {
        match meaning {
            Meaning::Kinds if self.kinds => None,
            Meaning::Kind if self.kind => None,
            Meaning::Name if self.is_claimed => Some(QuestionKind::Probe),
            Meaning::Name => Some(QuestionKind::Unique),
            Meaning::Kind | Meaning::Kinds => Some(QuestionKind::Shared {
                truncated: self.has_more,
            }),
        }
    }
}

/// Whether these are the data of the same SRV record: the name in it may have letters of another
/// case.
fn is_same_service(one: &[u8], other: &[u8]) -> bool {
    one.get(..SRV_NUMBERS) == other.get(..SRV_NUMBERS) && same(one, other)
}
