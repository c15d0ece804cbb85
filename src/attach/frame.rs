//! What the kernel would write on a thread's stack before a handler of a signal runs. A function that is called above it
//! returns into `rt_sigreturn`, which restores the thread from the frame, whether anybody watches or not.

use libc::user_regs_struct;

use super::tracee::is_broken_off;

/// The part of the stack below its pointer that a function may use without moving the pointer.
const RED_ZONE: u64 = 128;
/// The kernel's `ucontext` without the registers of XSAVE, and the `siginfo` after it.
const CONTEXT: u64 = 304;
const SIGNAL: u64 = 128;
/// Where the kernel finds the size of what XSAVE has written, in the part of the area that hardware leaves to software.
const SOFTWARE: usize = 464;
const MAGIC1: u32 = 0x4650_5853;
const MAGIC2: u32 = 0x4650_5845;
/// The size of the area without AMX, which a thread has only if it asked for it.
const WITHOUT_AMX: usize = 2696;
const AMX: u64 = 0b11 << 17;

/// What is written on the stack, and where.
pub struct Frame {
    /// The first byte: the place of the return address.
    pub at: u64,
    pub bytes: Vec<u8>,
    /// Where each of the texts begins.
    pub texts: Vec<u64>,
}

impl Frame {
    /// A frame for a thread with these registers and signal mask. A call above it returns to `first`, and then to
    /// `restorer`. `texts` lie in it too, with a zero at their ends.
    pub fn new(
        registers: &user_regs_struct,
        extended: &[u8],
        mask: u64,
        returns: [u64; 2],
        texts: &[&str],
    ) -> Frame {
        let area = area_of_signal(extended);
        let saved = (registers.rsp - RED_ZONE - area.len() as u64) & !63;
        let mut places = Vec::new();
        let mut low = saved;
        for text in texts {
            low -= text.len() as u64 + 1;
            places.push(low);
        }
        // A function begins with the stack 8 bytes off a multiple of 16, where its return address lies.
        let at = ((low - 16 - CONTEXT - SIGNAL) & !15) - 8;
        let mut frame = Frame {
            at,
            bytes: vec![0; (saved + area.len() as u64 - at) as usize],
            texts: places,
        };
        frame.put(at, &returns[0].to_le_bytes());
        frame.put(at + 8, &returns[1].to_le_bytes());
        frame.put(at + 16, &context(&resumed(registers), mask, saved));
        for (text, place) in texts.iter().zip(frame.texts.clone()) {
            frame.put(place, text.as_bytes());
        }
        frame.put(saved, &area);
        frame
    }

    fn put(&mut self, at: u64, bytes: &[u8]) {
        let begin = (at - self.at) as usize;
        if let Some(place) = self.bytes.get_mut(begin..begin + bytes.len()) {
            place.copy_from_slice(bytes);
        }
    }
}

/// The registers as the kernel's own restoring wants them: it makes no call anew that was broken off.
fn resumed(registers: &user_regs_struct) -> user_regs_struct {
    match is_broken_off(registers) {
        true => user_regs_struct {
            rip: registers.rip - 2,
            rax: registers.orig_rax,
            ..*registers
        },
        false => *registers,
    }
}

/// The kernel's `struct ucontext`.
fn context(registers: &user_regs_struct, mask: u64, saved: u64) -> Vec<u8> {
    // The area of XSAVE is there, and the stack segment's register counts.
    const FLAGS: u64 = 0b111;
    // An alternate stack of a mode that there is not: the thread keeps its own.
    const NO_MODE: u64 = 0x10;
    let r = registers;
    let segments =
        (r.cs & 0xffff) | (r.gs & 0xffff) << 16 | (r.fs & 0xffff) << 32 | (r.ss & 0xffff) << 48;
    let mut words = vec![FLAGS, 0, 0, NO_MODE, 0];
    words.extend([r.r8, r.r9, r.r10, r.r11, r.r12, r.r13, r.r14, r.r15]);
    words.extend([
        r.rdi, r.rsi, r.rbp, r.rbx, r.rdx, r.rax, r.rcx, r.rsp, r.rip,
    ]);
    words.extend([r.eflags, segments, 0, 0, mask, 0, saved]);
    words.extend([0; 8]);
    words.push(mask);
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// The area of XSAVE as it lies in a frame: with its size, and a mark at its end.
fn area_of_signal(extended: &[u8]) -> Vec<u8> {
    let word = |at: usize| {
        let bytes = extended
            .get(at..at + 8)
            .and_then(|bytes| bytes.try_into().ok());
        bytes.map_or(0, u64::from_le_bytes)
    };
    let (mut known, used) = (word(SOFTWARE), word(512));
    let mut area = extended.to_vec();
    if area.len() > WITHOUT_AMX && used & AMX == 0 && known & AMX != 0 {
        area.truncate(WITHOUT_AMX);
        known &= !AMX;
    }
    let size = area.len() as u32;
    area.extend(MAGIC2.to_le_bytes());
    let mut software = Vec::new();
    software.extend(MAGIC1.to_le_bytes());
    software.extend((size + 4).to_le_bytes());
    software.extend(known.to_le_bytes());
    software.extend(size.to_le_bytes());
    if let Some(place) = area.get_mut(SOFTWARE..SOFTWARE + software.len()) {
        place.copy_from_slice(&software);
    }
    area
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_lies_below_the_stack_and_is_aligned() {
        // SAFETY: a plain C struct that is valid when zero.
        let mut registers: user_regs_struct = unsafe { std::mem::zeroed() };
        registers.rsp = 0x7fff_0000_1234;
        let extended = vec![7; 2696];
        let frame = Frame::new(&registers, &extended, 5, [1, 2], &["one", "two"]);
        assert_eq!(frame.at % 16, 8);
        let end = frame.at + frame.bytes.len() as u64;
        assert!(end <= registers.rsp - RED_ZONE);
        let at = |place: u64, length: usize| {
            let begin = (place - frame.at) as usize;
            &frame.bytes[begin..begin + length]
        };
        assert_eq!(at(frame.texts[0], 4), b"one\0");
        assert_eq!(at(frame.texts[1], 4), b"two\0");
        let word = |place: u64| u64::from_le_bytes(at(place, 8).try_into().expect("8 bytes"));
        assert_eq!((word(frame.at), word(frame.at + 8)), (1, 2));
        // The stack pointer is register 15 after the first five words; the pointer to the area comes at its place.
        assert_eq!(word(frame.at + 16 + 40 + 15 * 8), registers.rsp);
        let saved = word(frame.at + 16 + 40 + 23 * 8);
        assert_eq!(saved % 64, 0);
        assert_eq!(word(frame.at + 16 + 296), 5);
        assert_eq!(at(saved + 2696, 4), MAGIC2.to_le_bytes());
    }

    #[test]
    fn a_call_that_was_broken_off_is_made_anew() {
        // SAFETY: as above.
        let mut registers: user_regs_struct = unsafe { std::mem::zeroed() };
        (registers.rip, registers.orig_rax, registers.rax) = (100, 7, -512_i64 as u64);
        assert_eq!((resumed(&registers).rip, resumed(&registers).rax), (98, 7));
        registers.rax = 3;
        assert_eq!((resumed(&registers).rip, resumed(&registers).rax), (100, 3));
    }
}
