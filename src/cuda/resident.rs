//! What a patch has in device memory: its tensor value, its index lists, its switch and number. It is uploaded when it is first
//! used, or earlier, but never during a capture. It is freed with the patch, unless a captured graph may still read it.

use std::any::Any;
use std::mem::offset_of;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use graphpatch_locks::Mutex;

use super::device::{Cuda, DeviceError, Entered};
use super::picks::Lists;
use super::promote;
use super::work::{Live, LiveState, Op};
use graphpatch_core::patch::action::{Action, Operand};
use graphpatch_core::patch::{Number, Patch, PatchMemory};
use graphpatch_core::tensor::{Dtype, HostTensor};

/// Device memory of ours.
#[derive(Debug)]
pub struct Buffer {
    cuda: Arc<Cuda>,
    device: u32,
    pub address: u64,
    /// Whether a captured graph has the address. Such a buffer is kept until the process ends.
    captured: AtomicBool,
    readers: Arc<Readers>,
}

/// The launches that read a patch's memory. Before the memory is freed, the device waits for each stream's last launch.
#[derive(Debug, Default)]
struct Readers(Mutex<Vec<Reader>>);

/// A stream, and the mark after its last launch. Without a mark it is not known when that launch is done.
#[derive(Debug)]
struct Reader {
    cuda: Arc<Cuda>,
    device: u32,
    stream: usize,
    mark: Option<usize>,
}

impl Drop for Reader {
    fn drop(&mut self) {
        if let Some(mark) = self.mark {
            self.cuda.driver().drop_event(mark);
        }
    }
}

impl Buffer {
    fn new(
        cuda: &Arc<Cuda>,
        device: u32,
        bytes: &[u8],
        readers: &Arc<Readers>,
    ) -> Result<Buffer, DeviceError> {
        let fail = |fault: super::driver::Fault| DeviceError::Failed(fault.to_string());
        let entered = cuda.enter(cuda.device(device, None)?).map_err(fail)?;
        let address = cuda
            .relaxed(|| entered.alloc(bytes.len().max(1)))
            .map_err(fail)?;
        let buffer = Buffer {
            cuda: cuda.clone(),
            device,
            address,
            captured: AtomicBool::new(false),
            readers: readers.clone(),
        };
        cuda.relaxed(|| entered.upload(address, bytes))
            .map_err(fail)?;
        Ok(buffer)
    }

    fn write(&self, at: usize, bytes: &[u8]) -> Result<(), DeviceError> {
        let fail = |fault: super::driver::Fault| DeviceError::Failed(fault.to_string());
        let entered = self
            .cuda
            .enter(self.cuda.device(self.device, None)?)
            .map_err(fail)?;
        self.cuda
            .relaxed(|| entered.upload(self.address + at as u64, bytes))
            .map_err(fail)
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.captured.load(Ordering::Relaxed) {
            return;
        }
        // An error cannot be returned from here. When the process ends, the context may be gone already.
        if let Ok(device) = self.cuda.device(self.device, None)
            && let Ok(entered) = self.cuda.enter(device)
        {
            let readers = self.readers.0.lock();
            let mut here = readers.iter().filter(|reader| reader.device == self.device);
            // If the end of a launch cannot be known, the memory is leaked.
            if device.facts.pools && here.clone().any(|reader| reader.mark.is_none()) {
                return;
            }
            let marks = here.by_ref().filter_map(|reader| reader.mark);
            let _ = self.cuda.relaxed(|| entered.free(self.address, marks));
        }
    }
}

/// A patch's switch and number on one device, with the number in the form of one dtype.
#[derive(Debug)]
struct Slot {
    device: u32,
    op: Op,
    dtype: Dtype,
    content: Live,
    buffer: Buffer,
}

