//! The build script with good and bad values: its output, its messages and its exit code.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

/// A directory of one test, below cargo's directory for tests.
fn scratch(name: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join("capacities")
        .join(name);
    std::fs::create_dir_all(&dir).unwrap();
    dir
}

/// The build script as a program, compiled once.
fn script() -> &'static Path {
    static SCRIPT: OnceLock<PathBuf> = OnceLock::new();
    SCRIPT.get_or_init(|| {
        let program = scratch("program").join("build-script");
        let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| OsString::from("rustc"));
        let status = Command::new(rustc)
            .args(["--edition", "2024", "--crate-name", "build_script", "-o"])
            .arg(&program)
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("build.rs"))
            .status()
            .unwrap();
        assert!(status.success());
        program
    })
}

/// Runs the script with only these variables set. Returns its output, and the file that it wrote,
/// if any.
fn build(test: &str, variables: &[(&str, &str)]) -> (Output, Option<String>) {
    let out = scratch(test);
    let file = out.join("capacities.rs");
    let _ = std::fs::remove_file(&file);
    let output = Command::new(script())
        .env_clear()
        .env("OUT_DIR", &out)
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    (output, std::fs::read_to_string(file).ok())
}

/// Asserts that the build fails, writes nothing, and that its message has every one of `parts`.
fn assert_fails(test: &str, variables: &[(&str, &str)], parts: &[&str]) {
    let (output, file) = build(test, variables);
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{variables:?}: {stdout}");
    assert_eq!(file, None, "{variables:?}");
    let message = stdout
        .lines()
        .find_map(|line| line.strip_prefix("cargo::error="))
        .unwrap_or_else(|| panic!("no cargo::error= in {stdout}"));
    for part in parts {
        assert!(message.contains(part), "`{part}` is not in `{message}`");
    }
}

#[test]
fn defaults_are_written_and_documented() {
    let (output, file) = build("defaults", &[]);
    assert!(output.status.success());
    let file = file.unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    for (name, value) in [
        ("MAX_INDEXERS", 256),
        ("MAX_NODES", 1024),
        ("MAX_RESPONSIBLE", 256),
        ("MAX_KNOWN", 512),
        ("MAX_NATIVES", 8),
        ("MAX_DHT_RECORDS", 1024),
        ("MAX_PROVIDERS", 4096),
        ("MAX_LOST", 512),
        ("MAX_CONNECTIONS", 1536),
    ] {
        assert!(
            file.contains(&format!("pub const {name}: usize = {value};")),
            "{file}"
        );
        assert!(
            file.contains(&format!("/// Set by `OC_DISCOVERY_{name}`")),
            "{file}"
        );
        let rerun = format!("cargo::rerun-if-env-changed=OC_DISCOVERY_{name}\n");
        assert!(stdout.contains(&rerun), "{stdout}");
    }
}

#[test]
fn a_variable_sets_its_capacity() {
    let (output, file) = build("set", &[("OC_DISCOVERY_MAX_INDEXERS", "32")]);
    assert!(output.status.success());
    let file = file.unwrap();
    assert!(file.contains("pub const MAX_INDEXERS: usize = 32;"));
    let entry = r#"variable: "OC_DISCOVERY_MAX_INDEXERS", capacity: MAX_INDEXERS,"#;
    assert!(file.contains(entry), "{file}");
}

#[test]
fn bounds_are_inclusive() {
    let natives = "OC_DISCOVERY_MAX_NATIVES";
    for value in ["1", "8"] {
        let (output, _) = build("bounds", &[(natives, value)]);
        assert!(output.status.success(), "{value}");
    }
    for value in ["0", "9"] {
        assert_fails(
            "bounds",
            &[(natives, value)],
            &[natives, value, "from 1 to 8"],
        );
    }
}

#[test]
fn what_is_no_whole_number_fails_the_build() {
    for value in ["many", "", "-1", "1.5", " 8", "99999999999999999999999999"] {
        let variable = "OC_DISCOVERY_MAX_NODES";
        let shown = format!("`{value}`");
        assert_fails(
            "number",
            &[(variable, value)],
            &[variable, &shown, "from 1 to 65535"],
        );
    }
}

#[test]
fn fewer_connections_than_leases_fail_the_build() {
    // 256 indexers, 256 nodes taken in, 8 natives that are known and 8 guests.
    let variables = |connections| {
        [
            ("OC_DISCOVERY_MAX_NODES", "256"),
            ("OC_DISCOVERY_MAX_CONNECTIONS", connections),
        ]
    };
    let (output, _) = build("leases", &variables("528"));
    assert!(output.status.success());
    assert_fails(
        "leases",
        &variables("527"),
        &[
            "OC_DISCOVERY_MAX_CONNECTIONS is 527",
            "OC_DISCOVERY_MAX_RESPONSIBLE (256)",
            "= 528",
        ],
    );
}

#[test]
fn fewer_known_ids_than_live_indexers_fail_the_build() {
    assert_fails(
        "known",
        &[("OC_DISCOVERY_MAX_KNOWN", "255")],
        &[
            "OC_DISCOVERY_MAX_KNOWN is 255",
            "OC_DISCOVERY_MAX_INDEXERS (256)",
        ],
    );
}

#[test]
fn fewer_stored_values_than_lease_holders_fail_the_build() {
    assert_fails(
        "records",
        &[("OC_DISCOVERY_MAX_DHT_RECORDS", "1023")],
        &[
            "OC_DISCOVERY_MAX_DHT_RECORDS is 1023",
            "OC_DISCOVERY_MAX_NODES (1024)",
        ],
    );
}

#[test]
fn build_date_is_that_of_the_sources_and_never_before_the_release() {
    let date = |value| {
        let (output, _) = build("date", &[("SOURCE_DATE_EPOCH", value)]);
        let stdout = String::from_utf8(output.stdout).unwrap();
        let prefix = "cargo::rustc-env=OC_DISCOVERY_BUILD_MS=";
        let date = stdout.lines().find_map(|line| line.strip_prefix(prefix));
        date.unwrap().parse::<u64>().unwrap()
    };
    assert_eq!(date("1900000000"), 1_900_000_000_000);
    assert!(date("0") > 1_700_000_000_000);
    for value in ["yesterday", "4102444801"] {
        let variable = "SOURCE_DATE_EPOCH";
        assert_fails(
            "date",
            &[(variable, value)],
            &[variable, value, "at most 4102444800"],
        );
    }
}
