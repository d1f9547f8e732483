//! I/O errors by what the caller can do about them.
//!
//! Never here: what an error says.

use super::Error;
use std::io;
use std::path::Path;
use std::sync::Arc;

impl Error {
    /// An I/O error by what the caller can do about it.
    pub(crate) fn io(context: &'static str, source: io::Error) -> Self {
        Self::lack(&source).unwrap_or_else(|| Self::Io { context, path: None, source: Arc::new(source) })
    }

    /// What the system lacks for a while, where that is what an I/O error says.
    pub(crate) fn lack(source: &io::Error) -> Option<Self> {
        const EMFILE: i32 = 24;
        const ENFILE: i32 = 23;
        match (source.kind(), source.raw_os_error()) {
            // A limit on the sizes of this process's files is a full disk to a call that needs a larger one.
            (io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge, _) => {
                Some(Self::DiskFull)
            }
            (io::ErrorKind::OutOfMemory, _) => Some(Self::OutOfMemory),
            (_, Some(EMFILE | ENFILE)) => Some(Self::TooManyOpenFiles),
            _ => None,
        }
    }

    /// Names the file of an I/O error, or where it lies if its own name is known.
    pub(crate) fn at(mut self, place: &Path) -> Self {
        if let Self::Io { path, .. } = &mut self {
            let whole = path.as_ref().map_or_else(|| place.to_path_buf(), |file| place.join(file));
            *path = (!whole.as_os_str().is_empty()).then_some(whole);
        }
        self
    }
}
