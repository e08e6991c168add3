//! What must be, may be and must not be in a file after a crash.

use super::*;
use std::collections::BTreeSet;
use walchan_medium::Part;

/// A message that was sent, or may have been, or was given up. Moments are counts of events of the medium.
#[derive(Clone, Debug)]
pub(super) struct Sent {
    pub(super) id: MessageId,
    /// The part of the disk that it lies in.
    pub(super) part: Part,
    pub(super) producer: usize,
    /// Counts the messages of its producer, over all incarnations.
    pub(super) number: u64,
    pub(super) payload: Vec<u8>,
    /// The claim, with its padding, and where the frame begins and ends.
    pub(super) start: u64,
    pub(super) position: u64,
    pub(super) end: u64,
    /// One call claimed, published and synced it.
    pub(super) whole: bool,
    /// The publication began and ended. Both 0 for what the incarnation found.
    pub(super) published: Option<(usize, usize)>,
    /// `send` returned `Ok`.
    pub(super) returned: Option<usize>,
    /// The claim was given up, and this covered.
    pub(super) abandoned: Option<(usize, usize)>,
    /// The acknowledgement began and ended.
    pub(super) acknowledged: Option<(usize, usize)>,
    /// Deliveries by earlier incarnations, then the moments of those of this one.
    pub(super) delivered_before: u64,
    pub(super) delivered: Vec<(usize, usize)>,
}

impl Sent {
    /// What one call sent, from one moment to another, and what returned `Ok`.
    pub(super) fn by_one_call(
        id: MessageId,
        producer: usize,
        number: u64,
        payload: Vec<u8>,
        call: (usize, usize),
    ) -> Self {
        let position = id.position();
        Sent {
            id,
            part: Part::ALL,
            producer,
            number,
            start: position,
            position,
            end: position + walchan_core::format::frame::frame_len(payload.len() as u64),
            payload,
            whole: true,
            published: Some(call),
            returned: Some(call.1),
            abandoned: None,
            acknowledged: None,
            delivered_before: 0,
            delivered: Vec::new(),
        }
    }

    /// Acknowledged or given up.
    pub(super) fn is_final(&self) -> bool {
        self.abandoned.is_some() || self.acknowledged.is_some()
    }

    /// Published or given up.
    fn closed(&self) -> Option<(usize, usize)> {
        self.published.or(self.abandoned)
    }
}

/// How the power went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Crash {
    /// The process alone: everything stored is there.
    Kill,
    PowerCut,
}

/// One message of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) id: MessageId,
    pub(super) deliveries: u8,
    /// Its payload, in the bytes of what was found.
    at: usize,
    len: usize,
}

/// What an image delivers, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) messages: Vec<Message>,
    pub(super) bytes: Vec<u8>,
    /// As the report says.
    pub(super) clean: bool,
    pub(super) stepped_over: u64,
    /// Positions that the report calls damaged and not durable.
    pub(super) named: Vec<u64>,
    pub(super) header_faults: usize,
}

impl Found {
    pub(super) fn push(&mut self, id: MessageId, deliveries: u8, payload: &[u8]) {
        let (at, len) = (self.bytes.len(), payload.len());
        self.bytes.extend_from_slice(payload);
        self.messages.push(Message {
            id,
            deliveries,
            at,
            len,
        });
    }

    pub(super) fn payload(&self, message: &Message) -> &[u8] {
        &self.bytes[message.at..message.at + message.len]
    }

    pub(super) fn has(&self, id: MessageId) -> bool {
        self.messages.binary_search_by_key(&id, |m| m.id).is_ok()
    }

    /// The same messages, each delivered as often; the reports may differ.
    pub(super) fn is_as(&self, other: &Found) -> bool {
        self.messages == other.messages && self.bytes == other.bytes
    }
}

/// One incarnation, as the program saw it: all that it found and claimed, by position.
#[derive(Debug)]
pub(super) struct Oracle {
    pub(super) mode: Mode,
    pub(super) sent: Vec<Sent>,
    /// The tail that recovery left.
    pub(super) tail: u64,
    /// A sync failed: what the cache shows and the disk holds may differ.
    pub(super) failed: bool,
    /// It ended in order at this moment.
    pub(super) finished: Option<usize>,
    /// A crash can come between two words.
    pub(super) word_by_word: bool,
    /// So it could in an earlier incarnation of the same boot, and nothing need have been written since to
    /// where it did.
    pub(super) half_stored_before: bool,
}

