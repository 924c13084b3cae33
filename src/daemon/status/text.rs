//! The objects of the control socket as text for people: lists and tables with titles; empty ones
//! say so in words.
//!
//! Invariant: text from a peer is printed only through [`Plain`], so that it cannot drive the
//! terminal.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::time::Duration;

use super::{CheckState, Found, IndexerList, Protocol, Service, Source, Status};
use crate::config::Role;

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} {}", self.role, Plain(&self.peer_id))?;
        if let Some(name) = &self.name {
            writeln!(f, "name: {}", Plain(name))?;
            list(f, "tags", "none", &pairs(&self.tags))?;
            let services = self.services.iter();
            let services =
                services.map(|s| format!("{} at port {}{}", named(s), s.port, of_device(s)));
            list(f, "services", "none", &services.collect::<Vec<_>>())?;
            self.checks(f)?;
        }
        writeln!(
            f,
            "version {}, up {}",
            Plain(&self.version),
            Span(self.uptime_ms)
        )?;
        list(f, "listening on", "no address", &self.listen)?;
        let none = match self.role {
            Role::Native => "no other is known, and this one needs none",
            Role::Indexer | Role::Node => "none is known",
        };
        list(f, "natives", none, &self.natives)?;
        if !self.found_natives.is_empty() {
            list(f, "natives found, not trusted", "none", &self.found_natives)?;
        }
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
    /// Writes the known problems; nothing if there are none.
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

    /// Writes the state of each check; nothing if there are none.
    fn checks(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = self.checks.iter().map(|check| {
            let state = match check.state {
                CheckState::Starting => "not checked yet",
                CheckState::Ok => "passes",
                CheckState::Failing => "fails, not in the record",
            };
            let since = check.since_ms.map(|since| format!("for {}", Span(since)));
            let name = check.service.clone();
            let error = check.error.clone().unwrap_or_default();
            [
                name,
                check.check.clone(),
                state.to_owned(),
                since.unwrap_or_default(),
                error,
            ]
        });
        match self.checks.is_empty() {
            true => Ok(()),
            false => table(f, "checks of services", "none", rows),
        }
    }

    fn leases(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = self.leases.iter().map(|lease| {
            let end = format!("ends in {}", Span(lease.expires_in_ms));
            [lease.peer_id.clone(), lease.role.to_string(), end]
        });
        let none = match self.role {
            Role::Native if self.natives.is_empty() => "none: there is no other native",
            _ => "none: no server has granted one",
        };
        table(f, "leases held", none, rows)
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
                None if indexer.source == "lease" => "grants our lease".to_owned(),
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
            list(f, "  addresses", "none", &record.addresses)?;
            list(f, "  tags", "none", &pairs(&record.tags))?;
            let services = record.services.iter();
            let services = services.map(|s| {
                let at = record.addresses_of(s).join(" ");
                format!("{} at {at}{}", named(s), of_device(s))
            });
            list(f, "  services", "none", &services.collect::<Vec<_>>())?;
            if let Some(age) = record.last_beat_ms {
                writeln!(f, "  last beat {} ago", Span(age))?;
            }
            writeln!(
                f,
                "  from the record's copy at: {}, ends in {}",
                Plain(&record.source),
                Span(record.expires_in_ms)
            )?;
        }
        if self.more {
            let (claims, shown) = (self.claims(), self.records.len());
            writeln!(
                f,
                "{claims} this name; {shown} are shown, oldest claim first"
            )?;
        }
        say_shortfall(f, self.shortfall())
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

/// The service's name, with its unusual properties.
fn named(service: &Service) -> String {
    match service.protocol {
        Protocol::Tcp => service.name.clone(),
        Protocol::Udp => format!("{} (UDP)", service.name),
    }
}

/// The device of the link that offers the service, if one does.
fn of_device(service: &Service) -> String {
    let device = service.device.as_deref();
    device.map_or_else(String::new, |device| format!(" (device {device})"))
}

/// A titled list: on the line of the title if it has at most one item, otherwise with one item on
/// each line.
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
pub(in crate::daemon) fn table<const COLUMNS: usize>(
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

/// Text of a peer, with the characters escaped that a terminal would obey.
pub(crate) struct Plain<'a>(pub(crate) &'a str);

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

/// Milliseconds in a readable form.
pub(crate) struct Span(u64);

impl Span {
    pub(crate) fn of(time: Duration) -> Self {
        Self(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
    }
}

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
