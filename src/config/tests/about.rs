//! What a node says about itself: its name, tags, services and their checks.

use super::*;

#[test]
fn names_keep_to_the_wire() {
    let named = |name: &str| parse(Role::Node, |flags| flags.node.name = Some(name.into()));
    let longest = "a".repeat(63);
    for good in ["a", "cam-3.hall", "0", longest.as_str()] {
        assert_eq!(named(good).unwrap().name.as_deref(), Some(good));
    }
    let too_long = "a".repeat(64);
    for bad in ["", "Cam", "cam 3", "cam_3", "caméra", "a\nb", &too_long] {
        let error = named(bad).unwrap_err();
        assert!(error.contains("1 to 63 of a-z 0-9 - ."), "{error}");
        assert!(!error.contains('\n'), "{error}");
    }
}

#[test]
fn tags_keep_to_the_wire() {
    let config = tagged(&["room=hall", "note=a=b", "empty="]).unwrap();
    assert_eq!(config.tags["room"], "hall");
    assert_eq!(config.tags["note"], "a=b");
    assert_eq!(config.tags["empty"], "");

    let fits = format!("k={}", "v".repeat(255));
    assert!(tagged(&[&fits]).is_ok());
    assert!(tagged(&[&fits, "x="]).unwrap_err().contains("257"));
    assert!(tagged(&["room"]).unwrap_err().contains("KEY=VALUE"));
    assert!(tagged(&["=hall"]).unwrap_err().contains("KEY=VALUE"));
    assert!(tagged(&["a=\u{1b}[2J"]).unwrap_err().contains("control"));
    assert!(tagged(&["a=1", "a=2"]).unwrap_err().contains("twice"));
    let nine: Vec<String> = (0..9).map(|n| format!("k{n}=v")).collect();
    let nine: Vec<&str> = nine.iter().map(String::as_str).collect();
    assert!(tagged(&nine[..8]).is_ok());
    assert!(tagged(&nine).unwrap_err().contains("8 is the most"));
}

#[test]
fn services_have_a_name_of_rfc_6335_and_a_port() {
    let offering = |services: &[&str]| {
        parse(Role::Node, |flags| {
            flags.node.service = services.iter().map(|&service| service.into()).collect();
        })
    };
    let config = offering(&["http=1", "dns=udp:65535", "ssh=tcp:22"]).unwrap();
    let read = config.services.iter();
    let read: Vec<_> = read
        .map(|s| (s.name.as_str(), s.transport, s.port))
        .collect();
    let (tcp, udp) = (Transport::Tcp, Transport::Udp);
    assert_eq!(
        read,
        [("http", tcp, 1), ("dns", udp, 65535), ("ssh", tcp, 22)]
    );

    for (bad, said) in [
        ("http", "NAME=PORT"),
        ("http=sctp:1", "NAME=udp:PORT"),
        ("http=0", "1 to 65535"),
        ("http=65536", "1 to 65535"),
        ("http=udp:", "1 to 65535"),
        ("http=+80", "1 to 65535"),
        ("http=080", "1 to 65535"),
        ("Http=1", "a-z 0-9 -"),
        ("abcdefghijklmnop=1", "1 to 15"),
        ("=1", "1 to 15"),
    ] {
        let error = offering(&[bad]).unwrap_err();
        assert!(error.contains(said) && error.contains(bad), "{error}");
    }
    let nine = [
        "a=1", "b=1", "c=1", "d=1", "e=1", "f=1", "g=1", "h=1", "i=1",
    ];
    assert!(offering(&nine[..8]).is_ok());
    assert!(offering(&nine).unwrap_err().contains("8 is the most"));
    assert!(offering(&["dns=53", "dns=udp:53"]).is_ok());
    assert!(
        offering(&["dns=53", "dns=tcp:54"])
            .unwrap_err()
            .contains("twice")
    );
}

#[test]
fn check_is_of_a_service_that_is_offered_and_a_command_needs_leave() {
    let checking = |check: &[&str], allow_exec| {
        parse(Role::Node, |flags| {
            let services = ["http=80", "dns=udp:53", "dns=53", "log=udp:514"];
            flags.node.service = services.map(String::from).into();
            flags.node.check = check.iter().map(|&check| check.into()).collect();
            flags.node.allow_exec = allow_exec;
        })
    };
    let config = checking(&["http=http:/up?x=1", "dns=tcp", "log=exec:true"], true).unwrap();
    let read: Vec<_> = config
        .checks
        .into_iter()
        .map(|check| (check.service, check.probe))
        .collect();
    let http = Probe::Http("/up?x=1".into());
    assert_eq!(
        read,
        [(0, http), (2, Probe::Tcp), (3, Probe::Exec("true".into()))]
    );

    // A name on UDP and on TCP: a command checks both.
    let config = checking(&["dns=exec:true"], true).unwrap();
    let checked = config.checks.iter().map(|check| check.service);
    assert!(checked.eq([1, 2]), "{:?}", config.checks);
    for two in [["dns=tcp", "dns=exec:true"], ["dns=exec:true", "dns=tcp"]] {
        let error = checking(&two, true).unwrap_err();
        assert!(error.contains("has a check already"), "{error}");
    }

    let long = format!("http=http:/{}", "x".repeat(256));
    let longer = format!("http=exec:{}", "x".repeat(1025));
    for (bad, said) in [
        ("http", "SERVICE=tcp"),
        ("http=udp", "SERVICE=tcp"),
        ("http=tcp:80", "SERVICE=tcp"),
        ("http=http", "SERVICE=tcp"),
        ("http=http:up", "begins with /"),
        ("http=http:/a b", "without spaces"),
        (&long, "at most 256 bytes"),
        ("http=exec:", "1 to 1024 bytes"),
        (&longer, "1 to 1024 bytes"),
        ("http=exec:a\nb", "control characters"),
        ("ssh=tcp", "--service ssh=PORT"),
        ("log=tcp", "use exec"),
        ("log=http:/", "use exec"),
    ] {
        let error = checking(&[bad], true).unwrap_err();
        assert!(
            error.starts_with("--check") && error.contains(said),
            "{error}"
        );
    }
    assert!(
        checking(&["http=exec:true"], false)
            .unwrap_err()
            .contains("--allow-exec")
    );
    assert!(
        checking(&["http=tcp", "http=http:/"], true)
            .unwrap_err()
            .contains("already")
    );
}

#[test]
fn options_of_checks_without_a_check_that_needs_them_are_wrong() {
    let given = |check: &[&str], allow_exec, interval: Option<&str>| {
        parse(Role::Node, |flags| {
            flags.node.service = vec!["http=80".into()];
            flags.node.check = check.iter().map(|&check| check.into()).collect();
            flags.node.allow_exec = allow_exec;
            flags.node.check_interval = interval.map(String::from);
        })
    };
    assert!(given(&["http=tcp"], false, Some("1s")).is_ok());
    let error = given(&[], false, Some("1s")).unwrap_err();
    assert!(
        error.starts_with("--check-interval \"1s\": there is no --check"),
        "{error}"
    );
    assert!(given(&["http=exec:true"], true, None).is_ok());
    for check in [&["http=tcp"][..], &[]] {
        let error = given(check, true, None).unwrap_err();
        assert!(
            error.starts_with("--allow-exec: no --check runs"),
            "{error}"
        );
    }
}
