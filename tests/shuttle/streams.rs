//! Streams: of racing appends one wins, and a reader sees a stream without holes, of which all is there.

use crate::rig::{Machine, explore};
use millpond::{Durability, Error, Event, Expected, Store, Stream};
use shuttle::rand::{Rng, thread_rng};
use shuttle::thread;

fn stream(store: &Store) -> Stream {
    store.topic("orders").streams().open().unwrap().stream("o").unwrap()
}

fn payloads(events: &[Event]) -> Vec<Vec<u8>> {
    events.iter().map(|event| event.payload().to_vec()).collect()
}

/// G19: two expect the same version, alone or in a transaction. The loser is told of what the winner appended, at `Disk` once that is
/// durable.
#[test]
fn of_two_appends_that_expect_one_version_one_wins() {
    let cases = ["at Os", "at Disk", "the first one wins", "the second one wins"];
    explore("of_two_appends_that_expect_one_version", cases, |seen| {
        let machine = Machine::new();
        let disk = thread_rng().gen_bool(0.5);
        seen.note(usize::from(disk));
        let store = machine.open(if disk { Durability::Disk } else { Durability::Os });
        stream(&store).append(Expected::NoStream, ["begun"]).unwrap();
        let append = |number: u8| {
            let (stream, store) = (stream(&store), store.clone());
            let in_transaction = thread_rng().gen_bool(0.5);
            thread::spawn(move || {
                let appended = if in_transaction {
                    let done = store.transaction(|tx| {
                        tx.durability(Durability::Os);
                        tx.append(&stream, Expected::Version(0), [[number]])
                    });
                    done.map(|done| done.versions(&stream).unwrap().start)
                } else {
                    // What the winner itself does not wait for the loser must not be told of.
                    let quick = stream.topic().with_durability(Durability::Os).stream("o").unwrap();
                    quick.append(Expected::Version(0), [[number]]).map(|receipt| receipt.first_version())
                };
                let durable = store.stats().unwrap().log.durable == store.stats().unwrap().log.end;
                (appended, durable)
            })
        };
        let outcomes = [append(1), append(2)].map(|thread| thread.join().unwrap());
        let winner = match &outcomes {
            [(Ok(1), _), (Err(Error::WrongVersion { actual: Some(1), .. }), durable)] if *durable || !disk => 0,
            [(Err(Error::WrongVersion { actual: Some(1), .. }), durable), (Ok(1), _)] if *durable || !disk => 1,
            _ => panic!("one wins, and the other is told what is durable: {outcomes:?}"),
        };
        seen.note(2 + usize::from(winner));
        let there = payloads(&stream(&store).read(0, 9).unwrap());
        assert_eq!(there, [b"begun".to_vec(), vec![winner + 1]]);
        if disk {
            machine.kill(store);
            machine.lose_power();
            let store = machine.open(Durability::Disk);
            assert_eq!(payloads(&stream(&store).read(0, 9).unwrap()), there, "told, and lost (G4)");
        }
    });
}

/// G19: whenever it looks, a reader sees the first events of the stream, whole appends of them, and never fewer than before. The index is
/// filled meanwhile.
#[test]
fn a_reader_of_a_stream_sees_whole_appends_in_order() {
    let cases = ["before the second", "between them", "after the last"];
    explore("a_reader_of_a_stream_sees_whole_appends", cases, |seen| {
        let machine = Machine::new();
        let store = machine.open(if thread_rng().gen_bool(0.5) { Durability::Disk } else { Durability::Os });
        let appending = {
            let stream = stream(&store);
            thread::spawn(move || {
                for number in [1u8, 2, 3] {
                    stream.append(Expected::Any, [[number], [number]]).unwrap();
                    stream.save_snapshot(u64::from(number) * 2 - 1, [number]).unwrap();
                }
            })
        };
        let ticking = {
            let store = store.clone();
            thread::spawn(move || store.tick().unwrap())
        };
        let stream = stream(&store);
        let mut before = 0;
        for _ in 0..3 {
            let events = stream.read(0, 9).unwrap();
            let expected: Vec<_> = (0..events.len()).map(|nth| vec![1 + nth as u8 / 2]).collect();
            assert_eq!(payloads(&events), expected, "a hole, or another event");
            assert!(events.len().is_multiple_of(2) && events.len() >= before, "half an append, or fewer events");
            before = events.len();
            seen.note(if before < 4 { 0 } else { before / 2 - 1 });
            if let Some(snapshot) = stream.snapshot().unwrap() {
                assert_eq!(u64::from(snapshot.payload()[0]) * 2 - 1, snapshot.version());
                assert!(stream.read(0, 9).unwrap().len() as u64 > snapshot.version(), "newer than its stream");
            }
        }
        appending.join().unwrap();
        ticking.join().unwrap();
        assert_eq!(stream.read(0, 9).unwrap().len(), 6);
    });
}
