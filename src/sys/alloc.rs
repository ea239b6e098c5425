//! The program's allocator: the system's, but for blocks aligned to a cache line pair.
//!
//! The runtime aligns its tasks to 128, and every exchange is one. glibc makes each by asking for more and
//! cutting off both ends, and what it cuts off is too small for the next: thousands of exchanges at a time
//! leave several kilobytes per session behind (kernel-notes/0004). Here they come from chunks that are cut into
//! blocks of one size, and go back to a list of their size.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ptr;
use std::sync::{Mutex, PoisonError};

/// The alignment that is served here, and the step between sizes.
const LINE: usize = 128;
/// Sizes served here: 1 to 64 lines. The task of an exchange is some 4 KiB: with glibc each left a hole that
/// was too small for the next one, by the room that its alignment asks for.
const CLASSES: usize = 64;
/// How much is asked of the system at once.
const CHUNK: usize = 32 * 1024;

/// The system's allocator, with lists of its own for small blocks aligned to 128.
#[derive(Debug, Default)]
pub struct LineAllocator;

/// A free block: all it holds is the way to the next.
struct Free {
    next: *mut Free,
}

type Lists = [Cell<*mut Free>; CLASSES];

thread_local! {
    /// Free blocks by size, of a thread that has asked for lists of its own. No destructor, so they may be used for
    /// as long as the thread allocates; what it leaves behind at its end is lost, and workers end with the process.
    static LISTS: Lists = const { [const { Cell::new(ptr::null_mut()) }; CLASSES] };
    static HAS_LISTS: Cell<bool> = const { Cell::new(false) };
}

/// Those of all other threads: what one of them allocates another may free, as with a task for a thread that may
/// block. In lists of the two it would pile up with the second.
static SHARED: Mutex<Shared> = Mutex::new(Shared([const { Cell::new(ptr::null_mut()) }; CLASSES]));

struct Shared(Lists);

// JUSTIFICATION: a static needs it, and the lists are pointers.
// SAFETY: free blocks belong to nobody, so any thread may have them; the mutex lets one at a time.
unsafe impl Send for Shared {}

/// This thread frees what it allocates, and gets lists of its own: no lock, and blocks that are in its cache.
pub fn use_own_lists() {
    HAS_LISTS.set(true);
}

/// Lets `work` have the list of a class.
fn with_list<T>(class: usize, work: impl FnOnce(&Cell<*mut Free>) -> T) -> T {
    if HAS_LISTS.get() {
        return LISTS.with(|lists| work(&lists[class]));
    }
    // Nothing panics with the lock held; and if it did, the lists would still be lists.
    let shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    work(&shared.0[class])
}

/// The list that serves `layout`, if one does.
fn class(layout: Layout) -> Option<usize> {
    let served = layout.align() == LINE && (1..=LINE * CLASSES).contains(&layout.size());
    served.then(|| layout.size().div_ceil(LINE) - 1)
}

// JUSTIFICATION: an allocator cannot be written without `unsafe`; without it sessions that were
// opened at the same time cost several times as much.
// SAFETY: a block is either on one list or with one caller: `alloc` takes it off a list that no other thread can
// reach meanwhile, the current thread's or one under the lock, and `dealloc` puts it on one. All blocks of a class have the
// class' size, are aligned to LINE, and belong to chunks that are never given back. A caller passes the
// same layout to `dealloc` as to `alloc` (the trait's contract), so a block returns to its own class,
// and what the system gave goes back to the system. Nothing here panics or allocates through itself.
unsafe impl GlobalAlloc for LineAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let Some(class) = class(layout) else {
            // SAFETY: the caller's layout is passed on as it is.
            return unsafe { System.alloc(layout) };
        };
        with_list(class, |list| {
            if list.get().is_null() {
                refill(list, (class + 1) * LINE);
            }
            let block = list.get();
            if !block.is_null() {
                // SAFETY: a block on the list is free and starts with the pointer to the next.
                list.set(unsafe { (*block).next });
            }
            block.cast()
        })
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        let Some(class) = class(layout) else {
            // SAFETY: it came from the system with this layout.
            return unsafe { System.dealloc(pointer, layout) };
        };
        let block: *mut Free = pointer.cast();
        with_list(class, |list| {
            // SAFETY: the caller gives the block up; it is large and aligned enough for one pointer.
            unsafe { block.write(Free { next: list.get() }) };
            list.set(block);
        });
    }
}

/// Cuts a new chunk into blocks of `size` and puts them on the empty `list`; leaves it empty when the
/// system has no memory.
fn refill(list: &Cell<*mut Free>, size: usize) {
    let layout = Layout::from_size_align(CHUNK, LINE).expect("both are powers of two");
    // SAFETY: the layout's size is not zero.
    let chunk = unsafe { System.alloc(layout) };
    if chunk.is_null() {
        return;
    }
    for index in (0..CHUNK / size).rev() {
        // SAFETY: `(index + 1) * size <= CHUNK`, so the block lies inside the chunk; both are aligned to LINE.
        unsafe {
            let block: *mut Free = chunk.add(index * size).cast();
            block.write(Free { next: list.get() });
            list.set(block);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_small_blocks_of_that_alignment_are_served_here() {
        let layout = |size, align| Layout::from_size_align(size, align).expect("a layout");
        assert_eq!(class(layout(1, 128)), Some(0));
        assert_eq!(class(layout(256, 128)), Some(1));
        assert_eq!(class(layout(384, 128)), Some(2));
        assert_eq!(class(layout(1024, 128)), Some(7));
        assert_eq!(class(layout(8192, 128)), Some(63));
        for other in [layout(0, 128), layout(8193, 128), layout(256, 64), layout(256, 256)] {
            assert_eq!(class(other), None);
        }
    }

    #[test]
    fn what_one_thread_allocates_and_another_frees_is_used_again() {
        // A size that nobody else here asks for.
        let layout = Layout::from_size_align(LINE * 37, LINE).expect("a layout");
        // SAFETY: the layout is not empty; each block is given back once, with its layout.
        let alloc = move || unsafe { LineAllocator.alloc(layout).expose_provenance() };
        let first = alloc();
        for _ in 0..1000 {
            let block = alloc();
            let freeing = std::thread::spawn(move || {
                let block = ptr::with_exposed_provenance_mut(block);
                // SAFETY: as above.
                unsafe { LineAllocator.dealloc(block, layout) };
            });
            freeing.join().expect("no panic");
        }
        // One chunk was enough.
        assert!(alloc().abs_diff(first) < CHUNK);
    }

    #[test]
    fn blocks_are_aligned_apart_and_used_again() {
        use_own_lists();
        let layout = Layout::from_size_align(384, LINE).expect("a layout");
        // SAFETY: the layout is not empty; each block is given back once, with its layout.
        unsafe {
            let blocks: Vec<*mut u8> = (0..200).map(|_| LineAllocator.alloc(layout)).collect();
            let mut sorted: Vec<usize> = blocks.iter().map(|block| block.addr()).collect();
            sorted.sort_unstable();
            assert!(sorted.iter().all(|address| address % LINE == 0));
            assert!(sorted.windows(2).all(|pair| pair[1] - pair[0] >= 384), "blocks overlap");
            for &block in &blocks {
                LineAllocator.dealloc(block, layout);
            }
            let again = LineAllocator.alloc(layout);
            assert_eq!(Some(&again), blocks.last(), "the last block given back comes first");
            LineAllocator.dealloc(again, layout);
        }
    }
}
