//! Aggregates: state that is the result of its events, and the repository that loads one, lets it decide, and appends.

use crate::bus::Core;
use crate::cloudevents;
use crate::error::{DecodeError, Error};
use crate::event::{EventType, Outgoing};
use crate::fault::Fault;
use crate::transport::{TransportError, TransportErrorKind, WireRef};
use millpond::Expected;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt;
use std::sync::Arc;

/// How many events one read of a stream asks for.
const READ_MAX: usize = 256;

/// State that is the result of its events. The default is the state before the first.
///
/// ```
/// use millpond_events::{Aggregate, Bus, Encoded, EventType, RepositoryError, Variant, json};
///
/// #[derive(Default)]
/// struct Account {
///     balance: u64,
/// }
///
/// enum Moved {
///     In(u64),
///     Out(u64),
/// }
/// # impl EventType for Moved {
/// #     const VARIANTS: &'static [Variant<Self>] = &[
/// #         Variant::new("money.deposited", 1, |data| json(data).map(Self::In)),
/// #         Variant::new("money.withdrawn", 1, |data| json(data).map(Self::Out)),
/// #     ];
/// #     fn encode(&self) -> Encoded {
/// #         match self {
/// #             Self::In(cents) => Encoded::json("money.deposited", 1, cents),
/// #             Self::Out(cents) => Encoded::json("money.withdrawn", 1, cents),
/// #         }
/// #     }
/// # }
///
/// enum Command {
///     Deposit(u64),
///     Withdraw(u64),
/// }
///
/// #[derive(Debug)]
/// struct Overdrawn;
///
/// impl Aggregate for Account {
///     type Command = Command;
///     type Event = Moved;
///     type Error = Overdrawn;
///
///     fn handle(&self, command: &Command) -> Result<Vec<Moved>, Overdrawn> {
///         match *command {
///             Command::Deposit(cents) => Ok(vec![Moved::In(cents)]),
///             Command::Withdraw(cents) if cents > self.balance => Err(Overdrawn),
///             Command::Withdraw(cents) => Ok(vec![Moved::Out(cents)]),
///         }
///     }
///
///     fn apply(&mut self, event: &Moved) {
///         match *event {
///             Moved::In(cents) => self.balance += cents,
///             Moved::Out(cents) => self.balance -= cents,
///         }
///     }
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// # let store = millpond::Store::open(directory.path().join("data"))?;
/// let bus = Bus::builder(&store).topic("accounts").streams().open()?;
/// let accounts = bus.repository::<Account>()?;
/// accounts.execute("account-7", &Command::Deposit(500)).unwrap();
/// let account = accounts.execute("account-7", &Command::Withdraw(200)).unwrap();
/// assert_eq!((account.state().balance, account.version()), (300, Some(1)));
///
/// let refused = accounts.execute("account-7", &Command::Withdraw(301));
/// assert!(matches!(refused, Err(RepositoryError::Command(Overdrawn))));
/// # Ok(())
/// # }
/// ```
pub trait Aggregate: Default {
    /// What it is asked to do.
    type Command;
    /// What happened to it.
    type Event: EventType;
    /// Why it refuses.
    type Error;

    /// Decides: the events that follow from the command, none if nothing is to change. Called again with the same command if another
    /// writer came first, so it must have no effect of its own.
    ///
    /// # Errors
    /// Why the command cannot be carried out.
    fn handle(&self, command: &Self::Command) -> Result<Vec<Self::Event>, Self::Error>;

    /// Takes in an event. It has happened, so this cannot refuse.
    fn apply(&mut self, event: &Self::Event);
}

/// Loads aggregates from their streams, and appends what they decide. Made by [`Bus::repository`](crate::Bus::repository).
pub struct Repository<A> {
    core: Arc<Core>,
    attempts: u32,
    snapshots: Option<Snapshots<A>>,
}

/// A snapshot: its version, and what was saved.
type Saved = (u64, Vec<u8>);

/// How snapshots are made and read.
struct Snapshots<A> {
    every: u64,
    save: fn(&A) -> serde_json::Result<Vec<u8>>,
    load: fn(&[u8]) -> serde_json::Result<A>,
}

/// An aggregate as of a version of its stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded<A> {
    state: A,
    version: Option<u64>,
    /// How many events were applied since the snapshot.
    applied: u64,
}

