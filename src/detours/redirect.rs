//! Writes a jump over the first instructions of a function. The instructions are moved to memory nearby, where a jump leads on to
//! the rest of the function.

use std::sync::atomic::{AtomicUsize, Ordering};

use iced_x86::{
    BlockEncoder, BlockEncoderOptions, Code, Decoder, DecoderOptions, Instruction,
    InstructionBlock, Mnemonic, OpKind,
};

/// How long the jump is that is written over the function's beginning: its code and a distance of 32 bits.
const JUMP: usize = 5;
/// `jmp [rip + 0]`, and the address behind it.
const FAR_JUMP: usize = 14;
/// How much memory a function gets: the jump to us, its first instructions in a form that may be longer, and the jump back.
const ROOM: usize = 128;

/// Why a function was left as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("the function is shorter than a jump")]
    Short,
    #[error("its first instructions cannot be moved")]
    Fixed,
    #[error("the system gives no memory near it, or does not let code be changed")]
    Memory,
}

/// Has calls of the function at `address` go to `to`. Returns where the function itself can be called from now on.
///
/// # Errors
///
/// [`Refusal`]; the function is then as it was.
///
/// # Safety
///
/// `address` and `size` are those of a function of this process, which no thread runs or calls meanwhile. What is at `to` takes the
/// same arguments.
pub unsafe fn redirect(address: usize, size: usize, to: usize) -> Result<usize, Refusal> {
    if size < JUMP {
        return Err(Refusal::Short);
    }
    // SAFETY: the function's code, which is mapped and readable, by the contract.
    let code = unsafe { std::slice::from_raw_parts(address as *const u8, size) };
    let first = first_instructions(code, address)?;
    let room = room_near(address).ok_or(Refusal::Memory)?;
    let moved = room + FAR_JUMP;
    let mut bytes = far_jump(to).to_vec();
    bytes.extend(move_to(&first, moved)?);
    let length: usize = first.iter().map(Instruction::len).sum();
    bytes.extend(far_jump(address + length));
    if bytes.len() > ROOM {
        return Err(Refusal::Fixed);
    }
    let mut jump = vec![0xe9];
    let distance = room.wrapping_sub(address + JUMP) as isize;
    jump.extend(
        i32::try_from(distance)
            .map_err(|_| Refusal::Memory)?
            .to_le_bytes(),
    );
    // SAFETY: memory of ours, and the function's own code, which nobody runs meanwhile.
    unsafe { write_code(room, &bytes)? };
    // SAFETY: as above.
    unsafe { write_code(address, &jump)? };
    Ok(moved)
}

/// The instructions that the jump will be written over, if they can stand elsewhere and nothing in the function jumps between them.
fn first_instructions(code: &[u8], address: usize) -> Result<Vec<Instruction>, Refusal> {
    let mut decoder = Decoder::with_ip(64, code, address as u64, DecoderOptions::NONE);
    let mut first = Vec::new();
    let mut length = 0;
    while length < JUMP {
        if !decoder.can_decode() {
            return Err(Refusal::Short);
        }
        let one = decoder.decode();
        // A call would leave an address of ours on the stack, which nothing could unwind.
        if one.code() == Code::INVALID || !goes_on(&one) {
            return Err(Refusal::Fixed);
        }
        length += one.len();
        first.push(one);
    }
    let between = address as u64 + 1..(address + length) as u64;
    for one in decoder {
        if one.code() == Code::INVALID {
            return Err(Refusal::Fixed);
        }
        if between.contains(&one.near_branch_target()) {
            return Err(Refusal::Fixed);
        }
    }
    Ok(first)
}

/// Whether the instruction that follows in memory is always the next one.
fn goes_on(one: &Instruction) -> bool {
    let is_branch = one.op0_kind() == OpKind::NearBranch64;
    let leaves = matches!(
        one.mnemonic(),
        Mnemonic::Call
            | Mnemonic::Jmp
            | Mnemonic::Ret
            | Mnemonic::Syscall
            | Mnemonic::Int
            | Mnemonic::Int3
            | Mnemonic::Hlt
            | Mnemonic::Ud2
    );
    !is_branch && !leaves
}

fn move_to(first: &[Instruction], to: usize) -> Result<Vec<u8>, Refusal> {
    let block = InstructionBlock::new(first, to as u64);
    let encoded = BlockEncoder::encode(64, block, BlockEncoderOptions::NONE);
    encoded
        .map(|done| done.code_buffer)
        .map_err(|_| Refusal::Fixed)
}

fn far_jump(to: usize) -> [u8; FAR_JUMP] {
    let mut bytes = [0; FAR_JUMP];
    bytes[..2].copy_from_slice(&[0xff, 0x25]);
    bytes[6..].copy_from_slice(&to.to_le_bytes());
    bytes
}

/// The size of a page of memory.
pub(crate) fn page() -> usize {
    // SAFETY: a question about the system.
    usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096)
}

/// The memory that the last function has got, and where it ends.
static NEXT: AtomicUsize = AtomicUsize::new(0);
static END: AtomicUsize = AtomicUsize::new(0);

