//! What must be in a file after what a process said about it.

use super::script::{self, LEFT_BEHIND, Message, NO_MESSAGE, NoMessage, Tx};
use std::collections::BTreeMap;
use std::path::Path;
use walchan::{Delivery, Receiver, RecvError};

/// What is known of one message.
#[derive(Debug, Default)]
struct Known {
    /// A send began, and ended with this.
    sending: bool,
    ok: bool,
    refused: bool,
    /// An acknowledgement began; ended.
    acking: bool,
    acked: bool,
    /// Rounds that were surely complete when its send was.
    rounds: u64,
    /// An open reported that a place above the commit, where it may have been, could not be read.
    unreadable: bool,
}

/// What processes said about one file.
#[derive(Debug, Default)]
pub struct Oracle {
    messages: BTreeMap<u64, Known>,
    /// The one that cannot be decoded, and the damage: whether there is one, and it was perhaps, or surely,
    /// set aside.
    left: BTreeMap<&'static str, (bool, bool)>,
    /// The last one received in this incarnation.
    last: Option<u64>,
    /// The channel has no bound.
    grows: bool,
    /// Syncs that were asked for, and made.
    rounds: u64,
}

impl Oracle {
    /// For a script.
    pub fn of_script(script: &str) -> Self {
        match script {
            "recover" => Self::of_prepared(),
            _ => Oracle {
                grows: script::grows(script),
                ..Oracle::default()
            },
        }
    }

    /// For a file of [`script::prepared`].
    pub fn of_prepared() -> Self {
        let mut oracle = Oracle::default();
        for number in LEFT_BEHIND {
            let known = oracle.messages.entry(number).or_default();
            (known.sending, known.ok) = (true, true);
        }
        let acked = oracle.messages.entry(script::ACKNOWLEDGED).or_default();
        (acked.sending, acked.ok, acked.acking, acked.acked) = (true, true, true, true);
        oracle.left = [("undecodable", (false, false)), ("corrupt", (false, false))].into();
        oracle
    }

    pub fn hear(&mut self, line: &str) {
        if script::is_unreadable(line, !self.left.is_empty()) {
            // The newest checkpoint may be unreadable, too, and what the other one records is a round older.
            let rounds = self.rounds;
            let messages = self.messages.values_mut();
            messages.for_each(|known| known.unreadable = known.rounds + 2 >= rounds);
        }
        let words: Vec<_> = line.split(' ').collect();
        let number = words.get(2).and_then(|word| word.parse().ok());
        match (words[0], words.get(1).copied(), number) {
            (">", Some("send"), Some(n)) => self.known(n).sending = true,
            ("=", Some("send"), Some(n)) => match words[3] {
                "ok" => {
                    let rounds = self.rounds;
                    let known = self.known(n);
                    (known.ok, known.rounds) = (true, rounds);
                }
                "unsynced" => {}
                _ => self.known(n).refused = true,
            },
            ("=", Some("sync" | "close"), _) if words.last() == Some(&"ok") => self.rounds += 1,
            (">", Some("ack"), Some(n)) => self.known(n).acking = true,
            // Whether the channel still works is another matter: it is acknowledged.
            ("=", Some("ack"), Some(n)) => self.known(n).acked = true,
            (">", Some("open"), _) => self.last = None,
            ("=", Some("recv"), _) if words[2] == "got" => self.got(words[3].parse().unwrap()),
            (">", Some("aside"), _) => self.aside(words[2]).0 = true,
            ("=", Some("aside"), _) if words[3] == "ok" => self.aside(words[2]).1 = true,
            _ => {}
        }
    }

    fn known(&mut self, number: u64) -> &mut Known {
        self.messages.entry(number).or_default()
    }

    fn aside(&mut self, what: &str) -> &mut (bool, bool) {
        let found = self.left.iter_mut().find(|(name, _)| **name == what);
        found.unwrap_or_else(|| panic!("{what}: there was none")).1
    }

