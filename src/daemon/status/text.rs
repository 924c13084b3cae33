//! The objects of the control socket as text for people: lists and tables with titles; empty ones
//! say so in words.
//!
//! Invariant: text from a peer is printed only through [`Plain`], so that it cannot drive the
//! terminal.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::time::Duration;

use super::{Found, IndexerList, Protocol, Service, counted};

impl fmt::Display for IndexerList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = self.indexers.iter().map(|indexer| {
            let free = match indexer.free_leases {
                Some(free) => format!("{} free", counted(&free, "lease")),
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
        table(f, "indexers", "none is known", rows)
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
        Ok(())
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
            if is_obeyed(c) {
                write!(f, "{}", c.escape_default())?;
            } else {
                f.write_char(c)?;
            }
        }
        Ok(())
    }
}

/// Whether a terminal or an editor obeys this character instead of showing it: a control character,
/// the end of a line or paragraph, or one that turns the direction of what follows (Unicode
/// Standard Annex 9), so that a row of a table could be made to look like another.
pub(crate) fn is_obeyed(c: char) -> bool {
    let turns = matches!(
        c,
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2066}'..='\u{2069}'
    );
    c.is_control() || turns || matches!(c, '\u{2028}'..='\u{202e}')
}

/// A multiaddress of an IP address or a name as `HOST:PORT`; any other as it is.
#[cfg(feature = "program")]
pub(crate) fn host_and_port(addr: &str) -> String {
    let mut parts = addr.split('/').skip(1);
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some("ip6"), Some(ip), Some("tcp"), Some(port)) => format!("[{ip}]:{port}"),
        (Some("ip4" | "dns" | "dns4" | "dns6"), Some(host), Some("tcp"), Some(port)) => {
            format!("{host}:{port}")
        }
        _ => addr.to_owned(),
    }
}

/// Milliseconds in one unit, for a sentence.
pub(super) struct Coarse(pub(super) u64);

impl fmt::Display for Coarse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0 / 1_000;
        match seconds {
            0..60 => write!(f, "{seconds} s"),
            60..3_600 => write!(f, "{} min", seconds / 60),
            3_600..86_400 => write!(f, "{} h", seconds / 3_600),
            _ => write!(f, "{} d", seconds / 86_400),
        }
    }
}

/// Milliseconds in a readable form.
pub(crate) struct Span(u64);

impl Span {
    #[cfg(feature = "program")]
    pub(crate) fn ms(millis: u64) -> Self {
        Self(millis)
    }

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
