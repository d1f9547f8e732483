//! Events: what they say of themselves, and how a Rust type is mapped to types and versions of events.

use crate::attributes::Attributes;
use crate::error::DecodeError;
use crate::time::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::ops::Deref;
use std::sync::Arc;

/// A Rust type whose values are the data of events. Each variant of an enum is an event type of its own, with a version.
///
/// ```
/// use millpond_events::{Encoded, EventType, Variant, json};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize)]
/// struct Placed {
///     dishes: u32,
/// }
///
/// enum Order {
///     Placed(Placed),
///     Cancelled,
/// }
///
/// impl EventType for Order {
///     const VARIANTS: &'static [Variant<Self>] = &[
///         Variant::new("order.placed", 1, |data| json(data).map(Self::Placed)),
///         Variant::new("order.cancelled", 1, |_| Ok(Self::Cancelled)),
///     ];
///
///     fn encode(&self) -> Encoded {
///         match self {
///             Self::Placed(placed) => Encoded::json("order.placed", 1, placed),
///             Self::Cancelled => Encoded::json("order.cancelled", 1, &()),
///         }
///     }
/// }
/// ```
///
/// An old version stays readable if it keeps its row: its function turns the old data into the variant of today.
pub trait EventType: Sized + 'static {
    /// What the type can read: a row for each type and version.
    const VARIANTS: &'static [Variant<Self>];

    /// Type, version and data of this value.
    fn encode(&self) -> Encoded;

    /// Reads data of a type and version.
    ///
    /// # Errors
    /// `UnknownType` or `UnknownVersion` if there is no row for them; `InvalidData` if the data does not fit.
    fn decode(event_type: &str, version: u32, data: &[u8]) -> Result<Self, DecodeError> {
        let mut of_type = Self::VARIANTS.iter().filter(|variant| variant.name == event_type).peekable();
        if of_type.peek().is_none() {
            return Err(DecodeError::UnknownType { event_type: event_type.to_owned() });
        }
        let Some(variant) = of_type.find(|variant| variant.version == version) else {
            return Err(DecodeError::UnknownVersion { event_type: event_type.to_owned(), version });
        };
        (variant.decode)(data).map_err(|error| DecodeError::InvalidData {
            event_type: event_type.to_owned(),
            version,
            is_json: error.is_data(),
            line: error.line(),
            column: error.column(),
        })
    }
}

/// A type and version that an [`EventType`] can read.
pub struct Variant<T> {
    name: &'static str,
    version: u32,
    decode: fn(&[u8]) -> serde_json::Result<T>,
}

impl<T> Variant<T> {
    /// A row: type, version, and the function that reads the data.
    pub const fn new(name: &'static str, version: u32, decode: fn(&[u8]) -> serde_json::Result<T>) -> Self {
        Self { name, version, decode }
    }

    /// The event's type.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// Its version.
    pub const fn version(&self) -> u32 {
        self.version
    }
}

/// Reads JSON: for the rows of [`EventType::VARIANTS`].
///
/// # Errors
/// Those of serde_json.
pub fn json<T: DeserializeOwned>(data: &[u8]) -> serde_json::Result<T> {
    serde_json::from_slice(data)
}

/// Type, version and JSON data of an event.
pub struct Encoded {
    name: &'static str,
    version: u32,
    json: serde_json::Result<Vec<u8>>,
}

impl Encoded {
    /// The data as JSON. An error of the serializer is returned by the publish.
    pub fn json(name: &'static str, version: u32, data: &impl Serialize) -> Self {
        Self { name, version, json: serde_json::to_vec(data) }
    }
}

/// An event: its attributes, and data of the type `T`. The attributes are read through `Deref`.
///
/// ```
/// # use millpond_events::{Encoded, Event, EventType, Variant, json};
/// # struct Ping;
/// # impl EventType for Ping {
/// #     const VARIANTS: &'static [Variant<Self>] = &[Variant::new("ping", 1, |_| Ok(Self))];
/// #     fn encode(&self) -> Encoded { Encoded::json("ping", 1, &()) }
/// # }
/// let event = Event::new(Ping).with_subject("host-7").with_correlation_id("request-99");
/// assert_eq!(event.subject(), Some("host-7"));
/// assert_eq!(event.event_type(), "ping");
/// ```
#[derive(Clone, Debug)]
pub struct Event<T> {
    pub(crate) attributes: Arc<Attributes>,
    data: T,
    /// What `data` is as JSON, in an event that was made here.
    json: Option<Result<Vec<u8>, String>>,
}

/// An event whose data is bytes of any kind: what a relay has, or a handler of events without a Rust type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawEvent {
    pub(crate) attributes: Arc<Attributes>,
    data: Vec<u8>,
}

/// An event as it is published: its attributes and its bytes. Made from a value of an [`EventType`], an [`Event`] or a [`RawEvent`].
#[derive(Clone, Debug)]
pub struct Outgoing {
    pub(crate) attributes: Attributes,
    pub(crate) data: Result<Vec<u8>, String>,
}

impl<T> Deref for Event<T> {
    type Target = Attributes;

    fn deref(&self) -> &Attributes {
        &self.attributes
    }
}

impl Deref for RawEvent {
    type Target = Attributes;

    fn deref(&self) -> &Attributes {
        &self.attributes
    }
}

