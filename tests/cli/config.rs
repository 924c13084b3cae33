//! Files of settings as an operator has them: what is wrong in one is said with file, line, column,
//! key, value and what is allowed; what is shown says where it comes from.

use std::fs;

use miniserde::{Deserialize, json};

use crate::home::{Ended, Home};

mod check;
mod errors;

const ID: &str = "12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp";

#[test]
fn unknown_key_without_a_likely_one_is_answered_with_all_that_there_are() {
    let home = Home::new();
    let file = home.path("native.toml");
    fs::write(&file, "frobnicate = 1\nmin-indexers = 2\n").unwrap();
    let checked = home.run(&["config", "check", &file]);
    let lines: Vec<_> = checked.stderr.lines().collect();
    assert!(lines[0].contains(":1:1: unknown key \"frobnicate\": give one of native, listen, "));
    assert!(!lines[0].contains("min-indexers"), "{}", lines[0]);
    assert!(lines[1].ends_with(":2:1: min-indexers: only a node has this key; leave it out"));
    assert_eq!((lines.len(), checked.code), (2, Some(2)));
}

#[test]
fn file_that_cannot_be_read_is_a_failure_and_not_a_wrong_file() {
    let home = Home::new();
    let missing = home.path("node.toml");
    let check = |file: &str| home.run(&["config", "check", "--role", "node", file]);
    check(&missing).failed(1, &[&missing, "No such file"]);
    check("/dev/null").failed(1, &["/dev/null", "no regular file"]);
    check(&home.path("tmp")).failed(1, &["no regular file"]);
    fs::write(&missing, "#".repeat(64 * 1024 + 1)).unwrap();
    check(&missing).failed(1, &["more than 64 KiB"]);
    fs::write(&missing, "#".repeat(64 * 1024)).unwrap();
    check(&missing).done();
    fs::write(&missing, b"name = \"a\"\n# \xff\n").unwrap();
    check(&missing).failed(2, &[":2: this line is not UTF-8"]);
    let pipe = home.path("pipe.toml");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &*pipe,
        rustix::fs::FileType::Fifo,
        0o600.into(),
        0,
    )
    .unwrap();
    check(&pipe).failed(1, &["no regular file"]);
    home.run(&["node", "--config", &home.path("none.toml")])
        .failed(1, &["none.toml"]);
    let (site, parts) = (home.path("site.toml"), home.path("site.d"));
    fs::write(&site, "").unwrap();
    fs::write(&parts, "").unwrap();
    home.run(&["node", "--config", &site])
        .failed(1, &[&parts, "Not a directory"]);
}

/// What `config show --json` tells, as far as it is checked here.
#[derive(Deserialize)]
struct Report {
    schema: u32,
    role: String,
    files: Vec<String>,
    settings: Vec<Shown>,
}

#[derive(Deserialize)]
struct Shown {
    key: String,
    values: Vec<String>,
    from: String,
    reloads: bool,
    help: String,
}

impl Report {
    fn of(home: &Home, line: &[&str]) -> Self {
        let args = [&["config", "show", "--json"], line].concat();
        let mut command = home.command(&args);
        command.env("CONFIGURATION_DIRECTORY", home.path("etc"));
        let shown = Ended::wait(command.spawn().unwrap());
        json::from_str(shown.done()).unwrap()
    }

    fn values(&self, key: &str) -> (Vec<&str>, &str) {
        let mut settings = self.settings.iter();
        let shown = settings.find(|shown| shown.key == key).unwrap();
        (
            shown.values.iter().map(String::as_str).collect(),
            &shown.from,
        )
    }
}

#[test]
fn options_win_then_later_files_then_earlier_ones_then_defaults() {
    let home = Home::new();
    let (file, first, second) = (
        home.path("etc/node.toml"),
        home.path("etc/node.d/10-a.toml"),
        home.path("etc/node.d/20-b.toml"),
    );
    fs::create_dir_all(home.path("etc/node.d")).unwrap();
    let text = format!(
        "lease = \"60s\"\nlog = \"warn\"\nname = \"cam\"\ngc-interval = \"1s\"\n\
         native = [\"/dnsaddr/a.example\", \"/ip4/192.0.2.1/tcp/1/p2p/{ID}\"]\ntrust-lan = false\n\
         [tag]\nroom = \"hall\"\n[[service]]\nname = \"http\"\nport = 80\ncheck = \"http:/healthz\"\n"
    );
    fs::write(&file, text).unwrap();
    fs::write(
        &first,
        "log = \"info\"\ngc-interval = \"2s\"\n[tag]\nsite = \"roof\"\n",
    )
    .unwrap();
    fs::write(&second, "\ngc-interval = \"3s\"\n").unwrap();
    fs::write(home.path("etc/node.d/30-c.toml.dpkg-old"), "nonsense").unwrap();
    let report = Report::of(&home, &["node", "--log", "debug", "--lease=70s"]);
    assert_eq!((report.schema, &*report.role), (1, "node"));
    assert_eq!(report.files, [&*file, &first, &second]);
    let of = |file: &str, line: u32| format!("{file}:{line}");
    for (key, values, from) in [
        ("log", &["debug"][..], "--log".to_owned()),
        ("lease", &["70s"], "--lease".to_owned()),
        ("gc-interval", &["3s"], of(&second, 2)),
        ("name", &["cam"], of(&file, 3)),
        ("tag", &["site=roof"], of(&first, 3)),
        ("service", &["http=80"], of(&file, 9)),
        ("check", &["http=http:/healthz"], of(&file, 9)),
        ("refresh-interval", &["30s"], "default".to_owned()),
        ("beat-interval", &["23333ms"], "default".to_owned()),
    ] {
        assert_eq!(report.values(key), (values.to_vec(), &*from), "{key}");
    }
    // Services of the command line come without the checks of the file.
    let report = Report::of(&home, &["node", "--service", "ssh=22"]);
    assert_eq!(report.values("service"), (vec!["ssh=22"], "--service"));
    assert_eq!(report.values("check"), (vec![], "default"));
    // Another file has a directory of its own.
    fs::write(home.path("other.toml"), "log = \"error\"").unwrap();
    let report = Report::of(&home, &["node", "--config", &home.path("other.toml")]);
    assert_eq!(report.files, [home.path("other.toml")]);
    assert_eq!(report.values("name"), (vec![], "default"));
    // Another role has files of its own.
    let report = Report::of(&home, &["indexer"]);
    assert_eq!(report.files, [""; 0]);
    assert!(report.settings.iter().all(|shown| shown.key != "name"));
}

