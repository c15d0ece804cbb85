//! The library's allocator: the C library's, with a reserve behind it.
//!
//! Rust ends the process when an allocation fails, but the process belongs to the user's program. So a block that the C
//! library refuses comes from the reserve instead, and recording and patching end ([`graphpatch_session::out_of_memory`]). The
//! reserve is only for calls that are under way at that moment. Code that makes very large blocks, such as copies of values,
//! asks for them by `try_reserve` and handles the failure itself.
//!
//! Small blocks of the reserve lie in one static area, which costs no memory until it is written; it is used from its beginning
//! again when all of its blocks are free. Larger ones are mapped.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes of the static area, and of the largest block in it.
const AREA: usize = 1 << 20;
const LARGEST: usize = 64 << 10;
/// How many larger blocks there may be at a time.
const MAPPINGS: usize = 32;

#[global_allocator]
static MEMORY: Memory = Memory;
static RESERVE: Reserve = Reserve::new();

struct Memory;

// SAFETY: each block is the C library's or the reserve's, and goes back where it came from.
unsafe impl GlobalAlloc for Memory {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: by this function's contract.
        let block = unsafe { System.alloc(layout) };
        match block.is_null() {
            true => RESERVE.take(layout),
            false => block,
        }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: by this function's contract.
        let block = unsafe { System.alloc_zeroed(layout) };
        match block.is_null() {
            true => RESERVE.take_zeroed(layout),
            false => block,
        }
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if !RESERVE.give_back(block, layout) {
            // SAFETY: by this function's contract; the block is the C library's.
            unsafe { System.dealloc(block, layout) };
        }
    }

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if !RESERVE.has(block) {
            // SAFETY: by this function's contract; the block is the C library's.
            let grown = unsafe { System.realloc(block, layout, size) };
            if !grown.is_null() {
                return grown;
            }
        }
        // SAFETY: by this function's contract; the old block stays until it is copied.
        unsafe { self.move_to(block, layout, size) }
    }
}

impl Memory {
    /// # Safety
    ///
    /// As `realloc`.
    #[cold]
    unsafe fn move_to(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: by this function's contract the size is one of a valid layout; both blocks have as many bytes as are copied.
        unsafe {
            let moved = self.alloc(Layout::from_size_align_unchecked(size, layout.align()));
            if !moved.is_null() {
                std::ptr::copy_nonoverlapping(block, moved, layout.size().min(size));
                self.dealloc(block, layout);
            }
            moved
        }
    }
}

#[repr(align(4096))]
struct Area(UnsafeCell<[u8; AREA]>);

// SAFETY: the area is handed out in parts, each to one owner.
unsafe impl Sync for Area {}

/// Blocks for when the C library has none.
struct Reserve {
    area: Area,
    /// Upper half: the offset of the area's first byte that is not handed out. Lower half: how many blocks are handed out.
    state: AtomicUsize,
    /// The addresses of larger blocks; 0: none.
    mapped: [AtomicUsize; MAPPINGS],
    /// How many of those there are.
    mappings: AtomicUsize,
}

const BLOCKS: usize = (1 << 32) - 1;

impl Reserve {
    const fn new() -> Reserve {
        Reserve {
            area: Area(UnsafeCell::new([0; AREA])),
            state: AtomicUsize::new(0),
            mapped: [const { AtomicUsize::new(0) }; MAPPINGS],
            mappings: AtomicUsize::new(0),
        }
    }

    fn start(&self) -> usize {
        self.area.0.get().addr()
    }

    /// A block of the reserve. Null if the reserve is used up, or if the block is larger than the machine's memory.
    #[cold]
    fn take(&self, layout: Layout) -> *mut u8 {
        let block = match layout.size() > LARGEST {
            true => self.map(layout),
            false => self.cut(layout),
        };
        if !block.is_null() {
            graphpatch_session::out_of_memory();
        }
        block
    }

    #[cold]
    fn take_zeroed(&self, layout: Layout) -> *mut u8 {
        let block = self.take(layout);
        if !block.is_null() {
            // SAFETY: a block of that many bytes, which nobody else has.
            unsafe { block.write_bytes(0, layout.size()) };
        }
        block
    }

