//! What must be, may be and must not be in a file after a power cut, from what processes reported.
//!
//! Reports are numbered as they were made. A cut lies between two of them: what had been reported before it
//! began is promised, what had been begun before it ended is possible.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;
use walchan::MessageId;

/// Who sent a message, and which one of theirs it is.
pub type Key = (u64, u64);

/// What an incarnation promises of sends that returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Promise {
    Each,
    AllBut(u64),
    None,
}

/// The numbers of the reports about one message.
#[derive(Clone, Debug, Default)]
struct Message {
    /// Index of the incarnation that sent it.
    incarnation: usize,
    sending: usize,
    sent: Option<usize>,
    refused: bool,
    got: Vec<usize>,
    acking: Option<usize>,
    acked: Option<usize>,
    id: Option<MessageId>,
}

/// Something whose completion makes all durable that had returned when it began.
#[derive(Clone, Copy, Debug)]
struct Sync {
    sends: bool,
    acks: bool,
    began: usize,
    done: Option<usize>,
}

/// A moment that lies between two reports.
#[derive(Clone, Copy, Debug)]
pub struct Cut {
    /// So many had been made when it began.
    pub before: usize,
    /// And when it had ended.
    pub after: usize,
}

/// A message in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub key: Key,
    pub id: MessageId,
    pub deliveries: u32,
}

/// What the processes that used one file have reported.
#[derive(Debug, Default)]
pub struct Oracle {
    reports: Vec<String>,
    incarnations: Vec<Promise>,
    /// When they began.
    began: Vec<usize>,
    messages: BTreeMap<Key, Message>,
    syncs: Vec<Sync>,
    /// Indices of those that are not done, by what the report says of them.
    unfinished: BTreeMap<String, usize>,
    /// The message of each id.
    ids: BTreeMap<MessageId, Key>,
    /// When the file was there for sure.
    opened: Option<usize>,
    /// The channel has several files: a sync of what was sent into one takes no acknowledgement of another
    /// along.
    pub grows: bool,
}

fn ensure(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(otherwise()) }
}

impl Oracle {
    /// Of a file that grows, or not.
    pub fn new(grows: bool) -> Self {
        Oracle {
            grows,
            ..Oracle::default()
        }
    }

    /// So many reports were heard.
    pub fn now(&self) -> usize {
        self.reports.len()
    }

    /// All reports, for those who want to know how it came to something.
    pub fn reports(&self) -> &[String] {
        &self.reports
    }

    /// Whether a file must be there after a cut; else it may be absent.
    pub fn must_exist(&self, cut: Cut) -> bool {
        self.opened.is_some_and(|at| at < cut.before)
    }

    /// What was under way at a cut: `opening`, `closing`, or nothing of this kind.
    pub fn under_way(&self, cut: Cut) -> Option<&str> {
        let whole = |s: &&Sync| s.sends && s.acks && s.began < cut.after;
        let last = self.syncs.iter().rfind(whole)?;
        let over = last.done.is_some_and(|done| done < cut.before);
        (!over).then(|| &self.reports[last.began][..7])
    }

