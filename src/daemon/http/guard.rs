//! Which requests are answered: those with the token, and with a name of this host.
//!
//! A page of another site can make a browser ask this server if its own name leads to this host
//! (DNS rebinding). The browser then names that site in `Host`, and has no token for it. So a
//! request with the token is answered under every name, and one without only under a name that no
//! other site can have: an IP address, `localhost`, or the own name.

use std::{fmt, fs, hint::black_box, net::IpAddr, os::unix::fs::MetadataExt as _, path::Path};

use super::{answer::Answer, request::HttpRequest};

/// Bytes of a token, so that it cannot be guessed, and fits into a head.
const TOKEN: std::ops::RangeInclusive<usize> = 16..=256;
/// Permissions of users who are neither the owner nor in the group.
const OTHERS: u32 = 0o007;

/// What a request has to show. The text of it does not show the token.
pub(super) struct Guard {
    token: Option<Vec<u8>>,
    /// Names of this host, in lower case.
    names: Vec<String>,
}

impl Guard {
    /// Without a token, every request under one of these names is answered.
    pub(super) fn new(token: Option<Vec<u8>>, names: impl IntoIterator<Item = String>) -> Self {
        let names = names.into_iter().filter(|name| !name.is_empty());
        let mut all = vec!["localhost".to_owned()];
        for name in names.map(|name| name.to_ascii_lowercase()) {
            all.extend([format!("{name}.local"), name]);
        }
        Self { token, names: all }
    }

    /// Whether the request is answered: what is `open` needs no token.
    ///
    /// # Errors
    /// The answer to one that is not.
    pub(super) fn check(&self, request: &HttpRequest, open: bool) -> Result<(), Answer> {
        let shown = request.authorization.as_deref().and_then(shown);
        if let Some(token) = &self.token {
            if shown.is_some_and(|shown| is_equal(&shown, token)) {
                return Ok(());
            }
            if !open {
                return Err(unauthorized());
            }
        }
        if request.is_cross_site {
            // It could not read the answer, but take all watches.
            let why = "a page of another site has asked this: open it by itself";
            return Err(Answer::error(403, why));
        }
        match &request.host {
            Some(host) if !self.is_own(host) => Err(Answer::error(
                421,
                "this server is not called so: ask it by its IP address, as localhost, or by the name of its host",
            )),
            _ => Ok(()),
        }
    }

    /// Whether no other site can have this name.
    fn is_own(&self, host: &str) -> bool {
        let (name, port) = match host.rsplit_once(':') {
            Some((name, port)) if !port.ends_with(']') => (name, port),
            _ => (host, ""),
        };
        if !port.bytes().all(|byte| byte.is_ascii_digit()) {
            return false;
        }
        let bare = name
            .strip_prefix('[')
            .and_then(|name| name.strip_suffix(']'));
        let is_address = match bare {
            Some(ip) => ip.parse().is_ok_and(|ip: IpAddr| ip.is_ipv6()),
            None => name.parse().is_ok_and(|ip: IpAddr| ip.is_ipv4()),
        };
        let name = name.strip_suffix('.').unwrap_or(name);
        is_address || self.names.iter().any(|own| own.eq_ignore_ascii_case(name))
    }
}

fn unauthorized() -> Answer {
    Answer {
        extra: "WWW-Authenticate: Basic realm=\"oc-discovery\", charset=\"UTF-8\"\r\n\
                WWW-Authenticate: Bearer realm=\"oc-discovery\"\r\n",
        ..Answer::error(
            401,
            "the token is missing or wrong: send that of --http-token as Bearer, or as the password of any user",
        )
    }
}

/// The token that a client shows: as it is, or as a password.
fn shown(authorization: &str) -> Option<Vec<u8>> {
    let (scheme, rest) = authorization.split_once(' ')?;
    let rest = rest.trim();
    if scheme.eq_ignore_ascii_case("Bearer") {
        return Some(rest.as_bytes().to_vec());
    }
    if !scheme.eq_ignore_ascii_case("Basic") {
        return None;
    }
    let pair = base64(rest)?;
    let colon = pair.iter().position(|byte| *byte == b':')?;
    pair.get(colon + 1..).map(<[u8]>::to_vec)
}

/// Decodes base64 (RFC 4648, section 4).
fn base64(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let (mut bits, mut count) = (0_u32, 0);
    for letter in text.trim_end_matches('=').bytes() {
        let value = match letter {
            b'A'..=b'Z' => letter - b'A',
            b'a'..=b'z' => letter - b'a' + 26,
            b'0'..=b'9' => letter - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = (bits << 6 | u32::from(value)) & 0xffff;
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
        }
    }
    Some(bytes)
}

/// Whether the two are equal. How long this takes depends on their lengths only.
fn is_equal(one: &[u8], other: &[u8]) -> bool {
    let mut differ = u8::from(one.len() != other.len());
    for (one, other) in one.iter().zip(other) {
        differ |= black_box(one ^ other);
    }
    black_box(differ) == 0
}

/// Why a token cannot be used: a sentence without its end.
#[derive(Debug)]
pub(in crate::daemon) struct BadToken(String);

impl fmt::Display for BadToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Reads the token of a file: its only line.
///
/// # Errors
/// If the file cannot be read, or is not a line of 16 to 256 visible characters.
pub(in crate::daemon) fn token(path: &Path) -> Result<Vec<u8>, BadToken> {
    let shown = path.display();
    let said = |what: String| BadToken(format!("--http-token {shown}: {what}"));
    let file = fs::metadata(path).map_err(|error| said(error.to_string()))?;
    // A pipe would block the start, and a large file would fill the memory.
    if !file.is_file() || file.len() > 4096 {
        return Err(said("give a file with one line".into()));
    }
    let text = fs::read(path).map_err(|error| said(error.to_string()))?;
    let token = text.trim_ascii();
    match TOKEN.contains(&token.len()) && token.iter().all(u8::is_ascii_graphic) {
        true => Ok(token.to_vec()),
        false => Err(said(format!(
            "a token is one line of {} to {} visible ASCII characters; make one with: openssl rand -hex 32",
            TOKEN.start(),
            TOKEN.end()
        ))),
    }
}

