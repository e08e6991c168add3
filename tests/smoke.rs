use std::time::{Duration, Instant};
use walchan::*;
#[test]
fn smoke() {
    let dir = tempfile::tempdir_in(".").unwrap();
    let path = dir.path().join("q");
    for d in [
        Durability::SyncPerSend,
        Durability::FlushOnly,
        Durability::SyncEvery {
            max_ops: 100,
            max_delay: Duration::from_millis(5),
        },
    ] {
        let o = Options {
            durability: d,
            ring_bytes: Some(1 << 16),
            ..Default::default()
        };
        let n: u64 = if d == Durability::SyncPerSend {
            5_000
        } else {
            300_000
        };
        let t = Instant::now();
        let (tx, rx) = sync_channel_with_options::<[u64; 8]>(&path, 500, o).unwrap();
        let h = std::thread::spawn(move || {
            for i in 0..n {
                tx.send([i; 8]).unwrap();
            }
        });
        for i in 0..n {
            assert_eq!(rx.recv().unwrap()[0], i);
        }
        h.join().unwrap();
        assert_eq!(rx.recv(), Err(RecvError::Disconnected));
        println!("{d:?} {n} in {:?} report {}", t.elapsed(), rx.recovery());
        rx.close().unwrap();
    }
    let (tx, rx) = channel::<[u64; 8]>(&path).unwrap();
    for i in 0..100 {
        tx.send([i; 8]).unwrap();
    }
    drop(rx.recv().unwrap());
    let d = rx.recv().unwrap();
    Delivery::leave(d);
    drop((tx, rx));
    let (_tx, rx) = channel::<[u64; 8]>(&path).unwrap();
    println!("{}", rx.recovery());
    assert_eq!(rx.recovery().kept(), 99);
    assert_eq!(rx.recovery().redelivered(), 1);
    for i in 1..100 {
        let d = rx.recv().unwrap();
        assert_eq!(d[0], i);
        assert_eq!(Delivery::deliveries(&d), if i == 1 { 2 } else { 1 });
    }
    assert_eq!(rx.try_recv(), Err(TryRecvError::Empty));
}
