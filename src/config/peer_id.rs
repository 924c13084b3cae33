//! What is wrong with a text that should be a peer id.

/// Characters of each peer id of this system: that of an Ed25519 key, in base58.
const LENGTH: usize = 52;
/// Its first ones.
const BEGIN: &str = "12D3KooW";

/// Whether the text begins as a peer id, so that nothing else is meant.
#[cfg(feature = "program")]
pub(crate) fn begins_a_peer_id(text: &str) -> bool {
    text.starts_with(BEGIN)
}

/// Whether the text may be the end of a peer id, as lists show it: some of its last characters,
/// one of them a capital, because a name has none.
#[cfg(feature = "program")]
pub(crate) fn ends_a_peer_id(text: &str) -> bool {
    let end = text.trim_start_matches('…');
    let is_end = (6..LENGTH).contains(&end.len()) && end.chars().all(is_base58);
    is_end && (end.len() < text.len() || end.bytes().any(|b| b.is_ascii_uppercase()))
}

/// What is wrong with a text that should be a peer id and is none: a sentence without its subject.
pub(crate) fn peer_id_fault(text: &str) -> String {
    let mut letters = text.chars().enumerate();
    let other = letters.find(|(_, letter)| !is_base58(*letter));
    let length = text.chars().count();
    match other {
        _ if text.contains('…') => {
            "is cut as lists show it: `oc-discovery nodes --json` has whole ids".to_owned()
        }
        Some((at, letter)) => format!(
            "has {letter:?} as its character {}, which is in no peer id: they have letters and digits without 0, O, I \
             and l",
            at + 1
        ),
        None if !text.starts_with(BEGIN) => {
            format!("does not begin with {BEGIN}, as peer ids of this system do")
        }
        None => format!("has {length} characters, and a peer id has {LENGTH}: copy all of it"),
    }
}

fn is_base58(letter: char) -> bool {
    letter.is_ascii_alphanumeric() && !matches!(letter, '0' | 'O' | 'I' | 'l')
}

#[cfg(test)]
mod tests {
    use libp2p::identity::Keypair;

    use super::*;

    #[test]
    fn what_is_wrong_with_an_id_is_said() {
        let id = Keypair::generate_ed25519().public().to_peer_id();
        let id = id.to_base58();
        assert_eq!((id.len(), &id[..8]), (LENGTH, BEGIN));
        for (text, fault) in [
            (&id[..51], "has 51 characters, and a peer id has 52"),
            (&format!("{id}x"), "has 53 characters"),
            (&format!("{}0", &id[..51]), "has '0' as its character 52"),
            (&id[1..], "does not begin with 12D3KooW"),
            ("", "does not begin with"),
            ("…U322AhF6", "is cut"),
            ("12D3KooWäh", "has 'ä' as its character 9"),
        ] {
            let said = peer_id_fault(text);
            assert!(said.contains(fault), "{text}: {said}");
        }
    }

    #[cfg(feature = "program")]
    #[test]
    fn end_of_an_id_has_a_capital_or_what_stands_for_its_begin() {
        for (text, is_one) in [
            ("U322AhF6", true),
            ("22AhF6", true),
            ("2AhF6", false),
            ("…22ahf6", true),
            ("22ahf6", false),
            ("U322Ah-F", false),
            ("U322AhF0", false),
        ] {
            assert_eq!(ends_a_peer_id(text), is_one, "{text}");
        }
    }
}
