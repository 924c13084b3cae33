use super::*;

/// What Config makes of these values of a setting.
fn parsed(setting: &Setting, values: &[&str]) -> Result<Config, String> {
    let mut flags = Flags {
        data_dir: Some("unused".to_owned()),
        lease: Some("20m".to_owned()),
        ..Flags::default()
    };
    #[cfg(feature = "mdns")]
    {
        flags.mdns = true;
    }
    if setting.name == "check-interval" {
        flags.node.service.push("http=80".to_owned());
        flags.node.check.push("http=tcp".to_owned());
    }
    setting.set(&mut flags, texts(values));
    Config::parse(Role::Node, &flags, &|_| None).map_err(|error| error.to_string())
}

#[test]
fn durations_and_numbers_have_the_bounds_of_their_parsers() {
    for setting in SETTINGS {
        let ms = |value: Duration| format!("{}ms", value.as_millis());
        let step = Duration::from_millis(1);
        let (inside, outside) = match setting.kind {
            // The lease bounds it first.
            Kind::Duration(min, _) if setting.name == "beat-interval" => {
                (vec![ms(min)], vec![ms(min - step)])
            }
            Kind::Duration(min, max) => {
                (vec![ms(min), ms(max)], vec![ms(min - step), ms(max + step)])
            }
            Kind::Number(min, max) => (texts([min, max]), texts([min - 1, max + 1])),
            _ => continue,
        };
        for value in inside {
            let config = parsed(setting, &[&value]);
            assert!(config.is_ok(), "{} {value}: {config:?}", setting.name);
        }
        for value in outside {
            let error = parsed(setting, &[&value]).unwrap_err();
            assert!(error.contains(&value), "{}: {error}", setting.name);
        }
    }
}

#[test]
fn lists_have_the_bounds_of_their_parsers() {
    for setting in SETTINGS {
        let (Kind::List(most) | Kind::Tags(most) | Kind::Services(most) | Kind::OfService(most)) =
            setting.kind
        else {
            continue;
        };
        let error = parsed(setting, &vec!["x"; most + 1]).unwrap_err();
        let why = format!("given {} times, and {most} is the most", most + 1);
        assert!(error.contains(&why), "{}: {error}", setting.name);
        let error = parsed(setting, &vec!["x"; most]).map(drop);
        assert!(
            !error.is_err_and(|error| error.contains("is the most")),
            "{}",
            setting.name
        );
    }
}

#[test]
fn each_setting_has_a_place_of_its_own_in_the_flags() {
    for setting in SETTINGS {
        let mut flags = Flags {
            #[cfg(feature = "mdns")]
            mdns: true,
            ..Flags::default()
        };
        assert!(!setting.is_in(&flags), "{}", setting.name);
        setting.set(&mut flags, vec!["true".to_owned()]);
        let set = SETTINGS.iter().filter(|other| other.is_in(&flags));
        let set: Vec<_> = set.map(|other| other.name).collect();
        assert_eq!(set, [setting.name]);
    }
}

#[test]
fn what_is_shown_is_what_the_option_takes() {
    let id = "12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp";
    let native = format!("/ip4/192.0.2.1/tcp/4820/p2p/{id}");
    for (name, values) in [
        ("native", vec![native.as_str(), "/dnsaddr/natives.example"]),
        ("listen", vec!["/ip4/127.0.0.1/tcp/1"]),
        ("announce", vec!["/dns/gate.example/tcp/1"]),
        ("data-dir", vec!["/var/lib/x"]),
        ("psk", vec!["/etc/key"]),
        ("trust-lan", vec!["true"]),
        ("log", vec!["debug"]),
        ("lease", vec!["90s"]),
        ("gc-interval", vec!["1500ms"]),
        ("name", vec!["cam"]),
        ("tag", vec!["room=hall", "site=roof"]),
        ("service", vec!["http=80", "dns=udp:53"]),
        ("min-indexers", vec!["3"]),
    ] {
        let setting = Setting::of(name).unwrap();
        let config = parsed(setting, &values).unwrap();
        assert_eq!((setting.show)(&config), texts(&values), "{name}");
    }
}
