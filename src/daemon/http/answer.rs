//! An answer, and its head.

use std::borrow::Cow;

use super::request::Version;

/// The policy of an answer that is no page: nothing in it may run or be shown inside another page.
pub(super) const NOTHING: &str = "default-src 'none'; frame-ancestors 'none'";
pub(super) const JSON: &str = "application/json";
pub(super) const TEXT: &str = "text/plain; charset=utf-8";

/// An answer with a body of known length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// Its media type.
    pub(super) content: &'static str,
    pub(super) body: Cow<'static, [u8]>,
    /// Its content security policy.
    pub(super) policy: &'static str,
    /// Further fields, each with its end.
    pub(super) extra: &'static str,
}

impl Answer {
    /// What was asked for.
    pub(super) fn new(content: &'static str, body: impl Into<Cow<'static, [u8]>>) -> Self {
        Self {
            status: 200,
            content,
            body: body.into(),
            policy: NOTHING,
            extra: "",
        }
    }

    /// A sentence for people.
    pub(super) fn error(status: u16, why: &str) -> Self {
        Self {
            status,
            ..Self::new(TEXT, format!("{why}\n").into_bytes())
        }
    }

    /// There is no answer at present: the client may ask again.
    pub(super) fn again(why: &str) -> Self {
        Self {
            extra: "Retry-After: 1\r\n",
            ..Self::error(503, why)
        }
    }

    /// Its head.
    pub(super) fn head(&self, after: After) -> String {
        let length = Length::Known(self.body.len());
        head(
            self.status,
            (self.content, self.policy),
            (length, after),
            self.extra,
        )
    }
}

/// How the client finds the end of the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Length {
    Known(usize),
    /// It comes in chunks.
    Chunked,
    /// By the end of the connection.
    Open,
}

impl Length {
    /// That of an answer that is made while it is sent.
    pub(super) fn unknown(version: Version) -> Self {
        match version {
            Version::Http10 => Self::Open,
            Version::Http11 => Self::Chunked,
        }
    }
}

/// What happens to the connection after the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum After {
    Keep,
    Close,
}

/// The head of an answer. No other site may read it, and nothing on the way keeps it.
pub(super) fn head(
    status: u16,
    (content, policy): (&str, &str),
    (length, after): (Length, After),
    extra: &str,
) -> String {
    let length = match length {
        Length::Known(length) => format!("Content-Length: {length}\r\n"),
        Length::Chunked => "Transfer-Encoding: chunked\r\n".to_owned(),
        Length::Open => String::new(),
    };
    let after = match after {
        After::Keep => "",
        After::Close => "Connection: close\r\n",
    };
    format!(
        "HTTP/1.1 {status} {}\r\nContent-Type: {content}\r\n{length}{after}{extra}\
         Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nX-Frame-Options: DENY\r\n\
         Referrer-Policy: no-referrer\r\nCross-Origin-Resource-Policy: same-origin\r\n\
         Content-Security-Policy: {policy}\r\n\r\n",
        phrase(status)
    )
}

fn phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        413 => "Content Too Large",
        421 => "Misdirected Request",
        431 => "Request Header Fields Too Large",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        _ => "Error",
    }
}