impl Slot {
    /// Replaces the state. A kernel that runs meanwhile reads either the old state or the new one.
    fn change(&mut self, state: LiveState) -> Result<(), DeviceError> {
        let version = self.content.version.wrapping_add(1);
        let other = version as usize % 2;
        let at = offset_of!(Live, states) + other * size_of::<LiveState>();
        self.buffer.write(at, &state.bytes())?;
        self.content.states[other] = state;
        let at = offset_of!(Live, version);
        self.buffer.write(at, &version.to_ne_bytes())?;
        self.content.version = version;
        Ok(())
    }

    fn state(&self) -> LiveState {
        self.content.states[self.content.version as usize % 2]
    }
}

#[derive(Debug, Default)]
struct Inner {
    values: Vec<(u32, Buffer)>,
    lists: Option<Option<Arc<Lists>>>,
    on_device: Vec<(u32, Buffer)>,
    slots: Vec<Slot>,
}

/// The device memory of one patch, made when the patch first meets a device.
#[derive(Debug, Default)]
pub struct Resident {
    inner: Mutex<Inner>,
    readers: Arc<Readers>,
}

impl PatchMemory for Resident {}

/// The device on which the memory is used, and whether a capture goes on there.
#[derive(Clone, Copy, Debug)]
pub struct Use {
    pub device: u32,
    pub capturing: bool,
}

impl Use {
    fn may_upload(self, what: &str) -> Result<(), DeviceError> {
        if self.capturing {
            return Err(DeviceError::Failed(format!(
                "{what} is not on CUDA device {} yet, and nothing can be copied there during a capture: call \
                 gp_cuda_prepare, or run once, before it",
                self.device
            )));
        }
        Ok(())
    }
}

/// The device memory of a patch.
pub fn of(patch: &Patch) -> Option<&Resident> {
    let made = patch.resident.get_or_init(|| Arc::new(Resident::default()));
    let any: &dyn Any = made.as_ref();
    any.downcast_ref()
}

/// The buffer on a device. If there is none yet, it is made with the content `bytes`.
fn buffer(
    list: &mut Vec<(u32, Buffer)>,
    readers: &Arc<Readers>,
    cuda: &Arc<Cuda>,
    usage: Use,
    what: &str,
    bytes: impl FnOnce() -> Vec<u8>,
) -> Result<u64, DeviceError> {
    if !list.iter().any(|(device, _)| *device == usage.device) {
        usage.may_upload(what)?;
        let made = Buffer::new(cuda, usage.device, &bytes(), readers)?;
        list.push((usage.device, made));
    }
    let found = list.iter().find(|(device, _)| *device == usage.device);
    Ok(found.map_or(0, |(_, buffer)| {
        buffer.captured.fetch_or(usage.capturing, Ordering::Relaxed);
        buffer.address
    }))
}

impl Resident {
    /// Notes that a launch in the stream reads the memory.
    pub(super) fn read_by(&self, cuda: &Arc<Cuda>, entered: &Entered<'_>, stream: usize) {
        let device = entered.device().number;
        let mut readers = self.readers.0.lock();
        let known = readers
            .iter_mut()
            .find(|reader| reader.device == device && reader.stream == stream);
        let before = known.as_ref().and_then(|reader| reader.mark);
        let mark = entered.mark(before, stream).ok().flatten();
        match known {
            Some(known) if mark.is_none() => {
                // The mark of an earlier launch does not say when this one is done.
                if let Some(old) = known.mark.take() {
                    cuda.driver().drop_event(old);
                }
            }
            Some(_) => {}
            None => readers.push(Reader {
                cuda: cuda.clone(),
                device,
                stream,
                mark,
            }),
        }
    }

    /// The address of the patch's tensor value on the device.
    pub fn value(
        &self,
        cuda: &Arc<Cuda>,
        usage: Use,
        tensor: &HostTensor,
    ) -> Result<u64, DeviceError> {
        let list = &mut self.inner.lock().values;
        buffer(list, &self.readers, cuda, usage, "its value", || {
            tensor.bytes().to_vec()
        })
    }

