//! The shapes of frames byte for byte, and what a changed bit, a cut or a move does to them.

use super::*;
use crate::ids::Epoch;
use crate::log::format::checksum::crc;

const SPOT: Spot = Spot { salt: 0x0123_4567_89ab_cdef, at: 128 };

/// A frame of these parts, padded, and the outline it was made from.
pub(crate) fn build(spot: Spot, outline: &Outline, head: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    let bytes = parts.concat();
    let crcs: Vec<u32> = parts.iter().map(|part| crc(0, part)).collect();
    let ends: Vec<u32> = parts
        .iter()
        .scan(0, |end, part| {
            *end += part.len() as u32;
            Some(*end)
        })
        .collect();
    let parts = Parts { bytes: &bytes, ends: &ends, crcs: &crcs };
    let len = frame_len(outline, head.len(), &parts);
    let mut out = Vec::new();
    encode_front(&mut out, spot, outline, len as u32, head, &parts);
    out.extend_from_slice(&bytes);
    assert_eq!(out.len(), len);
    out.resize(len.next_multiple_of(8), 0);
    out
}

fn plain(lsn: u64) -> Outline {
    Outline { lsn: Lsn(lsn), carries_lsn: false, epoch: None, watermark: None, log: false }
}

fn read(bytes: &[u8], spot: Spot, lsn: Option<Lsn>) -> Option<Frame<'_>> {
    match Covered::probe(bytes, bytes.len() as u64, spot) {
        Probe::Covered(covered) => covered.verify(bytes, spot, lsn),
        Probe::More(_) | Probe::Nothing => None,
    }
}

/// Outline, head and parts of one frame of each shape.
type Shape = (Outline, &'static [u8], Vec<&'static [u8]>);

fn shapes() -> Vec<Shape> {
    let start =
        Outline { carries_lsn: true, epoch: Some(Epoch(3)), watermark: Some(Lsn(4096)), log: true, ..plain(8192) };
    vec![
        (start, b"\x01", vec![]),
        (plain(8192), b"head", vec![]),
        (plain(8192), b"head", vec![b"payload"]),
        (plain(8192), b"", vec![b""]),
        (Outline { watermark: Some(Lsn(8)), ..plain(8192) }, b"head", vec![b"one", b"", b"three"]),
    ]
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn golden() {
    let golden = [
        "6546f39d1b00003c002000000000000003000000000000008004010000000000",
        "2c26a68b0c0000006865616400000000",
        "a0f2da3918000040074cd965ef686561647061796c6f6164",
        "16248ded0d0000400059b349ad000000",
        "0d572f092f000090ff070303000000a83525d70300000059b349ad08000000ac6b8ceb686561646f6e65746872656500",
    ];
    for ((outline, head, parts), golden) in shapes().into_iter().zip(golden) {
        assert_eq!(hex(&build(SPOT, &outline, head, &parts)), golden);
    }
}

#[test]
fn every_shape_comes_back() {
    for (outline, head, parts) in shapes() {
        let bytes = build(SPOT, &outline, head, &parts);
        let frame = read(&bytes, SPOT, Some(outline.lsn)).unwrap();
        assert_eq!((frame.lsn, frame.watermark, frame.epoch()), (outline.lsn, outline.watermark, outline.epoch));
        assert_eq!((frame.is_log(), frame.carries_lsn()), (outline.log, outline.carries_lsn));
        assert_eq!((frame.head(), frame.parts() as usize, frame.padded() as usize), (head, parts.len(), bytes.len()));
        for (index, part) in (0..).zip(&parts) {
            assert_eq!(frame.part(index), Some(*part));
            assert_eq!(frame.part_crc(index), Some(crc(0, part)));
        }
        assert_eq!(frame.part(parts.len() as u32), None);
    }
}

/// G12: no bit of a frame can change unnoticed, but those of the padding, which mean nothing.
#[test]
fn any_changed_bit_and_any_cut_is_found() {
    for (outline, head, parts) in shapes() {
        let bytes = build(SPOT, &outline, head, &parts);
        let len = Claim::parse(&bytes).unwrap().len as usize;
        for bit in 0..len * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(read(&damaged, SPOT, Some(outline.lsn)).is_none(), "bit {bit} of {}", hex(&bytes));
        }
        for cut in 0..len {
            assert!(read(&bytes[..cut], SPOT, Some(outline.lsn)).is_none());
            let mut zeroed = bytes.clone();
            if zeroed[cut..len].iter().any(|byte| *byte != 0) {
                zeroed[cut..].fill(0);
                assert!(read(&zeroed, SPOT, Some(outline.lsn)).is_none());
            }
        }
        let mut padded = bytes.clone();
        padded[len..].fill(0xff);
        assert_eq!(read(&padded, SPOT, Some(outline.lsn)).map(|frame| frame.head().to_vec()), Some(head.to_vec()));
    }
}

