//! Foundations: files that are whole or absent, names that lead nowhere else, one process per folder, output that
//! perhaps nobody reads, quantities with units, and times in words.

pub mod files;
pub mod lock;
pub mod made;
pub mod name;
pub(crate) mod named;
pub mod near;
pub mod output;
pub mod panic;
pub mod problem;
pub mod program;
pub mod quantity;
pub mod spread;
pub mod time;
pub mod waiting;
