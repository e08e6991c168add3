//! The committed corpus, and random bytes, through the entries that the fuzzer uses. Any compiler will do:
//! `RUSTFLAGS="--cfg fuzzing" cargo test --no-default-features`.

use std::path::Path;
use walchan_fuzz::memory::Limit;

type Target = (&'static str, fn(&[u8]));

const TARGETS: [Target; 3] = [
    ("raw", walchan_fuzz::raw),
    ("structured", walchan_fuzz::structured),
    ("file", walchan_fuzz::file),
];

fn replay(name: &str, run: fn(&[u8])) -> usize {
    let mut count = 0;
    for kind in ["corpus", "regressions"] {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join(kind).join(name);
        let Ok(entries) = std::fs::read_dir(dir) else {
            continue;
        };
        for entry in entries {
            let path = entry.expect("an entry").path();
            let bytes = std::fs::read(&path).expect("an input");
            println!("{}", path.display());
            run(&bytes);
            count += 1;
        }
    }
    count
}

#[test]
fn every_committed_input_passes() {
    for (name, run) in TARGETS {
        let count = replay(name, run);
        println!("{name}: {count} inputs");
        assert!(count > 0, "there is no corpus for {name}");
    }
}

#[test]
fn random_inputs_pass() {
    let times = std::env::var("WALCHAN_FUZZ_RANDOM").map_or(300, |n| n.parse().expect("a number"));
    let mut state = std::env::var("WALCHAN_SEED").map_or(1, |n| n.parse().expect("a number"));
    let mut next = || {
        state = u64::wrapping_add(state, 0x9e37_79b9_7f4a_7c15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    for n in 0..times {
        let len = next() % 700;
        let input: Vec<u8> = (0..len).map(|_| next() as u8).collect();
        for (name, run) in TARGETS {
            if name == "file" && n % 10 != 0 {
                continue;
            }
            let caught = std::panic::catch_unwind(|| run(&input));
            if caught.is_err() {
                let path = std::env::temp_dir().join(format!("walchan-{name}.input"));
                std::fs::write(&path, &input).expect("a place for the input");
                panic!("{name} fails, the input is {}", path.display());
            }
        }
    }
    println!("at most {} bytes were taken at once", Limit::peak());
}
