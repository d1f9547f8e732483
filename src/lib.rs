//! A durable embedded queue engine.

pub mod clock;
pub mod disk;
pub mod ids;
pub mod limits;
#[allow(dead_code, unused_imports)]
mod log;
#[allow(dead_code)]
mod record;
