//! One request: its head, read of the bytes that came so far.
//!
//! Invariant: nothing here reads a socket, a file or a clock, and no bytes cause a panic.

use httparse::{EMPTY_HEADER, Header, Status};

use super::answer::Answer;

/// Longest head, with its end.
pub(super) const MAX_HEAD: usize = 8 * 1024;
/// Fields in a head at most.
const MAX_FIELDS: usize = 64;

/// Whether the answer has a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    Get,
    Head,
}

/// The version that the client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    /// HTTP/1.0: the end of the connection is the end of an answer of unknown length.
    Http10,
    /// HTTP/1.1.
    Http11,
}

/// The head of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HttpRequest {
    pub(super) method: Method,
    pub(super) version: Version,
    /// It begins with `/`, and is not decoded.
    pub(super) path: String,
    /// What follows `?`, not decoded; empty if there is none.
    pub(super) query: String,
    /// The name or address that the client has for this server, with its port.
    pub(super) host: Option<String>,
    pub(super) authorization: Option<String>,
    pub(super) accept: String,
    pub(super) accept_encoding: String,
    /// A page of another site has made a browser send it (`Sec-Fetch-Site`).
    pub(super) is_cross_site: bool,
    /// The client may send another request on this connection.
    pub(super) keeps: bool,
}

/// Reads the first request of these bytes, and how long it is. `None`: its head has not ended yet.
///
/// # Errors
/// The answer if the bytes are no request, or one that is not answered. The connection must be
/// closed after it.
pub(super) fn read(bytes: &[u8]) -> Result<Option<(HttpRequest, usize)>, Answer> {
    let mut fields = [EMPTY_HEADER; MAX_FIELDS];
    let mut head = httparse::Request::new(&mut fields);
    let length = match head.parse(bytes) {
        Ok(Status::Complete(length)) if length <= MAX_HEAD => length,
        Ok(Status::Partial) if bytes.len() < MAX_HEAD => return Ok(None),
        Ok(_) => return Err(too_long()),
        Err(httparse::Error::TooManyHeaders) => return Err(too_long()),
        Err(httparse::Error::Version) => {
            return Err(Answer::error(505, "speak HTTP/1.0 or HTTP/1.1"));
        }
        Err(_) => return Err(Answer::error(400, "this is no request of HTTP/1.1")),
    };
    let (method, target) = (head.method.unwrap_or(""), head.path.unwrap_or(""));
    let method = match method {
        "GET" => Method::Get,
        "HEAD" => Method::Head,
        _ => {
            return Err(Answer {
                extra: "Allow: GET, HEAD\r\n",
                ..Answer::error(405, "nothing here can be changed: use GET or HEAD")
            });
        }
    };
    let version = match head.version {
        Some(0) => Version::Http10,
        _ => Version::Http11,
    };
    let fields = Fields(head.headers);
    fields.has_no_body()?;
    let (authority, target) = split(target)?;
    let host = match (authority, fields.only("Host")?) {
        (Some(authority), _) => Some(authority.to_owned()),
        (None, None) if version == Version::Http11 => {
            return Err(Answer::error(400, "the field Host is missing"));
        }
        (None, host) => host,
    };
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let request = HttpRequest {
        method,
        version,
        path: path.to_owned(),
        query: query.to_owned(),
        host,
        authorization: fields.only("Authorization")?,
        accept: fields.list("Accept"),
        accept_encoding: fields.list("Accept-Encoding"),
        is_cross_site: fields.list("Sec-Fetch-Site").contains("cross-site"),
        keeps: version == Version::Http11 && !fields.list("Connection").contains("close"),
    };
    Ok(Some((request, length)))
}

fn too_long() -> Answer {
    let why = "the head of a request may have 64 fields and 8192 bytes: make it shorter";
    Answer::error(431, why)
}

/// The host of a target in absolute form, and the rest of the target.
fn split(target: &str) -> Result<(Option<&str>, &str), Answer> {
    if target.starts_with('/') {
        return Ok((None, target));
    }
    let scheme = "http://";
    match target.get(..scheme.len()).zip(target.get(scheme.len()..)) {
        Some((begin, rest)) if begin.eq_ignore_ascii_case(scheme) => {
            let end = rest.find(['/', '?']).unwrap_or(rest.len());
            let (authority, path) = rest.split_at(end);
            match path.starts_with('/') {
                true => Ok((Some(authority), path)),
                false => Ok((Some(authority), "/")),
            }
        }
        _ => Err(Answer::error(400, "the target must begin with /")),
    }
}

/// The fields of a head.
struct Fields<'a>(&'a [Header<'a>]);

impl Fields<'_> {
    fn all<'f>(&'f self, name: &'f str) -> impl Iterator<Item = &'f str> {
        let fields = self.0.iter();
        let fields = fields.filter(move |field| field.name.eq_ignore_ascii_case(name));
        // What is no UTF-8 has no meaning in any of the fields that are read.
        fields.map(|field| {
            std::str::from_utf8(field.value)
                .unwrap_or("\u{fffd}")
                .trim()
        })
    }

    /// A field that may come once.
    fn only(&self, name: &str) -> Result<Option<String>, Answer> {
        let mut all = self.all(name);
        let first = all.next().map(str::to_owned);
        match all.next() {
            None => Ok(first),
            Some(_) => Err(Answer::error(400, &format!("the field {name} comes twice"))),
        }
    }

    /// All values of a field that is a list, in lower case.
    fn list(&self, name: &str) -> String {
        let mut list = String::new();
        for value in self.all(name) {
            list.push_str(&value.to_ascii_lowercase());
            list.push(',');
        }
        list
    }

    /// A request of the methods here has no body, and one that is not read would be taken for the
    /// next request.
    fn has_no_body(&self) -> Result<(), Answer> {
        let length = self.only("Content-Length")?;
        let is_empty = length.is_none_or(|length| length == "0");
        match is_empty && self.all("Transfer-Encoding").next().is_none() {
            true => Ok(()),
            false => Err(Answer::error(
                413,
                "a request here has no body: leave it out",
            )),
        }
    }
}

