//! Tables whose keys are keyed hashes already.
//!
//! Never here: the order of a table, which nothing may depend on.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// Takes the low bits of what is a hash already.
#[derive(Clone, Debug, Default)]
pub(in crate::state) struct Same(u64);

impl Hasher for Same {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = bytes.iter().fold(self.0, |hash, &byte| hash.rotate_left(8) ^ u64::from(byte));
    }

    fn write_u64(&mut self, number: u64) {
        self.0 ^= number;
    }

    fn write_u128(&mut self, id: u128) {
        self.0 ^= id as u64;
    }
}

pub(in crate::state) type Prehashed<K, V> = HashMap<K, V, BuildHasherDefault<Same>>;