    /// Takes note of a report. What it says must be possible: nobody has cut the power of this process.
    pub fn hear(&mut self, report: &str) -> Result<(), String> {
        let now = self.reports.len();
        self.reports.push(report.to_owned());
        let (what, rest) = report.split_once(' ').unwrap_or((report, ""));
        match what {
            "opening" => {
                self.incarnations.push(match rest.split_once(' ') {
                    Some((_, max_ops)) => Promise::AllBut(number(max_ops)),
                    None if rest == "send" => Promise::Each,
                    None => Promise::None,
                });
                self.began.push(now);
                self.unfinished.clear();
                self.begins("open", true, true);
            }
            "open" => {
                self.done("open");
                self.opened.get_or_insert(now);
            }
            "closing" => self.begins("closed", true, true),
            "closed" => self.done("closed"),
            "syncing" => self.begins(rest, rest.starts_with("sends"), rest.starts_with("acks")),
            "synced" => self.done(rest),
            "sending" => {
                let incarnation = self.incarnations.len() - 1;
                let message = self.message(rest);
                (message.incarnation, message.sending) = (incarnation, now);
                if self.incarnations[incarnation] == Promise::Each && !self.grows {
                    // A send with a sync of its own takes earlier acknowledgements along.
                    self.begins(&format!("send {rest}"), false, true);
                }
            }
            "sent" => {
                self.message(rest).sent = Some(now);
                self.done(&format!("send {rest}"));
            }
            "refused" => self.message(rest).refused = true,
            "got" => {
                let words: Vec<_> = rest.split(' ').collect();
                let found = Found {
                    key: (number(words[0]), number(words[1])),
                    id: MessageId::from_str(words[2]).map_err(|e| e.to_string())?,
                    deliveries: number(words[3]) as u32,
                };
                self.received(&found)?;
                let message = self.messages.entry(found.key).or_default();
                message.got.push(now);
                let acked = message.acked;
                ensure(acked.is_none(), || {
                    format!("{found:?} was acknowledged in {acked:?} and came back")
                })?;
            }
            "acking" => self.message(rest).acking = Some(now),
            "acked" => self.message(rest).acked = Some(now),
            _ => return Err(report.to_owned()),
        }
        Ok(())
    }

    fn message(&mut self, key: &str) -> &mut Message {
        let (producer, n) = key.split_once(' ').unwrap_or_default();
        self.messages
            .entry((number(producer), number(n)))
            .or_default()
    }

    fn begins(&mut self, name: &str, sends: bool, acks: bool) {
        self.unfinished.insert(name.to_owned(), self.syncs.len());
        self.syncs.push(Sync {
            sends,
            acks,
            began: self.reports.len() - 1,
            done: None,
        });
    }

    fn done(&mut self, name: &str) {
        if let Some(index) = self.unfinished.remove(name) {
            self.syncs[index].done = Some(self.reports.len() - 1);
        }
    }

    /// Wherever a message turns up, it has its id, and nobody else has it.
    fn received(&mut self, found: &Found) -> Result<(), String> {
        let owner = *self.ids.entry(found.id).or_insert(found.key);
        ensure(owner == found.key, || {
            format!("one id, two messages: {owner:?} and {found:?}")
        })?;
        let message = self.messages.get_mut(&found.key);
        let message = message.ok_or_else(|| format!("{found:?} was never sent"))?;
        let id = *message.id.get_or_insert(found.id);
        ensure(id == found.id, || format!("another id, {id}: {found:?}"))
    }

    /// An id that was given to a message of somebody else.
    pub fn given(&mut self, id: MessageId, key: Key) -> Result<(), String> {
        let before = self.ids.insert(id, key);
        ensure(before.is_none(), || {
            format!("{id} was given twice: {before:?}, {key:?}")
        })
    }

