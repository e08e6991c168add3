//! The binaries of the examples.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

/// The binary of an example, built as this test was. Plain `cargo test` has built it already; `cargo test
/// --test x` has not.
pub fn example(name: &str) -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let dir = BUILT.get_or_init(|| {
        let own = std::env::current_exe().unwrap();
        let target = own.parent().unwrap().parent().unwrap();
        let profile = match target.file_name().unwrap().to_str().unwrap() {
            "debug" => "dev",
            other => other,
        };
        let mut features = Vec::new();
        if cfg!(feature = "fsync") {
            features.push("fsync");
        }
        if cfg!(feature = "stress") {
            features.push("stress");
        }
        let status = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "--offline", "--examples"])
            .args(["--profile", profile, "--no-default-features"])
            .args(["--features", &features.join(",")])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .env("CARGO_TARGET_DIR", target.parent().unwrap())
            .status()
            .unwrap();
        assert!(status.success());
        target.join("examples")
    });
    dir.join(name)
}
