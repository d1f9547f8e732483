//! A durable embedded queue engine.

pub mod clock;
pub mod disk;
pub mod ids;
pub mod limits;
#[allow(dead_code)]
mod log;
#[allow(dead_code)]
mod record;
