//! Records of several rooms that do not follow.

use super::*;

#[test]
fn what_only_a_holder_does_is_refused_without_a_lease() {
    let mut world = situations();
    let (group, partition) = (KITCHEN, PartitionId(0));
    let failure = AttemptFailure { cause: FailureCause::Nacked, time: WallMs(5), text: "".into() };
    for offset in [2, 3, 4, 5].map(Offset) {
        let due = WallMs(7);
        world.refuses(Record::Acked { group, partition, first: offset, count: 1 });
        let failure = failure.clone();
        world.refuses(Record::Nacked { group, partition, offset, due, delay_ms: 2, failure });
        world.refuses(Record::Extended { group, partition, offset, until: MonoMs(u64::MAX) });
        world.refuses(Record::Released { group, partition, offset });
        world.refuses(Record::Unreadable { group, partition, offset, due, delay_ms: 2 });
        world.refuses(Record::Postponed { group, partition, offset, due, delay_ms: 2 });
        world.refuses(Record::DeadLettered { group, partition, offset, copy: copy(2, 0) });
    }
    let first = Offset(0);
    world.refuses(Record::Acked { group, partition, first, count: 3 }); // the third is not leased
    world.refuses(Record::Acked { group, partition, first, count: 0 });
    world.refuses(Record::Acked { group, partition, first: Offset(u64::MAX), count: 2 });
    world.refuses(Record::Extended { group, partition, offset: first, until: MonoMs(5) });
    world.refuses(Record::Postponed { group, partition, offset: first, due: WallMs(7), delay_ms: 2 });
    world.refuses(Record::Unreadable { group, partition, offset: first, due: WallMs(7), delay_ms: 0 });
    let nacked = |due, failure| Record::Nacked { group, partition, offset: first, due, delay_ms: 2, failure };
    world.refuses(nacked(WallMs(8), failure.clone()));
    world.refuses(nacked(WallMs(7), AttemptFailure { cause: FailureCause::Expired, ..failure.clone() }));
    world.refuses(nacked(WallMs(7), AttemptFailure { text: "x".repeat(121).into(), ..failure.clone() }));
    world.state.apply(&nacked(WallMs(7), failure), Lsn(world.lsn)).unwrap();
    world.state.apply(&Record::Acked { group, partition, first: Offset(1), count: 1 }, Lsn(world.lsn)).unwrap();
}

#[test]
fn what_does_not_come_next_is_refused() {
    let mut world = situations();
    let published = |partition, base, count| {
        let (partition, base) = (PartitionId(partition), Offset(base));
        Record::Published { partition, base, count, time: WallMs(1) }
    };
    for record in [published(0, 4, 1), published(0, 6, 1), published(0, 5, 0), published(1, 0, 1), published(9, 0, 1)] {
        world.refuses(record);
    }
    let topic = |topic, first, name: &str| {
        let (topic, first, name) = (TopicId(topic), PartitionId(first), name.to_owned());
        Record::TopicCreated { topic, name, first, count: 1, options: TopicOptions::LEFT_OUT }
    };
    for record in [topic(0, 3, "a"), topic(1, 2, "a"), topic(1, 3, "orders"), topic(1, 3, "")] {
        world.refuses(record);
    }
    let group = |group, retry, name: &str, starts: usize| Record::GroupCreated {
        group: GroupId(group),
        topic: TopicId(0),
        name: name.to_owned(),
        options: options(),
        retry: PartitionId(retry),
        starts: vec![Offset(0); starts],
    };
    for record in [group(0, 3, "a", 1), group(1, 4, "a", 1), group(1, 3, "kitchen", 1), group(1, 3, "a", 2)] {
        world.refuses(record);
    }
    let (partition, since) = (PartitionId(0), MonoMs(8_000));
    for offset in [3, 9] {
        world.refuses(Record::ExclusivePending { group: KITCHEN, partition, offset: Offset(offset), since });
    }
}
