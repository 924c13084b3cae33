//! The arithmetic of a handshake and of a signed record, for an instruction counter: the functions
//! that the program's libraries use, some number of times.
//!
//! Run it with two different counts: the difference is the cost of the calls alone.

use std::hint::black_box;

use argh::FromArgs;
use ed25519_dalek::{Signer, SigningKey, Verifier};
use x25519_dalek::{X25519_BASEPOINT_BYTES, x25519};

/// does some arithmetic of a handshake
#[derive(FromArgs)]
struct Args {
    /// what is done: `public` makes a public key, `shared` a shared secret, `verify` checks a
    /// signature
    #[argh(positional)]
    what: String,

    /// how often
    #[argh(positional)]
    times: u32,
}

fn main() -> Result<(), String> {
    let Args { what, times } = argh::from_env();
    let mut bytes = [7; 32];
    let other = x25519([8; 32], X25519_BASEPOINT_BYTES);
    let key = SigningKey::from_bytes(&bytes);
    let signature = key.sign(&bytes);
    for _ in 0..times {
        match what.as_str() {
            "public" => bytes = x25519(black_box(bytes), X25519_BASEPOINT_BYTES),
            "shared" => bytes = x25519(black_box(bytes), other),
            "verify" => key
                .verifying_key()
                .verify(black_box(&bytes), &signature)
                .map_err(|error| error.to_string())?,
            other => return Err(format!("`{other}` is not one of public, shared, verify")),
        }
    }
    black_box(bytes);
    Ok(())
}
