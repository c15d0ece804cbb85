//! All hooks: the functions of the C library, and the members of libtorch, before which the library's own stand.
//!
//! This list is the only one. From it are made the look-ups of the C library's own functions ([`Real`]) and the members' exported
//! functions; `tests/abi/test_exports.py` compares it with what the built library exports.

use super::real::Real;

macro_rules! hooks {
    ($($name:ident = $symbol:literal: $purpose:literal;)*) => {
        $(
            #[doc = $purpose]
            pub(super) static $name: Real = Real::new($symbol);
        )*

        /// Looks all of them up, so that in a signal handler a hook only loads an address.
        pub(super) fn look_up() {
            $( $name.get(); )*
        }
    };
}

hooks! {
    // In hooks.rs.
    START = c"__libc_start_main": "Reads the options when every constructor has run, right before `main`.";
    DLOPEN = c"dlopen": "Looks whether libtorch was loaded.";
    DLSYM = c"dlsym": "The same: after a `dlopen` its caller looks an entry up.";
    EXIT = c"_exit": "Writes the last report; no exit handler runs.";
    EXIT_C99 = c"_Exit": "The same under C's name.";
    ABORT = c"abort": "Writes the last report.";
    // In exec.rs.
    EXECV = c"execv": "Writes the last report before the process becomes another program.";
    EXECVE = c"execve": "The same.";
    EXECVP = c"execvp": "The same.";
    EXECVPE = c"execvpe": "The same.";
    SPAWN = c"posix_spawn": "Looks whether a program is started without the library.";
    SPAWNP = c"posix_spawnp": "The same.";
    // In threads.rs.
    THREAD = c"pthread_create": "Tells of each thread that the program starts, for flat runs.";
}

/// The members of libtorch (in members.rs): the function here, libtorch's symbol, and which argument is the module.
macro_rules! for_each_member {
    ($member:ident) => {
        // Switches training on or off.
        $member!(train, "_ZN5torch2nn6Module5trainEb", first);
        // Loads weights from an archive.
        $member!(load, "_ZN5torch2nn6Module4loadERNS_9serialize12InputArchiveE", first);
        // Moves a module to a device.
        $member!(to_device, "_ZN5torch2nn6Module2toEN3c106DeviceEb", first);
        // Converts a module.
        $member!(to_dtype, "_ZN5torch2nn6Module2toEN3c1010ScalarTypeEb", first);
        // Moves and converts a module.
        $member!(to_device_and_dtype, "_ZN5torch2nn6Module2toEN3c106DeviceENS2_10ScalarTypeEb", first);
        // Reads an archive.
        $member!(load_from_file, "_ZN5torch9serialize12InputArchive9load_fromERKNSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEEESt8optionalIN3c106DeviceEE", none);
        // Reads an archive.
        $member!(load_from_stream, "_ZN5torch9serialize12InputArchive9load_fromERSiSt8optionalIN3c106DeviceEE", none);
        // Reads an archive.
        $member!(load_from_memory, "_ZN5torch9serialize12InputArchive9load_fromEPKcmSt8optionalIN3c106DeviceEE", none);
        // Saves weights into an archive.
        $member!(save, "_ZNK5torch2nn6Module4saveERNS_9serialize13OutputArchiveE", first);
        // Writes an archive.
        $member!(save_to_file, "_ZN5torch9serialize13OutputArchive7save_toERKNSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEEE", none);
        // Writes an archive.
        $member!(save_to_stream, "_ZN5torch9serialize13OutputArchive7save_toERSo", none);
        // Lists a module's parameters. The result comes back in memory, whose address is an ordinary first argument on x86-64
        // alone; so it is with the next three.
        #[cfg(target_arch = "x86_64")]
        $member!(parameters, "_ZNK5torch2nn6Module10parametersEb", second);
        // Lists a module's parameters.
        #[cfg(target_arch = "x86_64")]
        $member!(named_parameters, "_ZNK5torch2nn6Module16named_parametersB5cxx11Eb", second);
        // Reads a pickled value.
        #[cfg(target_arch = "x86_64")]
        $member!(pickle_load, "_ZN5torch3jit11pickle_loadERKSt6vectorIcSaIcEE", none);
        // Pickles a value.
        #[cfg(target_arch = "x86_64")]
        $member!(pickle_save, "_ZN5torch3jit11pickle_saveERKN3c106IValueE", none);
    };
}
pub(super) use for_each_member;
