//! What a generated input is made of: an input of the corpus, changed in a few places.
//!
//! Never here: what inputs mean; the targets make checksums agree.

use crate::disk::sim::Rng;

/// Numbers at which code goes wrong.
const VALUES: [u64; 16] =
    [0, 1, 7, 8, 127, 128, 255, 256, 511, 512, 65_535, 65_536, 0x7fff_ffff, 0xffff_ffff, 1 << 63, u64::MAX];
/// No mutation makes an input longer than this.
const LEN_MAX: usize = 64 << 10;

/// Changes `bytes` in one to eight places; `other` is an input to take pieces of.
pub fn mutate(bytes: &mut Vec<u8>, other: &[u8], rng: &mut Rng) {
    for _ in 0..1 + rng.index(8) {
        once(bytes, other, rng);
        bytes.truncate(LEN_MAX);
        if rng.coin() {
            return;
        }
    }
}

fn once(bytes: &mut Vec<u8>, other: &[u8], rng: &mut Rng) {
    let at = rng.index(bytes.len());
    let rest = bytes.len() - at;
    match rng.below(12) {
        0 | 1 if rest > 0 => bytes[at] ^= 1 << rng.below(8),
        2 if rest > 0 => bytes[at] = rng.next_u64() as u8,
        3 | 4 if rest > 0 => {
            // A number of one to eight bytes, near one of the interesting ones.
            let value = VALUES[rng.index(VALUES.len())].wrapping_add(rng.below(3)).wrapping_sub(1).to_le_bytes();
            let len = [1, 2, 4, 8][rng.index(4)].min(rest);
            bytes[at..at + len].copy_from_slice(&value[..len]);
        }
        5 => bytes.truncate(at),
        6 => {
            let len = 1 + rng.index(16);
            let fresh: Vec<u8> = (0..len).map(|_| rng.next_u64() as u8).collect();
            drop(bytes.splice(at..at, fresh));
        }
        7 => drop(bytes.drain(at..at + rng.index(rest.min(64) + 1))),
        8 => {
            // A piece of the same input, once more.
            let from = rng.index(bytes.len());
            let piece = bytes[from..from + rng.index((bytes.len() - from).min(256) + 1)].to_vec();
            drop(bytes.splice(at..at, piece));
        }
        9 => {
            let from = rng.index(other.len());
            let piece = other[from..from + rng.index(other.len() - from + 1)].to_vec();
            let over = if rng.coin() { rest.min(piece.len()) } else { 0 };
            drop(bytes.splice(at..at + over, piece));
        }
        10 => bytes[at..at + rest.min(1 + rng.index(64))].fill(0),
        _ if rest > 0 => {
            // One more or one less, in the least byte of a number.
            bytes[at] = bytes[at].wrapping_add([1, 0xff][rng.index(2)]);
        }
        _ => bytes.push(rng.next_u64() as u8),
    }
}
