//! Values that are made once. The thread that makes one is inside the gate, since other threads wait for it.

use std::ops::Deref;

use crate::gate::Inside;

/// As [`std::sync::OnceLock`].
#[derive(Clone, Debug)]
pub struct OnceLock<T>(std::sync::OnceLock<T>);

impl<T> Default for OnceLock<T> {
    fn default() -> Self {
        OnceLock::new()
    }
}

impl<T> OnceLock<T> {
    pub const fn new() -> OnceLock<T> {
        OnceLock(std::sync::OnceLock::new())
    }

    #[inline]
    pub fn get(&self) -> Option<&T> {
        self.0.get()
    }

    /// # Errors
    ///
    /// The value, if there was one already.
    pub fn set(&self, value: T) -> Result<(), T> {
        let _inside = Inside::new();
        self.0.set(value)
    }

    #[inline]
    pub fn get_or_init(&self, make: impl FnOnce() -> T) -> &T {
        match self.0.get() {
            Some(value) => value,
            None => {
                let _inside = Inside::new();
                self.0.get_or_init(make)
            }
        }
    }
}

/// As [`std::sync::LazyLock`].
#[derive(Debug)]
pub struct Lazy<T> {
    value: OnceLock<T>,
    make: fn() -> T,
}

impl<T> Lazy<T> {
    pub const fn new(make: fn() -> T) -> Lazy<T> {
        Lazy {
            value: OnceLock::new(),
            make,
        }
    }
}

impl<T> Deref for Lazy<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        self.value.get_or_init(self.make)
    }
}
