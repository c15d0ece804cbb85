//! [`Driver`] by cudarc, which loads libcuda when it is used first.

use std::cell::Cell;
use std::ffi::{CStr, c_void};

use cudarc::driver::sys;

use super::driver::{Answer, Arguments, Driver, Facts, Fault, Launch};
use super::work::Kernel;

/// Stream-ordered memory came with CUDA 11.2.
const POOLS: i32 = 11020;
/// The value of CU_STREAM_PER_THREAD. The two smaller values name the legacy default stream.
const PER_THREAD_STREAM: usize = 2;

/// The machine's own driver.
pub struct Real;

fn check(result: sys::CUresult) -> Answer<()> {
    if result == sys::CUresult::CUDA_SUCCESS {
        return Ok(());
    }
    let mut text = std::ptr::null();
    // SAFETY: the driver writes a pointer to static text, or leaves NULL.
    let known = unsafe { sys::cuGetErrorString(result, &mut text) };
    let text = if known == sys::CUresult::CUDA_SUCCESS && !text.is_null() {
        // SAFETY: static text of the driver's, NUL-terminated.
        unsafe { CStr::from_ptr(text) }
            .to_string_lossy()
            .into_owned()
    } else {
        "an unknown error".to_owned()
    };
    Err(Fault {
        code: result as u32,
        text,
    })
}

thread_local! {
    /// The capture mode that [`Driver::relax`] replaced.
    static MODE: Cell<Option<sys::CUstreamCaptureMode>> = const { Cell::new(None) };
}

/// Whether the driver has been started in this process. To start it here would make CUDA unusable in children that the process
/// may still fork.
///
/// # Safety
///
/// libcuda is loaded.
pub unsafe fn is_started() -> bool {
    let mut count = 0;
    // SAFETY: a place for the answer; before cuInit the answer is an error.
    check(unsafe { sys::cuDeviceGetCount(&mut count) }).is_ok()
}

impl Real {
    /// The driver, if the machine has one and it starts. Makes no context.
    pub fn open() -> Answer<Real> {
        // SAFETY: looks for the library and loads it; its initialisers are the driver's.
        if !unsafe { sys::is_culib_present() } {
            return Err(Fault {
                code: 0,
                text: "this machine has no NVIDIA driver (libcuda.so.1)".into(),
            });
        }
        // SAFETY: the library is there; cuInit may be called any number of times.
        check(unsafe { sys::cuInit(0) })?;
        Ok(Real)
    }

    fn device(number: u32) -> Answer<sys::CUdevice> {
        let mut device = 0;
        // SAFETY: a place for the answer.
        check(unsafe { sys::cuDeviceGet(&mut device, number as i32) })?;
        Ok(device)
    }

    fn attribute(device: sys::CUdevice, which: sys::CUdevice_attribute) -> Answer<i32> {
        let mut value = 0;
        // SAFETY: a place for the answer.
        check(unsafe { sys::cuDeviceGetAttribute(&mut value, which, device) })?;
        Ok(value)
    }
}

impl Driver for Real {
    fn version(&self) -> Answer<i32> {
        let mut version = 0;
        // SAFETY: a place for the answer.
        check(unsafe { sys::cuDriverGetVersion(&mut version) })?;
        Ok(version)
    }

    fn devices(&self) -> Answer<u32> {
        let mut count = 0;
        // SAFETY: a place for the answer.
        check(unsafe { sys::cuDeviceGetCount(&mut count) })?;
        Ok(u32::try_from(count).unwrap_or(0))
    }

    fn facts(&self, device: u32) -> Answer<Facts> {
        use sys::CUdevice_attribute as Attribute;
        let device = Real::device(device)?;
        let mut name = [0u8; 128];
        // SAFETY: 128 bytes to write into, a NUL-terminated name at the end.
        check(unsafe { sys::cuDeviceGetName(name.as_mut_ptr().cast(), 128, device) })?;
        let name = CStr::from_bytes_until_nul(&name).map_or("?".into(), CStr::to_string_lossy);
        let major = Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR;
        let minor = Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR;
        let processors = Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT;
        // Older drivers have neither this attribute nor the functions for pools.
        let pools = Attribute::CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED;
        Ok(Facts {
            name: name.into_owned(),
            capability: (
                Real::attribute(device, major)?,
                Real::attribute(device, minor)?,
            ),
            processors: Real::attribute(device, processors)?.max(1) as u32,
            pools: self.version()? >= POOLS && Real::attribute(device, pools).is_ok_and(|n| n != 0),
        })
    }

