//! What a daemon says about itself: the objects of its control socket, for programs as JSON and for
//! a person as text.
//!
//! The field names are the interface: they are never renamed. All times are relative and in
//! milliseconds, and what has expired is never listed. What does not apply to a role is empty.
//! Text that comes from other peers is printed without its control characters.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use miniserde::{Deserialize, Serialize};

use crate::config::Role;

/// The answer to `status`: everything a process knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// What the process is for.
    pub role: Role,
    /// Its peer id, in base58.
    pub peer_id: String,
    /// Node: the name that it is found by.
    pub name: Option<String>,
    /// Node: what it says about itself.
    pub tags: BTreeMap<String, String>,
    /// Version of the program.
    pub version: String,
    /// Time since the process started, ms.
    pub uptime_ms: u64,
    /// Multiaddresses it listens on, without `/p2p`.
    pub listen: Vec<String>,
    /// The natives that it knows, as `--native` takes them: given, of an earlier run, or named by DNS.
    pub natives: Vec<String>,
    /// Native: the option that others are started with, `--native MULTIADDR`; `None`: it is not known
    /// at which address they reach it.
    pub native_option: Option<String>,
    /// Native: the indexers it can hand out.
    pub live_indexers: Vec<LiveIndexer>,
    /// Native: ids of the indexers it has heard of, in base58.
    pub known_peer_ids: Vec<String>,
    /// Native: the nodes it has taken in itself.
    pub responsible_peers: Vec<ResponsiblePeer>,
    /// Native, indexer: the peers whose heartbeat streams it serves.
    pub stream_records: Vec<StreamRecord>,
    /// The leases that this process holds elsewhere.
    pub leases: Vec<Lease>,
    /// Native: its background loops by name.
    pub loops: BTreeMap<String, LoopStatus>,
    /// How full every table is.
    pub tables: Vec<Table>,
    /// Identities that two devices used in the last ten minutes.
    pub contested: Vec<Contested>,
    /// Servers that grant us no lease, and why.
    pub troubles: Vec<Trouble>,
}

/// An indexer that a native can hand out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LiveIndexer {
    /// Its peer id, in base58.
    pub peer_id: String,
    /// Its multiaddresses, without `/p2p`.
    pub addrs: Vec<String>,
    /// Time until the entry runs out, ms.
    pub expires_in_ms: u64,
    /// What made the entry.
    pub source: Source,
    /// Nodes that found lately that it grants no lease, or does not keep it.
    pub failures: u64,
}

/// What made an entry of `live_indexers`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Source {
    /// A beat of the indexer itself.
    #[serde(rename = "heartbeat")]
    Heartbeat,
    /// A signed record that the refresh loop found.
    #[serde(rename = "dht")]
    Dht,
}

/// An identity that two devices use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contested {
    /// The identity, in base58.
    pub peer_id: String,
    /// The address of the device that was kept.
    pub kept: String,
    /// The address of the device that was refused.
    pub refused: String,
    /// Time since it was refused last, ms.
    pub last_ms: u64,
}

/// A server that grants us no lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    /// Its peer id, in base58.
    pub peer_id: String,
    /// What is wrong, for people.
    pub what: String,
}

/// A node that a native has taken in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResponsiblePeer {
    /// Its peer id, in base58.
    pub peer_id: String,
    /// Time since it was taken in, ms.
    pub since_ms: u64,
}

/// A peer whose heartbeat stream is served.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamRecord {
    /// Its peer id, in base58.
    pub peer_id: String,
    /// The role it beats as.
    pub role: Role,
    /// Time since its last beat, ms.
    pub last_seen_ms: u64,
    /// Time until its lease runs out, ms.
    pub expires_in_ms: u64,
}

/// A lease that this process holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Who granted it, in base58.
    pub peer_id: String,
    /// The role of who granted it.
    pub role: Role,
    /// Time until it runs out, ms.
    pub expires_in_ms: u64,
}

/// A background loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoopStatus {
    /// How often it has run.
    pub runs: u64,
    /// Time since it last ran, ms; 0 if it never did.
    pub last_ms: u64,
}

/// A table of fixed capacity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// Its name.
    pub name: String,
    /// Entries in it.
    pub used: u64,
    /// Entries that fit.
    pub capacity: u64,
    /// Entries that it has refused for want of room.
    pub refused: u64,
    /// Entries that had to make room for others.
    pub evicted: u64,
}

