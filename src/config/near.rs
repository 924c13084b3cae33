//! "Did you mean": the word that was most likely meant by a mistyped one.

/// Longest word that is compared, in bytes.
const LONGEST: usize = 40;

/// The one of these words that differs from `word` in few letters, or that begins with it alone.
/// Upper case and `_` count as lower case and `-`.
pub(crate) fn nearest<'a>(
    word: &str,
    words: impl Iterator<Item = &'a str> + Clone,
) -> Option<&'a str> {
    let word = word.to_ascii_lowercase().replace('_', "-");
    if word.len() > LONGEST {
        return None;
    }
    let most = (word.len() / 3).clamp(1, 3);
    let near = words.clone().map(|known| (distance(&word, known), known));
    let nearest = near
        .filter(|(letters, known)| *letters <= most && *letters < known.len())
        .min_by_key(|(letters, known)| (*letters, !known.starts_with(&word)));
    let mut begun = words.filter(|known| word.len() > 2 && known.starts_with(&word));
    nearest
        .map(|(_, known)| known)
        .or_else(|| begun.next().filter(|_| begun.next().is_none()))
}

/// Letters to insert, to remove, to replace or to swap with the next one, to make one of the other.
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    // The last two rows of the table: for the letters of `one` so far, and one less.
    let mut above: Vec<usize> = Vec::new();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    let mut last = None;
    for (at, letter) in one.chars().enumerate() {
        let mut next = vec![at + 1];
        for (to, known) in other.iter().enumerate() {
            let cell = |row: &[usize], at: usize| row.get(at).copied().unwrap_or(usize::MAX / 2);
            let mut best = (cell(&row, to + 1) + 1)
                .min(cell(&next, to) + 1)
                .min(cell(&row, to) + usize::from(letter != *known));
            let before = to.checked_sub(1);
            if let Some(before) = before
                && last == Some(*known)
                && other.get(before) == Some(&letter)
            {
                best = best.min(cell(&above, before) + 1);
            }
            next.push(best);
        }
        last = Some(letter);
        above = core::mem::replace(&mut row, next);
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORDS: [&str; 7] = [
        "lease",
        "listen",
        "log",
        "beat-interval",
        "name",
        "port",
        "proto",
    ];

    #[test]
    fn word_with_few_wrong_letters_is_known_again() {
        for (word, meant) in [
            ("leese", Some("lease")),
            ("laese", Some("lease")),
            ("Beat_Interval", Some("beat-interval")),
            ("beat-intreval", Some("beat-interval")),
            ("beat", Some("beat-interval")),
            ("lo", Some("log")),
            ("prot", Some("proto")),
            ("lst", None),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(nearest(word, WORDS.iter().copied()), meant, "{word}");
        }
        let long = "l".repeat(LONGEST + 1);
        assert_eq!(nearest(&long, WORDS.iter().copied()), None);
    }

    #[test]
    fn each_kind_of_slip_is_one_letter() {
        for (one, other, letters) in [
            ("log", "log", 0),
            ("lgo", "log", 1),
            ("lo", "log", 1),
            ("logg", "log", 1),
            ("lag", "log", 1),
            ("", "log", 3),
        ] {
            assert_eq!(distance(one, other), letters, "{one} {other}");
        }
    }
}
