//! Which failure leads to what: the result of the step in which the call was made.

use super::case::{Case, EACCES, EINTR, EIO, Outcome};
use super::script::grows;

/// A failure of these costs nothing that was promised: advice, flags, fences of another kind, what closing
/// does anyway.
const TOLERATED: [&str; 6] = [
    "close",
    "ioctl",
    "fadvise64",
    "madvise",
    "munmap",
    "membarrier",
];

/// The standard library, or walchan, tries these again when a signal came between; others nothing here
/// interrupts.
const RETRIED: [&str; 10] = [
    "openat",
    "fsync",
    "fdatasync",
    "ftruncate",
    "fallocate",
    "read",
    "write",
    "pread64",
    "pwrite64",
    "getrandom",
];

/// What a receive that was not disturbed may say.
const UNDISTURBED: [&str; 3] = ["ok", "undecodable", "corrupt"];

pub fn is_expected(case: &Case, outcome: &Outcome) -> bool {
    let result = outcome.result.as_str();
    let (call, step) = (outcome.site.call.as_str(), outcome.site.step.as_str());
    let closing_the_directory = call == "openat" || call == "fsync";
    if grows(case.script) {
        return is_expected_of_segments(case, outcome);
    }
    match (call, step) {
        // The others hear of it: see `check_poison`.
        (_, "the channel's thread") => true,
        // Whether a file that was there shares blocks with another must be known: a full disk would end the
        // process.
        ("ioctl", "open") if outcome.site.target == "sub/q" => result == "Io",
        _ if TOLERATED.contains(&call) => result == "ok" || result == "none",
        // Closing the file unlocks it, too.
        ("flock", "close") => result == "ok",
        _ if case.error == EINTR && RETRIED.contains(&call) => UNDISTURBED.contains(&result),
        // A block that cannot be read: once, it is read page by page; of the pages of the header there are
        // two copies.
        ("pread64", "open") if case.error == EIO => ["ok", "Io"].contains(&result),
        ("pread64", "recv") if case.error == EIO => {
            result == "unreadable" || !case.for_ever && UNDISTURBED.contains(&result)
        }
        // Of a damaged place there are only the bytes that can be read.
        ("pread64", "recv") => ["Io", "unreadable"].contains(&result),
        // Who may not read the directory of a file that is there did not make it.
        (_, "open") if closing_the_directory && case.error == EACCES => {
            let opened = outcome.site.target == "sub";
            result == "Io" || opened && result == "ok"
        }
        // What other makers left is looked for, and left where that cannot be done.
        ("getdents64", "open") => ["ok", "Io"].contains(&result),
        ("openat", "open") if outcome.site.target == "sub" && !case.for_ever => {
            ["ok", "Io"].contains(&result)
        }
        // The first one asks whether there is such a call.
        ("getrandom", _) if !case.for_ever => ["ok", "Io"].contains(&result),
        ("fdatasync", "send") if case.durability == "send" => result == "Unsynced",
        _ => result == "Io",
    }
}

/// Which step needs a call depends on how far the housekeeper is. The errors themselves, and what follows
/// from them, are looked at by [`Case::check`].
fn is_expected_of_segments(case: &Case, outcome: &Outcome) -> bool {
    let result = outcome.result.as_str();
    let (call, step) = (outcome.site.call.as_str(), outcome.site.step.as_str());
    let undisturbed = ["ok", "none", "empty", "disconnected"];
    match (call, step) {
        (_, "the channel's thread") => true,
        // A file that is there with blocks of another. `close` opens those that the receiver did not come to.
        ("ioctl", "open" | "recv" | "close") => result == "Io" || undisturbed.contains(&result),
        ("pread64", "recv") if case.error == EIO => ["ok", "Io", "unreadable"].contains(&result),
        _ if TOLERATED.contains(&call) => undisturbed.contains(&result),
        _ if case.error == EINTR && RETRIED.contains(&call) => undisturbed.contains(&result),
        ("fdatasync", "send") if case.durability == "send" => ["Unsynced", "Io"].contains(&result),
        // What can wait until later, or is asked once more, is tolerated.
        ("getdents64" | "openat", "open") if case.error == EACCES => result != "Unsynced",
        _ => result == "Io" || undisturbed.contains(&result),
    }
}
