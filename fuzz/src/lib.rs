//! What must hold for every input: the properties that the fuzz targets look for a hole in.
//!
//! Each module has one function, `check`, which panics when its property does not hold. The fuzz
//! targets call it with what the fuzzer makes up, `tests/corpus.rs` with the seeds and with what was
//! worth keeping of earlier runs.

pub mod command;
pub mod cuts;
pub mod data;
pub mod reply;
pub mod session;
