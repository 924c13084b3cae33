//! Rivals: two devices with one identity, a copied SD card for instance (PROTOCOL.md, "Who may say what").
//!
//! Each of the two takes the other's heartbeat stream over, for ever. After three takeovers from different addresses within one minute
//! the server keeps the stream that is there and refuses the newcomer's address for one minute, with the other address in the reason.
//! Then it looks again: the device that was refused may be the only one left.
//!
//! Invariants: a device that comes from one address is never refused, however often it comes; an address is refused for one minute at
//! most without three new takeovers; what is contested is named to the log once, and again only after ten minutes of peace.

use core::{fmt::Write as _, time::Duration};

use heapless::Vec;

use super::{
    Ack, Instant, PeerId, Reason, StreamId,
    address::{Host, Source},
    table::TableStats,
};

/// Identities whose takeovers are counted at a time; one more, and the one that was quiet the longest is forgotten.
const MAX_RIVALS: usize = 16;
/// Streams whose address is known and whose first beat is still to come.
const MAX_OPENED: usize = 8;
/// So many takeovers within [`WINDOW`] make rivals.
const TAKEOVERS: usize = 3;
/// In which time takeovers are counted, and for how long the newcomer is refused (PROTOCOL.md).
const WINDOW: Duration = Duration::from_secs(60);
/// Time without a takeover after which what comes next is news: 10 min.
const EPISODE: Duration = Duration::from_secs(10 * 60);

/// An identity that two devices use, as the operator sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contested {
    /// The identity.
    pub peer: PeerId,
    /// Where the device is that was kept.
    pub kept: Host,
    /// Where the device is that was refused.
    pub refused: Host,
    /// When it was refused last.
    pub at: Instant,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Rival {
    peer: PeerId,
    /// The takeovers of the last minute, and by which stream.
    takeovers: Vec<(Instant, StreamId), { TAKEOVERS - 1 }>,
    last: Instant,
    verdict: Option<Contested>,
}

/// The identities whose streams were taken over lately.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rivals {
    opened: Vec<(PeerId, StreamId, Source), MAX_OPENED>,
    all: Vec<Rival, MAX_RIVALS>,
    /// Those that were not named to the log yet.
    news: Vec<Contested, 4>,
    evicted: u64,
}

impl Rivals {
    /// No identity is contested.
    pub const fn new() -> Self {
        Self {
            opened: Vec::new(),
            all: Vec::new(),
            news: Vec::new(),
            evicted: 0,
        }
    }

    /// A stream of the peer is open, from there; its first beat comes next.
    pub fn opened(&mut self, peer: &PeerId, stream: StreamId, source: Source) {
        self.opened.retain(|(of, _, _)| of != peer);
        if self.opened.is_full() {
            self.opened.remove(0);
        }
        // There is room now.
        let _ = self.opened.push((*peer, stream, source));
    }

    /// Where the stream of the peer comes from, if that was told.
    pub fn source(&self, peer: &PeerId, stream: StreamId) -> Option<Source> {
        let mut opened = self.opened.iter();
        let is_it = |(of, id, _): &&(PeerId, StreamId, Source)| (of, *id) == (peer, stream);
        opened.find(is_it).map(|(_, _, source)| *source)
    }

    /// The peer's stream `kept` is open, and one from another address is about to take it over. Returns the refusal, if it may not.
    pub fn takeover(
        &mut self,
        now: Instant,
        peer: &PeerId,
        kept: Host,
        stream: StreamId,
        newcomer: Host,
    ) -> Option<Ack> {
        let rival = self.rival(now, peer)?;
        if let Some(verdict) = &rival.verdict
            && verdict.refused == newcomer
            && now - verdict.at < WINDOW
        {
            return Some(refusal(verdict.kept));
        }
        if rival.takeovers.iter().any(|(_, by)| *by == stream) {
            return None;
        }
        rival.takeovers.retain(|(at, _)| now - *at <= WINDOW);
        rival.last = now;
        if rival.takeovers.push((now, stream)).is_ok() {
            return None;
        }
        rival.takeovers.clear();
        let contested = Contested {
            peer: *peer,
            kept,
            refused: newcomer,
            at: now,
        };
        if rival.verdict.replace(contested.clone()).is_none() {
            // Only a line of the log is lost if the driver does not poll.
            let _ = self.news.push(contested);
        }
        Some(refusal(kept))
    }

    /// The peer gave its lease up: a device that comes now has no rival.
    pub fn forget(&mut self, peer: &PeerId) {
        self.all.retain(|rival| rival.peer != *peer);
    }

    /// The next contested identity to be named to the log.
    pub fn pop_news(&mut self) -> Option<Contested> {
        self.news.pop()
    }

    /// The identities that were contested in the last ten minutes.
    pub fn contested(&self, now: Instant) -> impl Iterator<Item = &Contested> {
        self.all
            .iter()
            .filter(move |rival| now - rival.last < EPISODE)
            .filter_map(|rival| rival.verdict.as_ref())
    }

    /// What the operator sees.
    pub fn stats(&self) -> TableStats {
        TableStats {
            name: "takeovers",
            used: self.all.len(),
            capacity: MAX_RIVALS,
            refused: 0,
            evicted: self.evicted,
        }
    }

