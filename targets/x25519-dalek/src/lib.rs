//! `x25519-dalek`'s function [`x25519`], which makes a public key with the table of the base point.
//!
//! libp2p's Noise makes two public keys for each handshake, one of them always the same, and calls
//! the function for any point: [`x25519`] with [`X25519_BASEPOINT_BYTES`]. For that point
//! `curve25519-dalek` has a table, which Ed25519 uses anyway, and with which the same key takes a
//! fraction of the time. The published crate has it behind other types, and not behind this
//! function. This package replaces it through `[patch.crates-io]`. Its version must equal the one
//! in `Cargo.lock`; otherwise cargo silently ignores the patch. CI checks that no registry copy is
//! in the tree.
//!
//! There is no cryptography here: both ways are functions of `curve25519-dalek`, and both take
//! constant time. Which one is taken depends on the point, which is public.
//!
//! To retire it: when libp2p's Noise makes its keys with `PublicKey::from`, or the published
//! function knows the base point, remove this directory and its line in `[patch.crates-io]`.

#![no_std]
#![forbid(unsafe_code)]
#![warn(missing_docs, unreachable_pub)]

use curve25519_dalek::MontgomeryPoint;

/// The base point (RFC 7748, section 4.1), as bytes of its `u`.
pub const X25519_BASEPOINT_BYTES: [u8; 32] = {
    let mut u = [0; 32];
    u[0] = 9;
    u
};

/// The function X25519 of RFC 7748, section 5: the point `u`, multiplied by the secret `k`.
pub fn x25519(k: [u8; 32], u: [u8; 32]) -> [u8; 32] {
    match u == X25519_BASEPOINT_BYTES {
        true => MontgomeryPoint::mul_base_clamped(k).to_bytes(),
        false => MontgomeryPoint(u).mul_clamped(k).to_bytes(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes of hexadecimal digits.
    fn bytes(digits: &str) -> [u8; 32] {
        core::array::from_fn(|at| u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).unwrap())
    }

    /// RFC 7748, section 5.2.
    #[test]
    fn any_point_is_multiplied_as_the_standard_says() {
        let k = bytes("a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4");
        let u = bytes("e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c");
        let product = bytes("c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552");
        assert_eq!(x25519(k, u), product);
        let k = bytes("4b66e9d4d1b4673c5ad22691957d6af5c11b6421e0ea01d42ca4169e7918ba0d");
        let u = bytes("e5210f12786811d3f4b7959d0538ae2c31dbe7106fc03c3efc4cd549c715a493");
        let product = bytes("95cbde9476e8907d7aade45cb4b873f88b595a68799fa152e6f8f7647aac7957");
        assert_eq!(x25519(k, u), product);
    }

    /// RFC 7748, section 5.2: the function a thousand times, each time with its last result.
    #[test]
    fn a_thousand_times_it_is_what_the_standard_says() {
        let (mut k, mut u) = (X25519_BASEPOINT_BYTES, X25519_BASEPOINT_BYTES);
        for times in 1..=1000 {
            (k, u) = (x25519(k, u), k);
            if times == 1 {
                assert_eq!(
                    k,
                    bytes("422c8e7a6227d7bca1350b3e2bb7279f7897b87bb6854b783c60e80311ae3079")
                );
            }
        }
        assert_eq!(
            k,
            bytes("684cf59ba83309552800ef566f2f4d3c1c3887c49360e3875f2eb94d99532c51")
        );
    }

    #[test]
    fn the_table_gives_what_the_ladder_gives_for_any_secret() {
        let ladder = |k| {
            MontgomeryPoint(X25519_BASEPOINT_BYTES)
                .mul_clamped(k)
                .to_bytes()
        };
        let mut k = [0; 32];
        for _ in 0..500 {
            assert_eq!(x25519(k, X25519_BASEPOINT_BYTES), ladder(k));
            k = ladder(k);
        }
        for byte in [0x01, 0x7f, 0x80, 0xff] {
            assert_eq!(
                x25519([byte; 32], X25519_BASEPOINT_BYTES),
                ladder([byte; 32])
            );
        }
    }
}