/// Memory that a jump of 32 bits reaches from the address, and reaches everything that is near the address. It is never freed.
fn room_near(address: usize) -> Option<usize> {
    const REACH: usize = 1 << 30;
    let next = NEXT.load(Ordering::Relaxed);
    if next + ROOM > END.load(Ordering::Relaxed) || next.abs_diff(address) > REACH {
        let size = 16 * page();
        let begin = free_near(address, size, REACH)?;
        END.store(begin + size, Ordering::Relaxed);
        NEXT.store(begin + ROOM, Ordering::Relaxed);
        return Some(begin);
    }
    NEXT.store(next + ROOM, Ordering::Relaxed);
    Some(next)
}

fn free_near(address: usize, size: usize, reach: usize) -> Option<usize> {
    const STEP: usize = 1 << 20;
    let base = address & !(page() - 1);
    (1..reach / STEP).find_map(|steps| {
        let at = base.checked_sub(steps * STEP)?;
        // SAFETY: new memory; nothing is mapped over what is there.
        let got = unsafe {
            libc::mmap(
                at as *mut libc::c_void,
                size,
                libc::PROT_READ | libc::PROT_EXEC,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE,
                -1,
                0,
            )
        };
        match got {
            libc::MAP_FAILED => None,
            got if got as usize == at => Some(at),
            // A kernel that does not know the flag takes the address as a wish.
            other => {
                // SAFETY: what was just mapped.
                unsafe { libc::munmap(other, size) };
                None
            }
        }
    })
}

/// # Safety
///
/// The bytes at `address` are code that no thread runs meanwhile.
unsafe fn write_code(address: usize, bytes: &[u8]) -> Result<(), Refusal> {
    let begin = address & !(page() - 1);
    let size = address + bytes.len() - begin;
    let protect = |access| {
        // SAFETY: pages that are mapped; they stay readable.
        unsafe { libc::mprotect(begin as *mut libc::c_void, size, access) == 0 }
    };
    // At no moment may the code not be executable: a system may refuse to make it so again.
    if !protect(libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC) {
        return Err(Refusal::Memory);
    }
    // SAFETY: writable now; the bytes lie elsewhere.
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), address as *mut u8, bytes.len()) };
    protect(libc::PROT_READ | libc::PROT_EXEC);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// endbr64; push rbp; mov rbp, rsp; lea rax, [rdi + rdi]; add rax, [rsi]; pop rbp; ret
    const DOUBLED: [u8; 17] = [
        0xf3, 0x0f, 0x1e, 0xfa, 0x55, 0x48, 0x89, 0xe5, 0x48, 0x8d, 0x04, 0x3f, 0x48, 0x03, 0x06,
        0x5d, 0xc3,
    ];

    type Function = extern "C" fn(u64, &u64) -> u64;

    static ORIGINAL: AtomicUsize = AtomicUsize::new(0);

    extern "C" fn ours(value: u64, other: &u64) -> u64 {
        let original = ORIGINAL.load(Ordering::Relaxed);
        // SAFETY: what `redirect` gave for that code.
        let original: Function = unsafe { std::mem::transmute(original) };
        original(value, other) + 1000
    }

    /// The code stands in pages of its own, since this test's are not executable while they are written to.
    #[test]
    fn calls_come_to_us_and_the_function_still_works() {
        let near = ours as *const () as usize;
        let address = free_near(near, page(), 1 << 30).expect("memory");
        // SAFETY: new memory, which is large enough.
        unsafe { write_code(address, &DOUBLED) }.expect("written");
        // SAFETY: a function of these arguments.
        let called: Function = unsafe { std::mem::transmute(address) };
        assert_eq!(called(4, &1), 9);
        // SAFETY: nobody else calls it.
        let original = unsafe { redirect(address, DOUBLED.len(), near) };
        ORIGINAL.store(original.expect("redirected"), Ordering::Relaxed);
        assert_eq!(called(4, &1), 1009);
        assert_eq!(called(7, &0), 1014);
    }

    #[test]
    fn what_cannot_be_moved_is_refused() {
        let first = |code: &[u8]| first_instructions(code, 0x1000).map(|found| found.len());
        assert_eq!(first(&[0x90; 8]), Ok(5));
        assert_eq!(first(&[0x90; 4]), Err(Refusal::Short));
        // push rbp; call +0
        assert_eq!(first(&[0x55, 0xe8, 0, 0, 0, 0, 0xc3]), Err(Refusal::Fixed));
        // nop x 5; jmp to the third of them
        assert_eq!(
            first(&[0x90, 0x90, 0x90, 0x90, 0x90, 0xeb, 0xfb]),
            Err(Refusal::Fixed)
        );
        // nop x 5; jmp to the first of them, which may stand at the end of a function that calls itself
        assert_eq!(first(&[0x90, 0x90, 0x90, 0x90, 0x90, 0xeb, 0xf9]), Ok(5));
    }

    #[test]
    fn addresses_that_count_from_the_instruction_stay_what_they_are() {
        // lea rax, [rip + 0x10]
        let code = [0x48, 0x8d, 0x05, 0x10, 0, 0, 0];
        let first = first_instructions(&code, 0x10_0000).expect("movable");
        let moved = move_to(&first, 0x20_0000).expect("moved");
        let mut decoder = Decoder::with_ip(64, &moved, 0x20_0000, DecoderOptions::NONE);
        assert_eq!(decoder.decode().ip_rel_memory_address(), 0x10_0017);
    }
}
