//! What a fuzz target found, each by name.

use super::{HELD_MAX, memory};
use millpond::ids::WallMs;
use millpond::simulation::fuzzing::{open, seal};
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
