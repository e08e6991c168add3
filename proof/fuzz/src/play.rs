//! Opens a file, drains it, sends, closes or not, and again; each time judged.

use crate::incarnation::{Got, Incarnation};
use crate::judge::{self, Expect, Expected};
use crate::memory::Limit;
use arbitrary::{Arbitrary, Unstructured};
use std::collections::BTreeMap;
use std::time::Duration;
use walchan_core::commit::Mode;

/// What is done with an open file.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Act {
    Receive(Then),
    Send(u8),
    SendLarge,
    Progress,
    Sync,
    Kill,
    Close,
}

/// What becomes of something received.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Then {
    Acknowledge,
    Leave,
    Hold,
    GiveBack,
}

/// The numbers that stand for the system's random ones.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// What is known of an open file.
struct Model {
    /// By position: not acknowledged, with the deliveries so far.
    waiting: BTreeMap<u64, Expect>,
    /// Damage that nobody has released.
    gaps: Vec<(u64, u64)>,
    /// Where the receiver is.
    cursor: u64,
    /// Handed out and given back.
    returned: Vec<u64>,
    /// Handed out and held.
    held: Vec<u64>,
}

impl Model {
    fn new(expected: Expected) -> Model {
        let waiting = expected.messages.into_iter().map(|m| (m.position, m));
        Model {
            waiting: waiting.collect(),
            gaps: expected.gaps,
            cursor: 0,
            returned: Vec::new(),
            held: Vec::new(),
        }
    }

    /// Judges what was received, and does with it as is said.
    fn received(&mut self, incarnation: &Incarnation, got: Option<Got>, then: Then) {
        if let Some(at) = self.returned.iter().min().copied() {
            self.returned.retain(|position| *position != at);
            let count = self.waiting[&at].deliveries;
            self.message(incarnation, got, at, count, then);
            return;
        }
        let message = self
            .waiting
            .range(self.cursor..)
            .next()
            .map(|(at, m)| (*at, m.deliveries));
        let gap = self.gaps.iter().find(|gap| gap.1 > self.cursor).copied();
        match (message, gap) {
            (at, Some((from, to))) if at.is_none_or(|(at, _)| from < at) => {
                let Some(Got::Damage {
                    position,
                    end,
                    bytes,
                }) = got
                else {
                    panic!("damage at {from} was passed over: {got:?}");
                };
                assert_eq!(position, from.max(self.cursor), "damage begins elsewhere");
                assert!(
                    position < end && end <= to,
                    "damage {position}..{end} in {from}..{to}"
                );
                assert_eq!(bytes.len() as u64, end - position);
                self.cursor = end;
                if matches!(then, Then::Acknowledge) {
                    incarnation.release_damage(position, end);
                    self.release_damage(position, end);
                }
            }
            (Some((at, deliveries)), _) => {
                self.cursor = at + 1;
                self.message(incarnation, got, at, deliveries, then);
            }
            (None, _) => assert!(got.is_none(), "made up: {got:?}"),
        }
    }

    fn message(
        &mut self,
        incarnation: &Incarnation,
        got: Option<Got>,
        at: u64,
        count: u8,
        then: Then,
    ) {
        let expected = self.waiting.get_mut(&at).expect("it waits");
        let Some(Got::Message {
            position,
            tag,
            deliveries,
            payload,
        }) = got
        else {
            panic!("not the message at {at}: {got:?}");
        };
        assert_eq!((position, tag, deliveries), (at, expected.tag, count));
        assert!(payload == expected.payload, "other bytes than at {at}");
        expected.deliveries = (count + 1).min(14);
        match then {
            Then::Acknowledge => {
                incarnation.acknowledge(at);
                self.waiting.remove(&at);
            }
            Then::Leave => {}
            Then::Hold => self.held.push(at),
            Then::GiveBack => {
                incarnation.give_back(at);
                self.returned.push(at);
            }
        }
    }

    /// What is left of the gaps.
    fn release_damage(&mut self, from: u64, to: u64) {
        let rest = |gap: &(u64, u64)| [(gap.0, gap.1.min(from)), (gap.0.max(to), gap.1)];
        let parts: Vec<_> = self.gaps.iter().flat_map(rest).collect();
        self.gaps = parts.into_iter().filter(|gap| gap.0 < gap.1).collect();
    }