#[test]
fn value_that_an_option_hides_is_as_wrong_as_any_other() {
    let home = Home::new();
    let file = home.path("node.toml");
    let show =
        |line: &[&str]| home.run(&[&["config", "show", "node", "--config", &file], line].concat());
    for (text, line, wrong) in [
        (
            "lease = \"5\"",
            &["--lease=60s"][..],
            Some(":1:9: lease = \"5\""),
        ),
        ("log = \"loud\"", &["--log=info"], Some(":1:7: log")),
        (
            "name = \"A b\"",
            &["--name=a"],
            Some(":1:8: name = \"A b\""),
        ),
        (
            "[[service]]\nname = \"http\"\nport = 80\ncheck = \"ftp\"",
            &["--service=ssh=22"],
            Some(":4:9: check = \"ftp\""),
        ),
        // The options have what it needs.
        (
            "dns-zone = \"b.internal\"",
            &["--dns-zone=a.internal", "--dns=127.0.0.1:0"],
            None,
        ),
        (
            "http = \"0.0.0.0:7480\"",
            &["--http=[::]:7480", "--http-token=t"],
            None,
        ),
        // It is in order without the options.
        (
            "beat-interval = \"20s\"",
            &["--lease=9s", "--beat-interval=3s"],
            None,
        ),
        ("lease = \"60s\"", &["--lease=9s"], None),
    ] {
        fs::write(&file, text).unwrap();
        let shown = show(line);
        match wrong {
            Some(at) => shown.usage(&[&format!("{file}{at}")]),
            None => drop(shown.done()),
        }
    }
}

#[test]
fn every_option_of_a_role_is_a_key_of_its_file_and_no_other_is() {
    let home = Home::new();
    for role in ["native", "indexer", "node"] {
        let help = home.run(&[role, "--help"]);
        let lines = help.done().lines().map(str::trim_start);
        let options = lines.filter_map(|line| line.strip_prefix("--")?.split(' ').next());
        let mut options: Vec<_> = options.map(str::to_owned).collect();
        options.retain(|option| option != "config" && option != "help");
        let report = Report::of(&home, &[role]);
        let mut keys: Vec<_> = report.settings.into_iter().map(|shown| shown.key).collect();
        keys.sort();
        options.sort();
        assert_eq!(keys, options, "{role}");
    }
}

#[test]
fn readme_and_manual_have_each_key_with_its_help() {
    let home = Home::new();
    let readme = include_str!("../../README.md");
    let manual = include_str!("../../targets/deb/oc-discovery.toml.5");
    let report = Report::of(&home, &["node"]);
    for Shown {
        key, help, reloads, ..
    } in &report.settings
    {
        let live = if *reloads { "yes" } else { "restart" };
        let row = format!("| `{key}` | {help} | {live} |");
        assert!(readme.contains(&row), "README.md lacks {row}");
        let item = format!(".It Cm {key}\n");
        let text = manual
            .split(&item)
            .nth(1)
            .unwrap_or_else(|| panic!("the manual lacks {key}"));
        let text = text.split(".It").next().unwrap().replace('\n', " ");
        assert!(text.contains(help), "the manual says of {key}: {text}");
        assert_eq!(text.contains("Needs a restart."), !reloads, "{key}");
    }
    let rows = readme
        .lines()
        .filter(|line| line.starts_with("| `") && line.ends_with("yes |"));
    assert_eq!(
        rows.count(),
        report.settings.iter().filter(|s| s.reloads).count()
    );
}

#[test]
fn files_of_the_packages_are_in_order_and_say_nothing_until_they_are_edited() {
    let home = Home::new();
    for role in ["native", "indexer", "node"] {
        let file = format!("{}/targets/deb/{role}.toml", env!("CARGO_MANIFEST_DIR"));
        home.run(&["config", "check", &file]).done();
        let text = fs::read_to_string(&file).unwrap();
        let examples: String = text
            .lines()
            .map(|line| {
                line.strip_prefix('#')
                    .filter(|line| !line.starts_with(' '))
                    .unwrap_or("")
            })
            .map(|line| format!("{line}\n"))
            .collect();
        let edited = home.path(&format!("{role}.toml"));
        fs::write(&edited, examples).unwrap();
        home.run(&["config", "check", &edited]).done();
        assert!(
            text.lines()
                .all(|line| line.is_empty() || line.starts_with('#')),
            "{role}"
        );
    }
}
