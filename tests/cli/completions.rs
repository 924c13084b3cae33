//! The completions of bash, zsh and fish in `targets/completions`, which the packages install: made
//! here of what the program's help says, so that they cannot differ from it.
//!
//! `UPDATE_SNAPSHOTS=1 cargo test --test cli completions` writes them again.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use super::home::Home;

/// A command, and what its help lists.
struct Listed {
    /// Its words, without the program's name.
    words: Vec<String>,
    about: String,
    options: Vec<Choice>,
    /// What it takes without an option: the names in its usage.
    takes: Vec<String>,
    commands: Vec<Listed>,
}

struct Choice {
    name: String,
    short: Option<String>,
    about: String,
    /// The name of its value, if it takes one.
    value: Option<String>,
}

/// What a value can be.
enum Values {
    Dirs,
    Files,
    Words(&'static str),
    Any,
}

fn values(of: &str, value: &str) -> Values {
    match (of, value) {
        (_, "dir") => Values::Dirs,
        (_, "file") => Values::Files,
        ("--log", _) => Values::Words("off error warn info debug trace"),
        ("--log-format", _) => Values::Words("text json"),
        ("--format", _) => Values::Words("text json openmetrics"),
        ("--state", _) => Values::Words("alive left lost"),
        (_, "role" | "dir-or-role-and-options") => Values::Words("native indexer node"),
        _ => Values::Any,
    }
}

/// What a shell shows beside a word: the text up to the first `;` or `(`.
fn brief(about: &str) -> String {
    let begin = about.split([';', '(']).next().unwrap_or_default();
    begin.trim().trim_end_matches('.').to_owned()
}

/// The entries under a heading of the help: the words before the text, and the text.
fn entries(help: &str, heading: &str) -> Vec<(String, String)> {
    let lines = help.lines().skip_while(|line| *line != heading).skip(1);
    let mut entries: Vec<(String, String)> = Vec::new();
    for line in lines.take_while(|line| !line.is_empty()) {
        let text = line.trim_start();
        let indent = line.len() - text.len();
        match entries.last_mut() {
            Some((_, about)) if indent > 2 => write!(about, " {text}").unwrap(),
            _ => {
                let (name, about) = text.split_once("  ").unwrap_or((text, ""));
                entries.push((name.to_owned(), about.trim().to_owned()));
            }
        }
    }
    entries
}

fn listed(home: &Home, words: &[&str], about: &str) -> Listed {
    let line: Vec<&str> = words.iter().copied().chain(["--help"]).collect();
    let ended = home.run(&line);
    let help = ended.done();
    let usage = help.lines().next().unwrap();
    let mut options = Vec::new();
    for (names, about) in entries(help, "Options:") {
        let mut names = names.split(", ");
        let first = names.next().unwrap().to_owned();
        let (short, name) = match first.starts_with("--") {
            true => (None, first),
            false => (Some(first), names.next().unwrap().to_owned()),
        };
        let value = usage.split_once(&format!("{name} <"));
        let value = value.map(|(_, rest)| rest.split(['>', '.']).next().unwrap().to_owned());
        options.push(Choice {
            name,
            short,
            about: brief(&about),
            value,
        });
    }
    let commands = entries(help, "Commands:");
    let commands = commands.iter().map(|(name, about)| {
        let words: Vec<&str> = words.iter().copied().chain([name.as_str()]).collect();
        listed(home, &words, about)
    });
    Listed {
        words: words.iter().map(|word| (*word).to_owned()).collect(),
        about: brief(about),
        options,
        takes: entries(help, "Positional Arguments:")
            .into_iter()
            .map(|(name, _)| name)
            .collect(),
        commands: commands.collect(),
    }
}

impl Listed {
    /// What bash and fish offer for all that it takes without an option: files, if one is a file.
    fn offers(&self) -> Option<Values> {
        let takes = self.takes.iter().find(|takes| *takes == "file");
        let takes = takes.or(self.takes.first());
        takes.map(|takes| values("", takes))
    }

    /// This command and all below it.
    fn all(&self) -> Vec<&Listed> {
        let below = self.commands.iter().flat_map(Listed::all);
        [self].into_iter().chain(below).collect()
    }

    fn names(&self) -> Vec<&str> {
        let commands = self.commands.iter();
        commands
            .filter_map(|c| Some(c.words.last()?.as_str()))
            .collect()
    }

    fn flags(&self) -> Vec<&str> {
        let flags = self.options.iter();
        flags.map(|option| option.name.as_str()).collect()
    }
}

const NOTE: &str =
    "# Made of the program's help: UPDATE_SNAPSHOTS=1 cargo test --test cli completions\n";

const BASH_HEAD: &str = r#"
# Offers what `compgen` makes of these arguments too.
_oc_discovery_offer() { mapfile -t -O "${#COMPREPLY[@]}" COMPREPLY < <(compgen "$@" -- "$word"); }

_oc_discovery() {
    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]}
    local line=${COMP_WORDS[*]:1:COMP_CWORD - 1}
    COMPREPLY=()
    case $before in
