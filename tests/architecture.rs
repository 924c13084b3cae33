//! Keeps `src/ARCHITECTURE.md` true: the files that it names exist, imports point downward as it
//! states, and the texts and titles that comments cite are in the repository.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// The parts of this crate that a part of `src` never imports. `tests/no_std` shows that the core
/// needs no crates other than its own.
const NEVER: [(&str, &[&str]); 7] = [
    ("src/protocol", &["net", "config", "daemon", "embed"]),
    ("src/net", &["config", "daemon", "embed"]),
    ("src/config", &["net", "daemon", "embed"]),
    ("src/daemon", &["embed", "cli", "program"]),
    ("src/embed", &["net", "cli", "program"]),
    ("src/cli", &["net", "protocol", "embed"]),
    ("src/program", &["net", "protocol", "embed"]),
];

#[test]
fn every_file_that_the_architecture_names_exists() {
    let text = read("src/ARCHITECTURE.md");
    let words = text.split(is_no_part_of_a_path);
    let paths: BTreeSet<&str> = words.filter(|word| names_a_file(word)).collect();
    assert!(paths.contains("protocol/lease.rs"), "{paths:?}");
    for path in paths {
        let is_there = root().join("src").join(path).exists() || root().join(path).exists();
        assert!(is_there, "src/ARCHITECTURE.md names {path}");
    }
}

#[test]
fn imports_point_downward() {
    let all = sources("src");
    for (part, never) in NEVER {
        let file = format!("{part}.rs");
        let is_of_part = |path: &&PathBuf| path.starts_with(part) || path.starts_with(&file);
        assert!(all.iter().any(|path| is_of_part(&path)), "{part}");
        for path in all.iter().filter(is_of_part) {
            for import in imports(path, &read(path)) {
                let is_upward = never.contains(&import.as_str());
                assert!(!is_upward, "{} imports {import}", path.display());
            }
        }
    }
}

#[test]
fn a_path_is_an_import_from_the_root_and_through_super() {
    let code = "use crate::{net::{tcp, dns}, config};
        fn f() { super::super::super::daemon::g(super::super::cli()) }
        use super::{super::{super::embed::Node as N, *}, super::program};";
    let found = imports(Path::new("src/protocol/listing/turns.rs"), code);
    let expected = ["config", "daemon", "embed", "net"];
    assert_eq!(found, expected.map(String::from).into());
}

#[test]
fn every_text_that_a_comment_cites_is_in_the_repository() {
    let mut titles = 0;
    for path in ["src", "tests", "targets"].into_iter().flat_map(sources) {
        let comments = comments_of(&read(&path));
        for (at, end) in comments.match_indices(".md") {
            let before = comments[..at].rfind(is_no_part_of_a_path);
            let name = &comments[before.map_or(0, |at| at + 1)..at + end.len()];
            let dirs = ["", "src", "src/wire", "tests"].map(|dir| root().join(dir));
            let mut texts = dirs.iter().map(|dir| fs::read_to_string(dir.join(name)));
            let text = texts.find_map(Result::ok);
            let text = text.unwrap_or_else(|| panic!("{} cites {name}", path.display()));
            if let Some(title) = title(&comments[at + end.len()..]) {
                let is_there = text.lines().any(|line| has_title(line, &title));
                assert!(is_there, "{} cites {name}, {title}", path.display());
                titles += 1;
            }
        }
    }
    assert!(titles > 0);
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

/// The Rust files below a directory, with their paths from the root.
fn sources(dir: impl AsRef<Path>) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root().join(&dir)).unwrap() {
        let path = dir.as_ref().join(entry.unwrap().file_name());
        if root().join(&path).is_dir() {
            // Separate packages have their build output there.
            if !path.ends_with("target") {
                found.extend(sources(path));
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

fn is_no_part_of_a_path(letter: char) -> bool {
    !letter.is_ascii_alphanumeric() && !"/_.-".contains(letter)
}

fn names_a_file(word: &str) -> bool {
    let is_file = [".rs", ".md", ".cddl"]
        .iter()
        .any(|end| word.ends_with(end));
    is_file || (word.len() > 1 && word.ends_with('/'))
}

/// The top modules of this crate that the code of a file names, from the root or through `super`.
fn imports(file: &Path, code: &str) -> BTreeSet<String> {
    let file = file.strip_prefix("src").unwrap().with_extension("");
    let module: Vec<_> = file.iter().filter(|name| *name != "mod").collect();
    let mut paths = Vec::new();
    for root in ["crate", "oc_discovery", "super"] {
        for (at, _) in code.match_indices(&format!("{root}::")) {
            if !code[..at].ends_with(is_in_name) && !code[..at].ends_with("::") {
                expand(&[], &code[at..], &mut paths);
            }
        }
    }
    let top = |path: Vec<&str>| {
        let up = path.iter().take_while(|name| **name == "super").count();
        let is_at_root = up == 0 || up == module.len();
        is_at_root.then(|| path.get(up.max(1)).copied().unwrap_or_default().to_owned())
    };
    paths.into_iter().filter_map(top).collect()
}

/// Adds the paths that the text begins with: one for each name in lists, which may be nested.
/// Returns what follows.
fn expand<'a>(before: &[&'a str], mut text: &'a str, paths: &mut Vec<Vec<&'a str>>) -> &'a str {
    let mut path = before.to_vec();
    while !text.starts_with('{') {
        let end = text.find(|letter| !is_in_name(letter));
        let (name, rest) = text.split_at(end.unwrap_or(text.len()));
        path.push(name);
        let Some(rest) = rest.strip_prefix("::") else {
            paths.push(path);
            return rest;
        };
        text = rest;
    }
    text = &text[1..];
    while !text.is_empty() && !text.starts_with('}') {
        text = expand(&path, text.trim_start(), paths);
        text = text.trim_start_matches(|letter| letter != ',' && letter != '}');
        text = text.strip_prefix(',').unwrap_or(text).trim_start();
    }
    text.strip_prefix('}').unwrap_or(text)
}

fn is_in_name(letter: char) -> bool {
    letter.is_alphanumeric() || letter == '_'
}

/// All comments of a file as one line.
fn comments_of(text: &str) -> String {
    let comments = text.lines().filter_map(|line| {
        let (_, comment) = line.split_once("//")?;
        Some(comment.trim_start_matches(['/', '!']).trim())
    });
    comments.collect::<Vec<_>>().join(" ")
}

/// The part of a text that is cited, if it is named: `, section 4` or `, "Retries"`.
fn title(after: &str) -> Option<String> {
    let after = after.strip_prefix(", ")?;
    if let Some(quoted) = after.strip_prefix('"') {
        return Some(quoted.split('"').next()?.to_owned());
    }
    let number = after.strip_prefix("section ")?;
    Some(number.chars().take_while(char::is_ascii_digit).collect())
}

/// Whether the line is the title alone, or a heading with that number.
fn has_title(line: &str, title: &str) -> bool {
    let heading = line.strip_prefix("## ");
    line == title || heading.is_some_and(|heading| heading.split(' ').next() == Some(title))
}