/// A write torn within a sector zeroes the end of the prefix and the head behind it: with a CRC of CRCs the two changes
/// would cancel where the bytes are equal.
#[test]
fn equal_changes_of_prefix_and_head_do_not_cancel() {
    for (outline, head, parts) in shapes().into_iter().chain([(plain(64), &b"\x01\x02"[..], vec![])]) {
        let bytes = build(SPOT, &outline, head, &parts);
        let claim = Claim::parse(&bytes).unwrap();
        let head_at = claim.head_at as usize;
        for distance in 1..=head.len().min(head_at - 8) {
            for change in 1..=255 {
                let mut damaged = bytes.clone();
                damaged[head_at - distance] ^= change;
                damaged[head_at + head.len() - distance] ^= change;
                assert!(read(&damaged, SPOT, Some(outline.lsn)).is_none(), "{change:#x} at {distance}");
            }
        }
    }
}

/// F12, F15, F16: bytes that are right elsewhere are not right here.
#[test]
fn stale_moved_and_foreign_frames_are_nothing() {
    for (outline, head, parts) in shapes() {
        let bytes = build(SPOT, &outline, head, &parts);
        let elsewhere = [Spot { at: 136, ..SPOT }, Spot { at: 0, ..SPOT }, Spot { salt: SPOT.salt + 1, ..SPOT }];
        for spot in elsewhere {
            assert!(read(&bytes, spot, Some(outline.lsn)).is_none());
        }
        let moved = Lsn(outline.lsn.0 + 8);
        let proven_by_lsn = outline.carries_lsn || !parts.is_empty();
        assert_eq!(read(&bytes, SPOT, Some(moved)).is_none(), proven_by_lsn);
    }
}

/// A part proves its place and its LSN, not only its own bytes; and what stands before the parts proves its check, and with that
/// the head that it belongs to and which of the parts it is.
#[test]
fn a_part_proves_its_surroundings() {
    let proof = |spot: Spot, lsn, part: &[u8]| spot.mask(Lsn(lsn)) ^ crc(0, part);
    let base = proof(SPOT, 8, b"part");
    assert_ne!(base, proof(SPOT, 16, b"part"));
    assert_ne!(base, proof(Spot { at: 136, ..SPOT }, 8, b"part"));
    assert_ne!(base, proof(Spot { salt: 7, ..SPOT }, 8, b"part"));
    let bytes = build(SPOT, &plain(8), b"head", &[b"part"]);
    let claim = Claim::parse(&bytes).unwrap();
    let at = claim.check_at(0);
    assert_eq!(bytes[at..at + 4], base.to_le_bytes());
    let front = &bytes[..claim.parts_at(0).unwrap() as usize];
    assert!(front.ends_with(b"head") && front_proves_itself(front, SPOT));
    for bit in 0..front.len() * 8 {
        let mut other = front.to_vec();
        other[bit / 8] ^= 1 << (bit % 8);
        assert!(!front_proves_itself(&other, SPOT), "bit {bit}");
    }
    let heap = build(SPOT, &plain(8), b"heap", &[b"part"]);
    assert_eq!(heap[at..at + 4], base.to_le_bytes());
    assert!(!front_proves_itself(&[&bytes[..front.len() - 4], b"heap"].concat(), SPOT));
    let mut exchanged = build(SPOT, &plain(8), b"head", &[b"part", b"trap"]);
    let parts_at = exchanged.len() - 8;
    exchanged[parts_at..].rotate_left(4);
    assert!(read(&exchanged, SPOT, Some(Lsn(8))).is_none());
    let table_at = Claim::parse(&exchanged).unwrap().check_at(0);
    for at in 0..4 {
        exchanged.swap(table_at + at, table_at + ENTRY_LEN + at);
    }
    assert!(read(&exchanged, SPOT, Some(Lsn(8))).is_none());
}

