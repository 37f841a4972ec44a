//! What everything stands on: files that are whole or absent, names that lead nowhere else, one process a folder,
//! and output that somebody may not read.

pub mod files;
pub mod lock;
pub mod mutex;
pub mod name;
pub mod near;
pub mod output;
