//! What must be, may be and must not be in a file after a crash.

use super::*;
use crate::memory::simulated::Event;
use std::collections::BTreeSet;

/// A message that was sent, or may have been.
#[derive(Clone, Debug)]
struct Sent {
    number: u64,
    payload: Vec<u8>,
    id: Option<MessageId>,
    /// Moments: the send began; it returned `Ok`. Both 0 for what the life found.
    began: usize,
    returned: Option<usize>,
    /// The acknowledgement began and returned.
    acknowledged: Option<(usize, usize)>,
    /// Deliveries by earlier lives, then the moments of those of this one.
    delivered_before: u64,
    delivered: Vec<(usize, usize)>,
}

/// How the power went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Crash {
    /// The process alone: everything stored is there.
    Kill,
    PowerCut,
}

/// One life, as the program saw it.
#[derive(Debug)]
pub(super) struct Oracle {
    mode: Mode,
    sent: Vec<Sent>,
    /// A sync failed: what the cache shows and the disk holds may differ.
    pub(super) failed: bool,
}

/// What an image delivers: number, id, deliveries, payload.
pub(super) type Found = Vec<(u64, MessageId, u8, Vec<u8>)>;

impl Oracle {
    /// A life that begins with these messages, all durable.
    pub(super) fn new(mode: Mode, found: &Found) -> Self {
        let sent = found
            .iter()
            .map(|(number, id, deliveries, payload)| Sent {
                number: *number,
                payload: payload.clone(),
                id: Some(*id),
                began: 0,
                returned: Some(0),
                acknowledged: None,
                delivered_before: u64::from(*deliveries) - 1,
                delivered: Vec::new(),
            })
            .collect();
        Oracle {
            mode,
            sent,
            failed: false,
        }
    }

    pub(super) fn send(
        &mut self,
        number: u64,
        payload: Vec<u8>,
        id: Option<MessageId>,
        began: usize,
        returned: Option<usize>,
    ) {
        self.sent.push(Sent {
            number,
            payload,
            id,
            began,
            returned,
            acknowledged: None,
            delivered_before: 0,
            delivered: Vec::new(),
        });
    }

    /// A delivery in the same life.
    pub(super) fn delivered(&mut self, number: u64, payload: &[u8], from: usize, to: usize) {
        let earlier = self
            .sent
            .iter()
            .filter(|s| s.number < number && s.returned.is_some() && s.delivered.is_empty())
            .count();
        assert_eq!(earlier, 0, "{number} overtook others");
        let sent = self.of(number);
        assert_eq!(sent.payload, payload);
        assert!(sent.delivered.is_empty(), "{number} twice in a life");
        sent.delivered.push((from, to));
    }

    pub(super) fn acknowledged(&mut self, number: u64, from: usize, to: usize) {
        let sent = self.of(number);
        assert_eq!(sent.acknowledged, None);
        sent.acknowledged = Some((from, to));
    }

    fn of(&mut self, number: u64) -> &mut Sent {
        let found = self.sent.iter_mut().find(|s| s.number == number);
        found.unwrap_or_else(|| panic!("{number} was never sent"))
    }

    /// Checks what a crash at `moment` left. Which promise covers a message is read off the log of the
    /// medium: a sync that began after the send, or the acknowledgement, and completed before the crash.
    pub(super) fn check(&self, medium: &Simulated, moment: usize, crash: Crash, found: &Found) {
        let synced = medium.events()[..moment]
            .iter()
            .filter_map(|e| match e {
                Event::Synced { since } => Some(*since),
                _ => None,
            })
            .max();
        let lasts = |at: usize| match crash {
            Crash::Kill => at <= moment,
            Crash::PowerCut => synced.is_some_and(|since| at <= since),
        };
        let numbers: BTreeSet<u64> = found.iter().map(|f| f.0).collect();
        assert!(found.is_sorted_by_key(|f| f.0), "out of order: {numbers:?}");
        assert_eq!(numbers.len(), found.len(), "twice");
        let mut lost = 0;
        for sent in &self.sent {
            let there = found.iter().find(|f| f.0 == sent.number);
            let begun = sent.began < moment || sent.began == 0;
            let returned = sent.returned.is_some_and(|at| at <= moment);
            let acknowledging = sent.acknowledged.is_some_and(|a| a.0 < moment);
            let n = sent.number;
            match there {
                None => {
                    let promised = returned && (self.mode == Mode::PerSend || crash == Crash::Kill);
                    let durable = sent.returned.is_some_and(|at| at == 0 || lasts(at));
                    assert!(
                        acknowledging || !(promised || durable),
                        "{n} is lost: {sent:?}, crash at {moment}"
                    );
                    lost += u64::from(returned && !acknowledging);
                }
                Some((_, id, deliveries, payload)) => {
                    assert!(begun, "{n} was not sent yet");
                    assert_eq!(*payload, sent.payload, "{n}");
                    assert!(sent.id.is_none_or(|given| given == *id), "{n}");
                    let done = sent.acknowledged.is_some_and(|a| lasts(a.1));
                    assert!(!done, "{n} was acknowledged and is back");
                    let least = sent.delivered.iter().filter(|d| lasts(d.1)).count() as u64;
                    let most = sent.delivered.iter().filter(|d| d.0 < moment).count() as u64;
                    let least = (sent.delivered_before + least + 1).min(14);
                    let most = (sent.delivered_before + most + 1).min(14);
                    let deliveries = u64::from(*deliveries);
                    assert!(
                        (least..=most).contains(&deliveries),
                        "{n}: {deliveries} deliveries, not {least} to {most}"
                    );
                }
            }
        }
        let known: BTreeSet<u64> = self.sent.iter().map(|s| s.number).collect();
        assert!(numbers.is_subset(&known), "never sent, or long gone");
        if let Mode::Every { max_ops, .. } = self.mode {
            assert!(lost <= max_ops, "{lost} returned sends are lost");
        }
    }
}
