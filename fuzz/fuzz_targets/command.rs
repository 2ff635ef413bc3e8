//! One command line: see `postrider_fuzz::command`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| postrider_fuzz::command::check(input));
