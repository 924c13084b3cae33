//! Listings: an operator lists all nodes that any server lists.
//!
//! Rules: each node has one row, and no row comes for which there is no room; a listing ends in its
//! time; it is complete only if every server that it asked has answered, and names no other as
//! silent; what a server lists in its time has a row, and a node that one lists as alive is alive.

use std::collections::{BTreeMap, BTreeSet};

use oc_discovery::protocol::{
    Addrs, Filter, MAX_ENTRIES, PeerId, Presence, Role, Subject,
    codec::{directory::Response, record::Kind},
    listing::{LIMIT, LIST_PATIENCE, ListAsk, Listing, ListingAction, ListingId, Row, States},
    lookup::Query,
};

use crate::{
    device::{Device, DeviceNo, State},
    frames::verified,
    invariants::ensure,
    world::World,
};

/// The place of a listing. Its set of seen nodes is larger than any world.
pub type Place = Box<Listing<Vec<u64>>>;

const SEEN: usize = 1024;
/// Devices that list all nodes when the faults are over.
const LISTS: usize = 6;
/// How late a timer may be, ms.
const LATE: u64 = 15;
/// The message for this broken rule.
const IN_TIME: &str = "a listing has not ended in its time";

/// What an operator sees of the listing of a process.
#[derive(Debug, Default)]
pub struct Listed {
    id: ListingId,
    began: u64,
    /// Rows that there is room for. The operator reads them after each action.
    room: usize,
    unread: usize,
    rows: BTreeMap<PeerId, Presence>,
    /// What was asked and is not answered.
    open: Vec<Open>,
    /// Servers that have failed, and servers whose answer came late and may count.
    failed: BTreeSet<PeerId>,
    late: BTreeSet<PeerId>,
    /// The nodes that a server has listed.
    told: BTreeMap<PeerId, Presence>,
    end: Option<End>,
}

/// A query.
#[derive(Debug)]
struct Open {
    query: Query,
    server: PeerId,
    /// From then on an answer is late.
    until: u64,
}

/// The end of a listing.
#[derive(Debug)]
struct End {
    is_complete: bool,
    silent: BTreeSet<PeerId>,
}

impl Listed {
    /// The nodes that have a row as such a one.
    pub fn nodes(&self, are: Presence) -> BTreeSet<PeerId> {
        let rows = self.rows.iter().filter(|(_, is)| **is == are);
        rows.map(|(peer, _)| *peer).collect()
    }

    /// Whether it is over and complete.
    pub fn is_complete(&self) -> bool {
        self.end.as_ref().is_some_and(|end| end.is_complete)
    }

    /// The servers that it names as silent, if it is over and incomplete.
    pub fn silent(&self) -> Option<&BTreeSet<PeerId>> {
        let end = self.end.as_ref().filter(|end| !end.is_complete)?;
        Some(&end.silent)
    }

    /// Takes a row.
    pub fn say(&mut self, row: &Row<'_>) -> Result<(), &'static str> {
        self.unread += 1;
        match self.rows.insert(row.peer, row.presence) {
            Some(_) => Err("a listing has two rows of a node"),
            None if self.unread > self.room => Err("a listing has more rows than there is room"),
            None => Ok(()),
        }
    }

    /// Takes note of what a server answers, or that it does not.
    pub fn note_told(&mut self, now: u64, query: Query, response: Option<&Response<'_>>) {
        let Some(at) = self.open.iter().position(|open| open.query == query) else {
            return;
        };
        let Open { server, until, .. } = self.open.swap_remove(at);
        match response {
            Some(_) if now >= until => _ = self.late.insert(server),
            Some(Response::Entries(page)) => {
                for entry in page.entries {
                    let told = subject(&entry.subject);
                    let told = told.map(|node| self.told.entry(node).or_insert(entry.presence));
                    if let Some(told) = told.filter(|_| entry.presence == Presence::Alive) {
                        *told = Presence::Alive;
                    }
                }
            }
            Some(Response::Error(_)) | None => _ = self.failed.insert(server),
            Some(_) => {}
        }
    }

    /// The rules of its end.
    fn check(&self, end: &End) -> Result<(), &'static str> {
        let open = self.open.iter().map(|open| open.server);
        let silent: BTreeSet<_> = open.chain(self.failed.iter().copied()).collect();
        if end.is_complete && !(silent.is_empty() && end.silent.is_empty()) {
            return Err("a listing is complete although a server has not answered");
        }
        if !end.silent.is_subset(&(&silent | &self.late)) {
            return Err("a listing names a server as silent that has answered");
        }
        let is_lost = |(peer, told): (&PeerId, &Presence)| match self.rows.get(peer) {
            Some(row) => *told == Presence::Alive && *row != Presence::Alive,
            None => true,
        };
        match self.told.iter().any(is_lost) {
            true => Err("a listing has lost what a server told"),
            false => Ok(()),
        }
    }
}

