#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| walchan_fuzz::raw(input));
