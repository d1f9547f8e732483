//! An event type of several variants, and a bus on a simulated store.

#![allow(dead_code, reason = "each test takes what it needs")]

use millpond::simulation::WallMs;
use millpond::simulation::{Clock as _, SimClock, SimDisk};
use millpond::{Durability, Store};
use millpond_events::{Bus, BusBuilder, Clock, Encoded, EventType, Fault, Variant, json};
use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placed {
    pub order: u32,
    pub dish: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    Placed(Placed),
    Cancelled,
    Cooked(u32),
}

impl Order {
    pub fn placed(order: u32) -> Self {
        Self::Placed(Placed { order, dish: "soup".to_owned() })
    }
}

thread_local! {
    /// Called whenever this thread decodes a placed order.
    pub static DECODING: RefCell<Option<Box<dyn Fn()>>> = const { RefCell::new(None) };
}

impl EventType for Order {
    const VARIANTS: &'static [Variant<Self>] = &[
        Variant::new("order.placed", 2, |data| {
            DECODING.with_borrow(|hook| hook.iter().for_each(|hook| hook()));
            json(data).map(Self::Placed)
        }),
        // The first version had no dish.
        Variant::new("order.placed", 1, |data| json(data).map(Self::placed)),
        Variant::new("order.cancelled", 1, |_| Ok(Self::Cancelled)),
        Variant::new("order.cooked", 1, |data| json(data).map(Self::Cooked)),
    ];

    fn encode(&self) -> Encoded {
        match self {
            Self::Placed(placed) => Encoded::json("order.placed", 2, placed),
            Self::Cancelled => Encoded::json("order.cancelled", 1, &()),
            Self::Cooked(order) => Encoded::json("order.cooked", 1, order),
        }
    }
}

/// The clock of the store as a clock of the bus.
#[derive(Debug)]
pub struct TestClock(pub Arc<SimClock>);

impl Clock for TestClock {
    fn wall(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.0.wall().0)
    }

    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.0.monotonic().0)
    }
}

/// A store on a simulated disk and clock, and a bus on it, without threads.
pub struct World {
    pub disk: SimDisk,
    pub clock: Arc<SimClock>,
    pub store: Store,
    pub bus: Bus,
    pub faults: Faults,
}

pub type Faults = Arc<Mutex<Vec<String>>>;

pub fn noted(faults: &Faults) -> impl Fn(&Fault) + Send + Sync + 'static {
    let faults = Arc::clone(faults);
    move |fault| faults.lock().unwrap().push(fault.to_string())
}

impl World {
    pub fn new() -> Self {
        Self::with(|builder| builder)
    }

    pub fn with(options: impl FnOnce(BusBuilder) -> BusBuilder) -> Self {
        let (disk, clock) = (SimDisk::new(3), Arc::new(SimClock::new(WallMs(1_800_000_000_000))));
        let store = Store::options()
            .durability(Durability::Os)
            .open_on(Arc::new(disk.attach().unwrap()), clock.clone())
            .unwrap();
        let faults = Faults::default();
        let builder = Bus::builder(&store).source("/test").clock(Arc::new(TestClock(Arc::clone(&clock))));
        let bus = options(builder.on_fault(noted(&faults))).open().unwrap();
        Self { disk, clock, store, bus, faults }
    }

    /// What the dead letters of a subscriber say, oldest first.
    pub fn dead(&self, subscriber: &str) -> Vec<String> {
        let group = self.store.topic("events").open().unwrap().group(subscriber).create(false).open().unwrap();
        let last = |dead: millpond::DeadLetter| dead.history().last().map(|failure| failure.text.clone());
        group.dead_letters().unwrap().map(|dead| last(dead.unwrap()).unwrap()).collect()
    }

    pub fn faults(&self) -> Vec<String> {
        self.faults.lock().unwrap().clone()
    }
}

/// What handlers note, in order.
#[derive(Clone, Default)]
pub struct Notes(Arc<Mutex<Vec<String>>>);

impl Notes {
    pub fn note(&self, note: impl Into<String>) {
        self.0.lock().unwrap().push(note.into());
    }

    pub fn taken(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}
