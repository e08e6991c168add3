//! The tools of the other tests do what they say.

use std::fs;
use system_tests::can_run;
use system_tests::volume::{Host, Kind};

#[test]
fn a_frozen_copy_has_what_was_synced_and_stays_as_it_was() {
    if !can_run("frozen copies", &Kind::PROGRAMS) {
        return;
    }
    let host = Host::new();
    for (n, kind) in Kind::ALL.into_iter().enumerate() {
        let volume = host.volume(kind, &format!("v{n}"), Kind::SMALLEST);
        let file = volume.path().join("file");
        fs::write(&file, "synced").unwrap();
        fs::File::open(&file).unwrap().sync_all().unwrap();
        fs::File::open(volume.path()).unwrap().sync_all().unwrap();
        let frozen = host.freeze(&volume, &format!("f{n}"));
        fs::write(&file, "later").unwrap();
        fs::File::open(&file).unwrap().sync_all().unwrap();
        let copy = host.thaw(frozen, &format!("c{n}"));
        assert_eq!(
            fs::read_to_string(copy.path().join("file")).unwrap(),
            "synced"
        );
        assert_eq!(fs::read_to_string(&file).unwrap(), "later");
    }
}
