//! Text on a terminal: how many columns it takes, where it is cut or wrapped, and colour.
//!
//! Invariants: nothing is cut within a letter or wrapped within a word; without a terminal, with
//! `NO_COLOR` (no-color.org) or with `TERM=dumb` there is no colour.

use std::io::{self, IsTerminal as _};

use rustix::termios::tcgetwinsize;

/// The terminal's width if it is not known.
const USUAL: usize = 80;

/// Letters of two columns: those of East Asia that Unicode calls wide or full-width, and emoji.
const WIDE: [(u32, u32); 9] = [
    (0x1100, 0x115f),
    (0x2e80, 0xa4cf),
    (0xac00, 0xd7a3),
    (0xf900, 0xfaff),
    (0xfe30, 0xfe6f),
    (0xff00, 0xff60),
    (0xffe0, 0xffe6),
    (0x1_f300, 0x1_faff),
    (0x2_0000, 0x3_fffd),
];
/// Marks that join the letter before them.
const JOINED: [(u32, u32); 4] = [
    (0x0300, 0x036f),
    (0x200b, 0x200f),
    (0x20d0, 0x20ff),
    (0xfe00, 0xfe0f),
];

/// The width of the terminal at stdout, from the environment or else from the system. `None`:
/// stdout is no terminal.
pub(super) fn of_stdout() -> Option<usize> {
    let stdout = io::stdout();
    let given = || std::env::var("COLUMNS").ok()?.parse().ok();
    let asked = || match tcgetwinsize(&stdout) {
        Ok(size) if size.ws_col > 0 => usize::from(size.ws_col),
        _ => USUAL,
    };
    stdout.is_terminal().then(|| given().unwrap_or_else(asked))
}

/// Whether stdout takes colour.
pub(super) fn takes_colour() -> bool {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    let dumb = set("TERM").is_none_or(|term| term == "dumb");
    io::stdout().is_terminal() && set("NO_COLOR").is_none() && !dumb
}

/// The columns that the text takes.
pub(super) fn width(text: &str) -> usize {
    text.chars().map(width_of).sum()
}

fn width_of(letter: char) -> usize {
    let is_in = |ranges: &[(u32, u32)]| {
        let mut ranges = ranges.iter();
        ranges.any(|(from, to)| (*from..=*to).contains(&u32::from(letter)))
    };
    match letter {
        '\0'..'\u{300}' => 1,
        _ if is_in(&JOINED) => 0,
        _ if is_in(&WIDE) => 2,
        _ => 1,
    }
}

/// The text if it takes `most` columns or fewer, else its beginning and `…`.
pub(super) fn cut(text: &str, most: usize) -> String {
    if width(text) <= most {
        return text.to_owned();
    }
    let mut room = most.saturating_sub(1);
    let fits = |letter: &char| {
        let rest = room.checked_sub(width_of(*letter));
        room = rest.unwrap_or_default();
        rest.is_some()
    };
    let mut short: String = text.chars().take_while(fits).collect();
    short.push('…');
    short
}

/// The text, and spaces after it up to `columns`.
pub(super) fn padded(text: &str, columns: usize) -> String {
    let spaces = columns.saturating_sub(width(text));
    format!("{text}{:spaces$}", "")
}

/// The text in lines of at most `most` columns, as far as its words allow.
pub(super) fn wrapped(text: &str, most: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if width(line) + 1 + width(word) <= most => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// Lines that each have a head of `indent` columns, as wide as the terminal: what is wrapped goes
/// on beside the head. Without a terminal they stay as they are.
pub(super) fn hanging(text: &str, indent: usize, terminal: Option<usize>) -> String {
    let Some(most) = terminal else {
        return text.to_owned();
    };
    let shown = |line: &str| match line.split_at_checked(indent) {
        Some((head, rest)) => {
            let lines = wrapped(rest, most.saturating_sub(indent));
            head.to_owned() + &lines.join(&format!("\n{:indent$}", ""))
        }
        None => line.to_owned(),
    };
    text.lines().map(shown).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_cut_by_the_columns_that_it_takes_and_never_within_a_letter() {
        for (text, most, seen) in [
            ("pump", 4, "pump"),
            ("pumps", 4, "pum…"),
            ("ポンプ", 6, "ポンプ"),
            ("ポンプ", 5, "ポン…"),
            ("ポンプ", 4, "ポ…"),
            ("e\u{301}e\u{301}e", 3, "e\u{301}e\u{301}e"),
            ("e\u{301}e\u{301}ee", 3, "e\u{301}e\u{301}…"),
            ("pump", 0, "…"),
        ] {
            assert_eq!(cut(text, most), seen, "{most}");
        }
        assert_eq!(padded("ポ", 3), "ポ ");
    }

    #[test]
    fn lines_are_wrapped_between_words() {
        assert_eq!(wrapped("a bb ccc", 4), ["a bb", "ccc"]);
        assert_eq!(wrapped("a bb ccc", 3), ["a", "bb", "ccc"]);
        assert_eq!(wrapped("longer a", 3), ["longer", "a"]);
    }

    #[test]
    fn what_is_wrapped_goes_on_beside_the_head_of_its_line() {
        let text = "ok   a bb ccc\n     → dd";
        assert_eq!(hanging(text, 5, Some(9)), "ok   a bb\n     ccc\n     → dd");
        assert_eq!(hanging(text, 5, None), text);
        assert_eq!(hanging("ok", 5, Some(1)), "ok");
    }
}
