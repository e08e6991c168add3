mod calls;

use calls::{oracle, script::*};
use system_tests::trace::{Event, Verdict, watch};

#[test]
fn look() {
    run_if_child();
    let dir = quick_dir();
    let path = dir.path().join("sub/q");
    let t = std::time::Instant::now();
    let durability = std::env::var("D").unwrap_or("send".into());
    let script = std::env::var("S").unwrap_or("cycle".into());
    let mut o = oracle::Oracle::default();
    if script == "recover" {
        std::fs::create_dir(dir.path().join("sub")).unwrap();
        std::fs::write(&path, prepared("look", &durability)).unwrap();
        o = oracle::Oracle::of_prepared();
    }
    let ended = watch(
        &mut child("look", &script, &durability, &path),
        dir.path(),
        &mut |_| Verdict::Continue,
    );
    println!("{:?} {:?}", t.elapsed(), ended.status);
    for e in &ended.events {
        match e {
            Event::Said(line) => println!("{line}"),
            Event::Call(c, v) => println!(
                "   [{}] {} {} {:x?} {v:?}",
                c.thread,
                c.name,
                c.target,
                &c.args[..4]
            ),
        }
    }
    println!("{}", ended.stderr);
    ended.said().for_each(|l| o.hear(l));
    o.check(&path, &durability);
}
