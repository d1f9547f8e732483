//! Events: what they say of themselves, and how a Rust type is mapped to types and versions of events.

use crate::error::{DecodeError, Error, Result};
use crate::time::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Deref;
use uuid::Uuid;

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

/// What an event says of itself: the attributes of CloudEvents 1.0, and the extensions that this crate uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attributes {
    pub(crate) id: String,
    pub(crate) event_type: String,
    pub(crate) version: u32,
    pub(crate) source: String,
    pub(crate) subject: Option<String>,
    pub(crate) time: Option<Timestamp>,
    pub(crate) content_type: Option<String>,
    pub(crate) correlation_id: Option<String>,
    pub(crate) causation_id: Option<String>,
    pub(crate) depth: u32,
    pub(crate) traceparent: Option<String>,
    pub(crate) extensions: BTreeMap<String, String>,
}

impl Attributes {
    /// The event's id, the same at every delivery. [`Event::new`] draws a UUID of version 7.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The event's type, such as `order.placed`.
    #[must_use]
    pub fn event_type(&self) -> &str {
        &self.event_type
    }

    /// The version of the type (extension `dataversion`), 1 if it has none.
    #[must_use]
    pub const fn version(&self) -> u32 {
        self.version
    }

    /// The context in which the event happened, a URI reference. Empty until it is published, unless it was set.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// What the event is about within its source: the id of an order, for example. Events of one subject keep their order.
    #[must_use]
    pub fn subject(&self) -> Option<&str> {
        self.subject.as_deref()
    }

    /// When it happened.
    #[must_use]
    pub const fn time(&self) -> Option<Timestamp> {
        self.time
    }

    /// The content type of the data; JSON if it has none.
    #[must_use]
    pub fn content_type(&self) -> Option<&str> {
        self.content_type.as_deref()
    }

    /// The id that all events share which have one beginning (extension `correlationid`); its own id if it is a beginning.
    #[must_use]
    pub fn correlation_id(&self) -> &str {
        self.correlation_id.as_deref().unwrap_or(&self.id)
    }

    /// The id of the event in whose handler this one was published (extension `causationid`).
    #[must_use]
    pub fn causation_id(&self) -> Option<&str> {
        self.causation_id.as_deref()
    }

    /// How many events stand before this one in its chain of causes (extension `causationdepth`).
    #[must_use]
    pub const fn depth(&self) -> u32 {
        self.depth
    }

    /// The W3C trace context (extension `traceparent`).
    #[must_use]
    pub fn traceparent(&self) -> Option<&str> {
        self.traceparent.as_deref()
    }

    /// The value of another extension, or of `dataschema`.
    #[must_use]
    pub fn extension(&self, name: &str) -> Option<&str> {
        self.extensions.get(name).map(String::as_str)
    }

    /// Whether the content type says that the data is JSON.
    pub(crate) fn is_json(&self) -> bool {
        let Some(content_type) = &self.content_type else { return true };
        let media = content_type.split(';').next().unwrap_or_default().trim();
        media.eq_ignore_ascii_case("application/json")
            || media.eq_ignore_ascii_case("text/json")
            || media.len() > 5 && media.get(media.len() - 5..).is_some_and(|end| end.eq_ignore_ascii_case("+json"))
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
    attributes: Attributes,
    data: T,
    /// What `data` is as JSON, in an event that was made here.
    json: Option<Result<Vec<u8>, String>>,
}

/// An event whose data is bytes of any kind: what a relay has, or a handler of events without a Rust type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawEvent {
    attributes: Attributes,
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
        let attributes = Attributes::new(name.to_owned(), version);
        Self { attributes, data, json: Some(json.map_err(|error| error.to_string())) }
    }
}

impl<T> Event<T> {
    pub(crate) const fn received(attributes: Attributes, data: T) -> Self {
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
        Self { attributes, data: data.into() }
    }

    pub(crate) const fn received(attributes: Attributes, data: Vec<u8>) -> Self {
        Self { attributes, data }
    }

    pub(crate) fn into_parts(self) -> (Attributes, Vec<u8>) {
        (self.attributes, self.data)
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
        Ok(Event::received(self.attributes.clone(), self.attributes.decode(&self.data)?))
    }
}

impl Attributes {
    fn new(event_type: String, version: u32) -> Self {
        Self {
            id: Uuid::now_v7().to_string(),
            event_type,
            version,
            source: String::new(),
            subject: None,
            time: None,
            content_type: Some("application/json".to_owned()),
            correlation_id: None,
            causation_id: None,
            depth: 0,
            traceparent: None,
            extensions: BTreeMap::new(),
        }
    }