/// The answer to `indexers`: where a node could go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexerList {
    /// Every server asked has answered, and nothing was left out.
    pub complete: bool,
    /// Servers that were asked.
    pub asked: u64,
    /// Servers that answered.
    pub answered: u64,
    /// The peer ids of those that did not.
    pub silent: Vec<String>,
    /// The indexers, in the order in which they were heard of.
    pub indexers: Vec<KnownIndexer>,
}

/// An indexer as the natives offer it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownIndexer {
    /// Its peer id, in base58.
    pub peer_id: String,
    /// Its multiaddresses, without `/p2p`.
    pub addrs: Vec<String>,
    /// Time until the entry runs out, ms.
    pub expires_in_ms: u64,
    /// Leases it can still grant; `None`: it has not said.
    pub free_leases: Option<u64>,
}

/// The answer to `find`: every claimant of a name, or one peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// The name or the peer id that was asked for.
    pub query: String,
    /// Every server asked has answered, and nothing was left out.
    pub complete: bool,
    /// Servers that were asked; those that servers asked in turn are counted.
    pub asked: u64,
    /// Servers that answered.
    pub answered: u64,
    /// The peer ids of those that this daemon asked and that did not.
    pub silent: Vec<String>,
    /// The signed records found, best first; empty: no server that answered knows it.
    pub records: Vec<FoundRecord>,
}

/// A node as its own signed record describes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundRecord {
    /// Its peer id, in base58: the signature proves it, the name does not.
    pub peer_id: String,
    /// The name it claims.
    pub name: String,
    /// Its multiaddresses, without `/p2p`.
    pub addrs: Vec<String>,
    /// What it says about itself.
    pub tags: BTreeMap<String, String>,
    /// Time until the record runs out, ms.
    pub expires_in_ms: u64,
    /// Who had the record: `local`, `indexer`, `native` or `dht`.
    pub source: String,
}

/// The answer to a request that cannot be answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// One sentence for a person.
    pub error: String,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} {}", self.role, Plain(&self.peer_id))?;
        if let Some(name) = &self.name {
            writeln!(f, "name: {}", Plain(name))?;
            list(f, "tags", "none", &pairs(&self.tags))?;
        }
        writeln!(
            f,
            "version {}, up {}",
            Plain(&self.version),
            Span(self.uptime_ms)
        )?;
        list(f, "listening on", "no address", &self.listen)?;
        list(f, "natives", "none is known", &self.natives)?;
        if self.role == Role::Native {
            let unknown = "not known yet: give --announce, or wait until a peer connects";
            let option: Vec<_> = self.native_option.iter().cloned().collect();
            list(f, "others are started with", unknown, &option)?;
        }
        self.leases(f)?;
        if self.role == Role::Native {
            self.native(f)?;
        }
        if self.role != Role::Node {
            self.stream_records(f)?;
        }
        self.troubles(f)?;
        self.tables(f)
    }
}

impl Status {
    /// What is wrong; nothing is said if nothing is.
    fn troubles(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = self.contested.iter().map(|two| {
            let kept = format!("kept at {}", two.kept);
            let refused = format!("refused at {}", two.refused);
            [two.peer_id.clone(), kept, refused]
        });
        if !self.contested.is_empty() {
            table(f, "two devices with one identity", "none", rows)?;
        }
        let rows = self
            .troubles
            .iter()
            .map(|trouble| [trouble.peer_id.clone(), trouble.what.clone()]);
        if !self.troubles.is_empty() {
            table(f, "servers that grant no lease", "none", rows)?;
        }
        Ok(())
    }

    fn leases(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = self.leases.iter().map(|lease| {
            let end = format!("ends in {}", Span(lease.expires_in_ms));
            [lease.peer_id.clone(), lease.role.to_string(), end]
        });
        table(f, "leases held", "none: under nobody's lease", rows)
    }

    fn native(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = self.live_indexers.iter().map(|entry| {
            let source = match entry.source {
                Source::Heartbeat => "by beat",
                Source::Dht => "from the DHT",
            };
            let end = format!("ends in {}", Span(entry.expires_in_ms));
            let addrs = entry.addrs.join(" ");
            let failures = match entry.failures {
                0 => String::new(),
                n => format!("failed at {n} nodes "),
            };
            [
                entry.peer_id.clone(),
                end,
                source.to_owned(),
                failures + &addrs,
            ]
        });
        table(f, "live indexers", "none", rows)?;
        list(f, "known indexer ids", "none", &self.known_peer_ids)?;
        let rows = self
            .responsible_peers
            .iter()
            .map(|peer| [peer.peer_id.clone(), format!("for {}", Span(peer.since_ms))]);
        table(f, "nodes taken in", "none", rows)?;
        let rows = self.loops.iter().map(|(name, state)| {
            let last = match state.runs {
                0 => "not yet".to_owned(),
                _ => format!("last {} ago", Span(state.last_ms)),
            };
            [name.clone(), format!("{} runs", state.runs), last]
        });
        table(f, "loops", "none", rows)
    }

