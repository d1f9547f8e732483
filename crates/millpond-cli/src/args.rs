//! The command line, as clap reads it, completes it and prints a man page of it.
//!
//! Never here: what a command does.

use clap::{Args as Options, Parser, Subcommand, ValueEnum};
use millpond::Position;
use std::path::PathBuf;
use std::time::Duration;

/// A store is not looked at more often than this.
const INTERVAL_MIN: Duration = Duration::from_millis(100);

/// Look into a store of the embedded queue millpond, publish, consume, and mend dead letters.
///
/// What only looks works while an application has the store open, and changes nothing. One process writes at a time: what changes something
/// says who has the store, and ends with 3.
#[derive(Debug, Parser)]
#[command(
    name = "millpond",
    version,
    after_help = "Exit codes: 0 done, 1 failed, 2 wrong command line, 3 store in use, 4 not found, 5 damaged."
)]
pub struct Args {
    /// The directory of the store.
    #[arg(short, long, global = true, env = "MILLPOND_STORE", default_value = ".")]
    pub store: PathBuf,
    /// How results are printed.
    #[arg(short, long, global = true, value_enum, default_value_t = Output::Text)]
    pub output: Output,
    #[command(subcommand)]
    pub command: Command,
}

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// Tables and plain lines.
    Text,
    /// One JSON value a line, with the names of the Rust API.
    Json,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create a store in an empty or new directory.
    Init,
    /// List topics, or create or remove one.
    #[command(subcommand_required = false)]
    Topics {
        #[command(subcommand)]
        change: Option<TopicChange>,
    },
    /// List the groups of all topics, or create or remove one.
    Groups {
        #[command(subcommand)]
        change: Option<GroupChange>,
    },
    /// Deliver no messages of a group, also after restarts, until it is resumed; what is leased stays leased.
    Pause {
        /// The topic.
        topic: String,
        /// The group, which must be there.
        group: String,
    },
    /// Deliver the messages of a paused group again.
    Resume {
        /// The topic.
        topic: String,
        /// The group, which must be there.
        group: String,
    },
    /// Let a group go on from another place of its topic: back, so that messages come again, or ahead.
    Seek(Seek),
    /// Show what each group has to do, and the log.
    Stats,
    /// Show live what each group does: rates, lag, its oldest message, what is leased and dead.
    ///
    /// On a terminal it shows a table until q or Ctrl-C: arrows scroll and choose the column to sort by, r reverses, / filters. Anywhere
    /// else it prints one table and ends. With `--output json` it prints a line for each group, again and again, until it is interrupted.
    Top(Top),
    /// Publish messages to a topic: one from the command line, one file, or each line of the input.
    Publish(Publish),
    /// Receive messages of a group, print them or run a command for each, and settle them.
    Consume(Consume),
    /// Print the messages of a topic as they stand in the log; no group notices.
    Tail(Tail),
    /// Show messages of a group that wait for the same, and leave them as they are.
    Peek(Peek),
    /// List, show, redrive or discard the dead letters of a group.
    #[command(subcommand)]
    DeadLetters(DeadLetters),
    /// Read a stream of events, or append to it.
    #[command(subcommand)]
    Stream(Stream),
    /// List the named cursors of the store.
    Cursors,
    /// Write all messages of a topic as JSON Lines, or those of one or all topics as an SQLite database.
    Export(Export),
    /// Publish messages from JSON Lines, as `export` writes them, with new ids and times.
    Import {
        /// The topic; it is created if it is not there.
        topic: String,
    },
    /// Show all events of one correlation as a tree of what caused what, with what became of them in each group.
    Trace {
        /// The correlation id, or the id of the first event.
        correlation: String,
    },
    /// List messages for later, or cancel one.
    #[command(subcommand)]
    Schedule(Schedule),
    /// Copy the store as it is now to a directory, also while it is in use; what an earlier backup there has is not copied again.
    Backup {
        /// The directory: missing, empty, or an earlier backup of this store.
        to: PathBuf,
    },
    /// Copy a backup to the directory of the store, which must be missing or empty.
    Restore {
        /// The directory of the backup.
        from: PathBuf,
    },
    /// Verify every byte of the store, and say what is wrong.
    Verify,
    /// Repair a store that does not open to what is left of it, and say what is lost. Damaged files are copied aside first.
    Repair {
        #[command(flatten)]
        change: Change,
    },
    /// Print what the log says, frame by frame, as JSON Lines.
    Dump {
        /// From this LSN on.
        #[arg(long, default_value_t = 0)]
        from: u64,
        /// How many frames at most.
        #[arg(short = 'n', long, default_value_t = u64::MAX, hide_default_value = true)]
        max: u64,
    },
    /// Measure how long this disk takes to make bytes durable.
    Probe {
        /// How many syncs.
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        syncs: u32,
    },
    /// Measure how fast this disk publishes, and receives and acks, in a store of its own that is removed again.
    Bench(Bench),
    /// Print the completions of a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Print the man page of `millpond`, or of one of its commands.
    Man {
        /// The command, as dead-letters list.
        command: Vec<String>,
    },
}