/// A sentence if other users can read the file of the token.
pub(in crate::daemon) fn open_token(path: &Path) -> Option<String> {
    let shown = path.display();
    let is_open = fs::metadata(path).is_ok_and(|file| file.mode() & OTHERS != 0);
    is_open
        .then(|| format!("--http-token {shown}: other users can read it; type: chmod o= {shown}"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::daemon::{http::request, testdir::TestDir};

    fn request(fields: &str) -> HttpRequest {
        let head = format!("GET / HTTP/1.0\r\n{fields}\r\n");
        request::read(head.as_bytes()).unwrap().unwrap().0
    }

    fn refused(guard: &Guard, fields: &str) -> Option<u16> {
        let refused = guard.check(&request(fields), false).err();
        refused.map(|answer| answer.status)
    }

    #[test]
    fn only_names_that_no_other_site_can_have_are_answered() {
        let guard = Guard::new(None, ["Edge-7".into(), String::new()]);
        for own in [
            "127.0.0.1",
            "127.0.0.1:7480",
            "192.0.2.1:80",
            "[::1]",
            "[2001:db8::1]:7480",
            "localhost",
            "LOCALHOST:1",
            "localhost.",
            "edge-7",
            "EDGE-7:7480",
            "edge-7.local",
        ] {
            assert_eq!(refused(&guard, &format!("Host: {own}\r\n")), None, "{own}");
        }
        for other in [
            "evil.example",
            "evil.example:7480",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "edge-7.evil.example",
            "",
            ":7480",
            "[::1",
            "::1",
            "[127.0.0.1]",
            "localhost:7480:7480",
            "localhost:x",
            "evil@localhost",
            ".local",
            "127.1",
            "0x7f.1",
        ] {
            assert_eq!(
                refused(&guard, &format!("Host: {other}\r\n")),
                Some(421),
                "{other}"
            );
        }
        assert_eq!(
            refused(&guard, ""),
            None,
            "HTTP/1.0, which no browser speaks"
        );
        for (site, status) in [
            ("cross-site", Some(403)),
            ("same-origin", None),
            ("none", None),
        ] {
            let fields = format!("Host: localhost\r\nSec-Fetch-Site: {site}\r\n");
            assert_eq!(refused(&guard, &fields), status, "{site}");
        }
    }

    #[test]
    fn token_is_shown_as_bearer_or_as_a_password_and_then_every_name_is_answered() {
        let guard = Guard::new(Some(b"0123456789abcdef".to_vec()), []);
        for right in [
            "Bearer 0123456789abcdef",
            "bearer  0123456789abcdef",
            // printf x:0123456789abcdef | base64
            "Basic eDowMTIzNDU2Nzg5YWJjZGVm",
            // printf xyz:0123456789abcdef | base64
            "basic eHl6OjAxMjM0NTY3ODlhYmNkZWY=",
        ] {
            let fields = format!("Host: prometheus.example\r\nAuthorization: {right}\r\n");
            assert_eq!(refused(&guard, &fields), None, "{right}");
        }
        for wrong in [
            "Bearer 0123456789abcdeg",
            "Bearer 0123456789abcde",
            "Bearer 0123456789abcdef0",
            "Bearer ",
            "Bearer",
            "0123456789abcdef",
            "Basic 0123456789abcdef",
            "Basic !",
            "Digest 0123456789abcdef",
        ] {
            let fields = format!("Host: localhost\r\nAuthorization: {wrong}\r\n");
            assert_eq!(refused(&guard, &fields), Some(401), "{wrong}");
        }
        assert_eq!(refused(&guard, "Host: localhost\r\n"), Some(401));
        let open = |host| {
            guard
                .check(&request(&format!("Host: {host}\r\n")), true)
                .is_ok()
        };
        assert!(open("localhost") && !open("evil.example"));
    }

    #[test]
    fn base64_is_decoded() {
        for (text, bytes) in [
            ("", ""),
            ("Zg==", "f"),
            ("Zm8=", "fo"),
            ("Zm9v", "foo"),
            ("Zm9vYmE", "fooba"),
        ] {
            assert_eq!(base64(text).as_deref(), Some(bytes.as_bytes()));
        }
        assert_eq!(base64("+/+/"), Some(vec![0xfb, 0xff, 0xbf]));
        assert_eq!(base64("Z-"), None);
    }

    #[test]
    fn token_is_a_line_of_16_to_256_visible_characters() {
        let dir = TestDir::new();
        let path = dir.path().join("token");
        let written = |text: &str| {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            token(&path)
        };
        assert_eq!(
            written(&format!("{}\n", "x".repeat(16))).unwrap(),
            b"x".repeat(16)
        );
        assert!(written(&"x".repeat(256)).is_ok());
        for wrong in [
            "",
            &"x".repeat(15),
            &"x".repeat(257),
            "0123456789 abcdef",
            "0123456789abcdefé",
        ] {
            let why = written(wrong).unwrap_err().to_string();
            assert!(why.contains("16 to 256 visible"), "{why}");
        }
        assert!(
            token(dir.path())
                .unwrap_err()
                .to_string()
                .contains("one line")
        );
        assert!(token(&dir.path().join("none")).is_err());
    }
}
