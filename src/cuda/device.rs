//! The devices of the process: what each can do, the module on it (loaded once, under a lock), and launches.

use std::ffi::CString;
use std::sync::Arc;

use once_cell::sync::OnceCell;

use super::driver::{Answer, Arguments, Driver, Facts, Launch};
use super::work::{Batch, Kernel, Path, Picks, THREADS, UNROLL, WORKS, Work};

/// The kernels, made by `.ci/kernels`, packed by `build.rs`.
const PACKED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/ptx.deflate"));

/// The kernels as PTX.
///
/// # Errors
///
/// This library's file is damaged.
pub fn image() -> Result<CString, String> {
    let text = miniz_oxide::inflate::decompress_to_vec(PACKED).map_err(|why| why.to_string())?;
    CString::new(text).map_err(|why| why.to_string())
}

/// The PTX says ISA 7.0.
pub const OLDEST_DRIVER: i32 = 11000;
/// The PTX says sm_75.
pub const OLDEST_CARD: (i32, i32) = (7, 5);

/// Why there is no device although there is a driver.
pub(super) const NO_DEVICE: &str = "the driver shows no device: no card, an empty CUDA_VISIBLE_DEVICES, or a MIG card without an instance";

/// Why a device cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceError {
    /// The device can never be used, so libtorch does the work. The text is for people.
    Unusable(String),
    /// The device cannot be used now: something has to be done first, or the driver answered an error.
    Failed(String),
}

/// A device with our module on it.
#[derive(Debug)]
pub struct Device {
    pub number: u32,
    pub facts: Facts,
    context: usize,
    functions: [usize; Kernel::ALL.len()],
    /// The stream of our own copies.
    stream: usize,
}

/// The CUDA of this process.
pub struct Cuda {
    driver: Box<dyn Driver>,
    devices: Vec<OnceCell<Result<Device, String>>>,
}

impl std::fmt::Debug for Cuda {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cuda")
            .field("devices", &self.devices)
            .finish_non_exhaustive()
    }
}

/// A device whose context is current on this thread.
pub struct Entered<'a> {
    driver: &'a dyn Driver,
    device: &'a Device,
    pushed: bool,
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        if self.pushed {
            self.driver.pop();
        }
    }
}

impl Cuda {
    /// Looks up the driver's version and the devices. Makes no context.
    ///
    /// # Errors
    ///
    /// A text for people, if there is no driver, an old one, or no card.
    pub fn new(driver: Box<dyn Driver>) -> Result<Arc<Cuda>, String> {
        let version = driver.version().map_err(|fault| fault.to_string())?;
        if version < OLDEST_DRIVER {
            return Err(format!(
                "the NVIDIA driver is for CUDA {}.{}: 11.0 (R450) or newer is needed",
                version / 1000,
                version % 1000 / 10
            ));
        }
        let count = driver.devices().map_err(|fault| fault.to_string())?;
        if count == 0 {
            return Err(NO_DEVICE.to_owned());
        }
        let devices = (0..count).map(|_| OnceCell::new()).collect();
        Ok(Arc::new(Cuda { driver, devices }))
    }

    pub fn driver(&self) -> &dyn Driver {
        &*self.driver
    }

    /// How many devices this process sees.
    pub fn count(&self) -> u32 {
        self.devices.len() as u32
    }

    /// The device with its module. If the module is not loaded yet, it is loaded, unless `stream` is being captured.
    ///
    /// # Errors
    ///
    /// See [`DeviceError`].
    pub fn device(&self, number: u32, stream: Option<usize>) -> Result<&Device, DeviceError> {
        let slot = self.devices.get(number as usize).ok_or_else(|| {
            DeviceError::Unusable(format!("this process sees no CUDA device {number}"))
        })?;
        if slot.get().is_none() {
            if let Some(stream) = stream
                && self
                    .driver
                    .is_capturing(stream)
                    .map_err(|fault| DeviceError::Failed(fault.to_string()))?
            {
                return Err(DeviceError::Failed(format!(
                    "the kernels are not loaded on CUDA device {number} yet, which cannot be done during a capture: call \
                     gp_cuda_prepare, or run once, before it"
                )));
            }
            slot.get_or_init(|| self.open(number));
        }
        match slot.get() {
            Some(Ok(device)) => Ok(device),
            Some(Err(why)) => Err(DeviceError::Unusable(why.clone())),
            None => Err(DeviceError::Failed("the device is being opened".into())),
        }
    }

    /// What is known of a device without opening it: its facts, and whether our kernels can run there.
    ///
    /// # Errors
    ///
    /// Text for people.
    pub fn check(&self, number: u32) -> Result<Facts, String> {
        let facts = self
            .driver
            .facts(number)
            .map_err(|fault| fault.to_string())?;
        let (major, minor) = facts.capability;
        if facts.capability < OLDEST_CARD {
            return Err(format!(
                "{} is of compute capability {major}.{minor}: the kernels need 7.5 or newer",
                facts.name
            ));
        }
        Ok(facts)
    }

