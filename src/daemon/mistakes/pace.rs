//! Beats that come too fast for a server: what it says of its client, and the client of the server.

use super::Mistake;
use crate::{
    daemon::{report::text, status::Severity},
    net::BEATS_A_SECOND,
    protocol::PeerId,
};

const CODE: &str = "beats-too-fast";

/// A peer beats too fast for this server. `called`: the peer.
pub(super) fn peer_too_fast(peer: &PeerId, called: &str) -> Mistake {
    Mistake {
        code: CODE,
        severity: Severity::Notice,
        about: text(peer),
        what: format!(
            "{called} beats faster than {BEATS_A_SECOND} times a second: its stream was ended"
        ),
        hint: "if the device is one of yours, look at its program: it is none of this version, or \
               several devices have one identity"
            .into(),
    }
}

/// This process beats too fast for a server.
pub(super) fn own_too_fast(server: &PeerId, called: &str) -> Mistake {
    Mistake {
        code: CODE,
        severity: Severity::Warning,
        about: format!("own beats at {}", text(server)),
        what: format!(
            "{called} says that the beats of this process come too fast, and ended its stream"
        ),
        hint: "look with `oc-discovery doctor` whether another device has the same identity".into(),
    }
}
