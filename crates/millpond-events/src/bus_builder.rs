//! Options of a bus, and its opening.

use crate::bus::{Bus, Core, FaultHook, Validator};
use crate::clock::{Clock, SystemClock};
use crate::embedded::Embedded;
use crate::error::{Error, Result};
use crate::fault::Fault;
use crate::timer::Timer;
use crate::transport::Transport;
use millpond::Store;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Opens a bus.
#[must_use = "nothing happens before open"]
pub struct BusBuilder {
    below: Below,
    source: String,
    chain_max: u32,
    clock: Option<Arc<dyn Clock>>,
    validator: Option<Arc<dyn Validator>>,
    validates_received: bool,
    on_fault: Option<FaultHook>,
}

/// What a bus is opened over.
pub(crate) enum Below {
    Store { store: Store, topic: String, partitions: Option<u32>, streams: bool },
    Transport(Arc<dyn Transport>),
}

impl BusBuilder {
    pub(crate) fn new(below: Below) -> Self {
        let source = "/millpond".to_owned();
        Self { below, source, chain_max: 32, clock: None, validator: None, validates_received: false, on_fault: None }
    }

    /// The topic for all events of the bus. Default: `events`. Without effect over a transport of one's own.
    pub fn topic(mut self, name: impl Into<String>) -> Self {
        if let Below::Store { topic, .. } = &mut self.below {
            *topic = name.into();
        }
        self
    }

    /// The number of partitions of a topic that is created. Default: 1. Without effect over a transport of one's own.
    pub fn partitions(mut self, count: u32) -> Self {
        if let Below::Store { partitions, .. } = &mut self.below {
            *partitions = Some(count);
        }
        self
    }

    /// Makes the topic one of streams, which keeps its events: [`Bus::append`] and [`Bus::repository`] need it. Fixed when the topic is
    /// created. Without effect over a transport of one's own.
    pub fn streams(mut self) -> Self {
        if let Below::Store { streams, .. } = &mut self.below {
            *streams = true;
        }
        self
    }

    /// The source of events that name none: a URI reference. Default: `/millpond`.
    pub fn source(mut self, source: impl Into<String>) -> Self {
        self.source = source.into();
        self
    }

    /// How many events may stand before one in its chain of causes. One with more before it is dead-lettered by each subscriber.
    /// Default: 32.
    pub fn chain_max(mut self, events: u32) -> Self {
        self.chain_max = events;
        self
    }

    /// A clock of one's own. The bus then starts no timer: call [`Bus::tick`] when the clock was moved.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = Some(clock);
        self
    }

    /// What checks the data of every event on publish. Default: no check.
    pub fn validator(mut self, validator: Arc<dyn Validator>) -> Self {
        self.validator = Some(validator);
        self
    }

    /// Whether subscribers check data too; what breaks a rule is dead-lettered. Default: `false`.
    pub fn validate_received(mut self, validate: bool) -> Self {
        self.validates_received = validate;
        self
    }

    /// Is called with each fault that no call returns: in the thread that met it, which waits for it.
    pub fn on_fault(mut self, on_fault: impl Fn(&Fault) + Send + Sync + 'static) -> Self {
        self.on_fault = Some(Box::new(on_fault));
        self
    }

    /// Opens the bus.
    ///
    /// # Errors
    /// Those of opening the topic; `InvalidAttribute` for an empty source.
    pub fn open(self) -> Result<Bus> {
        if self.source.is_empty() {
            return Err(Error::InvalidAttribute { attribute: "source".to_owned(), reason: "empty" });
        }
        let transport = match self.below {
            Below::Transport(transport) => transport,
            Below::Store { store, topic, partitions, streams } => {
                let mut builder = store.topic(topic);
                if streams {
                    builder = builder.streams();
                }
                if let Some(partitions) = partitions {
                    builder = builder.partitions(partitions);
                }
                Arc::new(Embedded::new(&store, &builder.open()?))
            }
        };
        let timer = Timer::new(self.clock.is_none());
        let core = Core {
            transport,
            clock: self.clock.unwrap_or_else(|| Arc::new(SystemClock)),
            chain_max: self.chain_max,
            validator: self.validator,
            validates_received: self.validates_received,
            timer,
            source: self.source,
            on_fault: self.on_fault,
            subscribers: Mutex::default(),
            stopped: AtomicBool::new(false),
        };
        Ok(Bus::new(core))
    }
}
