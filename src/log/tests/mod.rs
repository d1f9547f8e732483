//! The log on a simulated disk: what was appended comes back, whatever happens between.

mod classes;
mod copies;
mod corruption;
mod crashes;
mod everyday;
mod identity;
mod rig;
