//! How long a frame is, and whether it may be that long.
//!
//! Never here: where it goes.

use super::appender::AppendError;
use crate::limits::FRAME_LEN_MAX;
use crate::log::format::bytes::padded;

pub(super) const ZEROS: [u8; 8] = [0; 8];

/// A frame's length before and after padding.
#[derive(Clone, Copy)]
pub(super) struct FrameLen {
    pub(super) plain: u32,
    pub(super) padded: u32,
}

#[inline]
pub(super) fn check_len(what: &'static str, len: usize, max: usize, unit: &'static str) -> Result<(), AppendError> {
    if len <= max { Ok(()) } else { Err(AppendError::TooLarge { what, len, max, unit }) }
}

#[inline]
pub(super) fn checked_len(len: usize) -> Result<FrameLen, AppendError> {
    let frame = |max| AppendError::TooLarge { what: "batch", len, max, unit: "bytes" };
    let plain = u32::try_from(len).ok().filter(|_| len <= FRAME_LEN_MAX).ok_or(frame(FRAME_LEN_MAX))?;
    Ok(FrameLen { plain, padded: padded(plain).ok_or(frame(FRAME_LEN_MAX))? })
}

/// The zeros after a frame.
pub(super) fn padding(len: &FrameLen) -> &'static [u8] {
    ZEROS.get(..(len.padded - len.plain) as usize).unwrap_or(&ZEROS)
}