    fn active(&self, device: u32) -> bool {
        let (mut flags, mut active) = (0, 0);
        Real::device(device)
            .and_then(|device| {
                // SAFETY: the call's contract; both places are ours.
                check(unsafe { sys::cuDevicePrimaryCtxGetState(device, &mut flags, &mut active) })
            })
            .is_ok()
            && active != 0
    }

    fn retain(&self, device: u32) -> Answer<usize> {
        let mut context = std::ptr::null_mut();
        // SAFETY: a place for the answer. The context is never released: libtorch uses it as long as the process lives.
        check(unsafe { sys::cuDevicePrimaryCtxRetain(&mut context, Real::device(device)?) })?;
        Ok(context.expose_provenance())
    }

    fn current(&self) -> usize {
        let mut context = std::ptr::null_mut();
        // SAFETY: a place for the answer.
        match check(unsafe { sys::cuCtxGetCurrent(&mut context) }) {
            Ok(()) => context.expose_provenance(),
            Err(_) => 0,
        }
    }

    fn push(&self, context: usize) -> Answer<()> {
        // SAFETY: the context is `retain`'s and was never released.
        check(unsafe { sys::cuCtxPushCurrent_v2(std::ptr::with_exposed_provenance_mut(context)) })
    }

    fn pop(&self) {
        let mut context = std::ptr::null_mut();
        // SAFETY: a place for the answer; only after a push (`Device::enter`).
        let _ = unsafe { sys::cuCtxPopCurrent_v2(&mut context) };
    }

    fn context_of(&self, stream: usize) -> Answer<usize> {
        // The default streams belong to the current context. If there is none yet, they belong to the primary context, which
        // CUDA's runtime makes current with its first work.
        if stream <= PER_THREAD_STREAM {
            return Ok(self.current());
        }
        let mut context = std::ptr::null_mut();
        // SAFETY: libtorch's current stream, which lives at least as long as the call; a place for the answer.
        check(unsafe {
            sys::cuStreamGetCtx(std::ptr::with_exposed_provenance_mut(stream), &mut context)
        })?;
        Ok(context.expose_provenance())
    }

    fn load(&self, image: &CStr) -> Answer<[usize; Kernel::ALL.len()]> {
        let mut module = std::ptr::null_mut();
        // SAFETY: a place for the answer; PTX text that ends with a NUL.
        check(unsafe { sys::cuModuleLoadData(&mut module, image.as_ptr().cast()) })?;
        let mut functions = [0; Kernel::ALL.len()];
        for (place, kernel) in functions.iter_mut().zip(Kernel::ALL) {
            let mut function = std::ptr::null_mut();
            // SAFETY: a place for the answer, the module from above, and a C string.
            check(unsafe {
                sys::cuModuleGetFunction(&mut function, module, kernel.name().as_ptr())
            })?;
            *place = function.expose_provenance();
        }
        Ok(functions)
    }

    fn stream(&self) -> Answer<usize> {
        let mut stream = std::ptr::null_mut();
        let flags = sys::CUstream_flags::CU_STREAM_NON_BLOCKING as u32;
        // SAFETY: a place for the answer.
        check(unsafe { sys::cuStreamCreate(&mut stream, flags) })?;
        Ok(stream.expose_provenance())
    }

    fn is_capturing(&self, stream: usize) -> Answer<bool> {
        // The legacy default stream cannot be captured, and the query would need its context.
        if stream == 0 {
            return Ok(false);
        }
        let mut status = sys::CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_NONE;
        // SAFETY: libtorch's current stream, which lives at least as long as the call; a place for the answer.
        check(unsafe {
            sys::cuStreamIsCapturing(std::ptr::with_exposed_provenance_mut(stream), &mut status)
        })?;
        Ok(status != sys::CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_NONE)
    }

