//! Every bound of the engine in one place, with their relations asserted at compile time.
//!
//! Never here: anything that is not a constant.

/// The longest topic, group or header name, in bytes. The shortest is 1.
pub const NAME_LEN_MAX: usize = 255;
/// The most partitions that one topic may have. The fewest is 1.
pub const TOPIC_PARTITIONS_MAX: u32 = 65_536;
/// The most partitions in a store, hidden ones included.
pub const STORE_PARTITIONS_MAX: u32 = 1 << 24;
/// The most topics in a store.
pub const TOPICS_MAX: u32 = 1 << 20;
/// The most groups in a store.
pub const GROUPS_MAX: u32 = 1 << 20;
/// The longest key, in bytes.
pub const KEY_LEN_MAX: usize = 64 << 10;
/// The most headers of a message.
pub const HEADERS_MAX: usize = 1024;
/// The longest message (payload, key and headers, encoded), in bytes: default of the store's option.
pub const MESSAGE_LEN_DEFAULT: usize = 1 << 20;
/// The greatest value of that option.
pub const MESSAGE_LEN_MAX: usize = 16 << 20;
/// The longest frame (a batch or transaction with everything around it), in bytes before padding.
pub const FRAME_LEN_MAX: usize = 32 << 20;
/// The most parts (messages) in a frame.
pub const FRAME_PARTS_MAX: usize = 65_536;
/// The longest head (the records of a frame, without messages), in bytes.
pub const HEAD_LEN_MAX: usize = 4 << 20;

/// Sizes of segments: the first of a process, doubled at each roll up to the maximum.
pub const SEGMENT_LEN_FIRST: u64 = 1 << 20;
/// Default of the store's option for the largest segment.
pub const SEGMENT_LEN_DEFAULT: u64 = 64 << 20;
/// The greatest value of that option.
pub const SEGMENT_LEN_MAX: u64 = 1 << 30;

/// Outstanding messages of a group over all its partitions: default of the group's option.
pub const OUTSTANDING_DEFAULT: u32 = 65_536;
/// The greatest value of that option.
pub const OUTSTANDING_MAX: u32 = 1 << 20;
/// At how many orderly closes in a row a message may be leased before a further one is counted: default of the group's option.
pub const CLOSES_DEFAULT: u32 = 20;
/// The greatest value of that option.
pub const CLOSES_MAX: u32 = 255;
/// The most delays that a backoff lists.
pub const BACKOFF_LIST_MAX: usize = 16;
/// How many messages of a key, or of a partition, may be out at once in a group that keeps them in order: the greatest value of the
/// group's option. By default it is 1.
pub const IN_FLIGHT_PER_KEY_MAX: u32 = 65_536;
/// How many messages of a group in order of keys are parked, waiting for others of their keys, before later ones that wait are only
/// counted. Those that need not wait and redriven ones are parked beyond that.
pub const PARKED_MAX: u32 = 65_536;
/// How many messages of one key are parked before later ones are only counted.
pub const PARKED_PER_KEY_MAX: u32 = 1_024;
/// How many free keys are served by one look at messages that were only counted.
pub const RECALLED_KEYS_MAX: usize = 1_024;
/// The most messages that are parked in a group, whatever becomes of them.
pub const PARKED_LIMIT: u32 = 262_144;
/// How many messages one `receive` looks at before it returns without one, where it does not wait.
pub const LOOKED_AT_MAX: u32 = 65_536;
/// The most messages of the next ones of a partition that such a group looks at in one step.
pub const CONSIDERED_MAX: u32 = 256;
/// The longest filter of a group, in bytes.
pub const FILTER_LEN_MAX: usize = 1024;
/// How many messages a group with a filter reads ahead of those that it leases, in one step.
pub const FILTER_LOOK_MAX: u32 = 4_096;
/// So many messages next to each other that do not pass a filter are settled at once; fewer with the lease of one behind them, or at rest.
pub const FILTERED_RUN: u32 = 1_000;
/// How many verdicts of filters are known of the next messages of a group in one partition. Those next to each other that do not pass
/// count as one.
pub const VERDICTS_PER_RUN_MAX: usize = 4_096;
/// How many are known of all groups together.
pub const VERDICTS_MAX: usize = 65_536;
/// The most messages that one `receive_batch` delivers.
pub const RECEIVE_BATCH_MAX: usize = 65_536;
/// Messages of one receive, encoded, in bytes, but for the last of them.
pub const BATCH_BYTES_MAX: usize = 64 << 20;
/// How many attempts a message's history keeps: the last ones.
pub const HISTORY_LEN: usize = 8;
/// How much of an error's text a history keeps, in bytes.
pub const ERROR_TEXT_LEN_MAX: usize = 120;
/// All error texts of a group's outstanding messages together, in bytes; beyond it the oldest go first.
pub const HISTORY_TEXT_BYTES_MAX: usize = 4 << 20;
/// How often a message may be sent from the dead letters to a topic, before somebody should see that it goes in circles.
pub const REDRIVES_TO_TOPICS_MAX: u32 = 16;

