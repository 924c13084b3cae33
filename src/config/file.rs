//! Reads a file of settings: TOML, with the options of the table of settings as its keys.
//!
//! Invariants: a file is regular and has at most [`MAX_BYTES`]; what is wrong in it is listed with
//! line and column, in the order of the file, [`MAX_FAULTS`] at most; a value becomes what its
//! option would have, so that one parser has the bounds of both.

use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, Read as _};
use std::ops::Range;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::rc::Rc;

use rustix::fs::OFlags;
use toml::Spanned;
use toml::de::{DeArray, DeString, DeTable, DeValue};

use super::near::nearest;
use super::settings::{Kind, SETTINGS, Setting};
use super::{Role, services::A_NAME, values::Human};
use crate::protocol::order::sort_few;

/// Bytes of a file.
pub(crate) const MAX_BYTES: u64 = 64 * 1024;
/// What is wrong in a file: the first of it.
const MAX_FAULTS: usize = 32;
/// Characters in a message of a value of another type than its key has.
const SHOWN: usize = 60;
/// The same of a value of the right type, an address with an id for example.
const SHOWN_TEXT: usize = 120;
/// The keys of a service.
const OF_SERVICE: [&str; 4] = ["name", "port", "proto", "check"];

/// A file as it was read.
struct Source {
    /// Its number in the order of reading.
    number: usize,
    name: String,
    text: String,
}

/// A place in a file. Its line is counted when it is shown: a file may have thousands of values.
#[derive(Clone)]
pub(crate) struct Place {
    source: Rc<Source>,
    /// In bytes.
    at: usize,
}

impl Place {
    /// The file's number in the order of reading, and the place in it.
    pub(super) fn order(&self) -> (usize, usize) {
        (self.source.number, self.at)
    }

    /// The file and the line.
    pub(super) fn line(&self) -> String {
        let (line, _) = self.line_and_column();
        format!("{}:{line}", self.source.name)
    }

    /// Both begin with 1.
    fn line_and_column(&self) -> (usize, usize) {
        let text = &self.source.text;
        let before = text.get(..self.at).unwrap_or(text);
        let line = before.rsplit('\n').next().unwrap_or_default();
        (1 + before.matches('\n').count(), 1 + line.chars().count())
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (line, column) = self.line_and_column();
        write!(f, "{}:{line}:{column}", self.source.name)
    }
}

/// A value of a file.
#[derive(Clone)]
pub(super) struct Written {
    /// As its option has it.
    pub(super) text: String,
    /// As the file has it, with its key, for a sentence about it: `name = "HTTP"`.
    pub(super) shown: String,
    pub(super) place: Place,
}

type Values = Vec<Written>;

/// What is wrong with the settings.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Fault {
    /// The file, as a number in the order of reading, and the place in it, in bytes; `None`: it is
    /// about an option.
    pub(super) at: Option<(usize, usize)>,
    /// The setting that it is about, if a file has that.
    pub(super) setting: Option<&'static str>,
    /// With its place.
    pub(super) sentence: String,
}

/// What a file gives to a setting.
#[derive(Clone)]
pub(super) struct Given {
    pub(super) setting: &'static Setting,
    /// The place of the key.
    pub(super) key: Place,
    pub(super) values: Values,
}

/// Why a file could not be read: one sentence.
pub(super) struct Unread(pub(super) String);

/// The settings of a file, for a process with this role. `number`: how many were read before it.
/// What is wrong in it is added to `faults`.
///
/// # Errors
/// It cannot be read.
pub(super) fn read(
    path: &Path,
    number: usize,
    role: Role,
    faults: &mut Vec<Fault>,
) -> Result<Vec<Given>, Unread> {
    let fault = |at, sentence| Fault {
        at: Some((number, at)),
        setting: None,
        sentence,
    };
    let named = path.display();
    let bytes = content(path).map_err(|why| Unread(format!("{named}: {why}")))?;
    let text = match String::from_utf8(bytes) {
        Ok(text) => text,
        Err(why) => {
            let valid = why.utf8_error().valid_up_to();
            let before = why.as_bytes().get(..valid).unwrap_or_default();
            let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
            let sentence = format!("{named}:{line}: this line is not UTF-8 text");
            faults.push(fault(valid, sentence));
            return Ok(Vec::new());
        }
    };
    let name = named.to_string();
    let source = Rc::new(Source { number, name, text });
    let mut reader = Reader {
        source: Rc::clone(&source),
        text: &source.text,
        role,
        given: Vec::new(),
        faults: Vec::new(),
        more: 0,
    };
    reader.document();
    sort_few(&mut reader.faults, |(at, _)| at.start);
    let more = reader.more + reader.faults.len().saturating_sub(MAX_FAULTS);
    let told: Vec<_> = reader.faults.drain(..).take(MAX_FAULTS).collect();
    let told = told.into_iter().map(|(at, why)| {
        let place = reader.place(at);
        fault(place.at, format!("{place}: {why}"))
    });
    faults.extend(told);
    if more > 0 {
        faults.push(fault(usize::MAX, format!("{named}: and {more} more")));
    }
    Ok(reader.given)
}

