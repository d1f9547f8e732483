//! Creating topics, publishing.

use crate::limits::{FRAME_PARTS_MAX, NAME_LEN_MAX, TOPIC_PARTITIONS_MAX};
use crate::state::tests::*;

#[test]
fn partitions_are_numbered_in_order_of_creation() {
    let mut world = World::with(2, options());
    world.run(Command::CreateTopic { name: "second", partitions: 1, options: TopicOptions::LEFT_OUT }).unwrap();
    let roles: Vec<_> = (0..6).map(|id| world.state.partition_role(PartitionId(id))).collect();
    let expected = [
        Some(Role::Topic { topic: TopicId(0), index: 0 }),
        Some(Role::Topic { topic: TopicId(0), index: 1 }),
        Some(Role::Retry { group: KITCHEN }),
        Some(Role::Dead { group: KITCHEN }),
        Some(Role::Topic { topic: TopicId(1), index: 0 }),
        None,
    ];
    assert_eq!(roles, expected);
    assert_eq!(world.state.partitions_end(), PartitionId(5));
    assert_eq!(world.state.topic_by_name("second"), Some(TopicId(1)));
    assert_eq!(world.state.topics().map(|(_, topic)| &*topic.name).collect::<Vec<_>>(), ["orders", "second"]);
    assert_eq!(world.state.groups_of(TopicId(0)).map(|(id, _)| id).collect::<Vec<_>>(), [KITCHEN]);
}

#[test]
fn a_topic_needs_a_free_name_and_partitions() {
    let mut world = World::with(1, options());
    let mut create = |name: &str, partitions| {
        world.run(Command::CreateTopic { name, partitions, options: TopicOptions::LEFT_OUT }).err()
    };
    assert_eq!(create("orders", 1), Some(Rejection::Exists));
    assert!(matches!(create("", 1), Some(Rejection::Invalid(_))));
    assert!(matches!(create(&"x".repeat(NAME_LEN_MAX + 1), 1), Some(Rejection::Invalid(_))));
    assert!(matches!(create("a", 0), Some(Rejection::Invalid(_))));
    assert!(matches!(create("a", TOPIC_PARTITIONS_MAX + 1), Some(Rejection::Invalid(_))));
    assert_eq!(create(&"x".repeat(NAME_LEN_MAX), TOPIC_PARTITIONS_MAX), None);
}

#[test]
fn a_batch_is_published_whole_or_not() {
    let mut world = World::with(3, options());
    let before = world.state.hash();
    let p = PartitionId;
    let runs = |world: &mut World, runs: &[_]| world.run(Command::publish(runs)).map(|(_, records)| records.len());
    assert_eq!(runs(&mut world, &[(p(0), 1), (p(9), 1)]), Err(Rejection::UnknownPartition));
    assert_eq!(runs(&mut world, &[(p(0), 1), (p(3), 1)]), Err(Rejection::UnknownPartition), "hidden");
    assert!(matches!(runs(&mut world, &[(p(0), 1), (p(1), 0)]), Err(Rejection::Invalid(_))));
    assert!(matches!(runs(&mut world, &[(p(1), 1), (p(0), 1), (p(1), 1)]), Err(Rejection::Invalid(_))));
    let half = FRAME_PARTS_MAX as u32 / 2;
    assert!(matches!(runs(&mut world, &[(p(0), half), (p(1), half + 1)]), Err(Rejection::LimitReached(_))));
    assert_eq!(world.state.hash(), before);
    assert_eq!(runs(&mut world, &[(p(2), half), (p(0), half)]), Ok(2));
    assert_eq!(world.state.partition_end(p(2)), Offset(u64::from(half)));
}