/// For `crate::fuzzing`.
#[cfg(fuzzing)]
pub(crate) fn fuzz(bytes: &[u8]) {
    if let Ok(Some((request, length))) = read(bytes) {
        assert!(length <= bytes.len());
        let _ = super::query::filter(&request.query);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(head: &str) -> HttpRequest {
        let bytes = format!("{head}\r\nrest");
        let (request, length) = read(bytes.as_bytes()).unwrap().unwrap();
        assert_eq!(length, head.len() + 2, "the next request is left");
        request
    }

    fn status(bytes: &[u8]) -> u16 {
        read(bytes).unwrap_err().status
    }

    #[test]
    fn head_is_read_and_what_follows_it_is_left() {
        let got = request(
            "GET /nodes.json?tag=a%3Db HTTP/1.1\r\nhost: a:1\r\nAccept: A\r\naccept: b\r\n",
        );
        let expected = HttpRequest {
            method: Method::Get,
            version: Version::Http11,
            path: "/nodes.json".into(),
            query: "tag=a%3Db".into(),
            host: Some("a:1".into()),
            authorization: None,
            accept: "a,b,".into(),
            accept_encoding: String::new(),
            is_cross_site: false,
            keeps: true,
        };
        assert_eq!(got, expected);
        let old = request("HEAD / HTTP/1.0\r\n");
        assert_eq!((old.version, old.keeps), (Version::Http10, false));
        assert_eq!((old.method, old.host), (Method::Head, None));
        let last = request("GET / HTTP/1.1\r\nHost: a\r\nConnection: Close\r\n");
        assert!(!last.keeps);
    }

    #[test]
    fn target_in_absolute_form_names_the_host() {
        let got = request("GET HTTP://b:2/x?y HTTP/1.1\r\nHost: a:1\r\n");
        assert_eq!(got.host.as_deref(), Some("b:2"));
        assert_eq!((got.path.as_str(), got.query.as_str()), ("/x", "y"));
        assert_eq!(request("GET http://b HTTP/1.1\r\n").path, "/");
        assert_eq!(status(b"GET b:2 HTTP/1.1\r\nHost: a\r\n\r\n"), 400);
        assert_eq!(status(b"GET * HTTP/1.1\r\nHost: a\r\n\r\n"), 400);
    }

    #[test]
    fn head_of_8192_bytes_is_read_and_one_of_8193_is_too_long() {
        let head = |length: usize| {
            let begin = "GET / HTTP/1.1\r\nHost: a\r\nX: ";
            let filling = "x".repeat(length - begin.len() - 4);
            format!("{begin}{filling}\r\n\r\n").into_bytes()
        };
        assert!(read(&head(MAX_HEAD)).unwrap().is_some());
        assert_eq!(status(&head(MAX_HEAD + 1)), 431);
        let unfinished = head(MAX_HEAD + 1);
        assert_eq!(read(&unfinished[..MAX_HEAD - 1]), Ok(None));
        assert_eq!(status(&unfinished[..MAX_HEAD]), 431);
    }

    #[test]
    fn head_has_64_fields_and_no_more() {
        let fields = |count| {
            format!(
                "GET / HTTP/1.1\r\nHost: a\r\n{}\r\n",
                "X: y\r\n".repeat(count)
            )
        };
        assert!(read(fields(63).as_bytes()).unwrap().is_some());
        assert_eq!(status(fields(64).as_bytes()), 431);
    }

    #[test]
    fn head_that_has_not_ended_is_waited_for() {
        let whole = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        for end in 0..whole.len() {
            assert_eq!(read(&whole[..end]), Ok(None), "{end}");
        }
    }

    #[test]
    fn other_methods_bodies_and_unclear_fields_are_refused() {
        for (expected, bytes) in [
            (
                405,
                "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n",
            ),
            (405, "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n"),
            (
                413,
                "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n",
            ),
            (
                413,
                "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
            ),
            (
                400,
                "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nContent-Length: 1\r\n\r\n",
            ),
            (400, "GET / HTTP/1.1\r\n\r\n"),
            (400, "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
            (400, "GET / HTTP/1.1\r\nHost : a\r\n\r\n"),
            (400, "\u{16}\u{3}\u{1}"),
            (505, "PRI * HTTP/2.0\r\n\r\n"),
        ] {
            assert_eq!(status(bytes.as_bytes()), expected, "{bytes:?}");
        }
        let allowed = read(b"POST / HTTP/1.1\r\n\r\n").unwrap_err();
        assert_eq!(allowed.extra, "Allow: GET, HEAD\r\n");
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_cause_a_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let _ = read(&bytes);
            let _ = read(&[b"GET /", bytes.as_slice()].concat());
            let _ = read(&[b"GET / HTTP/1.1\r\nHost:", bytes.as_slice(), b"\r\n\r\n"].concat());
        }
    }
}