/// What is to be said of one message at one moment.
#[derive(Clone, Debug)]
struct Line {
    index: usize,
    must: bool,
    /// Returned, and nobody has begun to acknowledge it: if it is not there it is lost.
    counts: bool,
    least: u64,
    most: u64,
}

/// What a crash of one kind at one moment may leave.
#[derive(Debug)]
pub(super) struct Expected<'a> {
    oracle: &'a Oracle,
    lines: Vec<Line>,
    lost_max: u64,
    /// Holes that recovery has to step over, where that is known.
    holes: Option<u64>,
    /// Checkpoint pages that may be invalid.
    faults_max: usize,
    clean: bool,
    what: String,
}

impl Oracle {
    /// Of an incarnation that begins with these messages, all durable, at this tail.
    pub(super) fn new(mode: Mode, sent: Vec<Sent>, tail: u64) -> Self {
        Oracle {
            mode,
            sent,
            tail,
            failed: false,
            finished: None,
            word_by_word: false,
            half_stored_before: false,
        }
    }

    /// The message with this id, if there is one.
    pub(super) fn find(&mut self, id: MessageId) -> Option<&mut Sent> {
        let index = self.sent.binary_search_by_key(&id, |s| s.id).ok()?;
        Some(&mut self.sent[index])
    }

    /// `durable`: all events in a part before this one were durable then.
    pub(super) fn expect(
        &self,
        moment: usize,
        durable: impl Fn(Part) -> usize,
        crash: Crash,
    ) -> Expected<'_> {
        let mut lines = Vec::with_capacity(self.sent.len());
        let mut unsynced = 0;
        for (index, sent) in self.sent.iter().enumerate() {
            let Some((from, to)) = sent.published else {
                continue;
            };
            let durable = durable(sent.part);
            let lasts = |at: usize| match crash {
                Crash::Kill => at <= moment,
                Crash::PowerCut => at == 0 || at <= durable,
            };
            let returned = sent.returned.is_some_and(|at| at <= moment);
            unsynced += u64::from(returned && to > durable && to > 0);
            let acknowledging = sent.acknowledged.is_some_and(|a| a.0 < moment);
            let gone = sent.acknowledged.is_some_and(|a| lasts(a.1));
            if gone || (to > 0 && from >= moment) {
                continue;
            }
            let promised = returned && (self.mode == Mode::PerSend || crash == Crash::Kill);
            let least = sent.delivered.iter().filter(|d| lasts(d.1)).count() as u64;
            let most = sent.delivered.iter().filter(|d| d.0 < moment).count() as u64;
            // Without syncs an acknowledged frame is reused while an older checkpoint may be on the disk.
            // What a later one leaves there may be its state alone: if it comes back, its count is anything.
            let reused = acknowledging && self.mode == Mode::FlushOnly && crash == Crash::PowerCut;
            let (before, most) = if reused {
                (0, 14)
            } else {
                (sent.delivered_before, most)
            };
            let least = if reused { 0 } else { least };
            lines.push(Line {
                index,
                must: !acknowledging && (promised || lasts(to)),
                counts: returned && !acknowledging,
                least: (before + least + 1).min(14),
                most: (before + most + 1).min(14),
            });
        }
        let lost_max = match self.mode {
            Mode::Every { max_ops, .. } => max_ops,
            Mode::PerSend => 0,
            Mode::FlushOnly => u64::MAX,
        };
        assert!(
            unsynced <= lost_max || self.mode == Mode::PerSend,
            "{unsynced} sends have returned at {moment} and are not synced"
        );
        Expected {
            oracle: self,
            lines,
            lost_max,
            holes: (crash == Crash::Kill).then(|| self.holes(moment)).flatten(),
            faults_max: match crash {
                Crash::PowerCut if self.half_stored_before => usize::MAX,
                _ => usize::from(self.word_by_word),
            },
            clean: crash == Crash::Kill && self.finished.is_some_and(|at| at <= moment),
            what: format!("{crash:?} at {moment}, {:?}", self.mode),
        }
    }

    /// Gaps between the frames that a killed process leaves; `None` in the middle of a send.
    fn holes(&self, moment: usize) -> Option<u64> {
        let (mut holes, mut open) = (0, false);
        // In files before the one that is looked at: holes if anything was sent behind them. Where a file
        // holds nothing else, nobody can tell.
        let (mut before, mut part, mut holds) = (0, None, false);
        for sent in self.sent.iter().filter(|s| s.start >= self.tail) {
            if part != Some(sent.part) {
                before += u64::from(open && holds);
                (open, part, holds) = (false, Some(sent.part), false);
            }
            let closed = sent.closed();
            let within = closed.is_some_and(|(from, to)| from < moment && moment < to);
            if within && (sent.whole || sent.position > sent.start) {
                return None;
            }
            if closed.is_some_and(|(_, to)| to <= moment) {
                holes += u64::from(open) + std::mem::take(&mut before);
                (open, holds) = (false, true);
            } else {
                open = true;
            }
        }
        Some(holes)
    }

    /// What the next incarnation begins with, if it finds this.
    pub(super) fn carried(&self, found: &Found) -> Vec<Sent> {
        let next = |message: &Message| {
            let at = self.sent.binary_search_by_key(&message.id, |s| s.id);
            Sent {
                published: Some((0, 0)),
                returned: Some(0),
                acknowledged: None,
                delivered_before: u64::from(message.deliveries) - 1,
                delivered: Vec::new(),
                ..self.sent[at.expect("it was checked")].clone()
            }
        };
        found.messages.iter().map(next).collect()
    }
}

