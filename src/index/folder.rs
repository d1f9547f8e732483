//! The folder around an engine's files.
//!
//! Each engine has one name in the folder. What lies there under another name was left by another engine, or by somebody else:
//! then the folder is refused as a whole and discarded, so an old index never comes back after its engine was chosen again.
//! Never here: what an engine writes.

use super::directory::IndexDirectory;
use super::{IndexEngine, IndexError};
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// Opens the engine with this name.
pub(super) fn engine_in<E: IndexEngine + 'static>(
    directory: &IndexDirectory,
    name: &'static str,
    open: impl FnOnce(&Path) -> Result<E, IndexError>,
) -> Result<Box<dyn IndexEngine>, IndexError> {
    Ok(Box::new(open(&prepared(directory, name)?)?))
}

/// The engine's path in the folder, which has nothing else in it.
fn prepared(directory: &IndexDirectory, engine: &'static str) -> Result<PathBuf, IndexError> {
    directory.remove_aside()?;
    let path = directory.path();
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(directory.io("create", &error)),
        Ok(()) | Err(_) => {}
    }
    let found = fs::symlink_metadata(path).map_err(|error| directory.io("look at", &error))?;
    if !found.is_dir() {
        return Err(directory.fault("use", "it is no directory"));
    }
    let list = || fs::read_dir(path)?.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>();
    let names = list().map_err(|error| directory.io("list", &error))?;
    if let Some(name) = names.iter().find(|name| *name != engine) {
        return Err(directory.fault("use", format_args!("{name:?} is no {engine} index")));
    }
    let path = path.join(engine);
    // seam: an engine opens what is no file
    match strange_in(&path).map_err(|error| directory.io("look through", &error))? {
        Some(strange) => Err(directory.fault("use", format_args!("{} is neither file nor folder", strange.display()))),
        None => Ok(path),
    }
}

/// What is neither a file nor a folder, at this path or below: an engine that opened a named pipe would wait for its other end, and one
/// that followed a link would write elsewhere.
fn strange_in(path: &Path) -> io::Result<Option<PathBuf>> {
    let mut left = vec![path.to_owned()];
    while let Some(path) = left.pop() {
        let found = match fs::symlink_metadata(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            found => found?,
        };
        if found.is_dir() {
            for entry in fs::read_dir(&path)? {
                left.push(entry?.path());
            }
        } else if !found.is_file() {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

/// Makes the name of an engine's file survive a power failure, and those of the folders that it is in.
pub(super) fn sync_names(file: &Path) -> io::Result<()> {
    file.ancestors().skip(1).take(3).try_for_each(|folder| File::open(folder)?.sync_all())
}
