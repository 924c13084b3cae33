//! How the demo tells what happens: as text, and on a terminal that takes colour with a clock that
//! runs while a step waits.

use std::io::{self, Write};
use std::time::Duration;

use super::Secs;

/// Columns of a line. A word that is longer has a line of its own.
const COLUMNS: usize = 80;
/// Columns before the text of a step.
const INDENT: usize = 3;
/// Begins the line again, and removes what is on it.
const AGAIN: &str = "\r\x1b[K";

/// Where the demo is told.
pub(super) struct Screen<'a> {
    out: &'a mut dyn Write,
    /// It has colour and a clock.
    is_live: bool,
}

impl<'a> Screen<'a> {
    pub(super) fn new(out: &'a mut dyn Write, is_live: bool) -> Self {
        Self { out, is_live }
    }

    /// Tells text that belongs to no step.
    pub(super) fn tell(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.out, "{}", wrapped(text, 0))
    }

    /// Begins a step.
    pub(super) fn begin(&mut self, number: usize, name: &str, waits_for: &str) -> io::Result<()> {
        let waits = wrapped(&format!("waiting for {waits_for}"), INDENT);
        match self.is_live {
            true => writeln!(self.out, "\x1b[1m{number}. {name}\x1b[0m\n{waits}"),
            false => writeln!(self.out, "{number}. {name}\n{waits}"),
        }?;
        self.out.flush()
    }

    /// Shows how long the step has waited.
    pub(super) fn tick(&mut self, waited: Duration) -> io::Result<()> {
        if !self.is_live {
            return Ok(());
        }
        write!(self.out, "{AGAIN}   {}", Secs(waited))?;
        self.out.flush()
    }

    /// Ends a step with what was seen.
    pub(super) fn end(&mut self, saw: &str, took: Duration) -> io::Result<()> {
        self.clear()?;
        let saw = wrapped(&format!("saw {saw} ({})", Secs(took)), INDENT);
        match self.is_live {
            true => writeln!(self.out, "\x1b[32m{saw}\x1b[0m\n"),
            false => writeln!(self.out, "{saw}\n"),
        }
    }

    /// Removes the clock.
    pub(super) fn clear(&mut self) -> io::Result<()> {
        match self.is_live {
            true => write!(self.out, "{AGAIN}").and_then(|()| self.out.flush()),
            false => Ok(()),
        }
    }
}

/// The text in lines of at most [`COLUMNS`], which begin with so many spaces.
fn wrapped(text: &str, indent: usize) -> String {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.is_empty() => *line = format!("{:indent$}{word}", ""),
            Some(line) if line.chars().count() + 1 + word.chars().count() <= COLUMNS => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(format!("{:indent$}{word}", "")),
        }
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_end_between_words_at_the_last_column() {
        let fits = format!("{} {}", "a".repeat(40), "b".repeat(36));
        assert_eq!(wrapped(&fits, 3), format!("   {fits}"));
        let (one, other) = ("a".repeat(40), "b".repeat(37));
        let text = wrapped(&format!("{one} {other}"), 3);
        assert_eq!(text, format!("   {one}\n   {other}"));
        let long = "x".repeat(100);
        assert_eq!(
            wrapped(&format!("at {long} now"), 0),
            format!("at\n{long}\nnow")
        );
    }

    #[test]
    fn clock_and_colour_are_for_a_terminal() {
        for (is_live, told) in [
            (false, "1. up\n   waiting for it\n   saw it (1.0 s)\n\n"),
            (
                true,
                "\x1b[1m1. up\x1b[0m\n   waiting for it\n\r\x1b[K   0.5 s\r\x1b[K\x1b[32m   saw it (1.0 s)\x1b[0m\n\n",
            ),
        ] {
            let mut out = Vec::new();
            let mut screen = Screen::new(&mut out, is_live);
            screen.begin(1, "up", "it").unwrap();
            screen.tick(Duration::from_millis(500)).unwrap();
            screen.end("it", Duration::from_secs(1)).unwrap();
            assert_eq!(String::from_utf8(out).unwrap(), told);
        }
    }
}