impl<A> Loaded<A> {
    /// The aggregate.
    pub const fn state(&self) -> &A {
        &self.state
    }

    /// The aggregate alone.
    pub fn into_state(self) -> A {
        self.state
    }

    /// The version of the last event in it; `None` if there is none.
    pub const fn version(&self) -> Option<u64> {
        self.version
    }

    fn expected(&self) -> Expected {
        self.version.map_or(Expected::NoStream, Expected::Version)
    }
}

/// Why an aggregate could not be loaded, or a command not be carried out. Nothing was appended, unless [`RepositoryError::Bus`] says that the
/// outcome is unknown.
#[derive(Debug)]
#[non_exhaustive]
pub enum RepositoryError<E> {
    /// The aggregate refuses the command.
    Command(E),
    /// Other writers came first at every attempt.
    TooManyConflicts {
        /// The key of the stream.
        stream: String,
        /// How often the command was decided.
        attempts: u32,
        /// What the last append met.
        source: TransportError,
    },
    /// An event of the stream cannot be read.
    Decode {
        /// The key of the stream.
        stream: String,
        /// The event's version.
        version: u64,
        /// Why.
        source: DecodeError,
    },
    /// Events are gone that the snapshot does not contain.
    MissingEvents {
        /// The key of the stream.
        stream: String,
        /// The first version that is missing.
        first: u64,
        /// The first version after them that is there.
        next: u64,
    },
    /// The bus or the store failed.
    Bus(Error),
}

impl<E: fmt::Display> fmt::Display for RepositoryError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Command(error) => error.fmt(f),
            Self::TooManyConflicts { stream, attempts, source } => {
                write!(f, "stream {stream:?} changed at each of {attempts} attempts: {source}; try again")
            }
            Self::Decode { stream, version, source } => {
                write!(f, "event {version} of stream {stream:?} cannot be read: {source}")
            }
            Self::MissingEvents { stream, first, next } => {
                write!(f, "stream {stream:?} has no events from version {first} to {next}, and no snapshot of them")
            }
            Self::Bus(error) => error.fmt(f),
        }
    }
}

impl<E: std::error::Error + 'static> std::error::Error for RepositoryError<E> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Command(error) => Some(error),
            Self::TooManyConflicts { source, .. } => Some(source),
            Self::Decode { source, .. } => Some(source),
            Self::MissingEvents { .. } => None,
            Self::Bus(error) => Some(error),
        }
    }
}

impl<A: Aggregate> Repository<A> {
    pub(crate) const fn new(core: Arc<Core>) -> Self {
        Self { core, attempts: 10, snapshots: None }
    }

    /// How often a command is decided if other writers come first. Default: 10. Range: from 1.
    #[must_use]
    pub const fn attempts(mut self, attempts: u32) -> Self {
        self.attempts = attempts;
        self
    }

    /// Saves a snapshot, as JSON, after this many events since the last. Default: none. A snapshot that does not fit the Rust type any more
    /// is not used: the events are read instead.
    #[must_use]
    pub fn snapshot_every(mut self, events: u64) -> Self
    where
        A: Serialize + DeserializeOwned,
    {
        let (save, load) = (|state: &A| serde_json::to_vec(state), |json: &[u8]| serde_json::from_slice(json));
        self.snapshots = Some(Snapshots { every: events, save, load });
        self
    }

