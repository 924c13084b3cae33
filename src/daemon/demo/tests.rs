use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::*;
use crate::daemon::testdir::TestDir;
use crate::net::executor::waits::eventually;

const ID: &str = "12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp";

/// A program written by a test, and a directory for the demo.
pub(super) struct Theatre {
    dir: TestDir,
    pub(super) program: PathBuf,
}

impl Theatre {
    /// The program first writes its process id, then does as the script says.
    pub(super) fn with(script: &str) -> Theatre {
        let dir = TestDir::new();
        let program = dir.path().join("program");
        // Another process writes the file. If it were open here, a process that another test starts
        // meanwhile would inherit it, and the program could not be started ("text file busy").
        let mut writer = Command::new("/bin/sh")
            .args(["-c", "cat > \"$0\" && chmod 700 \"$0\""])
            .arg(&program)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let text = format!("#!/bin/sh\necho $$ > \"$0.pid\"\n{script}\n");
        let mut stdin = writer.stdin.take().unwrap();
        stdin.write_all(text.as_bytes()).unwrap();
        drop(stdin);
        assert!(writer.wait().unwrap().success());
        fs::create_dir(dir.path().join("stage")).unwrap();
        Theatre { dir, program }
    }

    /// A program that prints the greeting of a daemon, and then answers nothing.
    fn deaf() -> Theatre {
        Theatre::with(&format!(
            "echo 'peer id {ID}'\n\
             echo 'listening on /ip4/127.0.0.1/tcp/1/p2p/{ID}'\n\
             echo ready\n\
             echo 'cannot hear you' >&2\n\
             exec sleep 600"
        ))
    }

    pub(super) fn stage(&self) -> Stage {
        Stage::set_up(&self.dir.path().join("stage")).unwrap()
    }

    /// Runs the demo with these deadlines, and checks that its directory is gone afterwards.
    fn play(&self, within: fn(&Tempo) -> Duration) -> (Error, String) {
        let steps: Vec<Step> = STORY.iter().map(|step| Step { within, ..*step }).collect();
        let mut out = Vec::new();
        let mut screen = Screen::new(&mut out, false);
        let stage = self.stage();
        let tempo = Tempo::at(Speed(100));
        let error = smol::block_on(play(&self.program, &stage, tempo, &steps, &mut screen));
        (error.unwrap_err(), String::from_utf8(out).unwrap())
    }

    fn pid(&self) -> Option<u32> {
        let pid = fs::read_to_string(self.program.with_extension("pid")).ok()?;
        pid.trim().parse().ok()
    }

    fn assert_nothing_left(&self) {
        let process = format!("/proc/{}", self.pid().unwrap());
        assert!(!Path::new(&process).exists(), "{process}");
        let left = fs::read_dir(self.dir.path().join("stage")).unwrap().count();
        assert_eq!(left, 0);
    }
}

#[test]
fn deaf_process_ends_the_demo_with_the_name_of_the_step() {
    let theatre = Theatre::deaf();
    let (error, told) = theatre.play(|_| Duration::from_millis(500));
    let text = error.to_string();
    assert_eq!(error.exit_code(), 1);
    assert!(
        text.starts_with("demo: step \"native up\" did not happen within 0.5 s: there is no"),
        "{text}"
    );
    assert!(
        text.ends_with("the end of native's log:\n  cannot hear you"),
        "{text}"
    );
    assert!(
        told.contains("1. native up\n   waiting for a native"),
        "{told}"
    );
    assert!(!told.contains("saw"), "{told}");
    theatre.assert_nothing_left();
}

#[test]
fn process_that_ends_is_not_waited_for() {
    let theatre = Theatre::with("echo 'no room' >&2\nexit 3");
    let (error, _) = theatre.play(|_| Duration::from_secs(600));
    let text = error.to_string();
    assert!(
        text.starts_with(
            "demo: step \"native up\" did not happen: native ended with exit status: 3"
        ),
        "{text}"
    );
    assert!(text.ends_with("no room"), "{text}");
    theatre.assert_nothing_left();
}

