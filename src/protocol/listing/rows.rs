//! Entries of directories become rows.
//!
//! Invariant: an entry makes a row only if it verifies and was asked for, and each node has one row
//! at most while the set of seen nodes has room.

use super::{Home, Listing, Row};
use crate::protocol::{
    Cursor, Entries, Entry, Instant, MAX_ENTRIES, Name, PeerId, Presence, Selection, Subject,
    codec::record::{Kind, Record, Verifier, contents, open},
};

impl<B: AsRef<[u64]> + AsMut<[u64]>> Listing<B> {
    /// Whether [`Listing::rows`] has a row to give.
    pub(super) fn has_rows(&self) -> bool {
        let has_own = self.own_nodes.is_some() && self.has_room_for_a_page();
        let has_vanished = self.has_asked_all() && !self.vanished.is_empty();
        has_own || has_vanished && self.room > 0
    }

    /// Gives the rows that no server is asked for to `say`: those of the own directory, and at the
    /// end those of the vanished, while there is room for them.
    pub(super) fn rows<H: Home + ?Sized>(
        &mut self,
        now: Instant,
        home: &H,
        say: &mut dyn FnMut(&Row<'_>),
    ) {
        self.read_own_nodes(now, home, say);
        if self.has_asked_all() {
            self.tell_vanished(say);
        }
    }

    /// Whether there is room for a page, whatever servers answer meanwhile.
    pub(super) fn has_room_for_a_page(&self) -> bool {
        self.room >= self.turns.rows_to_come() + MAX_ENTRIES
    }

    fn read_own_nodes<H: Home + ?Sized>(
        &mut self,
        now: Instant,
        home: &H,
        say: &mut dyn FnMut(&Row<'_>),
    ) {
        while let Some(from) = self.own_nodes
            && self.has_room_for_a_page()
        {
            let mut entries = Entries::new();
            let which = Selection {
                filter: &self.filter,
                from,
                gone: self.states.has_vanished(),
            };
            let next = home.entries(now, which, &mut |entry| entries.push(entry).is_ok());
            self.own_nodes = next.map(Cursor::After);
            for entry in &entries {
                if let Subject::Signed(envelope) = entry.subject {
                    // It was verified when it was listed.
                    if let Some(record) = contents(Kind::Node, envelope) {
                        self.show((entry, self.own), &record, say);
                    }
                } else {
                    self.note_vanished(entry);
                }
            }
        }
    }

    /// Takes an entry that a server sent. One that does not verify, or that was not asked for, is
    /// ignored.
    pub(super) fn take(
        &mut self,
        (entry, server): (&Entry<'_>, PeerId),
        verifier: &impl Verifier,
        say: &mut dyn FnMut(&Row<'_>),
    ) {
        let Subject::Signed(envelope) = entry.subject else {
            return self.note_vanished(entry);
        };
        // A second entry of a node that has a row need not be verified to be left out.
        let subject = contents(Kind::Node, envelope).map(|record| record.peer);
        if subject.is_some_and(|peer| self.seen.contains(&peer)) {
            return;
        }
        let _ = open(verifier, Kind::Node, envelope, |record| {
            self.show((entry, server), record, say);
        });
    }

    /// Says which nodes have vanished and are alive nowhere, the latest first, while there is room.
    fn tell_vanished(&mut self, say: &mut dyn FnMut(&Row<'_>)) {
        while self.room > 0 {
            let (seen, states) = (&self.seen, self.states);
            let said = self.vanished.take_latest(|row| {
                let is_said = !seen.contains(&row.peer) && states.shows(row.presence);
                if is_said {
                    say(row);
                }
                usize::from(is_said)
            });
            match said {
                Some(rows) => self.room -= rows,
                None => return,
            }
        }
    }

    fn show(
        &mut self,
        (entry, server): (&Entry<'_>, PeerId),
        record: &Record<'_>,
        say: &mut dyn FnMut(&Row<'_>),
    ) {
        if !self.filter.admits(record) {
            return;
        }
        if entry.presence != Presence::Alive {
            return self.vanish(record.peer, record.name, entry);
        }
        if self.seen.insert(&record.peer) && self.states.shows(Presence::Alive) {
            // Before a server was asked there was room for all rows of its answer.
            self.room = self.room.saturating_sub(1);
            say(&Row {
                peer: record.peer,
                name: record.name,
                presence: Presence::Alive,
                age: entry.age,
                record: Some(record),
                server: Some(server),
            });
        }
    }

    /// Takes note of a node that a server has no record of.
    fn note_vanished(&mut self, entry: &Entry<'_>) {
        if let Subject::Named { peer, name } = entry.subject
            && self.filter.is_of_names()
            && self.filter.admits_name(name)
        {
            self.vanish(peer, name, entry);
        }
    }

    fn vanish(&mut self, peer: PeerId, name: &str, entry: &Entry<'_>) {
        if entry.presence != Presence::Alive && !self.seen.contains(&peer) {
            // A longer name was refused when it was read.
            let name = Name::try_from(name).unwrap_or_default();
            let (presence, age) = (entry.presence, entry.age);
            self.is_cut |= !self.vanished.tell(peer, name, presence, age);
        }
    }
}
