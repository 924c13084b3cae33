//! Peers that beat too fast for a server, or come and go too often: what it says of its client, and
//! the client of the server.

use super::Mistake;
use crate::{
    daemon::{report::text, status::Severity},
    net::BEATS_A_SECOND,
    protocol::PeerId,
};

const CODE: &str = "beats-too-fast";
const FLAPPING: &str = "comes-and-goes";

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

/// A peer gives up its leases again and again, so that it gets none for a while. `called`: the
/// peer.
pub(in crate::daemon) fn peer_flapping(peer: &PeerId, called: &str) -> Mistake {
    Mistake {
        code: FLAPPING,
        severity: Severity::Notice,
        about: text(peer),
        what: format!("{called} comes and goes again and again: it rests, 10 s to 10 min"),
        hint: "if the device is one of yours, look into its log: something starts and ends the program"
            .into(),
    }
}

/// A server says so of this process.
pub(super) fn own_flapping(server: &PeerId, called: &str, reason: &str) -> Mistake {
    Mistake {
        code: FLAPPING,
        severity: Severity::Warning,
        about: format!("here, at {}", text(server)),
        what: format!(
            "{called} gives this process no lease for a while: it {}",
            reason.escape_debug()
        ),
        hint: "look for what starts and ends this program: `journalctl -u` its service, or its supervisor"
            .into(),
    }
}
