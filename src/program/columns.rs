//! Nodes as a table, with columns that are made before all rows are known.
//!
//! On a terminal a line is not longer than the terminal is wide. What does not fit gives way in
//! this order: VERSION is left out, TAGS are cut, names are cut to twenty letters, TAGS are left
//! out, SERVICES are cut and then left out, and addresses and names are cut further. Elsewhere
//! nothing is left out or cut: a longer cell moves the rest of its line. An empty cell is `-`.

use std::fmt;

use super::width::{cut, padded, width};
use crate::daemon::status::{NodeRow, Plain, Protocol};

const COLUMNS: usize = 8;
const TITLES: [&str; COLUMNS] = [
    "NAME",
    "STATE",
    "LAST BEAT",
    "ADDRESS",
    "SERVICES",
    "TAGS",
    "VERSION",
    "ID",
];
const NAME: usize = 0;
const ADDRESS: usize = 3;
const SERVICES: usize = 4;
const TAGS: usize = 5;
const VERSION: usize = 6;
/// Spaces between two columns.
const GAP: usize = 2;
/// The width to which a column may be cut.
const SHORTEST: usize = 8;
/// The width to which names are cut while other columns can give way.
const SHORT_NAME: usize = 20;

/// The widths of the columns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Columns {
    /// 0: the column is left out.
    widths: [usize; COLUMNS],
    /// Longer cells are cut.
    cuts: bool,
}

