use std::fs::File;
use std::io::{Read as _, pipe};
use std::os::fd::FromRawFd as _;
use std::os::unix::net::UnixStream;
use std::ptr::null;

use rustix::fs::{fcntl_getfl, fcntl_setfl};

use super::*;
use crate::daemon::testdir::TestDir;

fn say(lost: u64) -> String {
    format!("{lost} were lost\n")
}

/// An outlet that would block if it did not check first.
fn shared<F: AsFd>(fd: F, piece: usize) -> Outlet<F> {
    Outlet {
        way: Way::Shared { piece },
        ..Outlet::new(fd)
    }
}

/// Writes numbered lines until one is lost. Returns how many were written.
fn fill<F: AsFd>(outlet: &mut Outlet<F>) -> usize {
    let padding = "x".repeat(200);
    let mut taken = 0;
    while outlet.lost == 0 {
        outlet.line(&format!("{taken} {padding}\n"), say);
        taken += usize::from(outlet.lost == 0);
        assert!(taken < 100_000, "it takes all");
    }
    taken
}

/// Reads `reader` until it is empty, and settles in between. Returns the whole lines.
fn drain<F: AsFd>(outlet: &mut Outlet<F>, reader: OwnedFd) -> Vec<String> {
    let flags = fcntl_getfl(&reader).unwrap();
    fcntl_setfl(&reader, flags | OFlags::NONBLOCK).unwrap();
    let mut reader = File::from(reader);
    let (mut text, mut chunk) = (Vec::new(), [0; 4096]);
    loop {
        match reader.read(&mut chunk) {
            Ok(read) => text.extend_from_slice(&chunk[..read]),
            Err(_) if outlet.owes() => drop(outlet.settle(say)),
            Err(_) => break,
        }
    }
    let text = String::from_utf8(text).unwrap().replace('\r', "");
    assert!(text.ends_with('\n'), "{text}");
    text.lines().map(str::to_owned).collect()
}

/// Fills the outlet, loses some lines, and reads all: each line is whole and in order, and the
/// counts are right.
fn loses_and_says_so<F: AsFd>(mut outlet: Outlet<F>, reader: OwnedFd) {
    let first = fill(&mut outlet);
    let padding = "x".repeat(200);
    let offered = first + 1 + 100;
    for number in first + 1..offered {
        outlet.line(&format!("{number} {padding}\n"), say);
    }
    assert!(outlet.owes());
    let lines = drain(&mut outlet, reader);
    assert!(!outlet.owes());
    let mut next = 0;
    for line in &lines {
        match line.split_once(' ').unwrap() {
            // A pipe without room for a longer line may have room for this one.
            (lost, "were lost") => next += lost.parse::<usize>().unwrap(),
            (number, rest) => {
                assert_eq!((number, rest), (&*next.to_string(), &*padding));
                next += 1;
            }
        }
    }
    assert_eq!(next, offered, "said or counted");
    assert!(lines.len() > first);
}

/// The two ends of a terminal: the side of the screen, and the side to which a program writes.
#[expect(unsafe_code, reason = "the standard library makes no terminals")]
fn terminal() -> (OwnedFd, OwnedFd) {
    let (mut screen, mut line) = (-1, -1);
    // SAFETY: the call writes only the two numbers, and they are new descriptors afterwards.
    unsafe {
        let made = libc::openpty(
            &mut screen,
            &mut line,
            null::<libc::c_char>().cast_mut(),
            null(),
            null(),
        );
        assert_eq!(made, 0);
        (OwnedFd::from_raw_fd(screen), OwnedFd::from_raw_fd(line))
    }
}

/// Does what ^S and ^Q do.
#[expect(unsafe_code, reason = "as above")]
fn flow(line: &OwnedFd, action: libc::c_int) {
    // SAFETY: the descriptor is open.
    assert_eq!(unsafe { libc::tcflow(line.as_raw_fd(), action) }, 0);
}

#[test]
fn full_pipe_loses_lines_and_the_count_is_said_when_it_is_read() {
    let (reader, writer) = pipe().unwrap();
    let outlet = Outlet::new(writer);
    assert!(matches!(outlet.way, Way::Own(_)));
    loses_and_says_so(outlet, reader.into());
}

#[test]
fn pipe_that_cannot_be_opened_anew_is_asked_before_each_line() {
    let (reader, writer) = pipe().unwrap();
    loses_and_says_so(shared(writer, LINE_MAX), reader.into());
}

#[test]
fn terminal_that_shows_nothing_loses_lines_and_the_count_is_said() {
    let (screen, line) = terminal();
    let outlet = Outlet::new(line);
    assert!(matches!(outlet.way, Way::Own(_)));
    loses_and_says_so(outlet, screen);
}

#[test]
fn terminal_of_another_user_is_asked_before_each_byte() {
    let (screen, line) = terminal();
    loses_and_says_so(shared(line, 1), screen);
}

#[test]
fn stopped_terminal_loses_lines_until_it_goes_on() {
    for own in [true, false] {
        let (screen, line) = terminal();
        let mut outlet = match own {
            true => Outlet::new(&line),
            false => shared(&line, 1),
        };
        flow(&line, libc::TCOOFF);
        outlet.line("while it is stopped\n", say);
        assert_eq!(outlet.lost, 1);
        flow(&line, libc::TCOON);
        outlet.line("again\n", say);
        assert_eq!(drain(&mut outlet, screen), ["1 were lost", "again"]);
    }
}

#[test]
fn socket_that_is_not_read_loses_lines_and_the_count_is_said() {
    let (reader, writer) = UnixStream::pair().unwrap();
    let outlet = Outlet::new(writer);
    assert!(matches!(outlet.way, Way::Socket));
    loses_and_says_so(outlet, reader.into());
}

#[test]
fn the_description_that_others_share_stays_as_it_was() {
    let (_reader, writer) = pipe().unwrap();
    let (_screen, line) = terminal();
    for fd in [OwnedFd::from(writer), line] {
        let before = fcntl_getfl(&fd).unwrap();
        let mut outlet = Outlet::new(&fd);
        fill(&mut outlet);
        assert_eq!(fcntl_getfl(&fd).unwrap(), before);
        assert!(!before.contains(OFlags::NONBLOCK));
    }
}

#[test]
fn file_takes_every_line_where_others_left_off() {
    let scratch = TestDir::new();
    let path = scratch.path().join("log");
    std::fs::write(&path, "before\n").unwrap();
    let mut outlet = Outlet::new(File::options().append(true).open(&path).unwrap());
    assert!(matches!(outlet.way, Way::File));
    outlet.line("after\n", say);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "before\nafter\n");
}

#[test]
fn reader_that_has_gone_is_no_debt_that_is_tried_again() {
    let (reader, writer) = pipe().unwrap();
    let mut outlets = [Outlet::new(&writer), shared(&writer, LINE_MAX)];
    drop(reader);
    for outlet in &mut outlets {
        outlet.line("to a closed pipe\n", say);
        assert_eq!(outlet.lost, 1);
        assert!(!outlet.owes());
    }
}