    fn relax(&self, on: bool) {
        let wanted = if on {
            Some(sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED)
        } else {
            MODE.take()
        };
        if let Some(mut mode) = wanted {
            // SAFETY: exchanges this thread's mode with `mode`.
            let answer = unsafe { sys::cuThreadExchangeStreamCaptureMode(&mut mode) };
            MODE.set((on && check(answer).is_ok()).then_some(mode));
        }
    }

    fn alloc(&self, bytes: usize, stream: Option<usize>) -> Answer<u64> {
        let mut address = 0;
        match stream {
            // SAFETY: a place for the answer; a stream of ours, of a device with memory pools.
            Some(stream) => check(unsafe {
                let stream = std::ptr::with_exposed_provenance_mut(stream);
                sys::cuMemAllocAsync(&mut address, bytes, stream)
            })?,
            // SAFETY: a place for the answer.
            None => check(unsafe { sys::cuMemAlloc_v2(&mut address, bytes) })?,
        }
        Ok(address)
    }

    fn free(&self, address: u64, stream: Option<usize>) {
        let _ = match stream {
            // SAFETY: the address is `alloc`'s and given back once (`Buffer`'s Drop); the stream waits for those who use it.
            Some(stream) => unsafe {
                sys::cuMemFreeAsync(address, std::ptr::with_exposed_provenance_mut(stream))
            },
            // SAFETY: as above. The driver waits for all work under way.
            None => unsafe { sys::cuMemFree_v2(address) },
        };
    }

    fn upload(&self, address: u64, bytes: &[u8], stream: usize) -> Answer<()> {
        let stream = std::ptr::with_exposed_provenance_mut(stream);
        // SAFETY: the buffer has room for the bytes (`Buffer`), which stay borrowed until the copy is done.
        check(unsafe {
            sys::cuMemcpyHtoDAsync_v2(address, bytes.as_ptr().cast(), bytes.len(), stream)
        })?;
        // SAFETY: a stream of ours.
        check(unsafe { sys::cuStreamSynchronize(stream) })
    }

    fn event(&self) -> Answer<usize> {
        let mut event = std::ptr::null_mut();
        let flags = sys::CUevent_flags::CU_EVENT_DISABLE_TIMING as u32;
        // SAFETY: a place for the answer.
        check(unsafe { sys::cuEventCreate(&mut event, flags) })?;
        Ok(event.expose_provenance())
    }

    fn record(&self, event: usize, stream: usize) -> Answer<()> {
        // SAFETY: an event of ours, and libtorch's current stream.
        check(unsafe {
            sys::cuEventRecord(
                std::ptr::with_exposed_provenance_mut(event),
                std::ptr::with_exposed_provenance_mut(stream),
            )
        })
    }

    fn wait(&self, stream: usize, event: usize) -> Answer<()> {
        // SAFETY: a stream and an event of ours.
        check(unsafe {
            sys::cuStreamWaitEvent(
                std::ptr::with_exposed_provenance_mut(stream),
                std::ptr::with_exposed_provenance_mut(event),
                0,
            )
        })
    }

    fn drop_event(&self, event: usize) {
        // SAFETY: an event of ours, given back once. The driver keeps it until those who wait for it have gone on.
        let _ = unsafe { sys::cuEventDestroy_v2(std::ptr::with_exposed_provenance_mut(event)) };
    }

    fn launch(&self, function: usize, launch: &Launch<'_>) -> Answer<()> {
        fn at<T>(argument: &T) -> *mut c_void {
            std::ptr::from_ref(argument).cast_mut().cast()
        }
        let mut arguments = match launch.arguments {
            Arguments::Work(work) => [at(work), std::ptr::null_mut()],
            Arguments::Any(work, picks) => [at(work), at(picks)],
            Arguments::Batch(batch) => [at(batch), std::ptr::null_mut()],
        };
        // SAFETY: an entry of our module with the arguments that `work.rs` pins to its parameters; they are copied
        // before the call returns. The memory that they name is the caller's business: libtorch's value, written on
        // its own stream, and buffers that live as long as the patch.
        check(unsafe {
            sys::cuLaunchKernel(
                std::ptr::with_exposed_provenance_mut(function),
                launch.grid,
                1,
                1,
                launch.block,
                1,
                1,
                0,
                std::ptr::with_exposed_provenance_mut(launch.stream),
                arguments.as_mut_ptr(),
                std::ptr::null_mut(),
            )
        })
    }
}