    fn open(&self, number: u32) -> Result<Device, String> {
        let facts = self.check(number)?;
        let name = facts.name.clone();
        let explain = |fault: super::driver::Fault| match fault.code {
            // CUDA_ERROR_UNSUPPORTED_PTX_VERSION, CUDA_ERROR_NO_BINARY_FOR_GPU, CUDA_ERROR_JIT_COMPILER_NOT_FOUND
            222 | 209 => format!("{name}: the driver does not take the kernels: {fault}"),
            221 => format!(
                "{name}: the driver's PTX compiler (libnvidia-ptxjitcompiler.so.1) is missing"
            ),
            _ => format!("{name}: {fault}"),
        };
        let context = self.driver.retain(number).map_err(explain)?;
        let mut device = Device {
            number,
            facts,
            context,
            functions: [0; Kernel::ALL.len()],
            stream: 0,
        };
        let image = image()?;
        let (functions, stream) = {
            let _entered = self.enter(&device).map_err(explain)?;
            self.relaxed(|| Ok((self.driver.load(&image)?, self.driver.stream()?)))
                .map_err(explain)?
        };
        device.functions = functions;
        device.stream = stream;
        Ok(device)
    }

    /// Whether work for the stream runs in the device's primary context, where our kernels are. Work for libtorch's own streams
    /// does. Work for streams of a green context, or of a context made with the driver's API, does not.
    ///
    /// # Errors
    ///
    /// What the driver says.
    pub fn reaches(&self, device: &Device, stream: usize) -> Answer<bool> {
        let context = self.driver.context_of(stream)?;
        Ok(context == device.context || context == 0)
    }

    /// Makes the device's context current until the answer is dropped.
    pub fn enter<'a>(&'a self, device: &'a Device) -> Answer<Entered<'a>> {
        let pushed = self.driver.current() != device.context;
        if pushed {
            self.driver.push(device.context)?;
        }
        Ok(Entered {
            driver: &*self.driver,
            device,
            pushed,
        })
    }

    /// Runs `body` without the limits that other threads' captures would put on it.
    pub fn relaxed<T>(&self, body: impl FnOnce() -> Answer<T>) -> Answer<T> {
        self.driver.relax(true);
        let answer = body();
        self.driver.relax(false);
        answer
    }

    /// Devices that libtorch already uses.
    pub fn active(&self) -> impl Iterator<Item = u32> {
        (0..self.count()).filter(|number| self.driver.active(*number))
    }
}

/// The number of blocks of a grid, and of threads in a block, for a launch of one work.
pub fn grid(work: &Work, processors: u32) -> (u32, u32) {
    let dense = work.path == Path::Dense as u8;
    let threads = work.units.clamp(1, THREADS.into()).next_multiple_of(32) as u32;
    let each = u64::from(threads) * if dense { UNROLL } else { 1 };
    // A few waves of blocks are enough, since a thread goes on with further units until there are none.
    let most = u64::from(processors) * if dense { 16 } else { 32 };
    (work.units.div_ceil(each).clamp(1, most) as u32, threads)
}

impl Entered<'_> {
    pub fn device(&self) -> &Device {
        self.device
    }

    pub fn upload(&self, address: u64, bytes: &[u8]) -> Answer<()> {
        self.driver.upload(address, bytes, self.device.stream)
    }

    /// The stream in whose order memory is allocated and freed, if the device can do that.
    fn pool(&self) -> Option<usize> {
        self.device.facts.pools.then_some(self.device.stream)
    }

    /// Memory that [`Entered::upload`] may write, and that work may use which begins after the upload.
    pub fn alloc(&self, bytes: usize) -> Answer<u64> {
        self.driver.alloc(bytes, self.pool())
    }

    /// Frees memory once the marks are reached. On a device with pools the host does not wait.
    pub fn free(&self, address: u64, marks: impl Iterator<Item = usize>) -> Answer<()> {
        if let Some(stream) = self.pool() {
            for mark in marks {
                self.driver.wait(stream, mark)?;
            }
        }
        self.driver.free(address, self.pool());
        Ok(())
    }

    /// Sets a mark after the work that the stream has now. `None` on a device where freeing memory waits for all work anyway.
    pub fn mark(&self, mark: Option<usize>, stream: usize) -> Answer<Option<usize>> {
        if self.pool().is_none() {
            return Ok(None);
        }
        let mark = mark.map_or_else(|| self.driver.event(), Ok)?;
        self.driver.record(mark, stream)?;
        Ok(Some(mark))
    }

    /// Launches one work.
    pub fn one(&self, kernel: Kernel, work: &Work, picks: &Picks, stream: usize) -> Answer<()> {
        let (grid, block) = grid(work, self.device.facts.processors);
        let arguments = match kernel {
            Kernel::Any => Arguments::Any(work, picks),
            _ => Arguments::Work(work),
        };
        self.launch(&Launch {
            kernel,
            grid,
            block,
            stream,
            arguments,
        })
    }

    /// Launches at most `WORKS` works at once, which must not touch each other's memory.
    pub fn several(&self, works: &[Work], stream: usize) -> Answer<()> {
        let Some(first) = works.first() else {
            return Ok(());
        };
        let mut batch = Batch {
            count: works.len().min(WORKS) as u32,
            end: [0; WORKS + 1],
            works: [*first; WORKS],
        };
        let mut end = 0;
        for (at, work) in works.iter().take(WORKS).enumerate() {
            let units = work.units.div_ceil(THREADS.into());
            end += units.clamp(1, u64::from(self.device.facts.processors) * 16) as u32;
            batch.works[at] = *work;
            batch.end[at] = end;
        }
        self.launch(&Launch {
            kernel: Kernel::Batch,
            grid: end,
            block: THREADS,
            stream,
            arguments: Arguments::Batch(&batch),
        })
    }

    fn launch(&self, launch: &Launch<'_>) -> Answer<()> {
        self.driver
            .launch(self.device.functions[launch.kernel.index()], launch)
    }
}
