//! Blocks that cannot be read.

use super::*;
use std::io;
use walchan_core::format::{HEADER_LEN, PAGE_LEN, get_u64};
use walchan_core::recovery::backlog::Backlog;
use walchan_core::storage::Medium;
use walchan_core::sync::Mutex;

/// A medium with pages that cannot be read until they are written whole.
struct BadBlocks {
    medium: Simulated,
    bad: Mutex<Vec<u64>>,
}

impl BadBlocks {
    fn check(&self, offset: u64, len: u64) -> io::Result<()> {
        let pages = offset / PAGE_LEN..(offset + len).div_ceil(PAGE_LEN);
        if self.bad.lock().iter().any(|bad| pages.contains(bad)) {
            let errno = rustix::io::Errno::IO.raw_os_error();
            return Err(io::Error::from_raw_os_error(errno));
        }
        Ok(())
    }
}

impl Medium for BadBlocks {
    fn len(&self) -> io::Result<u64> {
        Medium::len(&self.medium)
    }

    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.check(offset, bytes.len() as u64)?;
        self.medium.read_at(offset, bytes)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let end = offset + bytes.len() as u64;
        let whole = offset.div_ceil(PAGE_LEN)..end / PAGE_LEN;
        self.bad.lock().retain(|bad| !whole.contains(bad));
        self.check(offset, bytes.len() as u64)?;
        self.medium.write_at(offset, bytes)
    }

    fn sync_written(&self) -> io::Result<()> {
        self.medium.sync_written()
    }
}

#[test]
fn a_page_that_cannot_be_read_hides_no_message_outside_of_it() {
    let mut rng = Rng(39);
    let capacity = 64 * 1024;
    let life = Life::on(
        &new_image(capacity, &mut rng),
        capacity,
        Mode::FlushOnly,
        &mut rng,
    )
    .unwrap();
    let mut ids = Vec::new();
    for n in 0..600u64 {
        if n == 300 {
            life.channel.sync_sent().unwrap();
            life.channel.sync_progress().unwrap();
        }
        let len = 8 + rng.below(120) as usize;
        let payload = [n.to_le_bytes().to_vec(), vec![1; len]].concat();
        ids.push(life.send(&payload).unwrap().position());
    }
    let tail = life.channel.log().ring().tail();
    let commit = ids[300];
    let image = life.medium.killed();
    let ring_page = HEADER_LEN / PAGE_LEN;
    for page in 1..image.len() as u64 / PAGE_LEN {
        let medium = BadBlocks {
            medium: Simulated::new(image.clone()),
            bad: Mutex::new(vec![page]),
        };
        let recovered = recovery::recover(&medium, capacity, ACCEPT, &mut || {
            Ok([rng.next(), rng.next()])
        })
        .unwrap();
        let bad = if page < ring_page {
            assert_eq!(recovered.report.header_faults().len(), 1, "page {page}");
            0..0
        } else {
            (page - ring_page) * PAGE_LEN..(page - ring_page + 1) * PAGE_LEN
        };
        let mut backlog = Backlog::new(recovered.head, recovered.tail, capacity);
        let mut buffer = Vec::new();
        let mut seen = Vec::new();
        let mut damage = Vec::new();
        while let Some(item) = backlog
            .next(&medium, &recovered.incarnations, &mut buffer)
            .unwrap()
        {
            match item.state {
                Some(_) => seen.push(get_u64(&buffer, 0)),
                None => damage.push(item.position),
            }
        }
        for (n, position) in ids.iter().enumerate() {
            let end = ids.get(n + 1).copied().unwrap_or(tail);
            let touched = *position < bad.end && bad.start < end;
            assert_eq!(
                seen.contains(&(n as u64)),
                !touched,
                "message {n}, page {page}"
            );
        }
        assert!(seen.is_sorted());
        let below = !bad.is_empty() && bad.start < commit;
        assert_eq!(!damage.is_empty(), below, "page {page}");
        // Above it nobody can tell whether there was anything; that it cannot be read is reported.
        let reported = recovered.report.damaged().iter();
        let reported = reported.filter(|d| bad.contains(&d.position())).count();
        assert!(bad.start < commit || reported > 0, "page {page} in silence");
    }
}
