//! Directories in memory, for levels to which it is all the same how long a sync takes.

/// A directory of a file system in memory, where there is one.
pub(crate) fn directory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a directory can be made")
}
