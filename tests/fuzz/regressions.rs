//! What a fuzz target found, each by name.

use super::{HELD_MAX, memory};
use millpond::simulation::WallMs;
use millpond::simulation::fuzzing::{open, seal, stream};
use millpond::simulation::{SimClock, SimDisk};
use millpond::{Durability, Store};
use std::sync::Arc;
use std::time::Duration;

fn store(disk: &SimDisk) -> Store {
    open(disk, &Arc::new(SimClock::new(WallMs(1_800_000_000_000))), Durability::Os).unwrap()
}

/// An index file whose checksums agree and that names partition 2^26 made opening ask for 1.6 GB: places were kept by the number
/// of the partition, before anything had said that there is one.
#[test]
fn an_index_of_partitions_that_do_not_exist_costs_nothing() {
    let disk = SimDisk::new(1);
    let written = store(&disk);
    written.topic("t").open().unwrap().publish("a message").unwrap();
    written.close().unwrap();
    drop(written);
    let name = disk.files().into_iter().map(|file| file.name).find(|name| name.ends_with(".idx")).unwrap();
    let mut bytes = disk.read_file(&name).unwrap();
    // The first entry of the directory begins with its partition.
    bytes[80..84].copy_from_slice(&(1u32 << 26).to_le_bytes());
    disk.write_file(&name, &bytes);
    seal(&disk, &name).unwrap();
    let (read, held) = memory::peak("an index of partitions that do not exist", 0, || {
        let opened = store(&disk);
        let group = opened.topic("t").open().unwrap().group("g").open().unwrap();
        group.receive(Duration::ZERO).unwrap().unwrap().payload().to_vec()
    });
    assert_eq!(read, b"a message");
    assert!(held <= HELD_MAX, "{held} bytes");
}

/// A frame whose checksum agrees and that carries a watermark within another frame: recovery cut the log there, in the middle of
/// the segment's first frame, and what it served could not be read. Now opening says what is wrong.
#[test]
fn a_watermark_within_a_frame_is_told() {
    let torn = [0x00, 0x23, 0xaf, 0x08, 0x10, 0x68, 0x00, 0x00, 0x54, 0x04];
    let aligned = [0x00, 0x23, 0xaf, 0x08, 0x10, 0x68, 0x00, 0x00, 0x54, 0x08];
    for input in [torn, aligned] {
        assert!(!stream(&input), "nothing of it is a log");
    }
}
