//! Giving memory back that is mostly unused.

use std::collections::VecDeque;

/// Gives back the memory of a queue that has come to be mostly unused, but for `kept` places. At once, however much it is: nothing
/// may be added or removed for a long time. What was given back is not needed again before as much has changed.
pub(in crate::state) fn give_back<T>(queue: &mut VecDeque<T>, kept: usize) {
    let capacity = queue.capacity();
    if capacity > kept && queue.len() < capacity / 4 {
        // seam: settled memory is kept
        queue.shrink_to((2 * queue.len()).max(kept));
    }
}
