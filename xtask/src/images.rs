//! `cargo xtask images`: crash images of random programs, as many as asked for, from a seed that is printed.

use crate::run::{Outcome, cargo};
use std::time::{Instant, SystemTime};

const COUNT: u64 = 10_000_000;
const TEST: &str = "campaign::as_many_images_as_asked_for";

pub fn run(args: &[&str]) -> Outcome {
    let number = |text: &str| {
        let digits = text.replace('_', "");
        digits
            .parse::<u64>()
            .map_err(|error| format!("{text}: {error}"))
    };
    let (count, seed) = match args {
        [] => (COUNT, random_seed()?),
        [count] => (number(count)?, random_seed()?),
        [count, seed] => (number(count)?, number(seed)?),
        _ => return Err("usage: cargo xtask images [COUNT] [SEED]".to_owned()),
    };
    println!("{count} images from seed {seed}; again: cargo xtask images {count} {seed}");
    let mut test = cargo("test --release -p crash-tests --lib --");
    test.args(["--exact", TEST, "--ignored", "--nocapture"]);
    test.env("WALCHAN_CRASH_IMAGES", count.to_string());
    test.env("WALCHAN_CRASH_SEED", seed.to_string());
    let start = Instant::now();
    let status = test.status().map_err(|error| error.to_string())?;
    if !status.success() {
        return Err(format!("a promise was broken: see above; {status}"));
    }
    println!("{:.0} s", start.elapsed().as_secs_f64());
    Ok(())
}

/// Far from the seeds of the ordinary run, and short enough to type.
fn random_seed() -> Result<u64, String> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let now = now.map_err(|error| error.to_string())?;
    Ok(now.as_nanos() as u64 % 1_000_000_000 * 1_000)
}
