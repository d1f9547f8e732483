//! Trouble that passes is neither damage nor charged: what could not be read for want of a descriptor or of memory is ready again at
//! once, at the same attempt.

use crate::Machine;
use millpond::simulation::{Fault, Op};
use millpond::{Durability, ErrorKind, Message, Ordering, Store};
use std::time::Duration;

const NOW: Duration = Duration::ZERO;

#[test]
fn messages_that_cannot_be_read_for_a_moment_are_ready_at_once_and_uncharged() {
    let mut failed = 0;
    for (fault, batch) in
        [(Fault::TooManyFiles, 1), (Fault::TooManyFiles, 40), (Fault::NoMemory, 1), (Fault::NoMemory, 40)]
    {
        for nth in 0..12 {
            let machine = Machine::new();
            let options = || Store::options().durability(Durability::Os).segment_bytes_max(64 << 10);
            {
                let store = machine.open_with(options());
                let topic = store.topic("t").open().unwrap();
                topic.group("g").open().unwrap();
                for number in 0..200u8 {
                    topic.publish(vec![number; 60_000]).unwrap();
                }
                store.close().unwrap();
            }
            let store = machine.open_with(options());
            let group = store.topic("t").open().unwrap().group("g").open().unwrap();
            machine.disk.fail_op_at(Op::Open, machine.disk.requests_of(Op::Open) + nth, fault);
            let mut seen = Vec::new();
            let mut looks = 0;
            while seen.len() < 200 {
                looks += 1;
                assert!(looks < 500, "only {} came", seen.len());
                let batch = match group.receive_batch(batch, NOW) {
                    Ok(batch) => batch,
                    Err(error) => {
                        assert_eq!(error.kind(), ErrorKind::Retry, "{error}");
                        failed += 1;
                        continue;
                    }
                };
                failed += batch.unreadable().len();
                assert!(batch.iter().all(|delivery| delivery.attempt() == 1));
                seen.extend(batch.iter().map(|delivery| delivery.payload()[0]));
                assert!(batch.ack().unwrap().is_empty());
            }
            seen.sort_unstable();
            assert_eq!(seen, (0..200).collect::<Vec<u8>>(), "each once");
            assert_eq!(store.stats().unwrap().topics[0].groups[0].lag, 0);
        }
    }
    assert!(failed >= 8, "only {failed} receives failed");
}

/// A key that cannot be read for want of a descriptor or of memory is read again: its message waits for those before it.
#[test]
fn a_key_that_cannot_be_read_for_a_moment_is_read_again() {
    let mut failed = 0;
    for (fault, nth) in
        [Fault::TooManyFiles, Fault::NoMemory].into_iter().flat_map(|fault| (0..8).map(move |n| (fault, n)))
    {
        let machine = Machine::new();
        let options = || Store::options().durability(Durability::Os).segment_bytes_max(64 << 10);
        {
            let store = machine.open_with(options());
            let topic = store.topic("t").open().unwrap();
            topic.group("g").ordering(Ordering::Key).open().unwrap();
            for number in 0..60u8 {
                topic.publish(Message::new(vec![number; 20_000]).key("one")).unwrap();
            }
            store.close().unwrap();
        }
        let store = machine.open_with(options());
        let group = store.topic("t").open().unwrap().group("g").open().unwrap();
        machine.disk.fail_op_at(Op::Open, machine.disk.requests_of(Op::Open) + nth, fault);
        let (mut seen, mut looks) = (Vec::new(), 0);
        while seen.len() < 60 {
            looks += 1;
            assert!(looks < 200, "only {} came", seen.len());
            match group.receive_batch(9, NOW) {
                Ok(batch) => {
                    assert!(batch.len() <= 1, "{} of one key", batch.len());
                    failed += batch.unreadable().len();
                    seen.extend(batch.iter().map(|delivery| delivery.payload()[0]));
                    assert!(batch.ack().unwrap().is_empty());
                }
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Retry, "{error}");
                    failed += 1;
                }
            }
        }
        assert_eq!(seen, (0..60).collect::<Vec<u8>>(), "in order");
    }
    assert!(failed >= 4, "only {failed} receives failed");
}
