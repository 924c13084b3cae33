//! The last lines of the log, for `oc-discovery support`: a gateway may have no journal.
//!
//! Invariant: at most [`MAX_LINES`] lines of at most [`MAX_BYTES`] bytes, so about 100 KB.

use std::collections::VecDeque;

use super::line::shorten;

/// Lines that are kept.
pub(crate) const MAX_LINES: usize = 200;
/// Bytes of each.
const MAX_BYTES: usize = 512;

/// The last lines, the oldest first.
#[derive(Default)]
pub(super) struct Recent(VecDeque<Box<str>>);

impl Recent {
    /// Keeps a line, without its end.
    pub(super) fn keep(&mut self, line: &str) {
        let mut line = line.trim_end().to_owned();
        shorten(&mut line, MAX_BYTES);
        if self.0.len() >= MAX_LINES {
            self.0.pop_front();
        }
        self.0.push_back(line.into());
    }

    /// All of them.
    pub(super) fn lines(&self) -> Vec<String> {
        self.0.iter().map(|line| line.to_string()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_two_hundred_lines_are_kept_and_long_ones_are_cut() {
        let mut recent = Recent::default();
        for number in 0..201 {
            recent.keep(&format!("line {number}\n"));
        }
        let lines = recent.lines();
        assert_eq!(lines.len(), 200);
        assert_eq!(lines.first().unwrap(), "line 1");
        assert_eq!(lines.last().unwrap(), "line 200");
        recent.keep(&"x".repeat(2000));
        assert!(recent.lines().last().unwrap().len() <= 512);
    }
}
