//! What `config show` shows.

use std::fmt;

use miniserde::{Deserialize, Serialize};

/// The settings of a process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ConfigReport {
    /// 1. It is increased when a field changes its meaning or is removed.
    pub(crate) schema: u32,
    /// The role of the process.
    pub(crate) role: String,
    /// The files that were read, in their order.
    pub(crate) files: Vec<String>,
    /// All settings of the role.
    pub(crate) settings: Vec<Shown>,
}

/// A setting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Shown {
    /// Its key.
    pub(crate) key: String,
    /// Its values, as its option has them. None: there is no value, also no default.
    pub(crate) values: Vec<String>,
    /// Where they come from: its option, a line of a file, or `default`.
    pub(crate) from: String,
    /// Whether a reload applies it.
    pub(crate) reloads: bool,
    /// What it is.
    pub(crate) help: String,
}

impl fmt::Display for ConfigReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let widest = |of: fn(&Shown) -> usize| self.settings.iter().map(of).max().unwrap_or(0);
        let keys = widest(|shown| shown.key.len());
        let values = widest(|shown| shown.values.iter().map(String::len).max().unwrap_or(0));
        // A multiaddress is long: what follows it is moved, and all others stay in their column.
        let values = values.min(24);
        for shown in &self.settings {
            let first = shown.values.first().map_or("-", String::as_str);
            let (key, from) = (&shown.key, &shown.from);
            writeln!(f, "{key:keys$}  {first:values$}  {from}")?;
            for value in shown.values.iter().skip(1) {
                writeln!(f, "{:keys$}  {value}", "")?;
            }
        }
        match self.files.as_slice() {
            [] => writeln!(f, "no file was read"),
            files => writeln!(f, "read: {}", files.join(", ")),
        }
    }
}