#[derive(Debug, Options)]
pub struct Top {
    /// How long it is from one look to the next, 100ms or more.
    #[arg(short, long, default_value = "1s", value_parser = interval)]
    pub interval: Duration,
    /// Print one table, with the rates of one interval, and end.
    #[arg(long)]
    pub once: bool,
    /// The column by which the groups are sorted: names from A on, numbers from the highest on.
    #[arg(long, value_enum, default_value_t = SortColumn::Lag)]
    pub sort: SortColumn,
    /// Show only groups with this text in their name or their topic's, in capital letters or not.
    #[arg(long, default_value = "", hide_default_value = true)]
    pub filter: String,
}

/// The column by which groups are sorted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SortColumn {
    /// The name of the topic, and then of the group.
    Topic,
    /// The name of the group, and then of the topic.
    Group,
    /// Messages published to the topic in a second.
    Published,
    /// Messages that the group settled in a second.
    Settled,
    /// Messages that are not settled.
    Lag,
    /// The age of the oldest message that is not settled.
    Oldest,
    /// Messages in flight: under a lease.
    Leased,
    /// Dead letters.
    Dead,
}

#[derive(Debug, Options)]
pub struct Bench {
    /// The directory in which the store is made and removed again.
    #[arg(long, default_value = ".")]
    pub dir: PathBuf,
    /// How many messages are published, and then received.
    #[arg(short = 'n', long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    pub messages: u64,
    /// The bytes of a payload.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(..=(16 << 20)))]
    pub size: u32,
    /// How many messages one call publishes, or receives and acks.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub batch: u32,
    /// How many threads publish, and then receive.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub threads: u16,
    /// What a message survives once it is published.
    #[arg(long, value_enum, default_value_t = Level::Disk)]
    pub durability: Level,
}

/// What a message survives once it is published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Level {
    /// A power failure: each publish waits for a sync.
    Disk,
    /// A crash of the process: the system has the bytes.
    Os,
}

#[derive(Debug, Options)]
pub struct Export {
    /// The topic. Only a database may have all of them.
    #[cfg_attr(feature = "sqlite", arg(required_unless_present = "sqlite"))]
    #[cfg_attr(not(feature = "sqlite"), arg(required = true))]
    pub topic: Option<String>,
    /// Write an SQLite database to this file, which must not be there; it appears once it is whole.
    #[cfg(feature = "sqlite")]
    #[arg(long, value_name = "FILE")]
    pub sqlite: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub enum TopicChange {
    /// Create a topic.
    Create {
        /// Its name.
        name: String,
        /// Its partitions.
        #[arg(long, default_value_t = 1)]
        partitions: u32,
        /// Its keys are streams of events, kept for ever.
        #[arg(long)]
        streams: bool,
        /// Keep its messages for ever.
        #[arg(long)]
        forever: bool,
    },
    /// Remove a topic with all its messages and groups.
    Remove {
        /// Its name.
        name: String,
        #[command(flatten)]
        sure: Sure,
    },
}

#[derive(Debug, Subcommand)]
pub enum GroupChange {
    /// Create a group that begins at the first message that is there.
    Create {
        /// Its topic.
        topic: String,
        /// Its name.
        name: String,
        /// How often a message is tried at most; 0 means without a limit.
        #[arg(long)]
        max_attempts: Option<u32>,
        /// How long a consumer has a message to itself.
        #[arg(long, value_parser = duration)]
        visibility_timeout: Option<Duration>,
        /// Begin with what is published from now on.
        #[arg(long)]
        latest: bool,
    },
    /// Remove a group with its progress and dead letters.
    Remove {
        /// Its topic.
        topic: String,
        /// Its name.
        name: String,
        #[command(flatten)]
        sure: Sure,
    },
}

#[derive(Debug, Options)]
pub struct Seek {
    /// The topic.
    pub topic: String,
    /// The group, which must be there.
    pub group: String,
    /// Where it goes on: `earliest`, `latest`, behind a position as `tail` shows it, how long ago as in `2h`, or a time as `@` and
    /// milliseconds since 1970.
    #[arg(long, value_parser = place)]
    pub to: Place,
    /// Only say what that would do.
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub sure: Sure,
}

/// Where a group goes on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Place {
    Earliest,
    Latest,
    Position(Position),
    Ago(Duration),
    /// In milliseconds since 1970.
    Time(u64),
}