    /// The patch's index lists, and their address on the device; `None` if the index is left to libtorch.
    pub fn lists(
        &self,
        cuda: &Arc<Cuda>,
        usage: Use,
        patch: &Patch,
    ) -> Result<Option<(Arc<Lists>, u64)>, DeviceError> {
        let mut inner = self.inner.lock();
        let made = inner
            .lists
            .get_or_insert_with(|| Lists::new(&patch.patch.picks).map(Arc::new));
        let Some(lists) = made.clone() else {
            return Ok(None);
        };
        let bytes = || bytemuck::cast_slice(&lists.entries).to_vec();
        let list = &mut inner.on_device;
        let address = buffer(list, &self.readers, cuda, usage, "its index", bytes)?;
        Ok(Some((lists, address)))
    }

    /// The address of the patch's switch and number on the device, for values of `dtype`.
    pub fn live(
        &self,
        cuda: &Arc<Cuda>,
        usage: Use,
        on: bool,
        op: Op,
        dtype: Dtype,
        number: [u64; 2],
    ) -> Result<u64, DeviceError> {
        let mut inner = self.inner.lock();
        let is = |slot: &&Slot| slot.device == usage.device && slot.op == op && slot.dtype == dtype;
        if !inner.slots.iter().any(|slot| is(&slot)) {
            usage.may_upload("its switch")?;
            let content = Live::new(LiveState::new(on, number));
            let buffer = Buffer::new(cuda, usage.device, &content.bytes(), &self.readers)?;
            inner.slots.push(Slot {
                device: usage.device,
                op,
                dtype,
                content,
                buffer,
            });
        }
        Ok(inner.slots.iter().find(is).map_or(0, |slot| {
            slot.buffer
                .captured
                .fetch_or(usage.capturing, Ordering::Relaxed);
            slot.buffer.address
        }))
    }

    /// Turns the patch on or off in device memory, for graphs that were captured with it.
    pub fn switch(&self, on: bool) -> Result<(), DeviceError> {
        for slot in &mut self.inner.lock().slots {
            slot.change(LiveState::new(on, slot.state().number))?;
        }
        Ok(())
    }

    /// Replaces the number: for all dtypes in use or, if one of them refuses it, for none.
    pub fn change_number(&self, number: Number) -> Result<(), DeviceError> {
        let mut inner = self.inner.lock();
        let refused = |slot: &Slot| {
            DeviceError::Failed(format!(
                "{number} cannot be converted to {} as the patch needs it",
                slot.dtype.name()
            ))
        };
        let new: Vec<[u64; 2]> = inner
            .slots
            .iter()
            .map(|slot| promote::number(slot.op, slot.dtype, number).ok_or_else(|| refused(slot)))
            .collect::<Result<_, _>>()?;
        for (slot, number) in inner.slots.iter_mut().zip(new) {
            slot.change(LiveState {
                number,
                ..slot.state()
            })?;
        }
        Ok(())
    }

    /// Replaces the tensor by another one of the same shape and dtype.
    pub fn change_tensor(&self, tensor: &HostTensor) -> Result<(), DeviceError> {
        for (_, buffer) in &self.inner.lock().values {
            buffer.write(0, tensor.bytes())?;
        }
        Ok(())
    }

    /// Uploads what can be uploaded before the value's dtype is known.
    pub fn prepare(&self, cuda: &Arc<Cuda>, device: u32, patch: &Patch) -> Result<(), DeviceError> {
        let usage = Use {
            device,
            capturing: false,
        };
        if let Action::Add(Operand::Host(tensor)) | Action::Replace(Operand::Host(tensor)) =
            &patch.patch.action
        {
            self.value(cuda, usage, tensor)?;
        }
        if patch.slice.is_none() {
            self.lists(cuda, usage, patch)?;
        }
        Ok(())
    }
}
