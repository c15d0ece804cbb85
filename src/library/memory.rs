//! The library's allocator: the C library's, and a reserve for when that has no memory.
//!
//! Rust ends the process when an allocation fails, but the process belongs to the user's program. So a block that the C
//! library refuses comes from the reserve instead, and recording and patching end ([`graphpatch_session::out_of_memory`]). The
//! reserve is only for calls that are under way at that moment. Code that makes very large blocks, such as copies of values,
//! asks for them by `try_reserve` and handles the failure itself.
//!
//! Small blocks of the reserve lie in areas ([`area`]). The first one is static, which costs no memory until it is written; the
//! others are mapped when those before them are full. Larger blocks are mapped each by itself.

mod area;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::UnsafeCell;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicUsize, Ordering};

use area::{ALIGNMENT, AREA, Area};

/// Bytes of the largest block in an area.
const LARGEST: usize = 64 << 10;
/// How many areas there may be.
const AREAS: usize = 32;
/// How many larger blocks there may be at a time.
const MAPPINGS: usize = 64;

#[global_allocator]
static MEMORY: Memory = Memory;
static RESERVE: Reserve = Reserve::new(FIRST.0.get().cast());

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
        if RESERVE.has(block) {
            if RESERVE.resize(block, layout, size) {
                return block;
            }
        } else {
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
struct First(UnsafeCell<[u8; AREA]>);

// SAFETY: the memory is handed out in parts, each to one owner.
unsafe impl Sync for First {}

static FIRST: First = First(UnsafeCell::new([0; AREA]));

/// Blocks for when the C library has none.
struct Reserve {
    areas: [Area; AREAS],
    /// The addresses of larger blocks; 0: none.
    mapped: [AtomicUsize; MAPPINGS],
    /// How many of those there are, and how many areas but the first have memory.
    mappings: AtomicUsize,
}

impl Reserve {
    const fn new(first: *mut u8) -> Reserve {
        let mut areas = [const { Area::new(null_mut()) }; AREAS];
        areas[0] = Area::new(first);
        Reserve {
            areas,
            mapped: [const { AtomicUsize::new(0) }; MAPPINGS],
            mappings: AtomicUsize::new(0),
        }
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
        for area in &self.areas {
            if !area.has_memory() && !self.extend(area) {
                return null_mut();
            }
            let block = area.cut(layout);
            if !block.is_null() {
                return block;
            }
        }
        null_mut()
    }

    /// Maps memory for an area. Returns false if there is none.
    fn extend(&self, area: &Area) -> bool {
        let memory = map(AREA);
        if memory.is_null() {
            return false;
        }
        // Counted first, so that whoever frees a block of the area finds it.
        self.mappings.fetch_add(1, Ordering::AcqRel);
        if !area.set_memory(memory) {
            self.mappings.fetch_sub(1, Ordering::AcqRel);
            unmap(memory, AREA);
        }
        true
    }

    fn map(&self, layout: Layout) -> *mut u8 {
        if layout.align() > ALIGNMENT {
            return null_mut();
        }
        let block = map(layout.size());
        if block.is_null() {
            return block;
        }
        let free = |place: &&AtomicUsize| {
            place
                .compare_exchange(0, block.addr(), Ordering::AcqRel, Ordering::Relaxed)
                .is_ok()
        };
        if self.mapped.iter().find(free).is_none() {
            unmap(block, layout.size());
            return null_mut();
        }
        self.mappings.fetch_add(1, Ordering::AcqRel);
        block
    }

    /// Whether the block came from here.
    #[inline]
    fn has(&self, block: *const u8) -> bool {
        block.addr().wrapping_sub(FIRST.0.get().addr()) < AREA
            || (self.mappings.load(Ordering::Acquire) != 0
                && (self.area(block).is_some() || self.place(block).is_some()))
    }

    #[cold]
    fn area(&self, block: *const u8) -> Option<&Area> {
        self.areas.iter().find(|area| area.has(block))
    }

    #[cold]
    fn place(&self, block: *const u8) -> Option<&AtomicUsize> {
        self.mapped
            .iter()
            .find(|place| place.load(Ordering::Acquire) == block.addr())
    }

    /// Changes the size of a block from here in its place, if that is possible.
    #[cold]
    fn resize(&self, block: *const u8, layout: Layout, size: usize) -> bool {
        size <= LARGEST
            && self
                .area(block)
                .is_some_and(|area| area.resize(block, layout.size(), size))
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
        if let Some(area) = self.area(block) {
            area.free(block, layout.size());
        } else if let Some(place) = self.place(block) {
            place.store(0, Ordering::Release);
            self.mappings.fetch_sub(1, Ordering::AcqRel);
            // It is a mapping of `map`'s, whose owner gives it back.
            unmap(block, layout.size());
        }
    }
}

/// New memory of the kernel's; null if there is none.
fn map(size: usize) -> *mut u8 {
    let (access, kind) = (
        libc::PROT_READ | libc::PROT_WRITE,
        libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
    );
    // SAFETY: a new mapping, at an address of the kernel's choice.
    let block = unsafe { libc::mmap(null_mut(), size, access, kind, -1, 0) };
    match block == libc::MAP_FAILED {
        true => null_mut(),
        false => block.cast(),
    }
}

/// Gives back what [`map`] has given. Its only owner calls this.
fn unmap(block: *mut u8, size: usize) {
    // SAFETY: a mapping of that size, which nobody uses any more.
    unsafe { libc::munmap(block.cast(), size) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[repr(align(4096))]
    struct Memory([u8; AREA]);

    #[test]
    fn more_areas_are_mapped_and_used_again() {
        let mut first = Box::new(Memory([0; AREA]));
        let reserve = Reserve::new(first.0.as_mut_ptr());
        let layout = Layout::from_size_align(50_000, 16).expect("layout");
        for _ in 0..3 {
            let blocks: Vec<*mut u8> = (0..100).map(|_| reserve.cut(layout)).collect();
            assert!(blocks.iter().all(|block| !block.is_null()));
            let areas = |blocks: &[*mut u8]| {
                let used = |area: &&Area| blocks.iter().any(|block| area.has(*block));
                reserve.areas.iter().filter(used).count()
            };
            assert_eq!(areas(&blocks), 5);
            for block in blocks {
                reserve.free(block, layout);
            }
        }
        assert_eq!(reserve.mappings.load(Ordering::Relaxed), 4);
    }

    #[test]
    fn large_blocks_are_mapped() {
        static RESERVE: Reserve = Reserve::new(FIRST.0.get().cast());
        let layout = Layout::from_size_align(1 << 20, 16).expect("layout");
        let large = RESERVE.map(layout);
        assert!(RESERVE.has(large) && RESERVE.give_back(large, layout));
        assert!(!RESERVE.has(large));
    }
}