impl Columns {
    /// Columns that these rows need, and that fit a terminal of this width.
    pub(super) fn for_rows<'a>(
        rows: impl Iterator<Item = &'a NodeRow>,
        terminal: Option<usize>,
    ) -> Self {
        let mut widths = TITLES.map(width);
        for row in rows {
            for (widest, cell) in widths.iter_mut().zip(cells(row)) {
                *widest = width(&cell).max(*widest);
            }
        }
        let mut columns = Self {
            widths,
            cuts: terminal.is_some(),
        };
        if let Some(terminal) = terminal {
            columns.fit(terminal);
        }
        columns
    }

    fn fit(&mut self, terminal: usize) {
        // The shortest that it is cut to; 0: it is left out.
        let steps = [
            (VERSION, 0),
            (TAGS, SHORTEST),
            (NAME, SHORT_NAME),
            (TAGS, 0),
            (SERVICES, SHORTEST),
            (SERVICES, 0),
            (ADDRESS, SHORTEST),
            (NAME, SHORTEST),
        ];
        for (column, shortest) in steps {
            let over = self.length().saturating_sub(terminal);
            let Some(width) = self.widths.get_mut(column).filter(|_| over > 0) else {
                continue;
            };
            *width = match width.checked_sub(over) {
                Some(rest) if shortest > 0 && rest >= shortest => rest,
                _ => shortest.min(*width),
            };
        }
        // Cells that come later may be a bit longer.
        for (column, more) in [(NAME, 4), (ADDRESS, 4)] {
            let more = terminal.saturating_sub(self.length()).min(more);
            if let Some(width) = self.widths.get_mut(column) {
                *width += more;
            }
        }
    }

    /// The width of a whole line.
    fn length(&self) -> usize {
        let shown = self.widths.iter().filter(|width| **width > 0);
        shown
            .map(|width| width + GAP)
            .sum::<usize>()
            .saturating_sub(GAP)
    }

    /// Adds the line of titles.
    pub(super) fn head(&self, text: &mut String) {
        self.line(text, TITLES.map(String::from));
    }

    /// Adds the line of a node.
    pub(super) fn row(&self, text: &mut String, row: &NodeRow) {
        self.line(text, cells(row));
    }

    fn line(&self, text: &mut String, cells: [String; COLUMNS]) {
        let mut line = String::new();
        for (cell, width) in cells
            .into_iter()
            .zip(self.widths)
            .filter(|(_, width)| *width > 0)
        {
            let cell = if self.cuts { cut(&cell, width) } else { cell };
            line.push_str(&padded(&cell, width));
            line.push_str("  ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
}

fn cells(row: &NodeRow) -> [String; COLUMNS] {
    let services = row.services.iter().map(|service| {
        // That of a device is not at the address of the row.
        let at = service.addresses.iter().flatten().next();
        let at = at.map_or_else(String::new, |ip| format!("@{ip}"));
        match service.protocol {
            Protocol::Tcp => format!("{}:{}{at}", service.name, service.port),
            Protocol::Udp => format!("{}:udp:{}{at}", service.name, service.port),
        }
    });
    let tags = row.tags.iter().map(|(key, value)| format!("{key}={value}"));
    let id = row.peer_id.len().saturating_sub(SHORTEST);
    let cells = [
        row.name.clone(),
        row.state.name().to_owned(),
        Ago(row.last_beat_ms).to_string(),
        host(row),
        services.collect::<Vec<_>>().join(","),
        tags.collect::<Vec<_>>().join(","),
        row.version.clone(),
        row.peer_id.get(id..).unwrap_or(&row.peer_id).to_owned(),
    ];
    cells.map(|cell| match cell.as_str() {
        "" => "-".to_owned(),
        cell => Plain(cell).to_string(),
    })
}

/// The host of the best address.
fn host(row: &NodeRow) -> String {
    let best = row.addresses.first().map(|addr| addr.split('/').nth(2));
    best.flatten().unwrap_or_default().to_owned()
}

/// Milliseconds in at most six letters, below 100 days.
struct Ago(u64);

impl fmt::Display for Ago {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0 / 1_000;
        let (minutes, hours) = (seconds / 60, seconds / 3_600);
        match seconds {
            0..10 => write!(f, "{seconds}.{}s", self.0 % 1_000 / 100),
            10..60 => write!(f, "{seconds}s"),
            60..3_600 => write!(f, "{minutes}m{:02}s", seconds % 60),
            3_600..86_400 => write!(f, "{hours}h{:02}m", minutes % 60),
            _ => write!(f, "{}d{:02}h", hours / 24, hours % 24),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::daemon::status::{NodeState, Service};

    fn node(name: &str, tags: &[(&str, &str)]) -> NodeRow {
        let tags = tags.iter().map(|&(key, value)| (key.into(), value.into()));
        NodeRow {
            name: name.into(),
            peer_id: "12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp".into(),
            state: NodeState::Alive,
            last_beat_ms: 1_234,
            addresses: vec!["/ip4/192.168.100.117/tcp/4833".into()],
            services: vec![Service {
                name: "http".into(),
                protocol: Protocol::Tcp,
                port: 8080,
                device: None,
                addresses: None,
            }],
            tags: tags.collect::<BTreeMap<_, _>>(),
            version: "0.1.0".into(),
            server: None,
        }
    }

    fn table(rows: &[NodeRow], terminal: Option<usize>) -> Vec<String> {
        let columns = Columns::for_rows(rows.iter(), terminal);
        let mut text = String::new();
        columns.head(&mut text);
        rows.iter().for_each(|row| columns.row(&mut text, row));
        text.lines().map(String::from).collect()
    }

    #[test]
    fn all_columns_are_shown_where_there_is_room() {
        let shown = [
            "NAME    STATE  LAST BEAT  ADDRESS          SERVICES   TAGS    VERSION  ID",
            "pump-3  alive  1.2s       192.168.100.117  http:8080  room=1  0.1.0    vnc6iDEp",
        ];
        assert_eq!(table(&[node("pump-3", &[("room", "1")])], None), shown);
    }

    #[test]
    fn version_goes_first_then_tags_then_services_and_then_cells_are_cut() {
        let row = node(
            "pump-station-17.roof",
            &[("room", "boiler house"), ("floor", "2")],
        );
        let mut titles = Vec::new();
        for terminal in (30..=140).rev() {
            for line in table(std::slice::from_ref(&row), Some(terminal)) {
                let length = line.chars().count();
                // Three columns are never cut, and two keep eight letters.
                assert!(length <= terminal.max(46), "{terminal}: {line}");
            }
            let columns = Columns::for_rows([&row].into_iter(), Some(terminal));
            let shown = columns.widths.map(|width| width > 0);
            if titles.last() != Some(&shown) {
                titles.push(shown);
            }
        }
        let without = |gone: &[usize]| -> [bool; COLUMNS] {
            std::array::from_fn(|column| !gone.contains(&column))
        };
        let order = [
            &[][..],
            &[VERSION],
            &[VERSION, TAGS],
            &[VERSION, TAGS, SERVICES],
        ];
        assert_eq!(titles, order.map(without));
    }

    #[test]
    fn cells_are_cut_on_a_terminal_alone() {
        let (short, long) = (node("a", &[]), node("a-name-that-comes-later", &[]));
        let columns = Columns::for_rows([&short].into_iter(), Some(72));
        let mut text = String::new();
        columns.row(&mut text, &long);
        assert!(text.starts_with("a-name-…  alive"), "{text}");
        let piped = Columns::for_rows([&short].into_iter(), None);
        text.clear();
        piped.row(&mut text, &long);
        assert!(text.starts_with("a-name-that-comes-later  alive"), "{text}");
    }

    #[test]
    fn what_is_not_known_is_a_dash_and_nothing_drives_the_terminal() {
        let mut row = node("\x1b[2Jx", &[]);
        row.state = NodeState::Lost;
        (row.addresses, row.services, row.version) = Default::default();
        let shown = &table(&[row], None)[1];
        assert!(
            shown.starts_with("\\u{1b}[2Jx  lost   1.2s       -        -         -     -"),
            "{shown}"
        );
    }

    #[test]
    fn times_are_short() {
        let shown = [
            0, 9_999, 10_000, 59_999, 60_000, 3_599_999, 3_600_000, 86_399_000, 90_000_000,
        ];
        let shown = shown.map(|ms| Ago(ms).to_string());
        let expected = [
            "0.0s", "9.9s", "10s", "59s", "1m00s", "59m59s", "1h00m", "23h59m", "1d01h",
        ];
        assert_eq!(shown, expected);
    }
}
