//! Mutexes that outlive a panic.

use std::sync::{Mutex, MutexGuard};

/// What a mutex guards, also after a thread has panicked with it.
pub fn guard<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
