//! Any text as an iCalendar file: it has dates, or is rejected with a short reason.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| {
    match gpuctl_control::calendar::dates_in(text) {
        Ok(found) => assert!(found.dates.is_sorted() && !found.dates.is_empty()),
        Err(error) => assert!(error.to_string().len() < 2_000),
    }
});