/// The most messages of a store that are scheduled for later. Each takes about 75 bytes of memory.
pub const SCHEDULED_MAX: u64 = 1 << 20;

/// The most named cursors of a store.
pub const CURSORS_MAX: usize = 65_536;
/// The longest value of a named cursor, in bytes.
pub const CURSOR_LEN_MAX: usize = 1024;
/// The longest id of a message that a publisher gives, in bytes. The shortest is 1.
pub const DEDUP_ID_LEN_MAX: usize = 1024;
/// How many ids of its messages a topic remembers: default of the topic's option.
pub const DEDUP_IDS_DEFAULT: u32 = 16_384;
/// The most ids that all topics of a store may remember together, and the greatest value of that option.
pub const DEDUP_IDS_MAX: u32 = 1 << 20;
/// The most messages with a unique key that are pending in a store.
pub const UNIQUE_KEYS_MAX: usize = 1 << 20;
/// For how long a topic remembers an id, in milliseconds: default of the topic's option.
pub const DEDUP_WINDOW_MS_DEFAULT: u64 = 120_000;
/// The most snapshots of a stream that a topic keeps. By default it keeps one.
pub const SNAPSHOTS_KEPT_MAX: u32 = 1_000;
/// The most idempotent producers of a store.
pub const PRODUCERS_MAX: usize = 65_536;

/// For how long a publish waits at most for room in its topic, in milliseconds: a day.
pub const BLOCK_MS_MAX: u64 = 24 * 3_600_000;

/// The greatest duration of an option or a delay, in milliseconds: ten years.
pub const DURATION_MS_MAX: u64 = 10 * 366 * 24 * 3_600_000;

const _: () = assert!(
    2 * PARKED_MAX + RECEIVE_BATCH_MAX as u32 <= PARKED_LIMIT,
    "those that need not wait have room, and redriven ones"
);
const _: () = assert!(FRAME_LEN_MAX < 1 << 26, "a frame's length has 26 bits");
const _: () = assert!(MESSAGE_LEN_MAX + HEAD_LEN_MAX < FRAME_LEN_MAX);
const _: () = assert!(MESSAGE_LEN_DEFAULT <= MESSAGE_LEN_MAX);
const _: () = assert!(SEGMENT_LEN_MAX <= u32::MAX as u64 + 1, "a place in a segment has 32 bits");
const _: () = assert!(SEGMENT_LEN_FIRST <= SEGMENT_LEN_DEFAULT && SEGMENT_LEN_DEFAULT <= SEGMENT_LEN_MAX);
const _: () = assert!(KEY_LEN_MAX < MESSAGE_LEN_DEFAULT);
const _: () = assert!(ERROR_TEXT_LEN_MAX <= u8::MAX as usize);
const _: () = assert!(HISTORY_LEN <= u8::MAX as usize);