impl Expected<'_> {
    pub(super) fn check(&self, found: &Found) {
        self.check_messages(found);
        self.check_report(found);
    }

    /// The report left aside: a recovery that was crashed as well has a part in it.
    pub(super) fn check_messages(&self, found: &Found) {
        let what = &self.what;
        let mut lines = self.lines.iter().peekable();
        // One producer's messages are in its order.
        let mut last = BTreeMap::new();
        let mut lost = 0;
        let mut miss = |line: &Line| {
            let sent = &self.oracle.sent[line.index];
            assert!(!line.must, "{} is lost: {sent:?}, {what}", sent.id);
            lost += u64::from(line.counts);
        };
        for message in &found.messages {
            let line = loop {
                match lines.next() {
                    Some(line) if self.oracle.sent[line.index].id < message.id => miss(line),
                    other => break other,
                }
            };
            let id = message.id;
            let Some(line) = line.filter(|l| self.oracle.sent[l.index].id == id) else {
                let known = self.oracle.sent.iter().find(|s| s.id == id);
                panic!("{id} is there: {known:?}, {what}");
            };
            let sent = &self.oracle.sent[line.index];
            assert!(found.payload(message) == sent.payload, "{id} is changed");
            let last = last.insert(sent.producer, sent.number);
            assert!(last < Some(sent.number), "{id} is before {last:?}, {what}");
            let deliveries = u64::from(message.deliveries);
            assert!(
                (line.least..=line.most).contains(&deliveries),
                "{id}: {deliveries} deliveries, not {} to {}: {sent:?}, {what}",
                line.least,
                line.most
            );
        }
        lines.for_each(miss);
        assert!(lost <= self.lost_max, "{lost} sends are lost, {what}");
    }

    fn check_report(&self, found: &Found) {
        let what = &self.what;
        assert!(!self.clean || found.clean, "it was closed, {what}");
        if let Some(holes) = self.holes {
            // What an unfinished send has left of an earlier header can name its place by chance; then it
            // looks torn.
            let torn = u64::from(!found.named.is_empty());
            // Where a file was sealed behind an open claim, padding follows it.
            let parts = self.oracle.sent.iter().map(|s| s.part);
            let files = parts
                .filter(|part| *part != Part::ALL)
                .map(|part| part.offset);
            let seals = files.collect::<BTreeSet<u64>>().len() as u64;
            let steps = holes..=holes + torn + seals;
            assert!(
                steps.contains(&found.stepped_over),
                "{steps:?} not {}: {found:?}, {what}",
                found.stepped_over
            );
        }
        assert!(found.header_faults <= self.faults_max, "{what}");
        for position in &found.named {
            // In a torn frame, so claimed and not delivered; or, without syncs, of an earlier incarnation,
            // and being overwritten.
            let mut sent = self.oracle.sent.iter();
            let torn = sent.any(|s| (s.start..s.end).contains(position));
            let earlier = *position < self.oracle.tail && self.oracle.mode == Mode::FlushOnly;
            let there = found.messages.iter().any(|m| m.id.position() == *position);
            assert!(
                (torn || earlier) && !there,
                "{position} is called damaged, the incarnation began at {}, {what}",
                self.oracle.tail
            );
        }
    }
}
