//! Panics: their messages, where they are caught, and mutexes that outlive them.

use std::any::Any;
use std::sync::{Mutex, MutexGuard};

/// The message of a panic; empty where it had none.
pub fn words(panic: &(dyn Any + Send)) -> String {
    let said = panic.downcast_ref::<&str>().map(|text| text.to_string());
    said.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default()
}

/// Locks a mutex, even after a thread has panicked while holding it.
pub fn guard<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
