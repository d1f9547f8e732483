//! The log on a simulated disk: what was appended comes back, whatever happens between.

mod corruption;
mod crashes;
mod everyday;
mod generations;
mod identity;
mod rig;