    fn rival(&mut self, now: Instant, peer: &PeerId) -> Option<&mut Rival> {
        self.all.retain(|rival| now - rival.last < EPISODE);
        if !self.all.iter().any(|rival| rival.peer == *peer) {
            if self.all.is_full() {
                let quiet = self.all.iter().enumerate();
                let (at, _) = quiet.min_by_key(|(_, rival)| rival.last)?;
                self.all.swap_remove(at);
                self.evicted += 1;
            }
            // There is room now.
            let _ = self.all.push(Rival {
                peer: *peer,
                takeovers: Vec::new(),
                last: now,
                verdict: None,
            });
        }
        self.all.iter_mut().find(|rival| rival.peer == *peer)
    }
}

fn refusal(kept: Host) -> Ack {
    let mut ack = Ack::refused("");
    let mut reason = Reason::new();
    // The longest address leaves room.
    let _ = write!(
        reason,
        "a device at {kept} has your identity: give one of you another"
    );
    ack.reason = reason;
    ack
}

#[cfg(test)]
mod tests {
    use core::net::IpAddr;

    use super::*;
    use crate::protocol::AckCode;

    const PEER: PeerId = PeerId::from_bytes([1; 32]);

    fn at(millis: u64) -> Instant {
        Instant::from_millis(millis)
    }

    fn host(n: u8) -> Host {
        IpAddr::from([192, 0, 2, n]).into()
    }

    /// Two devices take turns at these times, the first at address 2; whether each was refused.
    fn turns(times: &[u64]) -> std::vec::Vec<bool> {
        let mut rivals = Rivals::new();
        let (mut kept, mut newcomer) = (1, 2);
        let mut turn = |(stream, &now): (u64, &u64)| {
            let refused = rivals
                .takeover(at(now), &PEER, host(kept), StreamId(stream), host(newcomer))
                .is_some();
            if !refused {
                core::mem::swap(&mut kept, &mut newcomer);
            }
            refused
        };
        (0..).zip(times).map(&mut turn).collect()
    }

    #[test]
    fn the_third_takeover_within_a_minute_is_refused() {
        assert_eq!(turns(&[0, 30_000, 60_000]), [false, false, true]);
        assert_eq!(turns(&[0, 30_000, 60_001]), [false, false, false]);
    }

    #[test]
    fn the_newcomer_is_refused_for_a_minute_and_then_may_take_over_again() {
        let refused = turns(&[0, 1, 2, 3, 60_001, 60_002, 60_003, 60_004]);
        assert_eq!(
            refused,
            [false, false, true, true, true, false, false, true]
        );
    }

    #[test]
    fn one_stream_is_one_takeover_however_often_it_is_asked_about() {
        let mut rivals = Rivals::new();
        let mut ask = |stream| {
            rivals
                .takeover(at(0), &PEER, host(1), StreamId(stream), host(2))
                .is_some()
        };
        assert_eq!(
            [1, 1, 1, 2, 2, 3].map(&mut ask),
            [false, false, false, false, false, true]
        );
    }

    #[test]
    fn the_refusal_names_the_other_address_and_the_log_has_it_once_an_episode() {
        let mut rivals = Rivals::new();
        let mut contest = |from: u64| {
            (0..3)
                .filter_map(|n| {
                    rivals.takeover(at(from + n), &PEER, host(1), StreamId(from + n), host(2))
                })
                .last()
                .map(|ack| (ack, rivals.pop_news().is_some()))
        };
        let (ack, news) = contest(0).unwrap();
        assert_eq!(ack.code, AckCode::Refused);
        assert!(ack.reason.contains("192.0.2.1"), "{}", ack.reason);
        assert!(news);
        assert!(!contest(70_000).unwrap().1, "the same episode");
        assert!(!contest(670_000).unwrap().1);
        assert!(contest(1_270_002).unwrap().1, "after ten minutes of peace");
    }

    #[test]
    fn the_longest_address_leaves_room_for_the_reason() {
        let longest: IpAddr = "1111:2222:3333:4444:5555:6666:7777:8888".parse().unwrap();
        assert!(refusal(longest.into()).reason.ends_with("another"));
    }

    #[test]
    fn the_operator_sees_it_for_ten_minutes_after_the_last_takeover() {
        let mut rivals = Rivals::new();
        for n in 0..3 {
            rivals.takeover(at(n), &PEER, host(1), StreamId(n), host(2));
        }
        let seen = |now| rivals.contested(at(now)).count();
        assert_eq!((seen(2), seen(600_001), seen(600_002)), (1, 1, 0));
        let contested = rivals.contested(at(2)).next().unwrap();
        assert_eq!((contested.kept, contested.refused), (host(1), host(2)));
        rivals.forget(&PEER);
        assert_eq!(rivals.contested(at(2)).count(), 0);
    }

    #[test]
    fn the_identity_that_was_quiet_the_longest_is_forgotten_first_and_counted() {
        let mut rivals = Rivals::new();
        for n in 0..=MAX_RIVALS as u8 {
            let peer = PeerId::from_bytes([n; 32]);
            rivals.takeover(at(n.into()), &peer, host(1), StreamId(0), host(2));
        }
        let stats = rivals.stats();
        assert_eq!((stats.used, stats.evicted), (MAX_RIVALS, 1));
        assert!(
            rivals
                .all
                .iter()
                .all(|rival| rival.peer != PeerId::from_bytes([0; 32]))
        );
    }
}
