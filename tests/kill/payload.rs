//! Payloads that follow from their numbers, so that the parent knows every byte that a child may have written.

/// Which round, which thread of it, and which of the thread's messages: one number for each publish ever tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Number {
    pub(crate) round: u32,
    pub(crate) thread: u8,
    pub(crate) index: u32,
}

impl Number {
    pub(crate) fn to_word(self) -> u64 {
        assert!(self.round < 1 << 24, "a round has 24 bits");
        u64::from(self.round) << 40 | u64::from(self.thread) << 32 | u64::from(self.index)
    }

    pub(crate) fn from_word(word: u64) -> Self {
        let [index, rest] = [word & 0xffff_ffff, word >> 32].map(|half| u32::try_from(half).expect("half a word"));
        Self { round: rest >> 8, thread: (rest & 0xff) as u8, index }
    }

    /// The message `count` places later.
    pub(crate) fn plus(self, count: u32) -> Self {
        Self { index: self.index + count, ..self }
    }
}

/// The payload of a number: the number and then bytes drawn from it, mostly few, sometimes none, sometimes many, now and
/// then long runs of zeros.
pub(crate) fn payload(number: Number) -> Vec<u8> {
    let mut random = Random(number.to_word());
    let len = match random.below(20) {
        0..2 => 0,
        2..17 => random.below(200),
        17..19 => random.below(3_000),
        _ => random.below(20_000),
    };
    let zeros = random.below(8) == 0;
    let mut bytes = number.to_word().to_le_bytes().to_vec();
    bytes.extend((0..len).map(|_| if zeros { 0 } else { random.next().to_le_bytes()[0] }));
    bytes
}

/// The number of a payload that is exactly what its number says.
pub(crate) fn number_of(bytes: &[u8]) -> Option<Number> {
    let (word, _) = bytes.split_first_chunk()?;
    let number = Number::from_word(u64::from_le_bytes(*word));
    (payload(number) == bytes).then_some(number)
}

/// SplitMix64.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}
