//! Processes of a test's own: they may die without taking the test with them.

use std::process::Command;
use std::time::Duration;

const ROLE: &str = "WALCHAN_SYSTEM_TESTS_CHILD";

/// This test binary again, to run the test `name` alone, which finds `role` in [`role`].
pub fn child(name: &str, role: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args([name, "--exact", "--nocapture", "--test-threads=1"])
        .env(ROLE, role);
    command
}

/// What this process was started for; `None` in the process that runs the tests.
pub fn role() -> Option<String> {
    std::env::var(ROLE).ok()
}

/// Ends this process when it hangs: it has a time that no run comes near.
pub fn end_in(patience: Duration) {
    std::thread::spawn(move || {
        std::thread::sleep(patience);
        eprintln!("it hangs: it has not ended in {patience:?}");
        std::process::abort();
    });
}