    pub(crate) fn decode<T: EventType>(&self, data: &[u8]) -> Result<T, DecodeError> {
        if !self.is_json() {
            let content_type = self.content_type.as_deref().unwrap_or_default().chars().take(16).collect();
            return Err(DecodeError::NotJson { content_type });
        }
        T::decode(&self.event_type, self.version, data)
    }

    /// Each attribute that has a value, by its CloudEvents name, but for the content type and `specversion`.
    pub(crate) fn each<'a>(&'a self, mut each: impl FnMut(&'a str, Cow<'a, str>)) {
        each("id", Cow::Borrowed(&self.id));
        each("source", Cow::Borrowed(&self.source));
        each("type", Cow::Borrowed(&self.event_type));
        if self.version != 1 {
            each("dataversion", Cow::Owned(self.version.to_string()));
        }
        if let Some(time) = self.time {
            each("time", Cow::Owned(time.to_string()));
        }
        if self.depth != 0 {
            each("causationdepth", Cow::Owned(self.depth.to_string()));
        }
        let texts = [
            ("subject", &self.subject),
            ("correlationid", &self.correlation_id),
            ("causationid", &self.causation_id),
            ("traceparent", &self.traceparent),
        ];
        for (name, text) in texts {
            if let Some(text) = text {
                each(name, Cow::Borrowed(text));
            }
        }
        self.extensions.iter().for_each(|(name, value)| each(name, Cow::Borrowed(value)));
    }

    /// Whether all of it is allowed in a CloudEvent.
    pub(crate) fn check(&self) -> Result<()> {
        let mut wrong = None;
        self.each(|name, value| {
            let is_name = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
            let reason = match &*value {
                _ if name.is_empty() || !is_name => "no name of lower-case letters and digits",
                "" => "empty",
                value if value.chars().any(char::is_control) => "text with control characters",
                _ => return,
            };
            wrong.get_or_insert(Error::InvalidAttribute { attribute: name.to_owned(), reason });
        });
        let reserved = self.extensions.keys().find(|name| RESERVED.contains(&name.as_str()));
        if let Some(name) = reserved {
            let reason = "an attribute with a place of its own";
            wrong.get_or_insert(Error::InvalidAttribute { attribute: name.clone(), reason });
        }
        wrong.map_or(Ok(()), Err)
    }
}

/// Names that no extension can have.
const RESERVED: &[&str] = &[
    "id", "source", "specversion", "type", "dataversion", "time", "subject", "correlationid", "causationid",
    "causationdepth", "traceparent", "datacontenttype", "data",
];

/// The setters of attributes, the same for each kind of event.
macro_rules! setters {
    ($(#[$doc:meta] $name:ident: $field:ident = $make:expr;)*) => {
        impl<T> Event<T> {
            $(#[$doc] #[must_use] pub fn $name(mut self, value: impl Into<String>) -> Self {
                self.attributes.$field = $make(value.into());
                self
            })*

            /// Sets when it happened. A publish sets the time of the publish otherwise.
            #[must_use]
            pub fn with_time(mut self, time: impl Into<Timestamp>) -> Self {
                self.attributes.time = Some(time.into());
                self
            }

            /// Sets another extension, or `dataschema`. Its name has lower-case letters and digits.
            #[must_use]
            pub fn with_extension(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
                self.attributes.extensions.insert(name.into(), value.into());
                self
            }
        }

        impl RawEvent {
            $(#[$doc] #[must_use] pub fn $name(mut self, value: impl Into<String>) -> Self {
                self.attributes.$field = $make(value.into());
                self
            })*

            /// Sets when it happened. A publish sets the time of the publish otherwise.
            #[must_use]
            pub fn with_time(mut self, time: impl Into<Timestamp>) -> Self {
                self.attributes.time = Some(time.into());
                self
            }

            /// Sets another extension, or `dataschema`. Its name has lower-case letters and digits.
            #[must_use]
            pub fn with_extension(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
                self.attributes.extensions.insert(name.into(), value.into());
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
        let data = event.json.unwrap_or_else(|| event.data.encode().json.map_err(|error| error.to_string()));
        Self { attributes: event.attributes, data }
    }
}

impl From<RawEvent> for Outgoing {
    fn from(event: RawEvent) -> Self {
        Self { attributes: event.attributes, data: Ok(event.data) }
    }
}
