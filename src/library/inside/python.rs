//! What this process has of Python.

/// Whether this process is a Python program that has loaded torch.
pub fn has_torch() -> bool {
    std::fs::read("/proc/self/maps")
        .is_ok_and(|maps| String::from_utf8_lossy(&maps).contains("/libtorch_python."))
}
