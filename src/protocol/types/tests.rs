use super::*;

fn record(issued_at_ms: u64, ttl_ms: u64, sequence: u64) -> RecordInfo {
    RecordInfo {
        peer: PeerId::from_bytes([1; 32]),
        sequence,
        issued_at_ms,
        ttl: Duration::from_millis(ttl_ms),
        addrs: Addrs::new(),
        name: Name::new(),
    }
}

#[test]
fn peers_are_in_the_order_of_their_bytes() {
    let peer = |at: usize, byte: u8| {
        let mut key = [7; 32];
        key[at] = byte;
        PeerId::from_bytes(key)
    };
    let all: std::vec::Vec<_> = (0..32)
        .flat_map(|at| [0, 7, 8, 255].map(|byte| peer(at, byte)))
        .collect();
    for one in &all {
        for other in &all {
            assert_eq!(one.cmp(other), one.as_bytes().cmp(other.as_bytes()));
        }
    }
}

#[test]
fn a_copy_counts_until_the_millisecond_it_expires() {
    let r = record(1_000_000, 5_000, 1);
    assert!(r.is_valid_copy(1_004_999));
    assert!(r.is_valid_copy(1_005_000));
    assert!(!r.is_valid_copy(1_005_001));
}

#[test]
fn a_copy_may_be_issued_two_minutes_ahead_and_no_more() {
    let r = record(1_000_000, 5_000, 1);
    assert!(r.is_valid_copy(880_000));
    assert!(!r.is_valid_copy(879_999));
}

#[test]
fn the_later_expiry_wins_then_the_higher_sequence() {
    assert!(record(0, 10, 1).rank() > record(0, 9, 5).rank());
    assert!(record(0, 10, 2).rank() > record(0, 10, 1).rank());
    assert_eq!(record(u64::MAX, 10, 2).expires_at_ms(), u64::MAX);
}

#[test]
fn stream_ends_after_an_ack_without_a_lease_and_runs_on_after_released() {
    let lease = Duration::from_millis;
    for (ack, ends) in [
        (Ack::accepted(lease(0)), true),
        (Ack::accepted(lease(1)), false),
        (Ack::released(lease(0), &[]), false),
        (Ack::released(lease(1), &[]), false),
        (Ack::full("no room"), true),
        (Ack::refused("no"), true),
    ] {
        assert_eq!(ack.ends_stream(), ends, "{ack:?}");
    }
}
