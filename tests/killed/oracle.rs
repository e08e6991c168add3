//! What processes have reported before they were killed, and what follows from it.

use std::collections::BTreeMap;
use std::str::FromStr;
use walchan::MessageId;

/// Who sent it, and which one of theirs it is.
pub type Key = (u64, u64);

#[derive(Debug, Default)]
pub struct Known {
    pub sent: bool,
    got: u32,
    id: Option<MessageId>,
    pub acking: bool,
    pub acked: bool,
}

#[derive(Debug, Default)]
pub struct Oracle {
    messages: BTreeMap<Key, Known>,
    /// The last one received for the first time, of each producer.
    first: BTreeMap<u64, u64>,
    /// The message of each id.
    pub ids: BTreeMap<MessageId, Key>,
    last_in_incarnation: Option<MessageId>,
    /// The last incarnation was closed in order; before the open that is under way.
    closed: bool,
    was_closed: bool,
    pub opened: u64,
    pub closings: u64,
    pub removals: u64,
}

impl Oracle {
    pub fn hear(&mut self, line: &str) {
        let mut words = line.split(' ');
        let what = words.next().unwrap();
        let mut number = || words.next().unwrap().parse::<u64>().unwrap();
        match what {
            "opening" => {
                self.was_closed = std::mem::take(&mut self.closed);
                self.last_in_incarnation = None;
            }
            "open" => self.open(number() == 1, number()),
            "closing" => {}
            "closed" => {
                self.closed = true;
                self.closings += 1;
            }
            "removing" => self
                .messages
                .values_mut()
                .for_each(|known| known.acking = true),
            "removed" => {
                self.messages
                    .values_mut()
                    .for_each(|known| known.acked = true);
                self.removals += 1;
            }
            "sent" => self.known((number(), number())).sent = true,
            "acking" => self.known((number(), number())).acking = true,
            "acked" => self.known((number(), number())).acked = true,
            "got" => {
                let key = (number(), number());
                let id = MessageId::from_str(words.next().unwrap()).unwrap();
                let deliveries = words.next().unwrap().parse().unwrap();
                self.got(key, id, deliveries);
            }
            _ => panic!("{line}"),
        }
    }

    fn open(&mut self, clean: bool, kept: u64) {
        self.opened += 1;
        if self.was_closed {
            // Without syncs nothing is marked as closed in order.
            assert!(clean || !cfg!(feature = "fsync"), "it was closed in order");
            let left = self.messages.values();
            let left = left.filter(|known| known.sent && !known.acking).count() as u64;
            assert!(kept >= left, "{kept} kept, of {left}");
        }
    }

    pub fn begin_incarnation(&mut self) {
        self.last_in_incarnation = None;
    }

    pub fn known(&mut self, key: Key) -> &mut Known {
        self.messages.entry(key).or_default()
    }

    pub fn got(&mut self, key: Key, id: MessageId, deliveries: u32) {
        assert!(Some(id) > self.last_in_incarnation, "{key:?} out of order");
        self.last_in_incarnation = Some(id);
        let other = *self.ids.entry(id).or_insert(key);
        assert_eq!(other, key, "one id, two messages");
        let known = self.messages.entry(key).or_default();
        assert!(!known.acked, "{key:?} was acknowledged and came back");
        let same = *known.id.get_or_insert(id);
        assert_eq!(same, id, "two ids, one message {key:?}");
        known.got += 1;
        let reported = known.got;
        assert!(
            deliveries >= reported.min(14),
            "{key:?}: {deliveries}, reported {reported}"
        );
        if known.got == 1 {
            let last = self.first.insert(key.0, key.1);
            assert!(last < Some(key.1), "{key:?} after {last:?}");
        }
    }

    /// Everything is received and acknowledged now.
    pub fn check(&self) {
        for (key, known) in &self.messages {
            assert!(
                !known.sent || known.acking,
                "{key:?} is lost after {} deliveries",
                known.got
            );
        }
        for (producer, last) in &self.first {
            // One was on its way, at most.
            let sent = self.messages.range((*producer, 0)..=(*producer, u64::MAX));
            let sent = sent.filter(|(_, known)| known.sent).count() as u64;
            assert!(*last <= sent, "{producer} sent {sent}, received was {last}");
        }
    }
}
