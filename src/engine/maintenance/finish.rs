//! What happens to a segment once it is full: its file is cut to its end, and its index is written.
//!
//! Never here: unlinking.

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::ids::FileNumber;
use crate::log::Reserve;
use crate::view::share_of;
use std::io;
use std::sync::Arc;

/// Cuts the file of every segment that grows no more and is durable, and writes its index. An index file takes nothing of what is
/// kept back on the disk: without it the rows stay in memory.
///
/// # Errors
/// The store's; where one segment cannot be finished, the others are.
pub(in crate::engine) fn finish_segments(engine: &Engine) -> Result<()> {
    let unfinished: Vec<FileNumber> = {
        let core = engine.lock_core();
        core.view.positions.unindexed().map(|runs| runs.segment).collect()
    };
    unfinished.into_iter().map(|number| finish_segment(engine, number)).fold(Ok(()), Result::and)
}

fn finish_segment(engine: &Engine, number: FileNumber) -> Result<()> {
    let mut file_manager = engine.file_manager.lock();
    let available = file_manager.available().map_err(|error| engine.file_manager_error(&file_manager, error))?;
    let (runs, segment, kept) = {
        let core = engine.lock_core();
        let runs = core.view.positions.unindexed().find(|runs| runs.segment == number).map(Arc::clone);
        let (Some(runs), Some(segment)) = (runs, core.view.catalog.segment(number)) else { return Ok(()) };
        if segment.end() > engine.commit.watermark() {
            return Ok(());
        }
        (runs, Arc::clone(segment), engine.reserved_len(&core, Reserve::Keep, available))
    };
    let finished = if segment.is_closed() {
        segment
    } else {
        let finished = file_manager.cut(&segment).map_err(|error| engine.file_manager_error(&file_manager, error))?;
        engine.lock_core().view.catalog.replace(Arc::clone(&finished));
        finished
    };
    let rows = runs.key_rows();
    let written =
        file_manager.write_index(&finished, &rows, kept).and_then(|()| file_manager.indexes().open(&finished));
    let index = written.map_err(|error| engine.file_manager_error(&file_manager, error))?;
    let Some(index) = index else {
        return Err(Error::io("read the index file that was just written", io::ErrorKind::InvalidData.into()));
    };
    let core = &mut *engine.lock_core();
    core.view.positions.set_indexed(number, index, share_of(&core.view.state, &finished));
    Ok(())
}
