//! The memory of the process: the system's, and a message where there is no more.
//!
//! The standard library aborts there, with a signal and perhaps a trace.

use std::alloc::{GlobalAlloc, Layout, System};
use std::io::Write;

/// The system's memory.
pub struct Memory;

// SAFETY: it passes each request on to the system.
unsafe impl GlobalAlloc for Memory {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller has met what `System` asks for.
        had(unsafe { System.alloc(layout) }, layout.size())
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        had(unsafe { System.alloc_zeroed(layout) }, layout.size())
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as above; all memory is the system's.
        unsafe { System.dealloc(memory, layout) };
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as above.
        had(unsafe { System.realloc(memory, layout, size) }, size)
    }
}

/// Returns the memory that was asked for; where there is none, ends the process with status 1 and a message that
/// needs no memory. What a run has saved stays.
fn had(memory: *mut u8, size: usize) -> *mut u8 {
    if memory.is_null() {
        let mut said = std::io::Cursor::new([0; 400]);
        let _ = writeln!(
            said,
            "eqprop: out of memory: {size} more bytes are not available. What was saved stays; a smaller \
             network.dims or \
             training.batch_size, fewer --threads or --workers, or a higher limit (ulimit -v, the memory of the job) help."
        );
        let length = said.position() as usize;
        end(&said.get_ref()[..length]);
    }
    memory
}

#[cfg(unix)]
fn end(said: &[u8]) -> ! {
    // SAFETY: the bytes live as long as the call; the process ends without destructors, which might want memory.
    unsafe {
        libc::write(libc::STDERR_FILENO, said.as_ptr().cast(), said.len());
        libc::_exit(1)
    }
}

#[cfg(not(unix))]
fn end(said: &[u8]) -> ! {
    let _ = std::io::stderr().write_all(said);
    std::process::exit(1)
}