#[test]
fn program_that_cannot_be_started_names_the_step() {
    let theatre = Theatre::deaf();
    fs::remove_file(&theatre.program).unwrap();
    let (error, _) = theatre.play(|_| Duration::ZERO);
    let text = error.to_string();
    assert!(text.contains("step \"native up\""), "{text}");
    assert!(text.contains("native cannot be started"), "{text}");
}

#[test]
fn demo_that_is_interrupted_leaves_nothing() {
    let theatre = Theatre::deaf();
    let stage = theatre.stage();
    let mut out = Vec::new();
    let mut screen = Screen::new(&mut out, false);
    let tempo = Tempo::at(Speed(100));
    let steps: Vec<Step> = STORY
        .iter()
        .map(|step| Step {
            within: |_| Duration::from_secs(600),
            ..*step
        })
        .collect();
    let running = async {
        eventually("it runs", || theatre.pid().is_some()).await;
        Err(Error::Interrupted)
    };
    let played = play(&theatre.program, &stage, tempo, &steps, &mut screen);
    let error = smol::block_on(smol::future::or(running, played)).unwrap_err();
    assert!(matches!(error, Error::Interrupted), "{error}");
    stage.clear().unwrap();
    theatre.assert_nothing_left();
    stage.clear().unwrap();
}

#[test]
fn frozen_process_is_seen_and_still_ends() {
    let theatre = Theatre::deaf();
    let stage = theatre.stage();
    stage.start("x", &theatre.program, ["x"]).unwrap();
    assert!(!stage.is_frozen("x"));
    block_on(eventually("it runs", || theatre.pid().is_some()));
    stage.freeze("x").unwrap();
    block_on(eventually("it is frozen", || stage.is_frozen("x")));
    assert!(stage.freeze("y").is_err());
    drop(stage);
    theatre.assert_nothing_left();
}

#[test]
fn stage_is_private() {
    let theatre = Theatre::deaf();
    let stage = theatre.stage();
    let mode = fs::metadata(stage.dir()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
}

#[test]
fn every_speed_keeps_the_bounds_of_the_options() {
    use crate::config::{Config, Flags};
    for speed in 1..=100 {
        let tempo = Tempo::at(Speed(speed));
        let millis = |duration: Duration| Some(format!("{}ms", duration.as_millis()));
        let flags = Flags {
            data_dir: Some("d".into()),
            lease: millis(tempo.lease),
            beat_interval: millis(tempo.beat),
            gc_interval: millis(tempo.gc),
            connect_interval: millis(tempo.connect),
            ..Flags::default()
        };
        let config = Config::parse(crate::config::Role::Native, &flags, &|_| None);
        assert!(config.is_ok(), "{speed}: {config:?}");
    }
    let service = Tempo::at(Speed(1));
    assert_eq!(service.lease, Duration::from_secs(90));
    assert_eq!(service.loops, Duration::from_secs(30));
}

#[test]
fn speed_is_a_number_from_1_to_100() {
    assert_eq!(Speed::parse(None), Ok(Speed(30)));
    assert_eq!(Speed::parse(Some("1")), Ok(Speed(1)));
    assert_eq!(Speed::parse(Some("100")), Ok(Speed(100)));
    for bad in ["0", "101", "-1", "1.5", "", "fast", "99999999999"] {
        let error = Speed::parse(Some(bad)).unwrap_err();
        assert!(error.contains("from 1 to 100"), "{error}");
    }
}

/// What the demo says of itself, without what it sees: that differs from run to run.
#[cfg(feature = "dns")]
#[test]
fn demo_is_told_as_in_its_snapshot() {
    let mut out = Vec::new();
    let mut screen = Screen::new(&mut out, false);
    prologue(&mut screen, &Tempo::at(Speed(30))).unwrap();
    for (index, step) in STORY.iter().enumerate() {
        screen.begin(index + 1, step.name, step.waits_for).unwrap();
    }
    let took = (STORY.len(), Duration::from_millis(25_300));
    summary(&mut screen, took).unwrap();
    let told = String::from_utf8(out).unwrap();
    let columns = told.lines().map(|line| line.chars().count()).max();
    assert!(columns.unwrap() <= 80, "{told}");
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cli/snapshots/demo.txt");
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        fs::write(file, &told).unwrap();
    }
    assert_eq!(told, fs::read_to_string(file).unwrap_or_default());
}
