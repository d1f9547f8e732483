//! Counts what each thread has allocated, and how much at most at once.
//!
//! Never here: what is too much.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::Write;

/// A single request beyond this ends the process, and says so: it would be granted by a kernel that overcommits.
const REQUEST_MAX: usize = 1 << 30;

thread_local! {
    static HELD: Cell<usize> = const { Cell::new(0) };
    static PEAK: Cell<usize> = const { Cell::new(0) };
    /// What the thread is working on, for the message of a process that must end.
    static INPUT: Cell<(&'static str, u64)> = const { Cell::new(("", 0)) };
}

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn grew(by: usize) {
    if by > REQUEST_MAX {
        let (target, number) = INPUT.get();
        // Nothing here allocates.
        let _ = writeln!(std::io::stderr().lock(), "{target}, input {number}: {by} bytes asked for at once");
    }
    let held = HELD.get().saturating_add(by);
    HELD.set(held);
    PEAK.set(PEAK.get().max(held));
}

// SAFETY: every request goes to the system's allocator as it came, or is refused by a null pointer, which the contract allows;
// counting neither allocates nor panics.
#[allow(unsafe_code, reason = "an allocator is unsafe to write; this one only counts")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        grew(layout.size());
        if layout.size() > REQUEST_MAX {
            return std::ptr::null_mut();
        }
        // SAFETY: the caller keeps the contract of `alloc`, which is the system's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        grew(layout.size());
        if layout.size() > REQUEST_MAX {
            return std::ptr::null_mut();
        }
        // SAFETY: as in `alloc`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, len: usize) -> *mut u8 {
        grew(len);
        HELD.set(HELD.get().saturating_sub(layout.size()));
        if len > REQUEST_MAX {
            return std::ptr::null_mut();
        }
        // SAFETY: as in `alloc`.
        unsafe { System.realloc(memory, layout, len) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        HELD.set(HELD.get().saturating_sub(layout.size()));
        // SAFETY: the caller keeps the contract of `dealloc`; the memory came from the system's allocator.
        unsafe { System.dealloc(memory, layout) }
    }
}

/// Runs `work`, and returns with what it gave how many bytes this thread held at most beyond what it held before.
pub fn peak<T>(target: &'static str, number: u64, work: impl FnOnce() -> T) -> (T, usize) {
    INPUT.set((target, number));
    let before = HELD.get();
    PEAK.set(before);
    let result = work();
    (result, PEAK.get() - before)
}
