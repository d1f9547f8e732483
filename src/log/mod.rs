//! The log: opaque bytes in, positions out.
//!
//! Files of frames that tile one axis of LSNs, found and judged at open by a plan, appended to by the one [`Appender`] that
//! a finished recovery yields. Never here: records, state, clocks, threads.

mod bytes;
mod frame;
mod header;
mod mix;
mod name;
