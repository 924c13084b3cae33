//! The manual page names every command and option that the program's help names, and no other.

use std::collections::BTreeSet;
use std::process::Command;

const PAGE: &str = include_str!("../targets/deb/oc-discovery.1");

fn help(args: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_oc-discovery"))
        .args(args)
        .arg("--help")
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// The words under the heading `head`, up to the first empty line: commands or options.
fn listed(help: &str, head: &str) -> Vec<String> {
    let lines = help.lines().skip_while(|line| *line != head).skip(1);
    lines
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.strip_prefix("  "))
        .filter(|line| !line.starts_with(' '))
        .filter_map(|line| line.split_whitespace().next())
        .map(|word| word.trim_end_matches(',').to_owned())
        .collect()
}

/// The arguments of a macro that begin its lines in the page's source, with the page's escapes
/// undone.
fn in_page(macros: &str) -> BTreeSet<String> {
    PAGE.lines()
        .filter_map(|line| line.strip_prefix(macros))
        .filter_map(|rest| rest.split_whitespace().next())
        .map(|word| word.replace("\\-", "-"))
        .collect()
}

#[test]
fn every_command_and_no_other_has_a_place_in_the_manual() {
    let commands = listed(&help(&[]), "Commands:");
    assert!(commands.len() >= 9, "{commands:?}");
    assert_eq!(in_page(".It Cm "), commands.into_iter().collect());
}

#[test]
fn every_option_and_no_other_has_a_place_in_the_manual() {
    let mut options: BTreeSet<String> = listed(&help(&[]), "Options:").into_iter().collect();
    for command in listed(&help(&[]), "Commands:") {
        options.extend(listed(&help(&[&command]), "Options:"));
    }
    assert!(options.len() >= 17, "{options:?}");
    let page = in_page(".It Fl ")
        .into_iter()
        .map(|name| format!("-{name}"));
    assert_eq!(page.collect::<BTreeSet<_>>(), options);
}
