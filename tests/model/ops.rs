//! The operations: what a run may do, how they are drawn, and which public functions they call.
//!
//! One table makes all three, so an operation cannot be without a generator, nor a public function without an operation
//! (the test in `main` compares the table with the sources). Operations name things by an index modulo what exists, so
//! that a run stays meaningful while it shrinks. Never here: what an operation does or should do.

use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::Union;

/// How long a payload is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Size {
    Empty,
    Small,
    /// So many KiB.
    Long(u8),
    /// Over the store's limit.
    Huge,
}

/// A message to publish. A partition may be one that the topic does not have.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Draft {
    pub(crate) size: Size,
    pub(crate) key: Option<u8>,
    pub(crate) headers: u8,
    pub(crate) partition: Option<u8>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Pause {
    Default,
    None,
    Fixed(u64),
    Exponential { first: u64, max: u64, jitter: bool },
    Linear { step: u64, max: u64 },
    List { first: u64, then: u64 },
    FullJitter(u64),
}

/// A group's options; `None` leaves the default, or what it was.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spec {
    pub(crate) timeout: Option<u64>,
    pub(crate) attempts: Option<u32>,
    /// Of nacks, expiries and crashes.
    pub(crate) limits: Option<[u32; 3]>,
    pub(crate) in_flight: Option<u32>,
    pub(crate) pause: Pause,
    pub(crate) outstanding: Option<u32>,
    pub(crate) closes: Option<u32>,
    /// Whether its dead letters are told of.
    pub(crate) notices: Option<bool>,
    /// Only when it is created: in what order, and how many of a key or partition may be out.
    pub(crate) order: Option<(InOrder, u32)>,
    /// Only when it is created: whether it wants messages with a type, or those without.
    pub(crate) wants_typed: Option<bool>,
}

/// What the messages of a group wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InOrder {
    ByKey,
    ByPartition,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Begin {
    Default,
    Earliest,
    Latest,
    Offset(u64),
    /// So many milliseconds ago.
    Ago(u64),
}

/// Where a group goes on.
#[derive(Clone, Copy, Debug)]
pub(crate) enum SeekTo {
    Earliest,
    Latest,
    /// So many milliseconds ago.
    Ago(u64),
}

/// Which option of a group is given when it is opened again, and whether it is the one stored.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Asked {
    Nothing,
    Timeout { same: bool },
    Attempts { same: bool },
    Pause { same: bool },
    Outstanding { same: bool },
    Closes { same: bool },
    Notices { same: bool },
    Order { same: bool },
    InFlight { same: bool },
    Filter { same: bool },
}

/// Where a reader of a log begins.
#[derive(Clone, Copy, Debug)]
pub(crate) enum From {
    Start,
    End,
    /// At one of the positions that were seen, of any topic.
    Position(usize),
}

/// How a store is opened.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Opening {
    pub(crate) disk: bool,
    pub(crate) segment_kib: u64,
    /// Whether a message may hold up others, so as to go alone.
    pub(crate) isolates: bool,
}

