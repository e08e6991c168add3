//! What users download has no proof in it: no crash test, model, simulated medium, fuzzing entry or harness.

use crate::run::{Outcome, cargo, judge};

/// The packages that are published.
const PUBLISHED: [&str; 2] = ["walchan", "walchan-core"];
/// Files that may be in one, and folders whose files may be.
const FILES: [&str; 8] = [
    ".cargo_vcs_info.json",
    "CHANGELOG.md",
    "Cargo.lock",
    "Cargo.toml",
    "Cargo.toml.orig",
    "LICENSE",
    "README.md",
    "build.rs",
];
const FOLDERS: [&str; 2] = ["src/", "docs/"];
/// What is in no path of a source file.
const PROOF: [&str; 7] = [
    "crash",
    "loom",
    "model",
    "fuzz",
    "medium",
    "simulated",
    "proof",
];

pub fn run() -> Outcome {
    let mut problems = Vec::new();
    for package in PUBLISHED {
        let list = list(package)?;
        println!("{package}: {} files", list.len());
        problems.extend(check(package, &list));
    }
    judge("files that are not to be published", &problems)
}

fn list(package: &str) -> Result<Vec<String>, String> {
    let output = cargo("package --list --allow-dirty --quiet -p")
        .arg(package)
        .output()
        .map_err(|error| format!("cargo did not start: {error}"))?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().map(str::to_owned).collect())
}

fn check(package: &str, list: &[String]) -> Vec<String> {
    let is_proof = |path: &str| path.starts_with("src/") && PROOF.iter().any(|p| path.contains(p));
    let is_known =
        |path: &str| FILES.contains(&path) || FOLDERS.iter().any(|folder| path.starts_with(folder));
    list.iter()
        .filter(|path| !is_known(path) || is_proof(path))
        .map(|path| format!("{package}: {path}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proofs_and_strays_are_found() {
        let list = [
            "src/lib.rs",
            "src/crash_tests/mod.rs",
            "tests/x.rs",
            "LICENSE",
            "docs/a.md",
        ];
        let list = list.map(str::to_owned);
        assert_eq!(
            check("p", &list),
            ["p: src/crash_tests/mod.rs", "p: tests/x.rs"]
        );
    }
}