    /// Loads an aggregate: its last snapshot, and the events since. One without events is the default.
    ///
    /// # Errors
    /// `Decode`, `MissingEvents`; `Bus` with those of the store.
    pub fn load(&self, stream: &str) -> Result<Loaded<A>, RepositoryError<A::Error>> {
        let mut snapshot_version = None;
        let mut loaded = Loaded { state: A::default(), version: None, applied: 0 };
        if let Some(snapshots) = &self.snapshots
            && let Some((version, payload)) = self.snapshot(stream)?
        {
            snapshot_version = Some(version);
            if let Ok(state) = (snapshots.load)(&payload) {
                loaded = Loaded { state, version: Some(version), applied: 0 };
            }
        }
        loop {
            let next = loaded.version.map_or(0, |version| version.saturating_add(1));
            let mut failed = None;
            let mut take = |version: u64, event: &dyn WireRef| {
                // A stream that was deleted begins anew at a higher version. One that has a snapshot does not.
                let is_begin = loaded.version.is_none() && snapshot_version.is_none();
                let next = loaded.version.map_or(0, |version| version.saturating_add(1));
                if version != next && !is_begin {
                    let stream = stream.to_owned();
                    failed = Some(RepositoryError::MissingEvents { stream, first: next, next: version });
                    return false;
                }
                match decode::<A::Event>(event) {
                    Ok(event) => loaded.state.apply(&event),
                    Err(source) => {
                        failed = Some(RepositoryError::Decode { stream: stream.to_owned(), version, source });
                        return false;
                    }
                }
                (loaded.version, loaded.applied) = (Some(version), loaded.applied + 1);
                true
            };
            let streams = self.core.streams().map_err(RepositoryError::Bus)?;
            let count = streams.read(stream.as_bytes(), next, READ_MAX, &mut take).map_err(bus)?;
            if let Some(error) = failed {
                return Err(error);
            }
            if count < READ_MAX {
                return Ok(loaded);
            }
        }
    }

    /// Carries out a command: loads the aggregate, lets it decide, and appends its events, which publishes them on the bus. If another writer
    /// came first, it is loaded and decides again. Returns the aggregate with the events applied.
    ///
    /// # Errors
    /// `Command` if the aggregate refuses; `TooManyConflicts`; as [`Repository::load`]; `Bus` with those of
    /// [`Bus::append`](crate::Bus::append).
    pub fn execute(&self, stream: &str, command: &A::Command) -> Result<Loaded<A>, RepositoryError<A::Error>> {
        let mut attempt = 1;
        loop {
            let mut loaded = self.load(stream)?;
            let events = loaded.state.handle(command).map_err(RepositoryError::Command)?;
            if events.is_empty() {
                return Ok(loaded);
            }
            let outgoing = events.iter().map(Outgoing::of);
            match self.core.append(stream, loaded.expected(), outgoing) {
                Ok(appended) => {
                    for event in &events {
                        loaded.state.apply(event);
                    }
                    loaded.version = Some(appended.last_version);
                    loaded.applied += events.len() as u64;
                    self.save_if_due(stream, &mut loaded);
                    return Ok(loaded);
                }
                Err(Error::Transport(source)) if source.kind() == TransportErrorKind::Conflict => {
                    if attempt >= self.attempts {
                        let stream = stream.to_owned();
                        return Err(RepositoryError::TooManyConflicts { stream, attempts: attempt, source });
                    }
                    attempt += 1;
                }
                Err(error) => return Err(RepositoryError::Bus(error)),
            }
        }
    }

    /// The last snapshot. One that is damaged is as good as none that fits: the events say the same.
    fn snapshot(&self, stream: &str) -> Result<Option<Saved>, RepositoryError<A::Error>> {
        let streams = self.core.streams().map_err(RepositoryError::Bus)?;
        match streams.snapshot(stream.as_bytes()) {
            Err(error) if error.kind() == TransportErrorKind::Skip => Ok(Some((0, Vec::new()))),
            found => found.map_err(bus),
        }
    }

    /// The events are appended, whatever becomes of the snapshot: a fault reports what fails.
    fn save_if_due(&self, stream: &str, loaded: &mut Loaded<A>) {
        let (Some(snapshots), Some(version)) = (&self.snapshots, loaded.version) else { return };
        if loaded.applied < snapshots.every {
            return;
        }
        let save = || {
            let payload = (snapshots.save)(&loaded.state)
                .map_err(|error| TransportError::new(TransportErrorKind::FixCall, error))?;
            let streams = self.core.transport.streams().ok_or_else(|| {
                TransportError::new(TransportErrorKind::FixCall, Error::Unsupported { what: "streams" })
            })?;
            streams.save_snapshot(stream.as_bytes(), version, &payload)
        };
        match save() {
            Ok(()) => loaded.applied = 0,
            Err(error) => self.core.fault(&Fault::Snapshot { stream: stream.to_owned(), error }),
        }
    }
}

fn bus<E>(error: TransportError) -> RepositoryError<E> {
    RepositoryError::Bus(error.into())
}

fn decode<T: EventType>(event: &dyn WireRef) -> Result<T, DecodeError> {
    let (attributes, data) = cloudevents::read(event)?;
    attributes.decode(data.as_deref().unwrap_or_else(|| event.payload()))
}
