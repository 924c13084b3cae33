use super::*;

fn run(line: &str) -> Result<Command, Exit> {
    let words = std::iter::once(PROGRAM).chain(line.split_whitespace());
    parse(words.map(OsString::from))
}

fn told(line: &str) -> String {
    match run(line) {
        Err(Exit::Tell(text)) => text,
        other => panic!("{line}: {other:?}"),
    }
}

fn usage(result: Result<Command, Exit>) -> String {
    match result {
        Err(Exit::Usage(sentence)) => sentence,
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_option_of_a_daemon_arrives() {
    let common = "--data-dir d --listen l1 --listen l2 --announce a1 --announce a2 \
        --announce-only --native n1 --native n2 --psk p \
        --log debug --log-format json --lease 1 --beat-interval 2 --offload-interval 3 --refresh-interval 4 \
        --gc-interval 5 --connect-interval 6";
    for role in ["native", "indexer", "node"] {
        let flags = match run(&format!("{role} {common}")).unwrap() {
            Command::Native(native) => native.flags(),
            Command::Indexer(indexer) => indexer.flags(),
            Command::Node(node) => node.flags(),
            other => panic!("{other:?}"),
        };
        assert_eq!(flags.data_dir.as_deref(), Some("d"));
        assert_eq!(flags.listen, ["l1", "l2"]);
        assert_eq!(flags.announce, ["a1", "a2"]);
        assert!(flags.announce_only);
        assert_eq!(flags.native, ["n1", "n2"]);
        assert_eq!(flags.psk.as_deref(), Some("p"));
        assert_eq!(flags.log.as_deref(), Some("debug"));
        assert_eq!(flags.log_format.as_deref(), Some("json"));
        let durations = [
            flags.lease,
            flags.beat_interval,
            flags.offload_interval,
            flags.refresh_interval,
            flags.gc_interval,
            flags.connect_interval,
        ];
        assert_eq!(durations.map(Option::unwrap).concat(), "123456");
    }
    #[cfg(feature = "dns")]
    {
        let line = "indexer --dns 127.0.0.1:53 --dns-zone lan";
        let Ok(Command::Indexer(indexer)) = run(line) else {
            panic!();
        };
        let flags = indexer.flags();
        assert_eq!(flags.dns.as_deref(), Some("127.0.0.1:53"));
        assert_eq!(flags.dns_zone.as_deref(), Some("lan"));
    }
    let line = "node --name cam --tag a=1 --tag b=2 --service http=80 --min-indexers 3";
    let Ok(Command::Node(node)) = run(line) else {
        panic!();
    };
    let flags = node.flags().node;
    assert_eq!(flags.name.as_deref(), Some("cam"));
    assert_eq!(flags.tag, ["a=1", "b=2"]);
    assert_eq!(flags.service, ["http=80"]);
    assert_eq!(flags.min_indexers.as_deref(), Some("3"));
}

#[test]
fn value_may_follow_its_option_after_an_equals_sign() {
    let line = "node --announce-only --lease=5s --tag=a=1 --tag b=2 --name=";
    let Ok(Command::Node(node)) = run(line) else {
        panic!("{:?}", run(line));
    };
    let flags = node.flags();
    assert!(flags.announce_only);
    assert_eq!(flags.lease.as_deref(), Some("5s"));
    assert_eq!(flags.node.tag, ["a=1", "b=2"]);
    assert_eq!(flags.node.name.as_deref(), Some(""));
    let Ok(Command::Find(find)) = run("find --data-dir=d -- --x=y") else {
        panic!();
    };
    assert_eq!(
        (find.data_dir.as_deref(), &*find.query),
        (Some("d"), "--x=y")
    );
}

#[test]
fn help_names_default_and_bounds_of_every_option() {
    for command in Command::COMMANDS {
        for line in [
            format!("{} --help", command.name),
            format!("{} -h", command.name),
            format!("help {}", command.name),
        ] {
            let text = told(&line);
            assert!(text.starts_with("Usage: oc-discovery "), "{text}");
            let usage = text.lines().next().unwrap_or_default();
            let options = usage.split("[--").skip(1);
            let valued = options.filter(|option| {
                option
                    .split(']')
                    .next()
                    .is_some_and(|option| option.contains(" <"))
            });
            assert!(
                text.matches("(default:").count() >= valued.count(),
                "{text}"
            );
        }
    }
    let help = told("native --help");
    let text = help.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(
        text.contains("(default: port 4820 of all addresses, IPv4 and IPv6)"),
        "{text}"
    );
    assert!(text.contains("1s to 20m (default: 90s)"), "{text}");
    assert!(!text.contains("--min-indexers"), "{text}");
    assert!(told("--help").contains("Commands:"));
    assert!(told("help").contains("demo"));
}

#[test]
fn version_is_an_option_and_a_command() {
    for line in ["--version", "-V", "version", "-V status"] {
        assert!(matches!(run(line), Ok(Command::Version(_))), "{line}");
    }
}

#[test]
fn v_raises_the_level_of_the_log_and_log_wins() {
    for (line, level) in [
        ("native", None),
        ("native -v", Some("debug")),
        ("native -vv", Some("trace")),
        ("native -v --verbose -v", Some("trace")),
        ("native -vv --log warn", Some("warn")),
    ] {
        let Ok(Command::Native(native)) = run(line) else {
            panic!("{line}");
        };
        assert_eq!(native.flags().log.as_deref(), level, "{line}");
    }
    assert!(usage(run("status -v")).starts_with("unknown argument \"-v\""));
}

#[test]
fn wrong_lines_become_one_sentence_with_advice() {
    for (line, start) in [
        ("", "no command is given; give one of native, indexer, node"),
        ("lisp", "unknown command \"lisp\"; give one of native"),
        (
            "--loud",
            "unknown argument \"--loud\"; `oc-discovery --help`",
        ),
        (
            "node --loud",
            "unknown argument \"--loud\"; `oc-discovery node --help`",
        ),
        ("statsu", "unknown command \"statsu\": did you mean status?"),
        (
            "node --beat_interval 5s",
            "unknown argument \"--beat_interval\": did you mean --beat-interval?",
        ),
        ("native --name x", "unknown argument \"--name\""),
        ("id 5 6", "unknown argument \"6\"; `oc-discovery id --help`"),
        ("node --loud=5s", "unknown argument \"--loud\""),
        ("indexers --json a b", "unknown argument \"b\""),
        (
            "status --json=yes",
            "--json takes no value: leave \"=yes\" out",
        ),
        (
            "config chekc f",
            "unknown argument \"chekc\": did you mean check?",
        ),
        (
            "config check --rol=node f",
            "unknown argument \"--rol\": did you mean --role?",
        ),
        (
            "identity exprot d f",
            "unknown argument \"exprot\": did you mean export?",
        ),
        ("id --=x", "unknown argument \"--=x\""),
        (
            "node --lease=5s --lease 6s",
            "error parsing option '--lease' with value '6s': duplicate",
        ),
        ("node --lease", "no value provided for option '--lease'; `"),
        (
            "node --lease 5s --lease 6s",
            "error parsing option '--lease' with value '6s': duplicate",
        ),
        (
            "find",
            "required positional arguments not provided: name-or-peer-id; `",
        ),
    ] {
        let text = usage(run(line));
        assert!(text.starts_with(start), "{line}: {text}");
        assert!(!text.contains('\n'), "{text}");
    }
}

#[test]
fn text_that_is_not_utf8_is_refused() {
    use std::os::unix::ffi::OsStringExt;
    let args = [PROGRAM.into(), OsString::from_vec(vec![b'a', 0xff])];
    assert!(usage(parse(args)).contains("not valid UTF-8"));
}