"#;

fn bash(program: &Listed) -> String {
    let mut text = format!("{NOTE}{BASH_HEAD}");
    let mut seen = Vec::new();
    for option in program.all().iter().flat_map(|command| &command.options) {
        let Some(value) = option
            .value
            .as_ref()
            .filter(|_| !seen.contains(&&option.name))
        else {
            continue;
        };
        seen.push(&option.name);
        let offered = offered(&values(&option.name, value));
        writeln!(text, "        {}){offered} return ;;", option.name).unwrap();
    }
    text.push_str("    esac\n    case \" $line \" in\n");
    let mut commands = program.all();
    // The longest line first: the first one that matches counts.
    commands.sort_by_key(|command| std::cmp::Reverse(command.words.len()));
    for command in commands {
        let pattern = match command.words.is_empty() {
            true => "*".to_owned(),
            false => format!("\" {} \"*", command.words.join(" ")),
        };
        let words = [command.names(), command.flags()].concat().join(" ");
        let takes = command.offers().as_ref().map(offered).unwrap_or_default();
        writeln!(
            text,
            "        {pattern}) _oc_discovery_offer -W '{words}';{takes} ;;"
        )
        .unwrap();
    }
    text.push_str("    esac\n}\ncomplete -o filenames -F _oc_discovery oc-discovery\n");
    text.replace("; ;;", " ;;")
}

fn offered(values: &Values) -> String {
    match values {
        Values::Dirs => " _oc_discovery_offer -d;".to_owned(),
        Values::Files => " _oc_discovery_offer -f;".to_owned(),
        Values::Words(words) => format!(" _oc_discovery_offer -W '{words}';"),
        Values::Any => String::new(),
    }
}

/// Text for between `'` and `'`, in which zsh's `_arguments` takes some letters for its own.
fn quoted(text: &str) -> String {
    let text = text.replace('\'', "'\\''").replace(':', "\\:");
    text.replace('[', "\\[").replace(']', "\\]")
}

fn action(values: &Values) -> String {
    match values {
        Values::Dirs => "_files -/".to_owned(),
        Values::Files => "_files".to_owned(),
        Values::Words(words) => format!("({words})"),
        Values::Any => String::new(),
    }
}

fn zsh(program: &Listed) -> String {
    let mut text = format!("#compdef oc-discovery\n{NOTE}\n");
    for command in program.all() {
        let name = [&["_oc-discovery".to_owned()], command.words.as_slice()].concat();
        writeln!(text, "{}() {{", name.join("_")).unwrap();
        if !command.commands.is_empty() {
            text.push_str("    local line state\n    local -a commands=(\n");
            for below in &command.commands {
                let word = below.words.last().unwrap();
                writeln!(text, "        '{word}:{}'", quoted(&below.about)).unwrap();
            }
            text.push_str("    )\n");
        }
        text.push_str(match command.commands.is_empty() {
            true => "    _arguments",
            false => "    _arguments -C",
        });
        for option in &command.options {
            let value = option
                .value
                .as_ref()
                .map(|value| format!(":{value}:{}", action(&values(&option.name, value))));
            let value = value.unwrap_or_default();
            for name in option.short.iter().chain([&option.name]) {
                let about = quoted(&option.about);
                write!(text, " \\\n        '*{name}[{about}]{value}'").unwrap();
            }
        }
        if command.commands.is_empty() {
            for takes in &command.takes {
                let action = action(&values("", takes));
                write!(text, " \\\n        ':{takes}:{action}'").unwrap();
            }
            text.push('\n');
        } else {
            text.push_str(
                " \\\n        '1: :{_describe command commands}' '*::arguments:->below'\n    \
                 case $state in\n        below)\n            local next=",
            );
            writeln!(text, "{}_$line[1]", name.join("_")).unwrap();
            text.push_str(
                "            (( $+functions[$next] )) && $next\n            ;;\n    esac\n",
            );
        }
        text.push_str("}\n\n");
    }
    text.push_str("_oc-discovery \"$@\"\n");
    text
}

