//! The bytes of a message: one part of a frame.
