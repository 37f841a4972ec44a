//! Drawings: charts as SVG and PDF, pictures, and the pages they stand in. The module knows numbers and names only,
//! nothing of runs and rules.

pub mod axis;
pub mod bars;
mod letters;
pub mod page;
pub mod pictures;
pub mod plot;
pub mod saved;
