//! Memory that is handed out from its beginning to its end, and from the beginning again when all of it is free.
//!
//! The block that was handed out last can grow, and gives its bytes back when it is freed: a text that grows and is then
//! written needs no more than its own length.

use std::alloc::Layout;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

/// Bytes of an area.
pub(super) const AREA: usize = 1 << 20;
/// The largest alignment of an area's start.
pub(super) const ALIGNMENT: usize = 4096;

const BLOCKS: usize = (1 << 32) - 1;

/// One area. Its memory is given by whoever uses it, once.
pub(super) struct Area {
    /// Null: it has no memory yet.
    start: AtomicPtr<u8>,
    /// Upper half: the offset of the first byte that is not handed out. Lower half: how many blocks are handed out.
    state: AtomicUsize,
}

impl Area {
    pub(super) const fn new(start: *mut u8) -> Area {
        Area {
            start: AtomicPtr::new(start),
            state: AtomicUsize::new(0),
        }
    }

    pub(super) fn has_memory(&self) -> bool {
        !self.start.load(Ordering::Acquire).is_null()
    }

    /// Gives the area its memory: [`AREA`] bytes. Returns false if it has some already.
    pub(super) fn set_memory(&self, memory: *mut u8) -> bool {
        self.start
            .compare_exchange(null_mut(), memory, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }

    #[inline]
    pub(super) fn has(&self, block: *const u8) -> bool {
        let start = self.start.load(Ordering::Acquire).addr();
        start != 0 && block.addr().wrapping_sub(start) < AREA
    }

    /// A block of the area; null where it has no room.
    pub(super) fn cut(&self, layout: Layout) -> *mut u8 {
        let start = self.start.load(Ordering::Acquire);
        if start.is_null() || layout.align() > ALIGNMENT {
            return null_mut();
        }
        let mut first = 0;
        let taken = self.change(|used, blocks| {
            first = used.next_multiple_of(layout.align());
            let end = first + layout.size();
            (end <= AREA).then_some((end, blocks + 1))
        });
        match taken {
            // SAFETY: the block lies in the area, whose memory stays.
            true => unsafe { start.add(first) },
            false => null_mut(),
        }
    }

    /// Changes the size of a block in its place. Returns false if it is not the last block, or there is no room.
    pub(super) fn resize(&self, block: *const u8, old: usize, new: usize) -> bool {
        let first = self.offset(block);
        self.change(|used, blocks| {
            (used == first + old && first + new <= AREA).then_some((first + new, blocks))
        })
    }

    /// Takes a block back.
    pub(super) fn free(&self, block: *const u8, size: usize) {
        let first = self.offset(block);
        self.change(|used, blocks| {
            let used = if blocks == 1 {
                0
            } else if used == first + size {
                first
            } else {
                used
            };
            Some((used, blocks - 1))
        });
    }

    fn offset(&self, block: *const u8) -> usize {
        block.addr() - self.start.load(Ordering::Acquire).addr()
    }

    fn change(&self, mut next: impl FnMut(usize, usize) -> Option<(usize, usize)>) -> bool {
        let next = |state: usize| {
            next(state >> 32, state & BLOCKS).map(|(used, blocks)| (used << 32) | blocks)
        };
        self.state
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, next)
            .is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[repr(align(4096))]
    struct Memory([u8; AREA]);

    fn layout(size: usize, align: usize) -> Layout {
        Layout::from_size_align(size, align).expect("layout")
    }

    #[test]
    fn blocks_are_apart_and_come_back() {
        let mut memory = Box::new(Memory([0; AREA]));
        let area = Area::new(memory.0.as_mut_ptr());
        let small = layout(1000, 64);
        let blocks: Vec<*mut u8> = std::iter::repeat_with(|| area.cut(small))
            .take_while(|block| !block.is_null())
            .collect();
        assert!(blocks.len() > 900, "{}", blocks.len());
        for pair in blocks.windows(2) {
            assert!(pair[1].addr() - pair[0].addr() >= 1000 && pair[1].addr() % 64 == 0);
        }
        assert!(area.has(blocks[5]) && !area.has((&raw const small).cast()));
        blocks.iter().for_each(|block| area.free(*block, 1000));
        assert_eq!(area.cut(small), blocks[0], "used from its beginning again");
    }

    #[test]
    fn the_last_block_grows_and_gives_its_bytes_back() {
        let mut memory = Box::new(Memory([0; AREA]));
        let area = Area::new(memory.0.as_mut_ptr());
        let (first, last) = (area.cut(layout(100, 4)), area.cut(layout(100, 4)));
        assert!(!area.resize(first, 100, 200) && area.resize(last, 100, AREA - 100));
        assert!(!area.resize(last, AREA - 100, AREA) && area.cut(layout(1, 1)).is_null());
        area.free(last, AREA - 100);
        assert_eq!(area.cut(layout(8, 4)), last);
    }
}