    fn stream_records(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = self.stream_records.iter().map(|record| {
            [
                record.peer_id.clone(),
                record.role.to_string(),
                format!("seen {} ago", Span(record.last_seen_ms)),
                format!("ends in {}", Span(record.expires_in_ms)),
            ]
        });
        table(f, "heartbeat streams", "none", rows)
    }

    fn tables(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = self.tables.iter().map(|table| {
            [
                table.name.clone(),
                format!("{} of {}", table.used, table.capacity),
                format!("{} refused", table.refused),
                format!("{} evicted", table.evicted),
            ]
        });
        table(f, "tables", "none", rows)
    }
}

impl fmt::Display for IndexerList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = self.indexers.iter().map(|indexer| {
            let free = match indexer.free_leases {
                Some(free) => format!("{free} leases free"),
                None => "free leases unknown".to_owned(),
            };
            [
                indexer.peer_id.clone(),
                free,
                format!("ends in {}", Span(indexer.expires_in_ms)),
                indexer.addrs.join(" "),
            ]
        });
        table(f, "indexers", "none is known", rows)?;
        say_shortfall(f, self.shortfall())
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, record) in self.records.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            let name = match record.name.as_str() {
                "" => "(no name)",
                name => name,
            };
            writeln!(f, "{}  {}", Plain(name), Plain(&record.peer_id))?;
            list(f, "  addresses", "none", &record.addrs)?;
            list(f, "  tags", "none", &pairs(&record.tags))?;
            writeln!(
                f,
                "  from the record's copy at: {}, ends in {}",
                Plain(&record.source),
                Span(record.expires_in_ms)
            )?;
        }
        say_shortfall(f, self.shortfall())
    }
}

impl Found {
    /// What the answer lacks; `None`: nothing.
    pub fn shortfall(&self) -> Option<String> {
        shortfall(self.complete, self.asked, self.answered)
    }
}

impl IndexerList {
    /// What the answer lacks; `None`: nothing.
    pub fn shortfall(&self) -> Option<String> {
        shortfall(self.complete, self.asked, self.answered)
    }
}

fn shortfall(complete: bool, asked: u64, answered: u64) -> Option<String> {
    let silent = asked.saturating_sub(answered);
    match (complete, asked, silent) {
        (true, ..) => None,
        (false, 0, _) => Some("no server could be asked".into()),
        (false, _, 0) => Some("there is more than one answer holds".into()),
        (false, _, _) => Some(format!("{silent} of {asked} servers asked did not answer")),
    }
}

fn say_shortfall(f: &mut fmt::Formatter<'_>, shortfall: Option<String>) -> fmt::Result {
    match shortfall {
        Some(shortfall) => writeln!(f, "incomplete: {shortfall}"),
        None => Ok(()),
    }
}

fn pairs(tags: &BTreeMap<String, String>) -> Vec<String> {
    let pair = |(key, value): (&String, &String)| format!("{key}={value}");
    tags.iter().map(pair).collect()
}

/// A titled list: on the title's line if it is empty or single, else an item a line.
fn list(f: &mut fmt::Formatter<'_>, title: &str, empty: &str, items: &[String]) -> fmt::Result {
    match items {
        [] => writeln!(f, "{title}: {empty}"),
        [only] => writeln!(f, "{title}: {}", Plain(only)),
        _ => {
            writeln!(f, "{title}:")?;
            let indent = title.len() - title.trim_start().len();
            for item in items {
                writeln!(f, "{:indent$}  {}", "", Plain(item))?;
            }
            Ok(())
        }
    }
}

/// A titled table with columns as wide as their widest cell.
pub(super) fn table<const COLUMNS: usize>(
    f: &mut fmt::Formatter<'_>,
    title: &str,
    empty: &str,
    rows: impl Iterator<Item = [String; COLUMNS]>,
) -> fmt::Result {
    let rows: Vec<[String; COLUMNS]> = rows
        .map(|row| row.map(|cell| Plain(&cell).to_string()))
        .collect();
    if rows.is_empty() {
        return writeln!(f, "{title}: {empty}");
    }
    let mut widths = [0; COLUMNS];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    writeln!(f, "{title}: {}", rows.len())?;
    for row in &rows {
        let mut line = String::new();
        for (width, cell) in widths.into_iter().zip(row) {
            write!(line, "  {cell:width$}")?;
        }
        writeln!(f, "{}", line.trim_end())?;
    }
    Ok(())
}

