//! The manual page names every command and option that the program's help names, and no other, and
//! both pages have what an operator looks for in each.

use std::collections::BTreeSet;
use std::process::Command;

const PAGE: &str = include_str!("../targets/deb/oc-discovery.1");
const PAGE_OF_THE_FILE: &str = include_str!("../targets/deb/oc-discovery.toml.5");

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
fn every_command_has_a_synopsis() {
    let synopsis = PAGE.split(".Sh ").find(|part| part.starts_with("SYNOPSIS"));
    let words: BTreeSet<&str> = synopsis
        .unwrap()
        .lines()
        .filter_map(|line| line.strip_prefix(".Cm "))
        .flat_map(str::split_whitespace)
        .collect();
    for command in listed(&help(&[]), "Commands:") {
        assert!(words.contains(command.as_str()), "{command}");
    }
}

#[test]
fn both_pages_say_signals_exit_status_examples_and_what_else_to_read() {
    for (page, other) in [
        (PAGE, ".Xr oc-discovery.toml 5"),
        (PAGE_OF_THE_FILE, ".Xr oc-discovery 1"),
    ] {
        let sections: Vec<&str> = page
            .lines()
            .filter_map(|line| line.strip_prefix(".Sh "))
            .collect();
        for section in ["FILES", "SIGNALS", "EXIT STATUS", "EXAMPLES", "SEE ALSO"] {
            assert!(
                sections.contains(&section),
                "{section} is not in {sections:?}"
            );
        }
        assert!(page.contains(other), "{other}");
    }
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
