//! A fixed workload for an instruction counter: leases that are renewed by beats, without network,
//! clock or randomness.
//!
//! Run it with two different counts under callgrind: the difference is the cost of the beats alone,
//! the same on every machine with the same compiler.

use std::{hint::black_box, time::Duration};

use argh::FromArgs;
use oc_discovery::{
    protocol::codec::{
        frame::MAX_FRAME,
        grant::Membership,
        heartbeat::{WallReading, decode_beat, encode_ack, encode_beat},
    },
    protocol::{
        Ack, Beat, Indexer, IndexerConfig, Instant, Machine, Native, NativeConfig, OutBeat, PeerId,
        Publisher, Role, StreamId, Terms,
    },
};

/// renews leases by a number of beats
#[derive(FromArgs)]
struct Args {
    /// what the beats go through: `indexer` or `native` (the core), or `frames` (decoder and
    /// encoder)
    #[argh(positional)]
    what: String,

    /// number of beats
    #[argh(positional)]
    beats: u64,
}

/// Lease holders; they beat one after another.
const HOLDERS: u64 = 500;
/// Time between two beats. Slow enough that every newcomer gets its lease.
const STEP: Duration = Duration::from_millis(6);
const LEASE: Duration = Duration::from_secs(90);
const LOOP: Duration = Duration::from_secs(30);

fn main() -> Result<(), String> {
    let args: Args = argh::from_env();
    let terms = Terms {
        lease: LEASE,
        beat_interval: LOOP,
    };
    let own = peer(u64::MAX);
    match args.what.as_str() {
        "indexer" => {
            let mut indexer = Box::new(Indexer::<1024>::new());
            let config = IndexerConfig {
                terms,
                gc_interval: LOOP,
            };
            indexer.start(Instant::default(), own, 1, config);
            through(&mut *indexer, Role::Node, args.beats)
        }
        "native" => {
            let mut native = Box::new(Native::<512, 1024, 256, 1544>::new());
            let config = NativeConfig {
                terms,
                offload_interval: LOOP,
                refresh_interval: LOOP,
                gc_interval: LOOP,
            };
            native.start(Instant::default(), own, 1, config);
            through(&mut *native, Role::Indexer, args.beats)
        }
        "frames" => frames(args.beats),
        other => Err(format!("`{other}` is not one of indexer, native, frames")),
    }
}

/// Runs the beats of [`HOLDERS`] peers, and after each one polls all actions of the machine.
fn through(machine: &mut dyn Machine, role: Role, beats: u64) -> Result<(), String> {
    let mut now = Instant::default();
    for number in 0..HOLDERS + beats {
        now = now + STEP;
        let holder = number % HOLDERS;
        let beat = Beat::new(role, LEASE);
        let outcome = machine.beat(now, &peer(holder), StreamId(holder), black_box(&beat));
        if outcome.ack.code != oc_discovery::protocol::AckCode::Accepted {
            return Err(format!("beat {number} was answered {:?}", outcome.ack));
        }
        black_box(outcome);
        while let Some(action) = machine.poll(now, 0) {
            black_box(action);
        }
        black_box(machine.next_timeout());
    }
    Ok(())
}

fn frames(beats: u64) -> Result<(), String> {
    let beat = OutBeat {
        role: Role::Node,
        lease: LEASE,
        with_record: false,
        fresh: false,
        publisher: Publisher::Receiver,
        load: None,
    };
    let (mut buffer, mut out) = ([0; MAX_FRAME], [0; MAX_FRAME]);
    let bytes = encode_beat(100_000, &beat, None, &[], Membership::OPEN, &mut buffer)
        .map_err(|error| error.to_string())?;
    let clock = WallReading {
        ms: 1_776_124_800_000,
        synchronised: true,
    };
    for _ in 0..beats {
        let beat = decode_beat(black_box(bytes))
            .map_err(|error| error.to_string())?
            .beat;
        let ack = Ack::accepted(beat.lease);
        let _ = black_box(encode_ack(
            beat.sequence,
            black_box(&ack),
            Some(clock),
            Membership::OPEN,
            &mut out,
        ));
    }
    Ok(())
}

fn peer(number: u64) -> PeerId {
    let mut key = [0; 32];
    let (head, _) = key.split_at_mut(8);
    head.copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    PeerId::from_bytes(key)
}