/// Whether to ask before something is lost.
#[derive(Debug, Options)]
pub struct Sure {
    /// Do not ask.
    #[arg(short, long)]
    pub yes: bool,
}

#[derive(Debug, Options)]
pub struct Publish {
    /// The topic, which must be there.
    pub topic: String,
    /// The payload. Without it and `--file`, each line of the input is a message.
    #[arg(allow_hyphen_values = true)]
    pub payload: Option<String>,
    /// A file whose bytes are the payload.
    #[arg(long, conflicts_with = "payload")]
    pub file: Option<PathBuf>,
    /// The key: messages of one key go to one partition.
    #[arg(short, long)]
    pub key: Option<String>,
    /// A header; may be given several times.
    #[arg(short = 'H', long = "header", value_name = "NAME=VALUE", value_parser = header)]
    pub headers: Vec<(String, String)>,
    /// How long until it is delivered, as 10m.
    #[arg(long, value_parser = duration)]
    pub delay: Option<Duration>,
    /// The id under which the topic accepts it once.
    #[arg(long, requires = "payload")]
    pub dedup_id: Option<String>,
}

#[derive(Debug, Options)]
pub struct Consume {
    /// The topic.
    pub topic: String,
    /// The group, which must be there.
    pub group: String,
    /// How many messages at most.
    #[arg(short = 'n', long, default_value_t = u64::MAX, hide_default_value = true)]
    pub max: u64,
    /// How long to wait before it ends for what comes back by then: retries and leases that are over. For example 500ms, 30s, 5m.
    #[arg(short, long, default_value = "0s", value_parser = duration)]
    pub wait: Duration,
    /// What becomes of a message that was printed.
    #[arg(long, value_enum, default_value_t = Settle::Ack, conflicts_with = "exec")]
    pub settle: Settle,
    /// Run this for each message with /bin/sh -c: the payload is its input; MILLPOND_ID, MILLPOND_ATTEMPT, MILLPOND_TOPIC, MILLPOND_GROUP,
    /// MILLPOND_KEY and MILLPOND_HEADER_NAME are in its environment. It acks by 0, gets the message again after 10 s by 75, and by any
    /// other code fails the attempt with its last line of errors. If it cannot be run (126, 127) the message is given back and all ends.
    #[arg(long, value_name = "COMMAND")]
    pub exec: Option<String>,
}

/// What becomes of a message that was printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Settle {
    /// It is done.
    Ack,
    /// It goes back, and its attempt is not counted; at most 1,000 messages.
    Leave,
    /// It goes to the dead letters.
    Reject,
}

#[derive(Debug, Options)]
pub struct Tail {
    /// The topic.
    pub topic: String,
    /// Go on behind this position, as printed with `--output json`.
    #[arg(long, value_name = "POSITION")]
    pub after: Option<String>,
    /// How many messages at most.
    #[arg(short = 'n', long, default_value_t = u64::MAX, hide_default_value = true)]
    pub max: u64,
    /// Wait for more, until it is interrupted.
    #[arg(short, long)]
    pub follow: bool,
}

#[derive(Debug, Options)]
pub struct Peek {
    /// The topic.
    pub topic: String,
    /// The group.
    pub group: String,
    /// What they wait for.
    #[arg(long, value_enum, default_value_t = StateName::Ready)]
    pub state: StateName,
    /// How many messages at most.
    #[arg(short = 'n', long, default_value_t = 100)]
    pub max: usize,
}

/// What a message of a group waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum StateName {
    /// A consumer.
    Ready,
    /// The end of its lease.
    Leased,
    /// Its retry.
    Waiting,
    /// Its move to the dead letters.
    Exhausted,
    /// Others of its key or partition.
    Parked,
    /// An operator: it is a dead letter.
    Dead,
}

#[derive(Debug, Subcommand)]
pub enum DeadLetters {
    /// List them, oldest first.
    List {
        #[command(flatten)]
        which: Which,
    },
    /// Show one whole, with how each attempt ended.
    Show {
        /// The topic.
        topic: String,
        /// The group.
        group: String,
        /// Its id.
        id: String,
    },
    /// Send them back to their group, their attempts counted from zero.
    Redrive {
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        change: Change,
    },
    /// Remove them for good.
    Discard {
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        change: Change,
    },
}