impl<T: EventType> Event<T> {
    /// An event with this data, under an id of its own.
    #[must_use]
    pub fn new(data: T) -> Self {
        let Encoded { name, version, json } = data.encode();
        let attributes = Arc::new(Attributes::new(name.to_owned(), version));
        Self { attributes, data, json: Some(json.map_err(|error| error.to_string())) }
    }
}

impl<T> Event<T> {
    pub(crate) const fn received(attributes: Arc<Attributes>, data: T) -> Self {
        Self { attributes, data, json: None }
    }

    /// The data.
    pub const fn data(&self) -> &T {
        &self.data
    }

    /// The data alone.
    pub fn into_data(self) -> T {
        self.data
    }
}

impl RawEvent {
    /// An event with this data, under an id of its own.
    #[must_use]
    pub fn new(event_type: impl Into<String>, version: u32, content_type: &str, data: impl Into<Vec<u8>>) -> Self {
        let mut attributes = Attributes::new(event_type.into(), version);
        attributes.content_type = Some(content_type.to_owned());
        Self { attributes: Arc::new(attributes), data: data.into() }
    }

    pub(crate) const fn received(attributes: Arc<Attributes>, data: Vec<u8>) -> Self {
        Self { attributes, data }
    }

    pub(crate) fn into_parts(self) -> (Attributes, Vec<u8>) {
        (Arc::unwrap_or_clone(self.attributes), self.data)
    }

    /// The bytes of the data.
    #[must_use]
    pub fn data(&self) -> &[u8] {
        &self.data
    }

    /// The event with its data as a Rust type.
    ///
    /// # Errors
    /// `NotJson`, `UnknownType`, `UnknownVersion`, `InvalidData`.
    pub fn decode<T: EventType>(&self) -> Result<Event<T>, DecodeError> {
        Ok(Event::received(Arc::clone(&self.attributes), self.attributes.decode(&self.data)?))
    }
}

/// The setters of attributes, the same for each kind of event.
macro_rules! setters {
    ($(#[$doc:meta] $name:ident: $field:ident = $make:expr;)*) => {
        impl<T> Event<T> {
            $(#[$doc] #[must_use] pub fn $name(mut self, value: impl Into<String>) -> Self {
                Arc::make_mut(&mut self.attributes).$field = $make(value.into());
                self
            })*

            /// Sets when it happened. A publish sets the time of the publish otherwise.
            #[must_use]
            pub fn with_time(mut self, time: impl Into<Timestamp>) -> Self {
                Arc::make_mut(&mut self.attributes).time = Some(time.into());
                self
            }

            /// Sets another extension, or `dataschema`. Its name has lower-case letters and digits.
            #[must_use]
            pub fn with_extension(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
                Arc::make_mut(&mut self.attributes).extensions.insert(name.into(), value.into());
                self
            }
        }

        impl RawEvent {
            $(#[$doc] #[must_use] pub fn $name(mut self, value: impl Into<String>) -> Self {
                Arc::make_mut(&mut self.attributes).$field = $make(value.into());
                self
            })*

            /// Sets when it happened. A publish sets the time of the publish otherwise.
            #[must_use]
            pub fn with_time(mut self, time: impl Into<Timestamp>) -> Self {
                Arc::make_mut(&mut self.attributes).time = Some(time.into());
                self
            }

            /// Sets another extension, or `dataschema`. Its name has lower-case letters and digits.
            #[must_use]
            pub fn with_extension(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
                Arc::make_mut(&mut self.attributes).extensions.insert(name.into(), value.into());
                self
            }
        }
    };
}

setters! {
    #[doc = "Sets the id. Two events of one source with one id are the same event."]
    with_id: id = std::convert::identity;
    #[doc = "Sets the source. A publish sets that of the bus otherwise."]
    with_source: source = std::convert::identity;
    #[doc = "Sets what the event is about. Events of one subject keep their order."]
    with_subject: subject = Some;
    #[doc = "Sets the correlation id. In a handler a publish sets that of the event in hand otherwise."]
    with_correlation_id: correlation_id = Some;
    #[doc = "Sets the W3C trace context."]
    with_traceparent: traceparent = Some;
}

impl<T: EventType> From<T> for Event<T> {
    fn from(data: T) -> Self {
        Self::new(data)
    }
}

impl<T: EventType> From<T> for Outgoing {
    fn from(data: T) -> Self {
        Event::new(data).into()
    }
}

impl<T: EventType> From<Event<T>> for Outgoing {
    fn from(event: Event<T>) -> Self {
        let Event { attributes, data, json } = event;
        let mut attributes = Arc::unwrap_or_clone(attributes);
        let data = json.unwrap_or_else(|| {
            // One that was received may have been of an older version: what is published is as this program writes it.
            let Encoded { name, version, json } = data.encode();
            (attributes.event_type, attributes.version) = (name.to_owned(), version);
            json.map_err(|error| error.to_string())
        });
        Self { attributes, data }
    }
}

impl Outgoing {
    /// The event that this data is.
    pub(crate) fn of<T: EventType>(data: &T) -> Self {
        let Encoded { name, version, json } = data.encode();
        let attributes = Attributes::new(name.to_owned(), version);
        Self { attributes, data: json.map_err(|error| error.to_string()) }
    }
}

impl From<RawEvent> for Outgoing {
    fn from(event: RawEvent) -> Self {
        let (attributes, data) = event.into_parts();
        Self { attributes, data: Ok(data) }
    }
}