    fn cut(&self, layout: Layout) -> *mut u8 {
        let mut state = self.state.load(Ordering::Relaxed);
        loop {
            let first = (state >> 32).next_multiple_of(layout.align());
            let end = first + layout.size();
            if end > AREA || layout.align() > 4096 {
                return std::ptr::null_mut();
            }
            let next = (end << 32) | ((state & BLOCKS) + 1);
            match self
                .state
                .compare_exchange_weak(state, next, Ordering::AcqRel, Ordering::Relaxed)
            {
                // SAFETY: the part lies in the area.
                Ok(_) => return unsafe { self.area.0.get().cast::<u8>().add(first) },
                Err(now) => state = now,
            }
        }
    }

    fn map(&self, layout: Layout) -> *mut u8 {
        if layout.align() > 4096 {
            return std::ptr::null_mut();
        }
        let (access, kind) = (
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
        );
        // SAFETY: a new mapping, at an address of the kernel's choice.
        let block = unsafe { libc::mmap(std::ptr::null_mut(), layout.size(), access, kind, -1, 0) };
        if block == libc::MAP_FAILED {
            return std::ptr::null_mut();
        }
        let free = |place: &&AtomicUsize| {
            place
                .compare_exchange(0, block.addr(), Ordering::AcqRel, Ordering::Relaxed)
                .is_ok()
        };
        if self.mapped.iter().find(free).is_none() {
            // SAFETY: the mapping from above, which nobody uses.
            unsafe { libc::munmap(block, layout.size()) };
            return std::ptr::null_mut();
        }
        self.mappings.fetch_add(1, Ordering::AcqRel);
        block.cast()
    }

    /// Whether the block came from here.
    #[inline]
    fn has(&self, block: *const u8) -> bool {
        block.addr().wrapping_sub(self.start()) < AREA
            || (self.mappings.load(Ordering::Acquire) != 0 && self.place(block).is_some())
    }

    #[cold]
    fn place(&self, block: *const u8) -> Option<&AtomicUsize> {
        self.mapped
            .iter()
            .find(|place| place.load(Ordering::Acquire) == block.addr())
    }

    /// Takes a block back, if it came from here.
    #[inline]
    fn give_back(&self, block: *mut u8, layout: Layout) -> bool {
        let ours = self.has(block);
        if ours {
            self.free(block, layout);
        }
        ours
    }

    #[cold]
    fn free(&self, block: *mut u8, layout: Layout) {
        if let Some(place) = self.place(block) {
            place.store(0, Ordering::Release);
            self.mappings.fetch_sub(1, Ordering::AcqRel);
            // SAFETY: a mapping of `map`'s, whose owner gives it back.
            unsafe { libc::munmap(block.cast(), layout.size()) };
            return;
        }
        let fewer = |state: usize| {
            let blocks = (state & BLOCKS) - 1;
            Some(if blocks == 0 {
                0
            } else {
                (state & !BLOCKS) | blocks
            })
        };
        let _ = self
            .state
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, fewer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_of_the_reserve_are_apart_and_come_back() {
        static RESERVE: Reserve = Reserve::new();
        let small = Layout::from_size_align(1000, 64).expect("layout");
        let blocks: Vec<*mut u8> = (0..1000)
            .map(|_| RESERVE.cut(small))
            .take_while(|block| !block.is_null())
            .collect();
        assert!(blocks.len() > 900, "{}", blocks.len());
        for pair in blocks.windows(2) {
            assert!(pair[1].addr() - pair[0].addr() >= 1000 && pair[1].addr() % 64 == 0);
        }
        let large = RESERVE.map(Layout::from_size_align(1 << 20, 16).expect("layout"));
        assert!(RESERVE.has(large) && !RESERVE.has((&raw const small).cast()));
        assert!(RESERVE.give_back(large, Layout::from_size_align(1 << 20, 16).expect("layout")));
        assert!(!RESERVE.has(large));
        for block in &blocks {
            assert!(RESERVE.give_back(*block, small));
        }
        assert_eq!(
            RESERVE.cut(small),
            blocks[0],
            "all are free: the area is used from its beginning"
        );
    }
}
