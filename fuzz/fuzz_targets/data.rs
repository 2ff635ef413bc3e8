//! Message data from the wire: see `postrider_fuzz::data`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| postrider_fuzz::data::check(input));
