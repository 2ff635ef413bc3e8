//! A whole dialogue: see `postrider_fuzz::session`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| postrider_fuzz::session::check(input));