/// Text of a peer, with whatever a terminal would obey written out.
struct Plain<'a>(&'a str);

impl fmt::Display for Plain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            if c.is_control() {
                write!(f, "{}", c.escape_default())?;
            } else {
                f.write_char(c)?;
            }
        }
        Ok(())
    }
}

/// Milliseconds as a person reads them.
struct Span(u64);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0 / 1_000;
        match seconds {
            0..60 => write!(f, "{seconds}.{} s", self.0 % 1_000 / 100),
            60..3_600 => write!(f, "{} min {} s", seconds / 60, seconds % 60),
            3_600..86_400 => write!(f, "{} h {} min", seconds / 3_600, seconds / 60 % 60),
            _ => write!(f, "{} d {} h", seconds / 86_400, seconds / 3_600 % 24),
        }
    }
}

#[cfg(test)]
mod tests {
    use miniserde::json;

    use super::*;

    /// The object of the interface, byte for byte.
    const EXAMPLE: &str = concat!(
        r#"{"role":"native","peer_id":"12D3A","name":null,"tags":{},"version":"0.1.0","#,
        r#""uptime_ms":61000,"listen":["/ip4/127.0.0.1/tcp/4820"],"#,
        r#""natives":["/ip4/192.0.2.9/tcp/4820/p2p/12D3F"],"#,
        r#""native_option":"--native /ip4/127.0.0.1/tcp/4820/p2p/12D3A","#,
        r#""live_indexers":[{"peer_id":"12D3B","addrs":["/ip4/127.0.0.1/tcp/1"],"#,
        r#""expires_in_ms":1500,"source":"heartbeat","failures":0},"#,
        r#"{"peer_id":"12D3LONGER","addrs":[],"expires_in_ms":90000,"source":"dht","failures":2}],"#,
        r#""known_peer_ids":["12D3B","12D3LONGER"],"#,
        r#""responsible_peers":[{"peer_id":"12D3N","since_ms":0}],"#,
        r#""stream_records":[{"peer_id":"12D3B","role":"indexer","last_seen_ms":7,"expires_in_ms":8}],"#,
        r#""leases":[{"peer_id":"12D3C","role":"native","expires_in_ms":0}],"#,
        r#""loops":{"gc":{"runs":0,"last_ms":0},"offload":{"runs":3,"last_ms":4}},"#,
        r#""tables":[{"name":"live_indexers","used":2,"capacity":256,"refused":0,"evicted":0}],"#,
        r#""contested":[{"peer_id":"12D3D","kept":"192.0.2.1","refused":"192.0.2.2","last_ms":5}],"#,
        r#""troubles":[{"peer_id":"12D3E","what":"does not answer"}]}"#
    );

    fn example() -> Status {
        json::from_str(EXAMPLE).unwrap()
    }

    #[test]
    fn status_keeps_every_field_of_the_interface() {
        assert_eq!(json::to_string(&example()), EXAMPLE);
    }

