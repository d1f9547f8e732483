//! Hashes of what a publisher gives a message: its id, and with it its bytes.
//!
//! SipHash-1-3 (Aumasson and Bernstein, 2012), keyed by a secret of the store: nobody who chooses ids can make two of them meet. 128 bits
//! of an id: by chance two of a million meet once in 2^88 stores. Never here: what is done about a repeat.

use crate::ids::TopicId;
use siphasher::sip::SipHasher13;
use siphasher::sip128::{Hasher128, SipHasher13 as SipHasher128};
use std::hash::Hasher;

/// Hashes by the secret of a store.
#[derive(Clone, Copy)]
pub(crate) struct DedupHasher([u8; 16]);

impl std::fmt::Debug for DedupHasher {
    /// The secret is not printed.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DedupHasher")
    }
}

impl DedupHasher {
    pub(crate) const fn new(secret: [u8; 16]) -> Self {
        Self(secret)
    }

    /// Of an id in a topic.
    pub(crate) fn id(&self, topic: TopicId, id: &[u8]) -> u128 {
        let mut hasher = SipHasher128::new_with_key(&self.0);
        hasher.write(&topic.0.to_le_bytes());
        hasher.write(id);
        hasher.finish128().as_u128()
    }

    /// Of a message as it is encoded.
    pub(crate) fn body(&self, message: &[u8]) -> u64 {
        SipHasher13::new_with_key(&self.0).hash(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is on disk must be found again. Worked out apart from this code, by a program that agrees with the vectors of the paper.
    #[test]
    fn golden_hashes() {
        let hasher = DedupHasher::new(*b"nobody knows it!");
        assert_eq!(hasher.id(TopicId(3), b"o-12"), 0x4e9b_47a3_3b9c_5165_3f91_374e_e6b7_b6a6);
        assert_eq!(hasher.body(b"\0two pizzas"), 0xf060_cd5f_8d6d_3bb3);
        assert_ne!(hasher.id(TopicId(3), b"o-12"), hasher.id(TopicId(4), b"o-12"));
    }
}