    fn got(&mut self, number: u64) {
        assert!(Some(number) > self.last, "{number} after {:?}", self.last);
        self.last = Some(number);
        let known = self.known(number);
        assert!(known.sending, "{number} was never sent");
        assert!(!known.refused, "{number} was refused, and is there");
        assert!(!known.acked, "{number} was acknowledged, and came back");
    }

    fn open(&self, path: &Path, durability: &str) -> (Box<dyn Tx>, Receiver<Message>) {
        if self.grows {
            let (tx, rx) = script::open_unbounded(path, durability).unwrap();
            return (Box::new(tx), rx);
        }
        let (tx, rx) = script::open::<Message>(path, durability).unwrap();
        (Box::new(tx), rx)
    }

    /// Opens the file, without anybody watching, and compares; `durable_damage`: reported places below the
    /// commit are no surprise.
    pub fn check(&mut self, path: &Path, durability: &str) {
        let existed = path.exists();
        let (tx, rx) = self.open(path, durability);
        let report = rx.recovery();
        assert_eq!(report.is_created(), !existed);
        // A kill in the middle of storing a checkpoint leaves that page invalid, no other.
        let faults = report.header_faults();
        let checkpoints = [17 * 4096, 18 * 4096];
        // Of two files at once, perhaps.
        assert!(faults.len() <= 1 + usize::from(self.grows), "{report}");
        assert!(
            faults.iter().all(|(at, _)| checkpoints.contains(at)),
            "{report}"
        );
        if self.left.is_empty() {
            let damaged = report.damaged();
            assert!(damaged.iter().all(|d| !d.was_durable()), "{report}");
        }
        self.last = None;
        for number in 200..203 {
            self.known(number).sending = true;
            tx.send(Message::new(number)).unwrap();
            self.known(number).ok = true;
        }
        drop(tx);
        loop {
            match rx.recv() {
                Ok(delivery) => {
                    assert_eq!(*delivery, Message::new(delivery.number));
                    self.got(delivery.number);
                    let known = self.known(delivery.number);
                    (known.acking, known.acked) = (true, true);
                    Delivery::ack(delivery).unwrap();
                }
                Err(RecvError::Undecodable(message)) => {
                    assert!(!self.aside("undecodable").1, "it came back");
                    *self.aside("undecodable") = (true, true);
                    message.set_aside().unwrap();
                }
                Err(RecvError::Corrupt(place)) => {
                    assert!(!self.aside("corrupt").1, "it came back");
                    *self.aside("corrupt") = (true, true);
                    place.set_aside().unwrap();
                }
                Err(RecvError::Disconnected) => break,
                Err(error) => panic!("{error}"),
            }
        }
        for (number, known) in &self.messages {
            let accounted = known.acking || known.unreadable;
            assert!(!known.ok || accounted, "{number} is lost");
        }
        for (what, (perhaps, _)) in &self.left {
            assert!(*perhaps, "the {what} one is lost");
        }
        rx.close().unwrap();
        self.check_beside(path);
        // In the next incarnation nothing is left.
        let (tx, rx) = self.open(path, durability);
        assert!(rx.recovery().is_clean());
        assert_eq!(rx.recovery().kept(), 0);
        drop(tx);
        assert_eq!(rx.recv(), Err(RecvError::Disconnected));
    }

    /// Beside the channel there are only copies, and they are whole.
    fn check_beside(&self, path: &Path) {
        let mut names: Vec<_> = std::fs::read_dir(path.parent().unwrap())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        let asides = script::asides(path);
        assert_eq!(names.len(), 1 + asides.len(), "{names:?}");
        assert_eq!(asides.len(), self.left.len(), "{names:?}");
        let odd: NoMessage = NO_MESSAGE;
        let odd = [odd.0.to_le_bytes(), odd.1.to_le_bytes()].concat();
        let whole = asides.iter().filter(|aside| {
            let bytes = std::fs::read(aside).unwrap();
            // The damaged frame has its header and its payload but for one bit.
            bytes == odd || bytes.windows(8).any(|window| window == b"essage 5")
        });
        assert_eq!(whole.count(), self.left.len());
    }
}