    #[test]
    fn role_without_loops_has_an_empty_object() {
        let status = Status {
            loops: BTreeMap::new(),
            ..example()
        };
        assert!(json::to_string(&status).contains(r#""loops":{},"#));
    }

    #[test]
    fn unknown_free_leases_are_null() {
        let text = r#"{"complete":true,"asked":1,"answered":1,"silent":[],"indexers":[{"peer_id":"a","addrs":[],"expires_in_ms":1,"free_leases":null},{"peer_id":"b","addrs":["x"],"expires_in_ms":1,"free_leases":3}]}"#;
        let list: IndexerList = json::from_str(text).unwrap();
        assert_eq!(json::to_string(&list), text);
        let shown = list.to_string();
        assert!(shown.contains("free leases unknown"), "{shown}");
        assert!(shown.contains("3 leases free"), "{shown}");
    }

    #[test]
    fn status_is_aligned_for_a_person() {
        let shown = example().to_string();
        let column = |row: &str| {
            let line = shown.lines().find(|line| line.contains(row)).unwrap();
            line.find("ends in").unwrap()
        };
        assert_eq!(column("by beat"), column("from the DHT"));
        assert!(shown.contains("up 1 min 1 s"), "{shown}");
        assert!(shown.contains("0 runs"), "{shown}");
        assert!(shown.contains("not yet"), "{shown}");
        assert!(shown.lines().all(|line| line == line.trim_end()));
    }

    #[test]
    fn what_others_are_started_with_is_shown_whole_or_said_to_be_unknown() {
        let whole = "others are started with: --native /ip4/127.0.0.1/tcp/4820/p2p/12D3A\n";
        assert!(example().to_string().contains(whole));
        let native_option = None;
        let unknown = Status {
            native_option,
            ..example()
        };
        let shown = unknown.to_string();
        assert!(
            shown.contains("others are started with: not known yet"),
            "{shown}"
        );
        assert!(json::to_string(&unknown).contains(r#""native_option":null,"#));
        let node = Status {
            role: Role::Node,
            ..unknown
        };
        assert!(!node.to_string().contains("others are started"));
    }

    #[test]
    fn empty_tables_are_said_in_words() {
        let status = Status {
            role: Role::Node,
            leases: vec![],
            listen: vec![],
            ..example()
        };
        let shown = status.to_string();
        assert!(shown.contains("leases held: none: under nobody"), "{shown}");
        assert!(shown.contains("listening on: no address"), "{shown}");
        assert!(!shown.contains("live indexers"), "{shown}");
        let nobody = IndexerList {
            complete: true,
            asked: 1,
            answered: 1,
            silent: vec![],
            indexers: vec![],
        };
        assert_eq!(nobody.to_string(), "indexers: none is known\n");
    }

    #[test]
    fn answer_says_how_far_it_goes() {
        let list = |complete, asked, answered| {
            let list = IndexerList {
                complete,
                asked,
                answered,
                silent: vec![],
                indexers: vec![],
            };
            list.to_string()
        };
        let none = "indexers: none is known\n";
        for (seen, said) in [
            (list(true, 2, 2), ""),
            (list(false, 0, 0), "incomplete: no server could be asked\n"),
            (
                list(false, 3, 2),
                "incomplete: 1 of 3 servers asked did not answer\n",
            ),
            (
                list(false, 2, 2),
                "incomplete: there is more than one answer holds\n",
            ),
        ] {
            assert_eq!(seen, format!("{none}{said}"));
        }
    }

    #[test]
    fn node_says_what_it_is_found_by_and_which_natives_it_knows() {
        let node = Status {
            role: Role::Node,
            name: Some("cam-3".into()),
            tags: BTreeMap::from([("room".into(), "hall".into()), ("floor".into(), "2".into())]),
            ..example()
        };
        let shown = node.to_string();
        let expected = "node 12D3A\nname: cam-3\ntags:\n  floor=2\n  room=hall\n";
        assert!(shown.starts_with(expected), "{shown}");
        let natives = "\nnatives: /ip4/192.0.2.9/tcp/4820/p2p/12D3F\n";
        assert!(shown.contains(natives), "{shown}");
        let bare = Status {
            tags: BTreeMap::new(),
            natives: vec![],
            ..node
        };
        let shown = bare.to_string();
        assert!(shown.contains("\ntags: none\n"), "{shown}");
        assert!(shown.contains("\nnatives: none is known\n"), "{shown}");
        let native = example().to_string();
        assert!(
            !native.contains("name:") && !native.contains("tags:"),
            "{native}"
        );
        let json = json::to_string(&bare);
        assert!(json.contains(r#""name":"cam-3","tags":{},"#), "{json}");
    }

    #[test]
    fn every_claimant_is_shown_and_cannot_drive_the_terminal() {
        let record = |peer: &str| FoundRecord {
            peer_id: peer.into(),
            name: "cam".into(),
            addrs: vec!["/ip4/1.2.3.4/tcp/5".into(), "/ip4/1.2.3.4/tcp/6".into()],
            tags: BTreeMap::from([("room".into(), "\u{1b}[2Jhall".into())]),
            expires_in_ms: 1_000,
            source: "indexer".into(),
        };
        let found = Found {
            query: "cam".into(),
            complete: true,
            asked: 2,
            answered: 2,
            silent: vec![],
            records: vec![record("12D3A"), record("12D3B")],
        };
        let shown = found.to_string();
        assert!(
            shown.contains("12D3A") && shown.contains("12D3B"),
            "{shown}"
        );
        assert!(shown.contains("/ip4/1.2.3.4/tcp/6"), "{shown}");
        assert!(shown.contains(r"room=\u{1b}[2Jhall"), "{shown}");
        assert!(!shown.contains('\u{1b}'), "{shown}");
        let text = json::to_string(&found);
        assert_eq!(json::from_str::<Found>(&text).unwrap(), found);
    }
}
