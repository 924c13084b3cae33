//! The core speaks the protocol with itself, in a program that links neither std nor an allocator.
//!
//! A node asks a native for indexers, sends a beat to the offered one, and holds a lease when it
//! has read the indexer's ack. Each message goes through its frame.
//!
//! Exit codes: 0 the lease is held on both sides, 1 something failed, and its name is written to
//! stdout.

#![no_std]
#![no_main]

use core::{
    ffi::{CStr, c_char, c_int},
    time::Duration,
};

use oc_discovery::protocol::{
    Action, Indexer, IndexerConfig, IndexersAnswer, Input, Instant, Machine, Node, NodeConfig,
    Offers, OutBeat, StreamId,
    codec::{
        directory::{
            Request, Response, Room, decode_request, decode_response, encode_request,
            encode_response,
        },
        frame::{MAX_FRAME, MAX_HEADER, header, write_header},
        grant::Membership,
        heartbeat::{AckCause, decode_ack, decode_beat, encode_ack, encode_beat},
        record::{Kind, sign},
    },
    signing::Urgency,
};

#[path = "../../examples/device/mod.rs"]
mod device;
use device::{INDEXER, NATIVE, NODE, TERMS, Unsigned, addrs, offer, own_record};

/// The part that failed.
type Failure = &'static CStr;

// The C library starts the program. Only this function, and those that move and compare memory, are
// used.
#[link(name = "c")]
unsafe extern "C" {
    safe fn abort() -> !;
    fn puts(text: *const c_char) -> c_int;
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    abort()
}

/// The prebuilt `core` refers to it. With `panic = "abort"` nothing calls it.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}

#[unsafe(no_mangle)]
extern "C" fn main() -> c_int {
    match exchange() {
        Ok(()) => 0,
        Err(failure) => {
            // SAFETY: the argument is a C string.
            unsafe { puts(failure.as_ptr()) };
            1
        }
    }
}

fn exchange() -> Result<(), Failure> {
    let now = Instant::from_millis(1_000);
    let mut node = Node::new();
    let config = NodeConfig {
        terms: TERMS,
        connect_interval: Duration::from_secs(30),
        min_indexers: 1,
    };
    node.start(now, NODE, 1, config);
    let (native, addrs) = (&NATIVE, &addrs());
    node.handle(now, Input::NativeLearned { native, addrs });
    node.handle(
        now,
        Input::RecordSigned {
            urgency: Urgency::AtOnce,
        },
    );
    let mut indexer = Indexer::<8>::new();
    let config = IndexerConfig {
        terms: TERMS,
        gc_interval: Duration::from_secs(30),
    };
    indexer.start(now, INDEXER, 2, config);

    let (later, ask_for) = until(&mut node, now, |action| match action {
        Action::Ask { server, ask, .. } if server == NATIVE => Some(ask),
        _ => None,
    })
    .ok_or(c"the node asks its native")?;
    let request = Request::from(ask_for);
    let mut offers = Offers::new();
    let takes_in = ask(&request, &mut offers).ok_or(c"the request and its response")?;
    let offers = &offers;
    let (native, answer) = (&NATIVE, Some(IndexersAnswer { offers, takes_in }));
    node.handle(later, Input::Answered { native, answer });

    let (later, beat) = until(&mut node, later, |action| match action {
        Action::Beat { server, beat, .. } if server == INDEXER => Some(beat),
        _ => None,
    })
    .ok_or(c"the node beats to the indexer")?;
    serve(&mut node, &mut indexer, later, &beat)?;
    let is_listed = indexer.claimants(later, "pump-3").nodes.len() == 1;
    is_listed.then_some(()).ok_or(c"the indexer lists the node")
}

/// Passes the node's beat to the indexer, and the ack back.
fn serve(
    node: &mut Node,
    indexer: &mut Indexer<8>,
    now: Instant,
    beat: &OutBeat,
) -> Result<(), Failure> {
    let mut envelope = [0; 1024];
    let record = sign(&Unsigned, Kind::Node, own_record(1), &mut envelope);
    let record = record.map_err(|_| c"the node signs")?;
    let mut buffer = [0; MAX_FRAME];
    let bytes = encode_beat(0, beat, Some(record), &[], Membership::OPEN, &mut buffer);
    let bytes = bytes.map_err(|_| c"the beat fits")?;
    let bytes = decode_beat(framed(bytes).ok_or(c"the frame of the beat")?);
    let beat = bytes.map_err(|_| c"the beat is read")?.beat.open(&Unsigned);
    let beat = beat.map_err(|_| c"the indexer verifies the record")?;
    let outcome = indexer.beat(now, &NODE, StreamId(1), &beat);

    let mut buffer = [0; MAX_FRAME];
    let bytes = encode_ack(
        beat.sequence,
        &outcome.ack,
        None,
        Membership::OPEN,
        &mut buffer,
    );
    let bytes = bytes.map_err(|_| c"the ack fits")?;
    let answer = decode_ack(framed(bytes).ok_or(c"the frame of the ack")?);
    let answer = answer.map_err(|_| c"the ack is read")?;
    if answer.sequence != 0 || answer.ack.lease != TERMS.lease {
        return Err(c"the ack grants the lease that was asked for");
    }
    let acked = Input::Acked {
        server: &INDEXER,
        over: None,
        cause: AckCause::Beat,
        ack: &answer.ack.as_ack(),
        clock: answer.clock,
    };
    node.handle(now, acked);
    let is_held = node.reserves_slot(&INDEXER) && indexer.reserves_slot(&NODE);
    is_held.then_some(()).ok_or(c"both sides hold the lease")
}

/// Lets time pass until `wanted` accepts an action of the node.
fn until<T>(
    node: &mut Node,
    mut now: Instant,
    wanted: impl Fn(Action) -> Option<T>,
) -> Option<(Instant, T)> {
    for _ in 0..100 {
        while let Some(action) = node.poll(now, 0) {
            if let Some(found) = wanted(action) {
                return Some((now, found));
            }
        }
        now = now.max(node.next_timeout()?);
    }
    None
}

/// The native's answer to a request: it offers the indexer. Returns whether it takes the node in.
fn ask(request: &Request, offers: &mut Offers) -> Option<bool> {
    let mut buffer = [0; MAX_FRAME];
    let bytes = encode_request(request, &mut buffer).ok()?;
    if decode_request(framed(bytes)?).ok()? != *request {
        return None;
    }
    let answer = IndexersAnswer {
        offers: &[offer()],
        takes_in: false,
    };
    let bytes = encode_response(&Response::Indexers(answer), &mut buffer).ok()?;
    match decode_response(framed(bytes)?, &mut Room::default()).ok()? {
        Response::Indexers(answer) => {
            offers.extend_from_slice(answer.offers).ok()?;
            Some(answer.takes_in)
        }
        _ => None,
    }
}

/// The body, if the header of its frame announces exactly its length.
fn framed(body: &[u8]) -> Option<&[u8]> {
    let mut buffer = [0; MAX_HEADER];
    let bytes = write_header(body.len(), &mut buffer);
    let announced = header(bytes, MAX_FRAME).ok()??;
    (announced.frame() == bytes.len() + body.len()).then_some(body)
}
