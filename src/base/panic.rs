//! What a panic said, where it is caught.

use std::any::Any;

/// The words of a panic; none where it had none.
pub fn words(panic: &(dyn Any + Send)) -> String {
    let said = panic.downcast_ref::<&str>().map(|text| text.to_string());
    said.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default()
}
