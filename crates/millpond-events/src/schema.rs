//! JSON Schemas of events, by type and version.

use crate::bus::Validator;
use crate::error::{Error, Result, SchemaViolation};
use serde_json::Value;
use std::collections::HashMap;

/// Compiled schemas, for [`BusBuilder::validator`](crate::BusBuilder::validator). Events of a type and version without one pass.
///
/// ```
/// # use millpond_events::{Schemas, Validator};
/// # fn main() -> millpond_events::Result<()> {
/// let schema = serde_json::json!({ "type": "object", "required": ["dish"] });
/// let schemas = Schemas::new().add("order.placed", 1, &schema)?;
/// assert!(schemas.check("order.placed", 1, br#"{"dish": "soup"}"#).is_ok());
/// let broken = schemas.check("order.placed", 1, b"{}").unwrap_err();
/// assert_eq!(broken.rule, "/required");
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Default)]
pub struct Schemas(HashMap<String, HashMap<u32, jsonschema::Validator>>);

impl Schemas {
    /// None.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the schema of a type and version. Formats such as `email` are checked. References to other documents are not followed.
    ///
    /// # Errors
    /// `InvalidSchema` if it is none, or if there is one of this type and version.
    pub fn add(mut self, event_type: impl Into<String>, version: u32, schema: &Value) -> Result<Self> {
        let event_type = event_type.into();
        let invalid = |reason: String| Error::InvalidSchema { event_type: event_type.clone(), version, reason };
        let compiled = jsonschema::options().should_validate_formats(true).build(schema);
        let compiled = compiled.map_err(|error| invalid(error.to_string()))?;
        let versions = self.0.entry(event_type.clone()).or_default();
        match versions.insert(version, compiled) {
            None => Ok(self),
            Some(_) => Err(invalid("there is another one".to_owned())),
        }
    }
}

impl Validator for Schemas {
    fn check(&self, event_type: &str, version: u32, data: &[u8]) -> Result<(), SchemaViolation> {
        let Some(schema) = self.0.get(event_type).and_then(|versions| versions.get(&version)) else { return Ok(()) };
        let violation = |path: String, rule: String, count| {
            Err(SchemaViolation { event_type: event_type.to_owned(), version, path, rule, count })
        };
        let Ok(value) = serde_json::from_slice::<Value>(data) else {
            return violation(String::new(), "JSON".to_owned(), 1);
        };
        // Most data is right, and this is the quicker question.
        if schema.is_valid(&value) {
            return Ok(());
        }
        let mut errors = schema.iter_errors(&value);
        match errors.next() {
            None => Ok(()),
            Some(first) => {
                violation(first.instance_path().to_string(), first.schema_path().to_string(), 1 + errors.count())
            }
        }
    }
}