fn fish(program: &Listed) -> String {
    let plain = |text: &str| text.replace('\\', "\\\\").replace('\'', "\\'");
    let mut text = format!("{NOTE}\ncomplete -c oc-discovery -f\n");
    for command in program.all() {
        let names = command.names().join(" ");
        let mut on: Vec<String> = command
            .words
            .iter()
            .map(|word| format!("__fish_seen_subcommand_from {word}"))
            .collect();
        if on.is_empty() {
            on.push("__fish_use_subcommand".to_owned());
        }
        let here = on.join("; and ");
        for below in &command.commands {
            let word = below.words.last().unwrap();
            let condition = match command.words.is_empty() {
                true => here.clone(),
                false => format!("{here}; and not __fish_seen_subcommand_from {names}"),
            };
            let about = plain(&below.about);
            writeln!(
                text,
                "complete -c oc-discovery -n '{condition}' -a {word} -d '{about}'"
            )
            .unwrap();
        }
        for option in &command.options {
            write!(
                text,
                "complete -c oc-discovery -n '{here}' -l {}",
                &option.name[2..]
            )
            .unwrap();
            if let Some(short) = &option.short {
                write!(text, " -s {}", &short[1..]).unwrap();
            }
            if let Some(value) = &option.value {
                match values(&option.name, value) {
                    Values::Dirs => text.push_str(" -x -a '(__fish_complete_directories)'"),
                    Values::Files => text.push_str(" -r -F"),
                    Values::Words(words) => write!(text, " -x -a '{words}'").unwrap(),
                    Values::Any => text.push_str(" -x"),
                }
            }
            writeln!(text, " -d '{}'", plain(&option.about)).unwrap();
        }
        if let (Some(offers), true) = (command.offers(), command.commands.is_empty()) {
            let more = match offers {
                Values::Dirs => "-a '(__fish_complete_directories)'".to_owned(),
                Values::Files => "-F".to_owned(),
                Values::Words(words) => format!("-a '{words}'"),
                Values::Any => continue,
            };
            writeln!(text, "complete -c oc-discovery -n '{here}' {more}").unwrap();
        }
    }
    text
}

const BASH: &str = "targets/completions/oc-discovery.bash";
const ZSH: &str = "targets/completions/_oc-discovery";
const FISH: &str = "targets/completions/oc-discovery.fish";

#[test]
fn completions_are_as_the_help_says() {
    let program = listed(&Home::new(), &[], "");
    assert!(program.all().len() >= 20);
    for (file, text) in [
        (BASH, bash(&program)),
        (ZSH, zsh(&program)),
        (FISH, fish(&program)),
    ] {
        if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
            fs::create_dir_all(Path::new(file).parent().unwrap()).unwrap();
            fs::write(file, &text).unwrap();
        }
        let kept = fs::read_to_string(file).unwrap_or_default();
        assert!(
            kept == text,
            "{file} is not as the help says: write it again"
        );
    }
}

#[test]
fn shells_take_the_completions() {
    for (shell, file) in [("bash", BASH), ("zsh", ZSH), ("fish", FISH)] {
        let checked = Command::new(shell).args(["-n", file]).output();
        match checked {
            Ok(output) => assert!(
                output.status.success() && output.stderr.is_empty(),
                "{output:?}"
            ),
            // Bash is everywhere that the other tests run.
            Err(error) => assert_ne!(shell, "bash", "{error}"),
        }
    }
}

#[test]
fn fish_completes_commands_options_and_values() {
    for (line, first) in [
        ("oc-discovery statu", "status"),
        ("oc-discovery node --beat", "--beat-interval"),
        ("oc-discovery node --log tr", "trace"),
        ("oc-discovery config ch", "check"),
        ("oc-discovery config check --ro", "--role"),
    ] {
        let script = format!("source {FISH}; complete -C '{line}'");
        // It is not on every machine.
        let Ok(output) = Command::new("fish").args(["-N", "-c", &script]).output() else {
            return;
        };
        let offered = String::from_utf8(output.stdout).unwrap();
        let words: Vec<_> = offered.split_whitespace().take(1).collect();
        assert_eq!(
            (words, offered.lines().count()),
            (vec![first], 1),
            "{line}: {offered}"
        );
    }
}

#[test]
fn bash_completes_commands_options_and_values() {
    for (words, last) in [
        ("oc-discovery statu", "status"),
        ("oc-discovery node --beat", "--beat-interval"),
        ("oc-discovery node --log tr", "trace"),
        ("oc-discovery node --listen x --log-format js", "json"),
        ("oc-discovery identity exp", "export"),
        ("oc-discovery config check --ro", "--role"),
        (
            "oc-discovery status targets/completion",
            "targets/completions",
        ),
        (
            "oc-discovery identity import . targets/pack",
            "targets/package",
        ),
        ("oc-discovery nodes --lease", ""),
    ] {
        let root = env!("CARGO_MANIFEST_DIR");
        let script = format!(
            "source {root}/{BASH}; cd {root}; COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); \
             _oc_discovery; echo \"${{COMPREPLY[*]}}\""
        );
        let output = Command::new("bash").args(["-c", &script]).output().unwrap();
        let offered = String::from_utf8(output.stdout).unwrap();
        assert_eq!(offered.trim(), last, "{words}: {:?}", output.stderr);
    }
}
