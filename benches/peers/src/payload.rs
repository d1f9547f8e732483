//! The messages of all workloads, and how a workload knows that it got back what it put in.
//!
//! A payload is a function of its number and a stamp, does not compress, and costs a few nanoseconds to make, so that making
//! it does not disturb what is measured. A [`Tally`] does not depend on order: a lost, doubled or changed payload shows in it.

/// Length of every payload in bytes.
pub(crate) const PAYLOAD_LEN: usize = 100;

/// What the words of a payload are mixed from. Any odd numbers without a pattern would do.
const WORDS: [u64; 10] = [
    0x9e37_79b9_7f4a_7c15,
    0xbf58_476d_1ce4_e5b9,
    0x94d0_49bb_1331_11eb,
    0xd6e8_feb8_6659_fd93,
    0xa076_1d64_78bd_642f,
    0xe703_7ed1_a0b4_28db,
    0x8ebc_6af0_9c88_c6e3,
    0x5899_65cc_7537_4cc3,
    0x1d8e_4e27_c47d_124f,
    0xeb44_acca_b455_d165,
];

/// A payload that is rewritten for each message.
#[derive(Clone, Copy)]
pub(crate) struct Payload([u8; PAYLOAD_LEN]);

impl Payload {
    /// The payload with this number, stamped with zero.
    pub(crate) fn new(number: u64) -> Self {
        let mut payload = Self([0; PAYLOAD_LEN]);
        payload.set(number, 0);
        payload
    }

    /// Turns this into the payload with this number and stamp.
    pub(crate) fn set(&mut self, number: u64, stamp: u64) {
        let key = checksum(number);
        let (head, body) = self.0.split_at_mut(16);
        head[..8].copy_from_slice(&number.to_le_bytes());
        head[8..].copy_from_slice(&stamp.to_le_bytes());
        for (bytes, word) in body.chunks_exact_mut(8).zip(WORDS) {
            bytes.copy_from_slice(&(word ^ key).to_le_bytes());
        }
        body[80..].copy_from_slice(&key.to_le_bytes()[..4]);
    }

    /// The bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// The stamp of a payload, if it is long enough to have one.
pub(crate) fn stamp(payload: &[u8]) -> Option<u64> {
    let bytes = payload.get(8..16)?;
    Some(u64::from_le_bytes(bytes.try_into().ok()?))
}

/// Count and checksum of a set of payloads, in whatever order they came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// How many.
    pub(crate) count: u64,
    sum: u64,
}

impl Tally {
    /// The tally of the payloads `0..count` with stamp zero.
    pub(crate) fn of_first(count: u64) -> Self {
        let mut tally = Self::default();
        (0..count).for_each(|number| tally.add(Payload::new(number).bytes()));
        tally
    }

    /// Takes in one payload.
    pub(crate) fn add(&mut self, payload: &[u8]) {
        self.count += 1;
        self.sum = self.sum.wrapping_add(digest(payload));
    }

    /// Takes in what another tally took in.
    pub(crate) fn merge(&mut self, other: Self) {
        self.count += other.count;
        self.sum = self.sum.wrapping_add(other.sum);
    }

    /// What is wrong with these payloads if they should have been the `expected` ones.
    pub(crate) fn fault_against(&self, expected: Self) -> Option<String> {
        match self.count.cmp(&expected.count) {
            std::cmp::Ordering::Less => Some(format!("lost {} of {}", expected.count - self.count, expected.count)),
            std::cmp::Ordering::Greater => {
                Some(format!("{} too many of {}", self.count - expected.count, expected.count))
            }
            std::cmp::Ordering::Equal if self.sum != expected.sum => Some(format!("changed some of {}", self.count)),
            std::cmp::Ordering::Equal => None,
        }
    }
}

fn digest(bytes: &[u8]) -> u64 {
    // Four lanes, so that the multiplications of one payload do not wait for each other.
    let mut lanes = [WORDS[0], WORDS[1], WORDS[2], WORDS[3] ^ bytes.len() as u64];
    let mut blocks = bytes.chunks_exact(32);
    for block in &mut blocks {
        for (lane, word) in lanes.iter_mut().zip(block.chunks_exact(8)) {
            let word = word.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte));
            *lane = (*lane ^ word).wrapping_mul(WORDS[4]).rotate_left(29);
        }
    }
    let tail = blocks.remainder().iter().fold(1, |value: u64, byte| checksum(value ^ u64::from(*byte)));
    lanes.into_iter().fold(tail, |value, lane| checksum(value ^ lane))
}

fn checksum(number: u64) -> u64 {
    let mut value = number.wrapping_add(WORDS[0]);
    value = (value ^ (value >> 30)).wrapping_mul(WORDS[1]);
    value = (value ^ (value >> 27)).wrapping_mul(WORDS[2]);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tally_does_not_depend_on_order() {
        let mut backwards = Tally::default();
        (0..100).rev().for_each(|number| backwards.add(Payload::new(number).bytes()));
        assert_eq!(backwards.fault_against(Tally::of_first(100)), None);
    }

    #[test]
    fn a_lost_doubled_or_changed_payload_is_seen() {
        let expected = Tally::of_first(100);
        assert_eq!(Tally::of_first(99).fault_against(expected), Some("lost 1 of 100".to_owned()));
        assert_eq!(Tally::of_first(101).fault_against(expected), Some("1 too many of 100".to_owned()));

        let mut doubled = Tally::of_first(99);
        doubled.add(Payload::new(7).bytes());
        assert_eq!(doubled.fault_against(expected), Some("changed some of 100".to_owned()));

        for byte in 0..PAYLOAD_LEN {
            let mut changed = Tally::of_first(99);
            let mut payload = Payload::new(99);
            payload.0[byte] ^= 1;
            changed.add(payload.bytes());
            assert_ne!(changed.fault_against(expected), None, "byte {byte}");
        }
    }

    #[test]
    fn a_stamp_is_read_back() {
        let mut payload = Payload::new(3);
        payload.set(4, 77);
        assert_eq!(stamp(payload.bytes()), Some(77));
        assert_eq!(stamp(&payload.bytes()[..15]), None);
    }
}
