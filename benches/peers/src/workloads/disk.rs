//! What waiting messages take up on disk.

use super::publish::fill_range;
use super::{Outcome, Scale, drained_fault, repeat};
use crate::payload::{Payload, Tally};
use crate::queue::{Mode, Peer, Result};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

pub(super) fn bytes_for_each(peer: &Peer, dir: &Path, scale: Scale) -> Result<Outcome> {
    let queue = (peer.open)(dir, Mode::Process)?;
    let (single, _) = repeat(scale.messages, 64, scale, |number| queue.publish(Payload::new(number).bytes()))?;
    fill_range(queue.as_ref(), single, scale.messages)?;
    queue.close()?;
    let bytes = allocated_bytes(dir)?;
    let reopened = (peer.open)(dir, Mode::Process)?;
    Ok(Outcome {
        figure: Some(bytes as f64 / scale.messages as f64),
        fault: drained_fault(reopened, Tally::of_first(scale.messages))?,
        note: (single < scale.messages).then(|| format!("{single} of {} one at a time", scale.messages)),
        p99: None,
    })
}

/// The blocks of all files below `dir`.
fn allocated_bytes(dir: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        bytes += if metadata.is_dir() { allocated_bytes(&entry.path())? } else { metadata.blocks() * 512 };
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::allocated_bytes;

    #[test]
    fn holes_do_not_count() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::File::create(dir.path().join("sparse")).unwrap().set_len(1 << 20).unwrap();
        std::fs::create_dir(dir.path().join("below")).unwrap();
        std::fs::write(dir.path().join("below/full"), vec![1; 8192]).unwrap();
        assert!((8192..1 << 16).contains(&allocated_bytes(dir.path()).unwrap()));
    }
}