    /// Checks what the channel delivers after a power cut; gives how many messages had to be there, or away.
    pub fn check(&mut self, cut: Cut, found: &[Found]) -> Result<u64, String> {
        self.check_order(cut, found)?;
        let last = |sort: fn(&Sync) -> bool| {
            let done = |s: &&Sync| sort(s) && s.done.is_some_and(|done| done < cut.before);
            self.syncs.iter().filter(done).map(|s| s.began).max()
        };
        let (sends, acks) = (last(|s| s.sends), last(|s| s.acks));
        let found: BTreeMap<Key, &Found> = found.iter().map(|f| (f.key, f)).collect();
        let mut lost = vec![Vec::new(); self.incarnations.len()];
        let mut checked = 0;
        for (key, m) in &self.messages {
            let promise = self.incarnations[m.incarnation];
            let returned = m.sent.is_some_and(|at| at < cut.before);
            let synced = m.sent.is_some_and(|at| Some(at) < sends) || promise == Promise::Each;
            let acking = m.acking.is_some_and(|at| at < cut.after);
            let done = m.acked.is_some_and(|at| at < cut.before && Some(at) < acks);
            match found.get(key) {
                None if returned && synced && !acking => {
                    return Err(format!("{key:?} is lost: {m:?}"));
                }
                None if returned && !acking => lost[m.incarnation].push(*key),
                None => {}
                Some(f) => {
                    ensure(m.sending < cut.after, || {
                        format!("{f:?} was not sent yet: {m:?}")
                    })?;
                    ensure(!m.refused, || format!("{f:?} was refused: {m:?}"))?;
                    ensure(!done, || format!("{f:?} was acknowledged: {m:?}"))?;
                    self.check_deliveries(cut, f, m, acks)?;
                }
            }
            checked += u64::from(done || returned && synced && !acking);
        }
        for (promise, lost) in self.incarnations.iter().zip(&lost) {
            if let Promise::AllBut(most) = *promise {
                ensure(lost.len() as u64 <= most, || {
                    format!("more than {most} lost: {lost:?}")
                })?;
            }
        }
        Ok(checked)
    }

    /// In the order of their ids, each producer's in the order they were sent, and none behind one that was
    /// received already.
    fn check_order(&mut self, cut: Cut, found: &[Found]) -> Result<(), String> {
        ensure(found.is_sorted_by(|a, b| a.id < b.id), || {
            format!("ids out of order: {found:?}")
        })?;
        let mut last_got = BTreeMap::new();
        for ((producer, number), m) in &self.messages {
            if m.got.first().is_some_and(|at| *at < cut.before) {
                last_got.insert(*producer, *number);
            }
        }
        let mut last = BTreeMap::new();
        let mut seen = BTreeSet::new();
        for f in found {
            self.received(f)?;
            ensure(seen.insert(f.key), || format!("{f:?} is there twice"))?;
            let (producer, number) = f.key;
            let before = last.insert(producer, number);
            ensure(before < Some(number), || format!("{f:?} behind {before:?}"))?;
            let earlier = self.messages[&f.key].got.first();
            let first = earlier.is_none_or(|at| *at >= cut.after);
            let got = last_got.get(&producer).copied();
            ensure(!first || got < Some(number), || {
                format!("{f:?} comes for the first time, {got:?} had come")
            })?;
        }
        Ok(())
    }

    /// A cut may take back what was counted since the last sync; what was not reported may have been counted,
    /// once in each incarnation.
    fn check_deliveries(
        &self,
        cut: Cut,
        f: &Found,
        m: &Message,
        synced: Option<usize>,
    ) -> Result<(), String> {
        let got = |until: Option<usize>| m.got.iter().filter(|at| Some(**at) < until).count();
        let least = got(synced) + 1;
        let incarnations = self.began[m.incarnation..].iter();
        let incarnations = incarnations.filter(|at| **at < cut.after).count();
        let most = got(Some(cut.after)) + 1 + incarnations;
        let deliveries = f.deliveries as usize;
        let possible = least.min(14)..=most;
        ensure(possible.contains(&deliveries), || {
            format!("{f:?}, not {possible:?} deliveries: {m:?}")
        })
    }

    /// Checks what an orderly open delivers when the processes are dead and the power stayed.
    pub fn check_killed(&mut self, found: &[Found]) -> Result<u64, String> {
        // As if the kernel had synced all that they stored.
        let now = self.now();
        self.syncs.push(Sync {
            sends: true,
            acks: true,
            began: now,
            done: Some(now),
        });
        let cut = Cut {
            before: now + 1,
            after: now + 1,
        };
        self.check(cut, found)
    }
}

/// The parent reads what its own processes wrote.
#[allow(clippy::unwrap_used)]
fn number(word: &str) -> u64 {
    word.parse().unwrap()
}