/// Which dead letters: those that all conditions name.
#[derive(Debug, Options)]
pub struct Which {
    /// The topic.
    pub topic: String,
    /// The group.
    pub group: String,
    /// The one with this id.
    #[arg(long)]
    pub id: Option<String>,
    /// Those with this key.
    #[arg(long)]
    pub key: Option<String>,
    /// Those whose last attempt ended so.
    #[arg(long, value_enum)]
    pub cause: Option<Cause>,
    /// Those whose last attempt ended longer ago than this, as 1h.
    #[arg(long, value_parser = duration)]
    pub older: Option<Duration>,
    /// Those whose last attempt ended no longer ago than this.
    #[arg(long, value_parser = duration)]
    pub newer: Option<Duration>,
    /// Those whose payload or last error has this text in it.
    #[arg(long)]
    pub text: Option<String>,
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Cause {
    /// The consumer gave it back.
    Nacked,
    /// The visibility timeout passed.
    Expired,
    /// The process died.
    Crashed,
    /// The store was closed too often.
    Closed,
    /// The consumer rejected it.
    Rejected,
}

/// How a change is made.
#[derive(Debug, Options)]
pub struct Change {
    /// Only say which they are.
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub sure: Sure,
}

#[derive(Debug, Subcommand)]
pub enum Schedule {
    /// List the messages of a topic that are not due yet.
    List {
        /// The topic.
        topic: String,
    },
    /// Take back a message that is not due yet.
    Cancel {
        /// The topic.
        topic: String,
        /// Its id.
        id: String,
    },
}

#[derive(Debug, Subcommand)]
pub enum Stream {
    /// Print the events of a stream.
    Read {
        /// The topic.
        topic: String,
        /// The key of the stream.
        key: String,
        /// The first version.
        #[arg(long, default_value_t = 0)]
        from: u64,
    },
    /// Append an event.
    Append {
        /// The topic.
        topic: String,
        /// The key of the stream.
        key: String,
        /// The event.
        #[arg(allow_hyphen_values = true)]
        payload: String,
        /// The version that the last event must have; `none` for a new stream.
        #[arg(long)]
        expected: Option<String>,
    },
}

/// Reads `500ms`, `30s`, `5m` and `2h`.
fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|char: char| !char.is_ascii_digit()).unwrap_or(text.len());
    let unit = match &text[digits..] {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err("write 500ms, 30s, 5m or 2h".to_owned()),
    };
    let count: u64 = text[..digits].parse().map_err(|_| "write 500ms, 30s, 5m or 2h".to_owned())?;
    count.checked_mul(unit).map(Duration::from_millis).ok_or_else(|| "that is too long".to_owned())
}

fn place(text: &str) -> Result<Place, String> {
    match text {
        "earliest" => return Ok(Place::Earliest),
        "latest" => return Ok(Place::Latest),
        _ => {}
    }
    if let Some(ms) = text.strip_prefix('@').and_then(|ms| ms.parse().ok()) {
        return Ok(Place::Time(ms));
    }
    let position = text.parse().ok().map(Place::Position);
    let place = position.or_else(|| duration(text).ok().map(Place::Ago));
    place.ok_or_else(|| "write earliest, latest, a position, 2h or @1700000000000".to_owned())
}

fn interval(text: &str) -> Result<Duration, String> {
    let interval = duration(text)?;
    if interval < INTERVAL_MIN { Err("it is 100ms or more".to_owned()) } else { Ok(interval) }
}

fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn places_are_told_apart() {
        assert_eq!(place("earliest"), Ok(Place::Earliest));
        assert_eq!(place("latest"), Ok(Place::Latest));
        assert_eq!(place("2h"), Ok(Place::Ago(Duration::from_secs(7_200))));
        assert_eq!(place("@1700000000000"), Ok(Place::Time(1_700_000_000_000)));
        assert_eq!(place("1jz4b0g0-5k-0-17"), Ok(Place::Position("1jz4b0g0-5k-0-17".parse().unwrap())));
        for wrong in ["", "first", "2d", "@", "@-1", "17", "1-2-3"] {
            assert!(place(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn durations_have_units() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("2h"), Ok(Duration::from_secs(7_200)));
        assert_eq!(interval("100ms"), Ok(Duration::from_millis(100)));
        assert!(interval("99ms").is_err() && interval("0s").is_err());
        for wrong in ["", "5", "s", "-1s", "1d", "99999999999999999999s", "9999999999999999h"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}