/// F14, F22: no zeros are a frame, whatever the seed; and no CRC has a special meaning.
#[test]
fn zeros_are_nothing() {
    let zeros = vec![0; 64 << 10];
    for at in 0..1024 {
        assert!(matches!(Covered::probe(&zeros, zeros.len() as u64, Spot { salt: at.into(), at }), Probe::Nothing));
    }
    for part in [&[0x9d, 0x0a, 0xd9, 0x6d][..], &[0xff, 0xff, 0xff, 0xff]] {
        let sum = crc(0, part);
        assert!(sum == 0 || sum == u32::MAX, "{sum:08x}");
        let bytes = build(SPOT, &plain(0), part, &[part]);
        assert_eq!(read(&bytes, SPOT, Some(Lsn(0))).unwrap().part(0), Some(part));
    }
}

/// F21, F55: the length asks for no byte before the checksum has agreed.
#[test]
fn a_claimed_length_is_not_believed() {
    let mut bytes = build(SPOT, &plain(0), b"head", &[&[7; 100]]);
    bytes[4..8].copy_from_slice(&(LEN_MASK | (PARTS_ONE << PARTS_SHIFT)).to_le_bytes());
    assert!(matches!(Covered::probe(&bytes, u64::MAX, SPOT), Probe::Nothing));
    let mut wanted = 0;
    let mut garbage = vec![0xff; 16];
    garbage[4..8].copy_from_slice(&(LEN_MASK | (PARTS_MANY << PARTS_SHIFT)).to_le_bytes());
    garbage[8..11].copy_from_slice(&[0xff, 0xff, 0x03]);
    while let Probe::More(more) = Covered::probe(&garbage, u64::MAX, SPOT) {
        assert!(more > garbage.len());
        wanted = more;
        garbage.resize(more, 0xff);
    }
    assert!(wanted <= crate::limits::HEAD_LEN_MAX + ENTRY_LEN * crate::limits::FRAME_PARTS_MAX + PREFIX_LEN_MAX);
}

#[test]
fn asks_for_as_much_as_it_needs() {
    let parts: Vec<Vec<u8>> = (0..50u8).map(|index| vec![index; 100]).collect();
    let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
    let bytes = build(SPOT, &plain(64), &[9; 1000], &parts);
    let mut have = 8;
    loop {
        match Covered::probe(&bytes[..have], bytes.len() as u64, SPOT) {
            Probe::More(wanted) => {
                assert!(wanted > have && wanted <= bytes.len());
                have = wanted;
            }
            Probe::Covered(covered) => {
                assert!(covered.verify(&bytes[..have], SPOT, Some(Lsn(64))).is_none());
                assert_eq!(covered.verify(&bytes, SPOT, Some(Lsn(64))).unwrap().part(49), Some(&[49; 100][..]));
                break;
            }
            Probe::Nothing => panic!("lost at {have}"),
        }
    }
    assert!(have < 1500);
}

/// Overhead of a frame of one message with small ids, and of each further message.
#[test]
fn overhead_stays_within_its_budget() {
    let one = Parts { bytes: &[0; 100], ends: &[100], crcs: &[0] };
    assert!(frame_len(&plain(0), 0, &one) - 100 <= 16);
    let three = Parts { bytes: &[0; 300], ends: &[100, 200, 300], crcs: &[0; 3] };
    let two = Parts { bytes: &[0; 200], ends: &[100, 200], crcs: &[0; 2] };
    assert_eq!(frame_len(&plain(0), 0, &three) - frame_len(&plain(0), 0, &two) - 100, 8);
}
