//! What is done under the lock for a checkpoint or for statistics, however much is in progress.

use super::*;

fn fold(state: &mut State, record: &Record) {
    state.apply(record, Lsn(8)).unwrap();
}

/// A store with one group that has this many messages outstanding.
fn outstanding(count: u32) -> State {
    let mut state = World::with(1, GroupOptions { max_outstanding: count, ..options() }).state;
    let (partition, group, until, time) = (PartitionId(0), KITCHEN, MonoMs(2 * TIMEOUT_MS), WallMs(0));
    fold(&mut state, &Record::Published { partition, base: Offset(0), count, time });
    let first = Offset(0);
    fold(&mut state, &Record::Leased { group, partition, first, count, attempt: 1, until, time, exclusive: false });
    state
}

/// A store with so many groups on one topic, each with a message outstanding in each of so many partitions.
fn wide(groups: u64, partitions: u32) -> State {
    let options = GroupOptions { max_outstanding: partitions, ..options() };
    let mut state = World::with(partitions, options.clone()).state;
    let (time, until) = (WallMs(0), MonoMs(2 * TIMEOUT_MS));
    for partition in (0..partitions).map(|index| PartitionId(index.into())) {
        fold(&mut state, &Record::Published { partition, base: Offset(0), count: 1, time });
    }
    for group in (0..groups).map(GroupId) {
        if group != KITCHEN {
            let (topic, name, options) = (TopicId(0), format!("group {group}"), options.clone());
            let (retry, starts) = (state.partitions_end(), vec![Offset(0); partitions as usize]);
            fold(&mut state, &Record::GroupCreated { group, topic, name, options, retry, starts });
        }
        for partition in (0..partitions).map(|index| PartitionId(index.into())) {
            let first = Offset(0);
            fold(
                &mut state,
                &Record::Leased { group, partition, first, count: 1, attempt: 1, until, time, exclusive: false },
            );
        }
    }
    state
}

/// A store with one topic that remembers this many ids.
fn remembering(count: u32) -> State {
    let mut world = World::new();
    let options = TopicOptions { dedup_ids: count, dedup_window_ms: 1_000_000, ..TopicOptions::LEFT_OUT };
    world.run(Command::CreateTopic { name: "orders", partitions: 1, options }).unwrap();
    let mut state = world.state;
    let (partition, base, time) = (PartitionId(0), Offset(0), WallMs(0));
    fold(&mut state, &Record::Published { partition, base, count, time });
    for id in 0..u64::from(count) {
        let (offset, time) = (Offset(id), StoreMs(0));
        fold(&mut state, &Record::Accepted { partition, offset, id: id.into(), body: id, time });
    }
    state
}

/// How many pointers a snapshot copies: what is done under the lock.
fn pointers(state: &State) -> usize {
    let groups = state.groups().map(|(_, group)| group.entries.pages() + group.nexts.pages() + 2).sum::<usize>();
    let ids = state.dedup.pages();
    groups + ids + state.catalog.tables().partitions.pages() + state.catalog.tables().topics.pages()
}

#[test]
fn a_snapshot_copies_little_however_much_is_outstanding() {
    for (what, state, most) in [
        ("1,048,576 outstanding", outstanding(1 << 20), 300),
        ("100 groups", wide(100, 1_024), 2_000),
        ("1,048,576 ids", remembering(1 << 20), 400),
    ] {
        let copied = pointers(&state);
        assert!(copied <= most, "{what}: {copied} pointers");
    }
}
