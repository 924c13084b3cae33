//! What lookups for the DNS have found, for as long as it is valid.
//!
//! Invariants: at most [`MAX_KNOWN`] outcomes with [`MAX_BYTES`] bytes in all; what has expired is
//! never found; a full table forgets what has expired, then what was not asked for the longest.

use std::rc::Rc;

use crate::{
    net::dns::serve::{Host, Hosts},
    protocol::{Instant, TableStats, codec::service::Service, lookup::Question},
};

/// Outcomes that are kept at most.
pub(super) const MAX_KNOWN: usize = 512;
/// Bytes that they take at most.
const MAX_BYTES: usize = 512 * 1024;

/// The outcome of a lookup.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Known {
    /// The nodes that were found.
    pub(crate) hosts: Hosts,
    /// When it is no longer valid.
    pub(crate) until: Instant,
}

impl Known {
    fn bytes(&self) -> usize {
        let hosts = self.hosts.hosts.iter();
        size_of::<Entry>() + size_of::<Self>() + hosts.map(bytes_of).sum::<usize>()
    }
}

fn bytes_of(host: &Host) -> usize {
    let tags = host.tags.iter();
    let tags = tags.map(|(key, value)| size_of::<(String, String)>() + key.len() + value.len());
    size_of::<Host>()
        + host.name.len()
        + size_of_val(host.addrs.as_slice())
        + host.services.len() * size_of::<Service>()
        + tags.sum::<usize>()
}

/// The outcomes that are kept.
#[derive(Debug, Default)]
pub(super) struct Cache {
    /// Sorted by their questions.
    entries: Vec<Entry>,
    bytes: usize,
    /// Counts the questions, as a clock for the order of their last use.
    asked: u64,
    evicted: u64,
}

#[derive(Debug)]
struct Entry {
    question: Question,
    known: Rc<Known>,
    bytes: usize,
    last_asked: u64,
}

impl Cache {
    /// The outcome for the question, if it is still valid at `now`.
    pub(super) fn find(&mut self, now: Instant, question: &Question) -> Option<Rc<Known>> {
        let at = self.position(question).ok()?;
        self.asked += 1;
        let entry = self.entries.get_mut(at)?;
        entry.last_asked = self.asked;
        (now < entry.known.until).then(|| entry.known.clone())
    }

    /// Keeps an outcome.
    pub(super) fn keep(&mut self, now: Instant, question: Question, known: Rc<Known>) {
        let bytes = known.bytes();
        if now >= known.until || bytes > MAX_BYTES {
            return;
        }
        if let Ok(at) = self.position(&question) {
            self.remove(at);
        }
        self.make_room(now, bytes);
        self.asked += 1;
        let entry = Entry {
            question,
            known,
            bytes,
            last_asked: self.asked,
        };
        if let Err(at) = self.position(&entry.question) {
            self.bytes += bytes;
            self.entries.insert(at, entry);
        }
    }

    /// The statistics for `status`, at `now`.
    pub(super) fn stats(&self, now: Instant) -> TableStats {
        let valid = self.entries.iter().filter(|entry| now < entry.known.until);
        TableStats {
            name: "dns_cache",
            used: valid.count(),
            capacity: MAX_KNOWN,
            refused: 0,
            evicted: self.evicted,
        }
    }

    fn make_room(&mut self, now: Instant, bytes: usize) {
        if self.has_room(bytes) {
            return;
        }
        self.entries.retain(|entry| now < entry.known.until);
        self.bytes = self.entries.iter().map(|entry| entry.bytes).sum();
        while !self.has_room(bytes) {
            let numbered = self.entries.iter().enumerate();
            let Some((at, _)) = numbered.min_by_key(|(_, entry)| entry.last_asked) else {
                return;
            };
            self.remove(at);
            self.evicted += 1;
        }
    }

    fn has_room(&self, bytes: usize) -> bool {
        self.entries.len() < MAX_KNOWN && self.bytes + bytes <= MAX_BYTES
    }

    fn remove(&mut self, at: usize) {
        self.bytes -= self.entries.remove(at).bytes;
    }

    fn position(&self, question: &Question) -> Result<usize, usize> {
        let entries = &self.entries;
        entries.binary_search_by(|entry| entry.question.cmp(question))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::from_millis(ms)
    }

    fn question(n: usize) -> Question {
        Question::Name(format!("n{n}").as_str().try_into().unwrap())
    }

    fn known(until: u64, text: &str) -> Rc<Known> {
        let host = Host {
            device: None,
            name: text.to_owned(),
            ..Host::default()
        };
        Rc::new(Known {
            hosts: Hosts {
                hosts: vec![host],
                coverage: crate::protocol::Coverage::Complete,
            },
            until: at(until),
        })
    }

    #[test]
    fn outcome_is_found_until_it_expires_and_not_a_tick_longer() {
        let mut cache = Cache::default();
        cache.keep(at(0), question(1), known(1_000, "a"));
        assert!(cache.find(at(999), &question(1)).is_some());
        assert_eq!(cache.find(at(1_000), &question(1)), None);
        assert_eq!(cache.find(at(0), &question(2)), None);
        assert_eq!(
            (cache.stats(at(999)).used, cache.stats(at(1_000)).used),
            (1, 0)
        );
    }

    #[test]
    fn newer_outcome_replaces_the_one_before() {
        let mut cache = Cache::default();
        cache.keep(at(0), question(1), known(1_000, "a"));
        cache.keep(at(5), question(1), known(2_000, "b"));
        assert_eq!(cache.find(at(5), &question(1)), Some(known(2_000, "b")));
        assert_eq!(cache.entries.len(), 1);
        assert_eq!(cache.bytes, known(0, "b").bytes());
        cache.keep(at(9), question(2), known(9, "late"));
        assert_eq!(cache.entries.len(), 1, "it had expired when it came");
    }

    #[test]
    fn full_table_forgets_what_expired_and_then_what_was_not_asked_for_the_longest() {
        let mut cache = Cache::default();
        for n in 0..MAX_KNOWN {
            cache.keep(at(0), question(n), known(1_000 + n as u64, "a"));
        }
        // At 1000, the first has expired.
        cache.keep(at(1_000), question(600), known(9_000, "a"));
        assert_eq!((cache.entries.len(), cache.evicted), (MAX_KNOWN, 0));
        assert!(cache.find(at(1_000), &question(1)).is_some());
        cache.keep(at(1_000), question(601), known(9_000, "a"));
        assert_eq!((cache.entries.len(), cache.evicted), (MAX_KNOWN, 1));
        assert!(cache.find(at(1_000), &question(1)).is_some());
        assert!(
            cache.find(at(1_000), &question(2)).is_none(),
            "not asked for"
        );
    }

    #[test]
    fn long_outcomes_take_the_places_of_several() {
        let mut cache = Cache::default();
        let half = "a".repeat(MAX_BYTES / 2 - 1_000);
        for n in 0..5 {
            cache.keep(at(0), question(n), known(1_000, &half));
            assert!(cache.bytes <= MAX_BYTES);
        }
        assert_eq!((cache.entries.len(), cache.evicted), (2, 3));
        cache.keep(at(0), question(9), known(1_000, &"a".repeat(MAX_BYTES)));
        assert_eq!(cache.entries.len(), 2, "it takes more than all places");
    }
}
