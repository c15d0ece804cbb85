//! Members of libtorch's that stand before its own in a preloaded process, for flat runs alone: what loads, saves
//! and moves weights is the host's own work, and a call on a whole `torch::nn::Module` tells which tensors are its parameters.
//!
//! Each hook passes the integer argument registers on as they came: all arguments are pointers, numbers, flags and devices
//! (of two bytes, optional ones of three), which have no others. Exceptions pass through. Where a libtorch has a member
//! under another name, it is not seen, and nothing else happens.

use std::ffi::{CStr, c_void};
use std::sync::atomic::{AtomicPtr, Ordering};

use graphpatch_loader as loader;
use graphpatch_torch::{OwnCall, is_flat};

type Registers = unsafe extern "C-unwind" fn(usize, usize, usize, usize, usize, usize) -> usize;

/// libtorch's own member: behind ours in the order of look-up, or in the library that a `dlopen` brought.
fn real(name: &CStr, known: &AtomicPtr<c_void>) -> Registers {
    let mut address = known.load(Ordering::Acquire);
    if address.is_null() {
        // SAFETY: dlsym and dlopen with valid strings; RTLD_NOLOAD only looks for what is there.
        unsafe {
            address = libc::dlsym(libc::RTLD_NEXT, name.as_ptr());
            if address.is_null()
                && let Some(path) = loader::loaded_path()
                && let Ok(path) = std::ffi::CString::new(path.into_os_string().into_encoded_bytes())
            {
                let library = libc::dlopen(path.as_ptr(), libc::RTLD_LAZY | libc::RTLD_NOLOAD);
                if !library.is_null() {
                    address = libc::dlsym(library, name.as_ptr());
                }
            }
        }
        known.store(address, Ordering::Release);
    }
    if address.is_null() {
        // Only a caller that was linked against libtorch's member gets here, and that member is loaded.
        std::process::abort();
    }
    // SAFETY: the address is that of a member all of whose arguments travel in these registers.
    unsafe { std::mem::transmute::<*mut c_void, Registers>(address) }
}

/// Which argument is the module.
macro_rules! member {
    ($name:ident, $symbol:literal, $module:expr) => {
        /// # Safety
        /// As the member of libtorch's.
        #[unsafe(export_name = $symbol)]
        pub unsafe extern "C-unwind" fn $name(
            a: usize,
            b: usize,
            c: usize,
            d: usize,
            e: usize,
            f: usize,
        ) -> usize {
            static REAL: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());
            const NAME: &CStr = match CStr::from_bytes_with_nul(concat!($symbol, "\0").as_bytes()) {
                Ok(name) => name,
                Err(_) => c"",
            };
            let real = real(NAME, &REAL);
            let module: fn([usize; 2]) -> usize = $module;
            let module = std::ptr::with_exposed_provenance(module([a, b]));
            // SAFETY: NULL, or the module that the member is called on, which is alive until it returns.
            let _own = is_flat().then(|| unsafe { OwnCall::enter(module) });
            // SAFETY: libtorch's own member, with the caller's arguments.
            unsafe { real(a, b, c, d, e, f) }
        }
    };
}

member!(train, "_ZN5torch2nn6Module5trainEb", |[this, _]| this);
member!(
    load,
    "_ZN5torch2nn6Module4loadERNS_9serialize12InputArchiveE",
    |[this, _]| this
);
member!(to_device, "_ZN5torch2nn6Module2toEN3c106DeviceEb", |[
    this,
    _,
]| this);
member!(
    to_dtype,
    "_ZN5torch2nn6Module2toEN3c1010ScalarTypeEb",
    |[this, _]| this
);
member!(
    to_device_and_dtype,
    "_ZN5torch2nn6Module2toEN3c106DeviceENS2_10ScalarTypeEb",
    |[this, _]| this
);
member!(
    load_from_file,
    "_ZN5torch9serialize12InputArchive9load_fromERKNSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEEESt8optionalIN3c106DeviceEE",
    |_| 0
);
member!(
    load_from_stream,
    "_ZN5torch9serialize12InputArchive9load_fromERSiSt8optionalIN3c106DeviceEE",
    |_| 0
);
member!(
    load_from_memory,
    "_ZN5torch9serialize12InputArchive9load_fromEPKcmSt8optionalIN3c106DeviceEE",
    |_| 0
);
member!(
    save,
    "_ZNK5torch2nn6Module4saveERNS_9serialize13OutputArchiveE",
    |[this, _]| this
);
member!(
    save_to_file,
    "_ZN5torch9serialize13OutputArchive7save_toERKNSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEEE",
    |_| 0
);
member!(
    save_to_stream,
    "_ZN5torch9serialize13OutputArchive7save_toERSo",
    |_| 0
);
// Their result comes back in memory, whose address is an ordinary first argument on x86-64 alone.
#[cfg(target_arch = "x86_64")]
member!(parameters, "_ZNK5torch2nn6Module10parametersEb", |[
    _,
    this,
]| this);
#[cfg(target_arch = "x86_64")]
member!(
    named_parameters,
    "_ZNK5torch2nn6Module16named_parametersB5cxx11Eb",
    |[_, this]| this
);
#[cfg(target_arch = "x86_64")]
member!(
    pickle_load,
    "_ZN5torch3jit11pickle_loadERKSt6vectorIcSaIcEE",
    |_| 0
);
#[cfg(target_arch = "x86_64")]
member!(
    pickle_save,
    "_ZN5torch3jit11pickle_saveERKN3c106IValueE",
    |_| 0
);
