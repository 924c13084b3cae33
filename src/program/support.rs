//! `oc-discovery support`: what someone who helps needs to know, in one file.
//!
//! Invariants: no key and no token is in it; it is made for its owner alone, and never replaces a
//! file. Without a running daemon it says so, and has what can be said without one.

use std::fmt::Write as _;
use std::path::Path;

use super::{Failure, ask, env, one_dir, print, write_new};
use crate::cli;
use crate::config::ConfigReport;
use crate::daemon::client::{Answer, Error, OperatorRequest};
use crate::daemon::logging::LogLines;
use crate::daemon::status::Status;
use crate::daemon::{capacity::CapacityReport, doctor};

/// Runs the command.
pub(super) fn run(args: &cli::Support) -> Result<(), Failure> {
    let dir = one_dir(&args.data_dir, &args.dir)?;
    // What was typed wrongly is told before a file is made of it.
    if let Some(missing) = dir.map(Path::new).filter(|dir| !dir.is_dir()) {
        return Err(Error::NoDirectory(missing.to_path_buf()).into());
    }
    let text = gather(dir)?;
    if args.file == "-" {
        return print(text.trim_end());
    }
    write_new(&args.file, text.as_bytes(), "")?;
    print(format_args!(
        "{} has what the daemon, if one answered, and its host say, and no key: read it before you give it away, \
         because it names your devices and their addresses",
        args.file
    ))
}

/// All sections.
fn gather(dir: Option<&str>) -> Result<String, Failure> {
    let mut text = String::new();
    section(
        &mut text,
        "program",
        concat!("oc-discovery ", env!("CARGO_PKG_VERSION")),
    );
    section(&mut text, "system", &system());
    let found = doctor::examine(dir.map(Path::new), &env)?;
    section(&mut text, "doctor", &found.to_string());
    let status = ask::<Status>(dir, &OperatorRequest::Status);
    section(&mut text, "status", &json_of(status));
    let config = ask::<ConfigReport>(dir, &OperatorRequest::Config);
    section(&mut text, "config", &json_of(config));
    let log = match ask::<LogLines>(dir, &OperatorRequest::Log) {
        Ok(log) => log.value.lines.join("\n"),
        Err(error) => error.to_string(),
    };
    section(&mut text, "log", &log);
    section(
        &mut text,
        "capacity",
        &CapacityReport::of_this_build().to_string(),
    );
    Ok(text)
}

fn section(text: &mut String, name: &str, content: &str) {
    // Writing to a String does not fail.
    let _ = writeln!(text, "== {name}\n{}\n", content.trim_end());
}

fn json_of<T>(answer: Result<Answer<T>, Error>) -> String {
    match answer {
        Ok(answer) => answer.json,
        Err(error) => error.to_string(),
    }
}

/// The kernel, the distribution and the memory.
fn system() -> String {
    let name = rustix::system::uname();
    let words = [name.sysname(), name.release(), name.machine()];
    let kernel = words.map(|word| word.to_string_lossy().into_owned());
    let mut text = kernel.join(" ");
    for (file, keys) in [
        ("/etc/os-release", &["PRETTY_NAME="][..]),
        ("/proc/meminfo", &["MemTotal:", "MemAvailable:"]),
        ("/proc/uptime", &[""]),
    ] {
        let content = std::fs::read_to_string(file).unwrap_or_default();
        let is_wanted = |line: &&str| keys.iter().any(|key| line.starts_with(key));
        for line in content.lines().filter(is_wanted) {
            let _ = write!(text, "\n{file}: {line}");
        }
    }
    text
}
