//! The worked example of docs/reference/format-example.md: the bytes of a tiny store.
//!
//! In the page each file is a block that begins with ```` ```hex ````, its name and its length; each line then is a place, two
//! spaces, bytes, and after three spaces what they are. Bytes that no line gives are zero.

use super::read;
use millpond::simulation::WallMs;
use millpond::simulation::{SimClock, SimDisk};
use millpond::{Durability, Message, Store};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

const PAGE: &str = "docs/reference/format-example.md";

/// One topic, one group, one message, one lease, one ack; closed.
fn tiny_store() -> BTreeMap<String, Vec<u8>> {
    let disk = SimDisk::new(7);
    let clock = Arc::new(SimClock::new(WallMs(1_800_000_000_000)));
    let handle = Arc::new(disk.attach().expect("no other attachment"));
    let store = Store::options().durability(Durability::Disk).open_on(handle, clock.clone()).expect("it opens");
    let orders = store.topic("orders").open().expect("a topic");
    let kitchen = orders.group("kitchen").open().expect("a group");
    orders.publish(Message::new("two pizzas").key("ann").header("type", "new")).expect("it publishes");
    clock.advance(2_000);
    let delivery = kitchen.receive(Duration::ZERO).expect("it receives").expect("there is a message");
    delivery.ack().expect("it acks");
    store.close().expect("it closes");
    let names = disk.files().into_iter().map(|entry| entry.name);
    names.map(|name| (name.clone(), disk.read_file(&name).expect("it is there"))).collect()
}

/// The files as the page gives them.
fn told(page: &str) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for block in page.split("\n```hex ").skip(1) {
        let block = block.split("\n```").next().unwrap_or(block);
        let (head, lines) = block.split_once('\n').expect("a block has lines");
        let (name, len) = head.split_once(", ").expect("a name and a length");
        let len: usize = len.trim_end_matches(" bytes").parse().expect("a length in bytes");
        let mut bytes = vec![0; len];
        for line in lines.lines().filter(|line| line.starts_with(|first: char| first.is_ascii_hexdigit())) {
            let (place, rest) = line.split_once("  ").unwrap_or_else(|| panic!("no bytes: {line}"));
            let place = usize::from_str_radix(place, 16).expect("a place");
            let hex: String = rest.split("   ").next().unwrap_or(rest).split_whitespace().collect();
            for (byte, pair) in bytes[place..].iter_mut().zip(hex.as_bytes().chunks(2)) {
                let pair = std::str::from_utf8(pair).expect("hex is ASCII");
                *byte = u8::from_str_radix(pair, 16).unwrap_or_else(|_| panic!("no bytes: {line}"));
            }
        }
        assert!(files.insert(name.to_owned(), bytes).is_none(), "{name} comes twice");
    }
    files
}

/// All that is not zero, in lines of 16 bytes.
fn dump(bytes: &[u8]) -> String {
    let mut text = String::new();
    for (index, line) in bytes.chunks(16).enumerate().filter(|(_, line)| line.iter().any(|byte| *byte != 0)) {
        let _ = write!(text, "{:04x}  ", index * 16);
        for byte in line {
            let _ = write!(text, "{byte:02x}");
        }
        text.push('\n');
    }
    text
}

#[test]
fn the_example_of_the_format_is_what_this_code_writes() {
    let (told, written) = (told(&read(PAGE)), tiny_store());
    let mut complaint = String::new();
    for (name, bytes) in &written {
        let place = match told.get(name) {
            Some(told) if told == bytes => continue,
            Some(told) => {
                told.iter().zip(bytes).position(|(one, other)| one != other).unwrap_or(told.len().min(bytes.len()))
            }
            None => 0,
        };
        let _ = write!(complaint, "\n{name}, {} bytes, differs from {place:#x} on:\n{}", bytes.len(), dump(bytes));
    }
    let names = |files: &BTreeMap<String, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&told), names(&written), "the files of the example in {PAGE}{complaint}");
    assert!(
        complaint.is_empty(),
        "the example in {PAGE} is not what the code writes. Correct it, and the text above it:{complaint}"
    );
}