/// The node that an entry is about. `None`: its record does not verify.
fn subject(subject: &Subject<'_>) -> Option<PeerId> {
    match subject {
        Subject::Signed(envelope) => Some(verified(Kind::Node, envelope).ok()?.peer),
        Subject::Named { peer, .. } => Some(*peer),
    }
}

impl World {
    /// The operator of a device begins to list all nodes.
    pub fn list_nodes(&mut self, no: DeviceNo) -> Result<(), String> {
        let seed = self.rng.bits();
        let room = MAX_ENTRIES + self.rng.below(300) as usize;
        let device = &mut self.devices[no];
        let now = device.instant(self.now);
        let which = (Filter::default(), States::ALL);
        let place = || Box::new(Listing::new(vec![0; SEEN]));
        // A process that was stopped may not have ended the last one before.
        let Some(id) = device.endpoint.list(now, seed, which, place) else {
            return ensure(device.resumed_at + 6_000 > self.now, no, IN_TIME);
        };
        device.listed = Listed {
            id,
            began: self.now,
            room,
            ..Listed::default()
        };
        Ok(())
    }

    /// The operator has read all rows.
    pub fn read_rows(&mut self, no: DeviceNo) {
        let Device {
            endpoint, listed, ..
        } = &mut self.devices[no];
        listed.unread = 0;
        endpoint.listings_mut().has_room(listed.id, listed.room);
    }

    /// Carries out an action that is about a listing.
    pub fn act_on_listing(&mut self, no: DeviceNo, action: ListingAction) -> Result<(), String> {
        let device = &mut self.devices[no];
        let now = device.instant(self.now);
        match action {
            ListingAction::Ask {
                query,
                server,
                addrs,
                ask,
            } => self.ask_for_rows(no, (server, &addrs), query, ask),
            ListingAction::Rows { listing } => {
                let (listed, mut said) = (&mut device.listed, Ok(()));
                let say = &mut |row: &Row<'_>| said = said.and(listed.say(row));
                device.endpoint.rows(now, listing, say);
                said.or_else(|rule| ensure(false, no, rule))
            }
            ListingAction::Progress { .. } => {
                device.listed.unread += 1;
                let has_room = device.listed.unread <= device.listed.room;
                ensure(has_room, no, "there is no room for the progress")
            }
            ListingAction::Done { listing } => {
                let listing = device.endpoint.listings().of(listing);
                let listing = listing.ok_or("a listing that is over cannot be read")?;
                let end = End {
                    is_complete: listing.is_complete(),
                    silent: listing.silent().copied().collect(),
                };
                let checked = device.listed.check(&end);
                self.desk.listed[0] += 1;
                self.desk.listed[1] += u64::from(end.is_complete);
                device.listed.end = Some(end);
                checked.or_else(|rule| ensure(false, no, rule))
            }
        }
    }

    fn ask_for_rows(
        &mut self,
        no: DeviceNo,
        (server, addrs): (PeerId, &Addrs),
        query: Query,
        ask: ListAsk,
    ) -> Result<(), String> {
        let device = &mut self.devices[no];
        let request = device.endpoint.listings().request(query, ask);
        let request = request.ok_or("a listing that does not run asks a server")?;
        device.listed.open.push(Open {
            query,
            server,
            until: self.now + LIST_PATIENCE.as_millis() as u64,
        });
        self.request(no, (server, addrs), query, &request)
    }

    /// Checks that no listing of this process is older than allowed.
    pub fn check_listing(&self, no: DeviceNo) -> Result<(), String> {
        let device = &self.devices[no];
        let longest = LIMIT.as_millis() as u64 + LATE;
        let runs = device.endpoint.listings().of(device.listed.id).is_some();
        let began = device.listed.began.max(device.resumed_at);
        ensure(!runs || self.now <= began + longest, no, IN_TIME)
    }

    /// Checks that in the calm any device lists all nodes that are listed at a server that it has
    /// to ask.
    pub fn any_lists_all(&mut self) -> Result<(), String> {
        let is_up = |device: &Device| device.state == State::Running;
        for _ in 0..LISTS {
            let no = self.rng.below(self.plan.living() as u64) as usize;
            if !is_up(&self.devices[no]) {
                continue;
            }
            let nodes = self
                .devices
                .iter()
                .filter(|device| device.role == Role::Node);
            let nodes: Vec<_> = nodes.map(|node| node.peer).collect();
            let listed = nodes.iter().filter(|node| self.is_listed_for(no, node));
            let listed: BTreeSet<_> = listed.copied().collect();
            self.list_nodes(no)?;
            self.step(no, Vec::new())?;
            self.run_until(self.now + LIMIT.as_millis() as u64 + LATE)?;
            let Listed { rows, end, .. } = &self.devices[no].listed;
            let has_row = |node: &PeerId| rows.get(node) == Some(&Presence::Alive);
            ensure(
                listed.iter().all(has_row),
                no,
                "a listing in the calm has no row of a node that a server lists",
            )?;
            ensure(
                end.as_ref().is_some_and(|end| end.is_complete),
                no,
                "a listing in the calm is incomplete",
            )?;
        }
        Ok(())
    }
}