fn content(path: &Path) -> io::Result<Vec<u8>> {
    // Opening a pipe would wait for its writer.
    let mut options = OpenOptions::new();
    let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed();
    let file = options.read(true).custom_flags(flags).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    let mut bytes = Vec::new();
    let read = file.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    match u64::try_from(read).is_ok_and(|read| read <= MAX_BYTES) {
        true => Ok(bytes),
        false => Err(io::Error::other(format!(
            "it has more than {} KiB, which is the most",
            MAX_BYTES / 1024
        ))),
    }
}

struct Reader<'t> {
    source: Rc<Source>,
    text: &'t str,
    role: Role,
    given: Vec<Given>,
    /// Each with its place in bytes.
    faults: Vec<(Range<usize>, String)>,
    /// Further ones, which are counted only: each place that is said costs a look at the whole
    /// text.
    more: usize,
}

type Key<'v> = Spanned<DeString<'v>>;
type Value<'v> = Spanned<DeValue<'v>>;

impl Reader<'_> {
    fn document(&mut self) {
        let (table, errors) = DeTable::parse_recoverable(self.text);
        self.more += errors.len().saturating_sub(MAX_FAULTS);
        for error in errors.iter().take(MAX_FAULTS) {
            let span = error.span().unwrap_or(0..0);
            let why = format!("this is not TOML: {}", error.message());
            self.fault(span, &why);
        }
        if errors.is_empty() {
            for (key, value) in table.get_ref() {
                self.entry(key, value);
            }
        }
    }

    fn entry(&mut self, key: &Key<'_>, value: &Value<'_>) {
        let name = key.get_ref().as_ref();
        let Some(setting) = SETTINGS.iter().find(|setting| setting.name == name) else {
            let role = self.role;
            let of_role = SETTINGS.iter().filter(|s| s.roles.contains(&role));
            return self.unknown(key, "", of_role.map(|setting| setting.name));
        };
        if !setting.roles.contains(&self.role) {
            let why = format!("{name}: only a node has this key; leave it out");
            return self.fault(key.span(), &why);
        }
        let values = match (setting.kind, value.get_ref()) {
            (Kind::Services(_), DeValue::Array(services)) => {
                return self.services(setting, key, services);
            }
            (Kind::Tags(_), DeValue::Table(tags)) => self.tags(key, tags),
            (Kind::List(_), DeValue::Array(values)) => self.texts(key, setting.kind, values),
            (kind, _) => self.one(key, kind, value).into_iter().collect(),
        };
        self.give(setting, key.span(), values);
    }

    /// A value that is no list.
    fn one(&mut self, key: &Key<'_>, kind: Kind, value: &Value<'_>) -> Option<Written> {
        let text = match (kind, value.get_ref()) {
            (Kind::Text | Kind::Duration(..) | Kind::List(_), DeValue::String(text)) => {
                text.to_string()
            }
            (Kind::Number(..), DeValue::Integer(number)) => number.to_string(),
            (Kind::Switch, DeValue::Boolean(is_set)) => is_set.to_string(),
            _ => {
                self.wrong_type(key, kind, value);
                return None;
            }
        };
        let short: String = text.chars().take(SHOWN_TEXT).collect();
        let cut = if short.len() < text.len() { "…" } else { "" };
        let key = key.get_ref();
        let shown = match value.get_ref() {
            DeValue::String(_) => format!("{key} = {:?}", short + cut),
            _ => format!("{key} = {short}"),
        };
        let place = self.place(value.span());
        Some(Written { text, shown, place })
    }

    fn texts(&mut self, key: &Key<'_>, kind: Kind, values: &DeArray<'_>) -> Values {
        let texts = values.iter().filter_map(|value| self.one(key, kind, value));
        texts.collect()
    }

    fn tags(&mut self, table: &Key<'_>, tags: &DeTable<'_>) -> Values {
        let mut values = Vec::new();
        for (key, value) in tags {
            let name = key.get_ref();
            if name.contains('=') {
                let why = format!("{table} {name:?}: a key has no =", table = table.get_ref());
                self.fault(key.span(), &why);
            } else if let Some(tag) = self.one(key, Kind::Text, value) {
                let text = format!("{name}={}", tag.text);
                let place = self.place(key.span());
                values.push(Written { text, place, ..tag });
            }
        }
        values
    }

    fn services(&mut self, setting: &'static Setting, key: &Key<'_>, services: &DeArray<'_>) {
        let (mut given, mut checks) = (Vec::new(), Vec::new());
        for service in services {
            match service.get_ref() {
                DeValue::Table(table) => {
                    self.service(table, service.span(), (&mut given, &mut checks))
                }
                _ => self.wrong_type(key, setting.kind, service),
            }
        }
        self.give(setting, key.span(), given);
        // A later file replaces the services with their checks.
        if let Some(check) = Setting::of("check") {
            self.give(check, key.span(), checks);
        }
    }

    fn service(
        &mut self,
        table: &DeTable<'_>,
        span: Range<usize>,
        (given, checks): (&mut Values, &mut Values),
    ) {
        let [mut name, mut port, mut proto, mut check] = [const { None }; 4];
        for (key, value) in table {
            let (kind, place) = match key.get_ref().as_ref() {
                "name" => (Kind::Text, &mut name),
                "port" => (Kind::Number(1, 65535), &mut port),
                "proto" => (Kind::Text, &mut proto),
                "check" => (Kind::Text, &mut check),
                _ => {
                    self.unknown(key, " of a service", OF_SERVICE.into_iter());
                    continue;
                }
            };
            *place = self.one(key, kind, value);
        }
        let is_no_port = |port: &mut Written| !matches!(port.text.parse(), Ok(1..=u16::MAX));
        if let Some(wrong) = port.take_if(is_no_port) {
            self.refuse(&wrong, "give a number from 1 to 65535");
        }
        if let Some(wrong) = proto.take_if(|proto| !matches!(&*proto.text, "tcp" | "udp")) {
            self.refuse(&wrong, "give tcp or udp");
        }
        // The option of a service and that of a check have the name before this mark.
        if let Some(wrong) = name.take_if(|name| name.text.contains('=')) {
            self.refuse(&wrong, A_NAME);
        }
        // What has a wrong type was said already.
        for needed in ["name", "port"] {
            if !table.keys().any(|key| key.get_ref() == needed) {
                let why = format!("service: it has no {needed}, and needs one");
                self.fault(span.clone(), &why);
            }
        }
        let Some(name) = name else {
            return;
        };
        let called = &name.text;
        if let Some(check) = check {
            let text = format!("{called}={}", check.text);
            checks.push(Written { text, ..check });
        }
        // What is wrong with its port was said. Another one stands for it, so that what else is
        // wrong with the service, or with its check, is found, too.
        let port = port.map_or_else(|| "1".to_owned(), |port| port.text);
        let proto = proto.map_or_else(String::new, |proto| format!("{}:", proto.text));
        let text = format!("{called}={proto}{port}");
        given.push(Written { text, ..name });
    }

    fn refuse(&mut self, value: &Written, why: &str) {
        let at = value.place.at;
        self.fault(at..at, &format!("{}: {why}", value.shown));
    }

    fn give(&mut self, setting: &'static Setting, key: Range<usize>, values: Values) {
        let key = self.place(key);
        self.given.push(Given {
            setting,
            key,
            values,
        });
    }

    fn unknown(
        &mut self,
        key: &Key<'_>,
        of: &str,
        known: impl Iterator<Item = &'static str> + Clone,
    ) {
        let name: String = key.get_ref().chars().take(SHOWN).collect();
        let why = match nearest(&name, known.clone()) {
            Some(meant) => format!("unknown key {name:?}{of}: did you mean {meant:?}?"),
            None => {
                let known: Vec<_> = known.collect();
                format!("unknown key {name:?}{of}: give one of {}", known.join(", "))
            }
        };
        self.fault(key.span(), &why);
    }

    fn wrong_type(&mut self, key: &Key<'_>, kind: Kind, value: &Value<'_>) {
        let span = value.span();
        let (key, article) = (
            key.get_ref(),
            match value.get_ref() {
                DeValue::Integer(_) | DeValue::Array(_) => "an",
                _ => "a",
            },
        );
        let found = value.get_ref().type_str();
        let written = self.text.get(span.clone()).unwrap_or_default();
        let line = written.lines().next().unwrap_or_default();
        let shown: String = line.chars().take(SHOWN).collect();
        let wants = match kind {
            Kind::Text => "give a text in quotes".to_owned(),
            Kind::Duration(min, max) => format!(
                "give a duration in quotes, {} to {}, such as \"90s\"",
                Human(min),
                Human(max)
            ),
            Kind::Number(min, max) => format!("give a number from {min} to {max}"),
            Kind::Switch => "give true or false".to_owned(),
            Kind::List(most) => format!("give a list of texts in quotes, {most} at most"),
            Kind::Tags(_) => format!("write it as a table: [{key}], then KEY = \"VALUE\""),
            Kind::Services(_) => format!("write [[{key}]], then name = \"http\" and port = 80"),
            Kind::OfService(_) => "write it into the [[service]] that it is for".to_owned(),
        };
        let why = format!("{key} = {shown}: it is {article} {found}; {wants}");
        self.fault(span, &why);
    }

    fn fault(&mut self, span: Range<usize>, why: &str) {
        self.faults.push((span, why.to_owned()));
    }

    fn place(&self, span: Range<usize>) -> Place {
        Place {
            source: Rc::clone(&self.source),
            at: span.start,
        }
    }
}