    /// What the next open must find. Deliveries count from one more. Damage may have become a hole, which is
    /// counted: an incarnation without syncs names no commit above its head.
    fn check_next(&self, expected: &Expected, stepped_over: u64) {
        let mine: Vec<&Expect> = self.waiting.values().collect();
        let found: Vec<&Expect> = expected.messages.iter().collect();
        assert_eq!(mine, found, "after reopening");
        let left = |gap: &(u64, u64)| expected.gaps.contains(gap);
        let gone = self.gaps.iter().filter(|gap| !left(gap)).count() as u64;
        assert!(
            gone <= stepped_over,
            "damage went in silence: {:?}",
            self.gaps
        );
        let known = |gap: &(u64, u64)| self.gaps.contains(gap);
        assert!(expected.gaps.iter().all(known), "damage was made");
    }
}

fn mode(choice: u8) -> Mode {
    match choice % 4 {
        0 => Mode::FlushOnly,
        1 => Mode::Every {
            max_ops: 3,
            max_delay: Duration::MAX,
        },
        _ => Mode::PerSend,
    }
}

/// Plays with a file. The acts come from what is left of the input.
pub fn play(mut image: Vec<u8>, capacity: u64, input: &mut Unstructured<'_>) {
    let mut random = Random(capacity);
    let setup: u8 = input.arbitrary().unwrap_or(0);
    let mut accept_torn = !setup.is_multiple_of(8);
    let mut model: Option<Model> = None;
    let mut sent = 0u64;
    let rounds = if setup % 4 == 1 { 3 } else { 2 };
    for round in 0..rounds {
        let before = image.clone();
        let limit = Limit::new(before.len());
        let mode = mode((setup >> 3).wrapping_add(round));
        let opened = Incarnation::open(image, capacity, mode, accept_torn, &mut || random.next());
        drop(limit);
        let mut incarnation = match opened {
            Ok(incarnation) => incarnation,
            Err((error, after)) => {
                // Damage that became a hole is refused, too.
                let whole = model.as_ref().is_some_and(|model| model.gaps.is_empty());
                assert!(!whole, "it was open before: {error}");
                judge::refused(&before, &after, capacity, accept_torn, &error.to_string());
                if accept_torn {
                    return;
                }
                accept_torn = true;
                image = after;
                continue;
            }
        };
        let expected = judge::opened(&before, &incarnation, capacity);
        if let Some(model) = &model {
            model.check_next(&expected, incarnation.report().stepped_over());
            assert!(incarnation.report().header_faults().is_empty());
        }
        let mut now = Model::new(expected);
        let mut closed = false;
        let last = round + 1 == rounds;
        for step in 0..64 {
            // The last incarnation takes everything.
            let act = match input.arbitrary() {
                Ok(act) if !last && !input.is_empty() => act,
                _ if step < 60 => Act::Receive(Then::Leave),
                _ => Act::Send(5),
            };
            match act {
                Act::Receive(then) => {
                    let limit = Limit::new(before.len());
                    let got = incarnation.receive();
                    drop(limit);
                    let nothing = got.is_none();
                    now.received(&incarnation, got, then);
                    if nothing && input.is_empty() {
                        break;
                    }
                }
                Act::Send(len) => {
                    sent += 1;
                    send(&incarnation, &mut now, sent, usize::from(len));
                }
                Act::SendLarge => {
                    sent += 1;
                    send(&incarnation, &mut now, sent, capacity as usize / 2 - 32);
                }
                Act::Progress => assert!(incarnation.progress()),
                Act::Sync => assert!(incarnation.sync()),
                Act::Kill => break,
                Act::Close => {
                    closed = true;
                    break;
                }
            }
        }
        if let Some(at) = now.held.first() {
            incarnation.acknowledge(*at);
            now.waiting.remove(at);
        }
        if closed {
            assert!(incarnation.close());
        }
        model = Some(now);
        image = incarnation.with_image(<[u8]>::to_vec);
    }
}

fn send(incarnation: &Incarnation, model: &mut Model, number: u64, len: usize) {
    let mut payload = number.to_le_bytes().to_vec();
    payload.resize(len, number as u8);
    let Some(position) = incarnation.send(&payload) else {
        return;
    };
    let tag = incarnation.with_image(|image| {
        // Of an open file both copies are right, and the last row is that of now.
        let table = &image[crate::layout::TABLES[0]..];
        let count = crate::layout::get32(table, 12) as usize;
        crate::layout::get(table, 64 + 32 * (count - 1) + 16)
    });
    let last = model.waiting.last_key_value().map_or(0, |(at, _)| *at);
    assert!(position >= last, "behind what was sent before");
    let message = Expect {
        position,
        tag,
        deliveries: 1,
        payload,
    };
    assert!(model.waiting.insert(position, message).is_none());
}
