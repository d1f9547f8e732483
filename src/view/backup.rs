//! A copy of a store at one moment, made while another process may write to it.
//!
//! Never here: how files are copied.

use super::observer::until_it_holds;
use super::open_error;
use crate::disk::Disk;
use crate::error::{Error, Result};
use crate::ids::Lsn;
use crate::log::{self, BackupError, BackupSource};
use std::path::Path;
use std::sync::Arc;

/// What a backup holds, and what was copied for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BackupReport {
    /// The end of the log in it: it is the store as it was there.
    pub end: Lsn,
    /// Files of the log.
    pub files: usize,
    /// Bytes that were copied.
    pub bytes_copied: u64,
    /// Bytes that were there from an earlier backup.
    pub bytes_kept: u64,
}

/// Copies the store on `from`, which is durable at least below `known`, to `to`, which errors call `path`; `None` where there is no store.
/// Where files went away meanwhile it goes on with those that took their place.
///
/// # Errors
/// `InvalidOption` if `to` holds something else than an earlier backup; `Corrupt`; what reading or writing says.
pub(crate) fn backup(
    (from, known): (&Arc<dyn Disk>, Lsn),
    (to, path): (&Arc<dyn Disk>, &Path),
    progress: impl Fn(u64, u64),
) -> Result<Option<BackupReport>> {
    until_it_holds(|| {
        let Some((contents, end)) = log::observe(from, known).map_err(open_error)? else { return Ok(None) };
        let checkpoint = contents.checkpoint.as_ref().map(|newest| newest.number);
        let source = BackupSource { disk: &**from, end: &end, catalog: &contents.catalog, checkpoint };
        let counts = match log::backup(&source, to, &mut |done, of| progress(done, of)) {
            Ok(counts) => counts,
            Err(BackupError::Source(error)) => return Err(open_error(error)),
            // Of the directory it says nothing that its file went away.
            Err(BackupError::Target(error)) => return Err(not_missing(open_error(error).at(path))),
            Err(BackupError::Foreign(file, what)) => {
                let value = format!("{} with {file}: {what}", path.display());
                let expected = "an empty directory, or an earlier backup of this store that was never opened";
                return Err(Error::InvalidOption { option: "to", value, expected });
            }
        };
        let (bytes_copied, bytes_kept) = (counts.bytes, counts.kept);
        Ok(Some(BackupReport { end: end.end(), files: counts.files, bytes_copied, bytes_kept }))
    })
}

/// An error that is not taken for a file of the source that went away.
fn not_missing(error: Error) -> Error {
    match error {
        Error::Io { context, path, source } if source.kind() == std::io::ErrorKind::NotFound => {
            let source = Arc::new(std::io::Error::other(source.to_string()));
            Error::Io { context, path, source }
        }
        other => other,
    }
}
