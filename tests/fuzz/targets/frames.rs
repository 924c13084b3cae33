//! Any bytes, as each of the frames of the protocol and as the payload of each kind of record.
//!
//! What a decoder takes, its encoder writes, and the decoder reads the same from that again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use oc_discovery::protocol::{
    OutBeat,
    codec::{
        directory::{Room, decode_request, decode_response, encode_request, encode_response},
        frame::{MAX_FRAME, MAX_RESPONSE, header},
        heartbeat::{decode_ack, decode_beat, encode_ack, encode_beat},
        record::{Kind, decode_record, encode_record},
        watch::{decode_ask, decode_notice, encode_ask, encode_notice},
    },
};

fuzz_target!(|input: &[u8]| {
    let Some((kind, bytes)) = input.split_first() else {
        return;
    };
    match kind % 9 {
        0 => beat(bytes),
        1 => ack(bytes),
        2 => request(bytes),
        3 => response(bytes),
        4 => record(Kind::Node, bytes),
        5 => record(Kind::Indexer, bytes),
        6 => ask(bytes),
        7 => notice(bytes),
        _ => length(bytes),
    }
});

fn beat(bytes: &[u8]) {
    let Ok(mut wire) = decode_beat(bytes) else {
        return;
    };
    let beat = &wire.beat;
    let again = OutBeat {
        role: beat.role,
        lease: beat.lease,
        with_record: beat.record.is_some(),
        fresh: false,
        publisher: beat.publisher,
        load: beat.load,
    };
    // A grant goes with the first beat of a stream alone.
    wire.membership.grant = wire.membership.grant.filter(|_| beat.sequence == 0);
    let mut buffer = [0; MAX_FRAME];
    let (sequence, record, known) = (beat.sequence, beat.record, &beat.known);
    let written = encode_beat(
        sequence,
        &again,
        record,
        known,
        wire.membership,
        &mut buffer,
    );
    let written = written.expect("what fits a frame fits one again");
    assert_eq!(decode_beat(written).as_ref(), Ok(&wire));
}

fn ack(bytes: &[u8]) {
    let Ok(ack) = decode_ack(bytes) else { return };
    let mut buffer = [0; MAX_FRAME];
    let (sequence, membership) = (ack.sequence, ack.membership);
    let written = encode_ack(
        sequence,
        &ack.ack.as_ack(),
        ack.clock,
        membership,
        &mut buffer,
    );
    let written = written.expect("what fits a frame fits one again");
    let again = decode_ack(written).expect("it is read again");
    assert_eq!(again.ack, ack.ack);
}

fn request(bytes: &[u8]) {
    let Ok(request) = decode_request(bytes) else {
        return;
    };
    let mut buffer = [0; MAX_FRAME];
    let written = encode_request(&request, &mut buffer);
    let written = written.expect("what fits a frame fits one again");
    assert_eq!(decode_request(written).as_ref(), Ok(&request));
}

fn response(bytes: &[u8]) {
    let mut room = Room::default();
    let Ok(response) = decode_response(bytes, &mut room) else {
        return;
    };
    let mut buffer = vec![0; MAX_RESPONSE];
    let written = encode_response(&response, &mut buffer);
    let written = written.expect("what fits a frame fits one again");
    let mut room = Room::default();
    assert_eq!(decode_response(written, &mut room).as_ref(), Ok(&response));
}

fn record(kind: Kind, bytes: &[u8]) {
    let Ok(record) = decode_record(kind, bytes) else {
        return;
    };
    let mut buffer = vec![0; bytes.len().max(MAX_FRAME)];
    let written = encode_record(&record, &mut buffer);
    let written = written.expect("it is no longer than before");
    assert_eq!(decode_record(kind, written).as_ref(), Ok(&record));
}

fn ask(bytes: &[u8]) {
    let Ok(filter) = decode_ask(bytes) else {
        return;
    };
    let mut buffer = [0; MAX_FRAME];
    let written = encode_ask(&filter, &mut buffer);
    let written = written.expect("what fits a frame fits one again");
    assert_eq!(decode_ask(written).as_ref(), Ok(&filter));
}

fn notice(bytes: &[u8]) {
    let Ok(Some(notice)) = decode_notice(bytes) else {
        return;
    };
    let mut buffer = [0; MAX_FRAME];
    let written = encode_notice(&notice, &mut buffer);
    let written = written.expect("what fits a frame fits one again");
    assert_eq!(decode_notice(written).as_ref(), Ok(&Some(notice)));
}

fn length(bytes: &[u8]) {
    for limit in [MAX_FRAME, MAX_RESPONSE] {
        if let Ok(Some(header)) = header(bytes, limit) {
            assert!(header.body <= limit && header.length <= bytes.len());
        }
    }
}