macro_rules! operations {
    ($($(#[$doc:meta])* $name:ident { $($field:ident: $kind:ty = $draw:expr),* $(,)? } * $weight:literal calls [$($call:literal),*];)*) => {
        #[derive(Clone, Debug)]
        pub(crate) enum Op {
            $($(#[$doc])* $name { $($field: $kind),* },)*
        }

        pub(crate) fn operation() -> impl Strategy<Value = Op> + use<> {
            Union::new_weighted(vec![
                $(($weight, (Just(()), $($draw,)*).prop_map(|((), $($field,)*)| Op::$name { $($field),* }).boxed())),*
            ])
        }

        /// The public functions that operations call, and those that need none: builders that `draft`, `spec` and
        /// `opening` stand for, and what only looks.
        pub(crate) const CALLED: &[&str] = &[$($($call,)*)*];
    };
}

operations! {
    /// Creates a topic, while there are few.
    CreateTopic { partitions: u32 = 1..4u32, is_kept: bool = any::<bool>() } * 2 calls [
        "Store::topic", "TopicBuilder::dedup_ids", "TopicBuilder::dedup_window", "TopicBuilder::partitions", "TopicBuilder::retention", "TopicBuilder::open"
    ];
    /// Opens a topic that exists, with its options or others.
    OpenTopic {
        topic: usize = index(),
        partitions: Option<u32> = proptest::option::of(1..4u32),
        is_kept: Option<bool> = any::<Option<bool>>(),
    } * 1 calls [];
    /// Creates a group, while there are few.
    CreateGroup { topic: usize = index(), spec: Spec = spec(), begin: Begin = begin() } * 3 calls [
        "Topic::group", "GroupBuilder::open", "GroupBuilder::visibility_timeout", "GroupBuilder::max_attempts",
        "GroupBuilder::max_nacks", "GroupBuilder::max_expiries", "GroupBuilder::max_crashes",
        "GroupBuilder::backoff", "GroupBuilder::max_outstanding", "GroupBuilder::max_closes", "GroupBuilder::dead_letter_notices", "GroupBuilder::start",
        "GroupBuilder::ordering", "GroupBuilder::max_in_flight_per_key", "GroupBuilder::max_in_flight", "GroupBuilder::filter",
        "Backoff::exponential", "Backoff::fixed", "Backoff::none", "Backoff::max", "Backoff::jitter",
        "Backoff::linear", "Backoff::list", "Backoff::full_jitter"
    ];
    OpenGroup { group: usize = index(), asked: Asked = asked() } * 1 calls [];
    /// Changes options; those that are not given stay.
    AlterGroup { group: usize = index(), spec: Spec = spec() } * 4 calls [
        "Group::alter", "GroupChange::apply", "GroupChange::visibility_timeout", "GroupChange::max_attempts", "GroupChange::max_nacks",
        "GroupChange::max_expiries", "GroupChange::max_crashes", "GroupChange::max_in_flight",
        "GroupChange::backoff", "GroupChange::max_outstanding", "GroupChange::max_closes", "GroupChange::dead_letter_notices"
    ];
    /// Pauses a group, or resumes it.
    Pause { group: usize = index(), pause: bool = proptest::bool::weighted(0.4) } * 3 calls ["Group::pause", "Group::resume"];
    /// Lets a group go on from elsewhere.
    Seek { group: usize = index(), to: SeekTo = seek_to() } * 3 calls ["Group::seek", "Group::preview_seek"];
    RemoveGroup { group: usize = index() } * 2 calls ["Topic::remove_group"];
    RemoveTopic { topic: usize = index() } * 1 calls ["Store::remove_topic"];
    /// Calls everything on handles of what was removed.
    UseGone { } * 1 calls [];
    /// Publishes at a level of its own, or at the store's.
    Publish { topic: usize = index(), draft: Draft = draft(), disk: Option<bool> = any::<Option<bool>>() } * 16 calls [
        "Topic::publish", "Topic::with_durability",
        "Message::new", "Message::key", "Message::header", "Message::partition"
    ];
    PublishBatch {
        topic: usize = index(),
        drafts: Vec<Draft> = proptest::collection::vec(draft(), 0..7),
        disk: Option<bool> = any::<Option<bool>>(),
    } * 6 calls ["Topic::publish_batch"];
    /// Publishes a message under one of a few ids, alone or twice in a batch; with the bytes that go with the id, or others.
    PublishUnderId {
        topic: usize = index(),
        id: u8 = 0..6u8,
        is_other: bool = proptest::bool::weighted(0.2),
        in_batch: bool = proptest::bool::weighted(0.3),
    } * 8 calls ["Message::dedup_id", "Receipt::is_repeat", "BatchReceipt::is_repeat"];
    /// Publishes a message under one of a few unique keys.
    PublishUnique { topic: usize = index(), key: u8 = 0..3u8, existing: bool = any::<bool>() } * 6 calls ["Message::unique_key"];
    /// Publishes the number that comes next, that before it, or that after it.
    PublishNumbered { topic: usize = index(), producer: u8 = 0..2u8, by: u64 = 0..3u64 } * 6 calls [
        "Topic::producer", "Producer::next_sequence", "Producer::publish"
    ];
    /// Sets a cursor where it stands, or elsewhere.
    SetCursor {
        cursor: u8 = 0..3u8,
        is_right: bool = proptest::bool::weighted(0.8),
        in_transaction: bool = any::<bool>(),
    } * 6 calls ["Store::cursor", "Store::cursors", "Cursor::get", "Cursor::set", "Transaction::set_cursor"];
    RemoveCursor { cursor: u8 = 0..3u8 } * 2 calls ["Cursor::remove"];
    /// Waits for a receipt, kept from earlier, of a message or of a batch.
    WaitDurable { receipt: usize = index() } * 2 calls ["Receipt::wait_durable", "BatchReceipt::wait_durable"];
    Receive { group: usize = index() } * 16 calls ["Group::receive"];
    /// Receives several, kept one by one or as a batch.
    ReceiveBatch { group: usize = index(), max: usize = 0..9usize, whole: bool = any::<bool>() } * 8 calls [
        "Group::receive_batch"
    ];
    /// All settling takes any delivery ever kept, and with it leases that were lost long ago.
    Ack { delivery: usize = index() } * 8 calls ["Delivery::ack"];
    AckDurable { delivery: usize = index() } * 2 calls ["Delivery::ack_durable"];
    AckBatch { batch: usize = index(), durable: bool = any::<bool>() } * 4 calls ["Batch::ack", "Batch::ack_durable"];
    /// Takes a batch apart.
    SplitBatch { batch: usize = index() } * 1 calls [];
    DropBatch { batch: usize = index() } * 1 calls [];
    /// Lets the lease of a delivery run out, and its group receive again.
    Overtake { delivery: usize = index() } * 4 calls [];
    Nack { delivery: usize = index(), text: u8 = 0..3u8 } * 7 calls ["Delivery::nack"];
    NackAfter { delivery: usize = index(), delay: u64 = millis() } * 3 calls ["Delivery::nack_after"];
    Extend { delivery: usize = index(), duration: u64 = millis() } * 3 calls ["Delivery::extend", "Delivery::expires_in"];
    Reject { delivery: usize = index() } * 4 calls ["Delivery::reject"];
    Drop { delivery: usize = index() } * 2 calls [];
    Release { delivery: usize = index() } * 2 calls ["Delivery::release"];
    /// Settles deliveries that are kept, perhaps a batch, and publishes, all of it or none.
    Transact {
        deliveries: Vec<(usize, u8)> = proptest::collection::vec((index(), 0..6u8), 0..4),
        batch: Option<usize> = proptest::option::weighted(0.2, index()),
        drafts: Vec<(usize, Draft)> = proptest::collection::vec((index(), draft()), 0..4),
        disk: bool = any::<bool>(),
    } * 8 calls [
        "Store::transaction", "Transaction::durability", "Transaction::publish", "Transaction::ack", "Transaction::ack_batch",
        "Transaction::nack", "Transaction::nack_after", "Transaction::reject", "Committed::id", "Committed::ids", "Committed::lsn",
        "Committed::wait_durable"
    ];
    /// Reads a topic as a log up to its end.
    ReadLog { topic: usize = index(), from: From = from() } * 6 calls [
        "Topic::reader", "LogReaderBuilder::from_start", "LogReaderBuilder::from_end", "LogReaderBuilder::from",
        "LogReaderBuilder::open", "LogReader::next", "LogReader::try_next"
    ];
    /// Reads the notices of dead letters.
    Notices { } * 2 calls [];
    Letters { group: usize = index() } * 2 calls ["Group::dead_letters"];
    /// Sends a dead letter back; and once more, through another handle of it.
    Redrive { group: usize = index(), letter: usize = index(), twice: bool = any::<bool>() } * 3 calls [
        "DeadLetter::redrive"
    ];
    RedriveTo { group: usize = index(), letter: usize = index(), topic: usize = index() } * 3 calls [
        "DeadLetter::redrive_to"
    ];
    RedriveAll { group: usize = index() } * 1 calls ["Group::redrive_all"];
    /// Sends back the dead letters that the bits name.
    RedriveWhere { group: usize = index(), wanted: u8 = any::<u8>() } * 1 calls ["Group::redrive_where"];
    Discard { group: usize = index(), letter: usize = index(), twice: bool = any::<bool>() } * 2 calls [
        "DeadLetter::discard"
    ];
    Advance { by: u64 = millis() } * 10 calls [];
    /// Sets the wall clock.
    JumpWall { by: i64 = jump(), tick: bool = any::<bool>() } * 2 calls [];
    Tick { } * 6 calls ["Store::tick", "Store::rests"];
    Checkpoint { } * 1 calls ["Store::checkpoint"];
    Sync { } * 2 calls ["Store::sync"];
    Close { then: Opening = opening() } * 2 calls [
        "Store::close", "Store::options", "StoreOptions::open_on", "StoreOptions::durability",
        "StoreOptions::sync_interval", "StoreOptions::segment_bytes_max", "StoreOptions::max_bytes", "StoreOptions::message_bytes_max",
        "StoreOptions::isolation_limit", "StoreOptions::parked_max"
    ];
    /// Drops every handle without closing, deliveries first.
    Abandon { then: Opening = opening() } * 1 calls [];
    Crash { then: Opening = opening() } * 3 calls [];
    /// What is not durable is lost, as far as the outcome of this number says.
    PowerCut { outcome: usize = index(), then: Opening = opening() } * 4 calls [];
}

/// Public functions without an operation, and why.
pub(crate) const NOT_CALLED: &[(&str, &[&str])] = &[
    ("looked at after every operation", &["Store::stats", "Store::report", "Store::state_hash", "Store::violations"]),
    ("the simulation sleeps", &["Group::fall_asleep", "Sleeper::is_awake", "Store::stuck_sleepers"]),
    ("looked at in every ack of a batch", &["LostLeases::is_empty", "LostLeases::len"]),
    ("for transports of other queues, which wait themselves", &["Backoff::delay_max"]),
    (
        "of time between deliveries, which the reference does not count: src/engine/rates.rs, tests/kinds/waking.rs",
        &["GroupBuilder::rate_limit", "GroupChange::rate_limit", "RateLimit::new", "RateLimit::burst"],
    ),
    (
        "of what a group has read ahead, which the reference does not know: src/state/filter/tests.rs, tests/scenarios/filter_change.txt",
        &["GroupChange::filter_from_here"],
    ),
    ("of time that passes by itself: tests/kinds/keeping.rs", &["Delivery::keep_alive", "KeepAlive::is_active"]),
    ("looked at in every receipt", &["Receipt::id", "Receipt::lsn", "Receipt::level"]),
    ("looked at in every receipt of a batch", &["BatchReceipt::ids", "BatchReceipt::lsn", "BatchReceipt::level"]),
    (
        "looked at in every handle",
        &["Topic::name", "Topic::partitions", "Group::name", "Group::topic", "Cursor::name", "Producer::name"],
    ),
    (
        "tests/repair.rs and the sweep of damage do, of stores that do not open",
        &["StoreOptions::repair", "StoreOptions::plan_repair", "StoreOptions::repair_on"],
    ),
    (
        "tests/observer.rs, verify.rs and backup.rs do, beside a writer, and the simulation looks at every state",
        &[
            "Store::open_read_only",
            "StoreOptions::open_read_only",
            "StoreOptions::open_read_only_on",
            "Observer::refresh",
            "Observer::end",
            "Observer::stats",
            "Observer::cursors",
            "Observer::cursor",
            "Observer::log",
            "Observer::peek",
            "Observer::verify",
            "Observer::dump",
            "Observer::backup",
            "Observer::backup_to",
            "Store::backup",
            "Store::backup_to",
            "ObservedLog::try_next",
            "Peeked::id",
            "Peeked::origin",
            "Peeked::payload",
            "Peeked::key",
            "Peeked::headers",
            "Peeked::timestamp",
            "Peeked::attempts",
            "Peeked::history",
        ],
    ),
    ("tests/dedup.rs leaves out of a transaction what was published before", &["Committed::is_repeat"]),
    (
        "tests/topic_bound.rs has a model of its own, and so has the simulation",
        &["TopicBuilder::max_messages", "TopicBuilder::when_full", "TopicBuilder::drop_unsettled"],
    ),
    (
        "tests/streams.rs has a model of its own, and the simulation appends in every case",
        &[
            "TopicBuilder::streams",
            "TopicBuilder::snapshots_kept",
            "StoreOptions::index",
            "StoreOptions::index_home",
            "Topic::stream",
            "Stream::key",
            "Stream::topic",
            "Stream::append",
            "Stream::read",
            "Stream::read_back",
            "Stream::last_version",
            "Stream::first_version",
            "Stream::truncate_before",
            "Stream::delete",
            "Stream::save_snapshot",
            "Stream::snapshot",
            "Stream::snapshot_upto",
            "StreamSnapshot::version",
            "StreamSnapshot::payload",
            "StreamSnapshot::timestamp",
            "Transaction::save_snapshot",
            "Event::version",
            "Event::id",
            "Event::payload",
            "Event::headers",
            "Event::header",
            "Event::timestamp",
            "StreamReceipt::first_version",
            "StreamReceipt::last_version",
            "StreamReceipt::is_repeat",
            "StreamReceipt::ids",
            "StreamReceipt::lsn",
            "StreamReceipt::wait_durable",
            "Transaction::append",
            "Committed::versions",
        ],
    ),
    (
        "tests/schedule.rs has a model of its own, and the simulation schedules in every case",
        &[
            "Message::delay",
            "Message::deliver_at",
            "Topic::scheduled",
            "Topic::cancel_scheduled",
            "Topic::reschedule_in",
            "Topic::reschedule_at",
        ],
    ),
    (
        "tests/projections.rs kills them between any two requests; they are made of transactions and cursors",
        &[
            "Topic::projection",
            "ProjectionBuilder::batch",
            "ProjectionBuilder::open",
            "Projection::name",
            "Projection::run_once",
            "Projection::run",
            "Projection::rebuild",
            "Projection::status",
            "Topic::projection_from",
            "ForeignProjection::run_once",
            "ForeignProjection::status",
        ],
    ),
    (
        "what they hold is seen in tests/cursors.rs and in the simulation",
        &[
            "Topic::cursor",
            "TopicCursor::name",
            "TopicCursor::position",
            "TopicCursor::advance",
            "TopicCursor::remove",
            "Transaction::advance",
        ],
    ),
    ("looked at in every batch", &["Batch::len", "Batch::is_empty", "Batch::iter", "Batch::unreadable"]),
    (
        "looked at in every delivery",
        &[
            "Delivery::id",
            "Delivery::origin",
            "Delivery::payload",
            "Delivery::key",
            "Delivery::headers",
            "Delivery::header",
            "Delivery::attempt",
            "Delivery::failures",
            "Delivery::timestamp",
            "Delivery::topic",
            "Delivery::group",
        ],
    ),
    (
        "looked at by way of every delivery and batch",
        &[
            "DeliveryRef::id",
            "DeliveryRef::origin",
            "DeliveryRef::payload",
            "DeliveryRef::key",
            "DeliveryRef::headers",
            "DeliveryRef::header",
            "DeliveryRef::attempt",
            "DeliveryRef::failures",
            "DeliveryRef::timestamp",
            "DeliveryRef::topic",
            "DeliveryRef::group",
        ],
    ),
    (
        "looked at in every message of a log",
        &[
            "LogMessage::position",
            "LogMessage::topic",
            "LogMessage::id",
            "LogMessage::origin",
            "LogMessage::payload",
            "LogMessage::key",
            "LogMessage::headers",
            "LogMessage::header",
            "LogMessage::timestamp",
        ],
    ),
    (
        "looked at in every dead letter",
        &[
            "DeadLetter::id",
            "DeadLetter::origin",
            "DeadLetter::payload",
            "DeadLetter::key",
            "DeadLetter::headers",
            "DeadLetter::header",
            "DeadLetter::topic",
            "DeadLetter::group",
            "DeadLetter::timestamp",
            "DeadLetter::attempts",
            "DeadLetter::failures",
            "DeadLetter::history",
        ],
    ),
    ("start threads", &["Group::subscribe", "StoreOptions::open_with_threads"]),
    (
        "have a thread, and tests of their own",
        &[
            "Subscription::request",
            "Subscription::recv",
            "Subscription::recv_timeout",
            "Subscription::try_recv",
            "Subscription::iter",
        ],
    ),
    (
        "futures that the store's threads serve: tests/futures.rs, tests/shuttle/asking.rs",
        &[
            "Group::receive_async",
            "Group::receive_batch_async",
            "Group::stream",
            "Topic::publish_async",
            "Receipt::durable",
            "BatchReceipt::durable",
        ],
    ),
    (
        "names what is there, and changes nothing",
        &["StoreOptions::create", "TopicBuilder::create", "GroupBuilder::create"],
    ),
    ("finds what a list of dead letters has, see tests/boundaries", &["Group::dead_letter"]),
    ("need a real directory", &["Store::open", "StoreOptions::open", "StoreOptions::allow_network_fs"]),
];

fn index() -> impl Strategy<Value = usize> + use<> {
    0..64usize
}

/// Times at which something may happen, and the moments beside them.
fn millis() -> impl Strategy<Value = u64> + use<> {
    let edges = select(vec![0, 1, 49, 50, 51, 99, 100, 199, 200, 999, 1_000, 1_001, 30_000, 60_000]);
    prop_oneof![3 => edges, 1 => 0..1_500u64]
}

fn jump() -> impl Strategy<Value = i64> + use<> {
    prop_oneof![select(vec![-86_400_000, -5_000, -1_000, -999, 999, 1_000, 5_000, 86_400_000]), -2_000..2_000i64]
}

fn draft() -> impl Strategy<Value = Draft> + use<> {
    let size = prop_oneof![
        2 => Just(Size::Empty),
        12 => Just(Size::Small),
        5 => (1..41u8).prop_map(Size::Long),
        1 => Just(Size::Huge)
    ];
    let partition = proptest::option::weighted(0.2, 0..3u8);
    (size, proptest::option::of(0..4u8), 0..3u8, partition).prop_map(|(size, key, headers, partition)| Draft {
        size,
        key,
        headers,
        partition,
    })
}

fn spec() -> impl Strategy<Value = Spec> + use<> {
    let backoff = (select(vec![1, 50, 100]), select(vec![40, 200, 1_000]), any::<bool>());
    let pause = prop_oneof![
        1 => Just(Pause::Default),
        3 => Just(Pause::None),
        3 => select(vec![1, 50, 1_000]).prop_map(Pause::Fixed),
        3 => backoff.prop_map(|(first, max, jitter)| Pause::Exponential { first, max, jitter }),
        1 => (select(vec![1, 50, 100]), select(vec![40, 200])).prop_map(|(step, max)| Pause::Linear { step, max }),
        1 => (select(vec![0, 50, 300]), select(vec![1, 100])).prop_map(|(first, then)| Pause::List { first, then }),
        1 => select(vec![50, 100]).prop_map(Pause::FullJitter),
    ];
    let timeout = prop_oneof![1 => Just(None), 6 => select(vec![1, 50, 200, 1_000]).prop_map(Some)];
    let attempts = prop_oneof![1 => Just(None), 6 => (0..4u32).prop_map(Some), 1 => Just(Some(12))];
    let outstanding = prop_oneof![3 => Just(None), 2 => (1..5u32).prop_map(Some)];
    let closes = prop_oneof![1 => Just(None), 2 => (0..3u32).prop_map(Some)];
    let notices = any::<Option<bool>>();
    let order = proptest::option::of((select(vec![InOrder::ByKey, InOrder::ByKey, InOrder::ByPartition]), 1..3u32));
    // At most as many as the least limit of all attempts.
    let limits = proptest::option::weighted(0.3, [0..2u32, 0..2u32, 0..2u32]);
    let limits = (limits, any::<bool>())
        .prop_map(|(limits, doubled)| limits.map(|all| all.map(|max| max << u32::from(doubled))));
    let in_flight = proptest::option::weighted(0.25, 0..4u32);
    let wants_typed = proptest::option::weighted(0.4, any::<bool>());
    let last = (limits, in_flight, wants_typed);
    (timeout, attempts, pause, outstanding, closes, notices, order, last).prop_map(
        |(timeout, attempts, pause, outstanding, closes, notices, order, (limits, in_flight, wants_typed))| Spec {
            timeout,
            attempts,
            pause,
            outstanding,
            closes,
            notices,
            order,
            wants_typed,
            in_flight: in_flight.map(|max| max.min(outstanding.unwrap_or(65_536))),
            limits: limits.map(|all| all.map(|max| max.min(attempts.filter(|max| *max != 0).unwrap_or(5)))),
        },
    )
}

fn begin() -> impl Strategy<Value = Begin> + use<> {
    prop_oneof![
        3 => Just(Begin::Default),
        2 => Just(Begin::Earliest),
        2 => Just(Begin::Latest),
        2 => (0..6u64).prop_map(Begin::Offset),
        2 => millis().prop_map(Begin::Ago),
    ]
}

fn seek_to() -> impl Strategy<Value = SeekTo> + use<> {
    prop_oneof![2 => Just(SeekTo::Earliest), 1 => Just(SeekTo::Latest), 2 => millis().prop_map(SeekTo::Ago)]
}

fn from() -> impl Strategy<Value = From> + use<> {
    prop_oneof![2 => Just(From::Start), 1 => Just(From::End), 5 => (0..64usize).prop_map(From::Position)]
}

fn asked() -> impl Strategy<Value = Asked> + use<> {
    (0..10u8, any::<bool>()).prop_map(|(which, same)| match which {
        0 => Asked::Nothing,
        1 => Asked::Timeout { same },
        2 => Asked::Attempts { same },
        3 => Asked::Pause { same },
        4 => Asked::Outstanding { same },
        5 => Asked::Closes { same },
        6 => Asked::Notices { same },
        7 => Asked::Order { same },
        8 => Asked::Filter { same },
        _ => Asked::InFlight { same },
    })
}

pub(crate) fn opening() -> impl Strategy<Value = Opening> + use<> {
    let fields = (any::<bool>(), select(vec![64, 128, 256]), any::<bool>());
    fields.prop_map(|(disk, segment_kib, isolates)| Opening { disk, segment_kib, isolates })
}

/// A run: how the store is opened first, one topic and one group, and whatever comes.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    pub(crate) seed: u64,
    pub(crate) opening: Opening,
    pub(crate) ops: Vec<Op>,
}

pub(crate) fn run(ops_max: usize) -> impl Strategy<Value = Run> {
    let topic = (1..4u32, any::<bool>());
    let topic = topic.prop_map(|(partitions, is_kept)| Op::CreateTopic { partitions, is_kept });
    let group = (spec(), begin()).prop_map(|(spec, begin)| Op::CreateGroup { topic: 0, spec, begin });
    let ops = proptest::collection::vec(operation(), 1..=ops_max);
    (any::<u64>(), opening(), topic, group, ops).prop_map(|(seed, opening, topic, group, ops)| {
        let ops = [topic, group].into_iter().chain(ops).collect();
        Run { seed, opening, ops }
    })
}
