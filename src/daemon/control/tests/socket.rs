//! The socket: which users may connect, where it is, and what is left of an earlier one.

use rustix::process::{Uid, geteuid};

use super::super::peer::may_ask;
use super::*;
use crate::config::group_socket_dir;

#[test]
fn the_user_at_the_other_end_is_known() {
    let (near, _far) = UnixStream::pair().unwrap();
    assert_eq!(uid_of(&near).unwrap(), geteuid());
    assert!(uid_of(std::fs::File::open("/dev/null").unwrap()).is_err());
}

#[test]
fn other_users_are_refused() {
    let (own, other) = (Uid::from_raw(1000), Uid::from_raw(1001));
    assert!(may_ask(own, own));
    assert!(may_ask(Uid::ROOT, own));
    assert!(!may_ask(other, own));
    assert!(!may_ask(other, Uid::ROOT));
}

#[test]
fn socket_of_a_dead_process_is_replaced_and_ours_is_removed() {
    let dir = TestDir::new();
    let path = dir.path().join("control.sock");
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let data = DataDir::open(dir.path()).unwrap();
    let control = Control::bind(&data, None, MAX_CLIENTS).unwrap();
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    drop(control);
    assert!(!path.exists());
}

#[test]
fn socket_for_the_group_is_in_its_directory_and_the_data_directory_leads_there() {
    let (dir, shared) = (TestDir::new(), TestDir::new());
    let (link, path) = (dir.path().join(SOCKET), shared.path().join(SOCKET));
    // What an earlier start without a group has left.
    drop(UnixListener::bind(&link).unwrap());
    let data = DataDir::open(dir.path()).unwrap();
    let control = Control::bind(&data, Some(shared.path()), MAX_CLIENTS).unwrap();
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    block_on(async {
        let client = asking(dir.path(), b"status\n").await;
        request(&control).await.reply.answer(no_indexers());
        assert_eq!(line_from(client).await, NO_INDEXERS);
    });
    drop(control);
    assert!(link.symlink_metadata().is_err() && path.symlink_metadata().is_err());
    // And the other way round, after a crash.
    symlink(&path, &link).unwrap();
    let control = Control::bind(&data, None, MAX_CLIENTS).unwrap();
    assert!(link.symlink_metadata().unwrap().file_type().is_socket());
    drop(control);
}

#[test]
fn runtime_directory_is_for_the_socket_only_if_it_is_for_its_group_alone() {
    let dir = TestDir::new();
    for (mode, is_used) in [
        (0o750, true),
        (0o755, false),
        (0o700, false),
        (0o770, false),
    ] {
        std::fs::set_permissions(dir.path(), Permissions::from_mode(mode)).unwrap();
        let env = |name: &str| (name == "RUNTIME_DIRECTORY").then(|| dir.path().into());
        assert_eq!(group_socket_dir(&env).is_some(), is_used, "{mode:o}");
    }
    assert_eq!(group_socket_dir(&|_| None), None);
}

#[test]
fn file_in_the_place_of_the_socket_is_left_alone() {
    let dir = TestDir::new();
    let path = dir.path().join("control.sock");
    std::fs::write(&path, "mine").unwrap();
    let data = DataDir::open(dir.path()).unwrap();
    let error = Control::bind(&data, None, MAX_CLIENTS).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
    assert_eq!(std::fs::read(&path).unwrap(), b"mine");
}

#[test]
fn what_is_in_the_place_of_the_socket_is_named_in_the_error() {
    let dir = TestDir::new();
    let path = dir.path().join("control.sock");
    std::fs::create_dir(&path).unwrap();
    let data = DataDir::open(dir.path()).unwrap();
    let error = Control::bind_if_possible(&data, None, MAX_CLIENTS).unwrap_err();
    let named = format!("{}: it is no socket", path.display());
    assert!(error.to_string().starts_with(&named), "{error}");
}

#[test]
fn path_longer_than_a_socket_address_works() {
    let dir = TestDir::new();
    let long = dir.path().join("d".repeat(200));
    let data = DataDir::open(&long).unwrap();
    let control = Control::bind(&data, None, MAX_CLIENTS).unwrap();
    block_on(async {
        let client = asking(&long, b"status\n").await;
        request(&control).await.reply.answer(no_indexers());
        assert_eq!(line_from(client).await, NO_INDEXERS);
    });
    drop(control);
    assert!(!long.join("control.sock").exists());
}

#[test]
fn socket_with_a_name_is_found_by_way_of_its_directory_and_only_once() {
    let dir = TestDir::new();
    let listener = bind_name(dir.path()).unwrap();
    assert!(bind_name(dir.path()).is_err(), "another has it");
    let (sender, events) = bounded(1);
    block_on(async {
        spawn(serve(
            listener,
            Desk::new(sender, MAX_CLIENTS, Askers::Owner),
        ));
        let path = dir.path().to_path_buf();
        let asking = smol::unblock(move || {
            let patience = Duration::from_secs(10);
            client::ask::<Refusal>(&path, &client::OperatorRequest::Status, patience)
        });
        let answering = async {
            let CallEvent::Made(request) = events.recv().await.unwrap() else {
                panic!("no client has left");
            };
            request.reply.refuse("by name");
        };
        let (asked, ()) = futures_util::future::join(asking, answering).await;
        assert_eq!(asked.unwrap().value.error, "by name");
    });
}
