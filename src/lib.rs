//! A durable embedded queue engine.

mod api;
pub mod clock;
pub mod disk;
mod engine;
mod error;
pub mod ids;
pub mod limits;
mod log;
mod record;
#[allow(dead_code)]
mod state;
