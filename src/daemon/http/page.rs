//! The page at `/`, as it is sent: compressed. It is made of the parts in `page/` by
//! `tests/page/run --make`, and all that it shows comes from the other answers.
//!
//! A client that does not take gzip is no browser: it gets a text instead.

use super::{
    answer::{Answer, TEXT},
    request::HttpRequest,
};

const HTML: &str = "text/html; charset=utf-8";
const PAGE: &[u8] = include_bytes!("page/page.html.gz");
/// It names the hashes of the style and of the script. Nothing else runs, and nothing is fetched
/// from elsewhere.
const POLICY: &str = include_str!("page/page.policy");
const PACKED: &str = "Content-Encoding: gzip\r\nVary: Accept-Encoding\r\n";

/// What there is.
const INDEX: &str = "oc-discovery answers here:
/              for browsers: a page with all of this (its bytes: curl --compressed)
/healthz       200 while the loop turns
/readyz        200 while this process can do its work, otherwise 503 and why
/metrics       OpenMetrics, or the text format of Prometheus
/status.json   what `oc-discovery status --json` prints
/nodes.json    the nodes of the network; ?service= &tag= &name= &state=
/http_sd       the same as targets for Prometheus; ?service=
/events        each change as a server-sent event, after what is there
";

/// The page, or the text.
pub(super) fn answer(request: &HttpRequest) -> Answer {
    match takes_gzip(&request.accept_encoding) {
        true => Answer {
            policy: POLICY,
            extra: PACKED,
            ..Answer::new(HTML, PAGE)
        },
        false => Answer {
            extra: "Vary: Accept-Encoding\r\n",
            ..Answer::new(TEXT, INDEX.as_bytes())
        },
    }
}

/// Whether a list of codings (RFC 9110, section 12.5.3), in lower case, has gzip.
fn takes_gzip(list: &str) -> bool {
    list.split(',').any(|coding| {
        let (name, weight) = coding.split_once(';').unwrap_or((coding, ""));
        // A parser of floating-point numbers would cost 14 KB.
        let is_zero = |weight: &str| weight.bytes().all(|digit| matches!(digit, b'0' | b'.'));
        let is_refused = weight.trim().strip_prefix("q=").is_some_and(is_zero);
        matches!(name.trim(), "gzip" | "x-gzip") && !is_refused
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_client_that_takes_gzip_gets_it() {
        for list in [
            "gzip",
            "gzip, deflate, br",
            "br;q=1.0, gzip;q=0.5",
            "x-gzip",
        ] {
            assert!(takes_gzip(list), "{list}");
        }
        for list in ["", "br", "gzip;q=0", "gzip; q=0.000", "gzipped", "identity"] {
            assert!(!takes_gzip(list), "{list}");
        }
    }

    #[test]
    fn policy_lets_nothing_in_from_elsewhere() {
        assert!(
            POLICY.starts_with("default-src 'none'; style-src 'sha256-"),
            "{POLICY}"
        );
        assert!(
            !POLICY.contains("unsafe") && !POLICY.contains("http") && !POLICY.contains('\n'),
            "{POLICY}"
        );
        assert!(PAGE.starts_with(&[0x1f, 0x8b]));
    }
}
