//! What recovery tells.

use crate::format::checkpoint::Checkpoint;
use std::fmt;
use std::time::Duration;

/// A place in the ring whose content is not what was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DamagedFrame {
    position: u64,
    end: Option<u64>,
}

impl DamagedFrame {
    pub(super) fn durable(position: u64, end: u64) -> Self {
        DamagedFrame {
            position,
            end: Some(end),
        }
    }

    pub(super) fn named(position: u64) -> Self {
        DamagedFrame {
            position,
            end: None,
        }
    }

    /// Position of the first damaged byte.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Whether the place was on stable storage before: then `recv` returns
    /// an error there. Otherwise it cannot be told from a send that
    /// never finished, and was stepped over.
    #[must_use]
    pub fn was_durable(&self) -> bool {
        self.end.is_some()
    }
}

impl fmt::Display for DamagedFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.end {
            Some(end) => write!(
                f,
                "{} bytes at position {}",
                end - self.position,
                self.position
            ),
            None => write!(f, "an unsynced frame at position {}", self.position),
        }
    }
}

/// What was found when the channel was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecoveryReport {
    /// The file was made by this open.
    pub created: bool,
    pub(super) clean: bool,
    pub(super) kept: u64,
    pub(super) redelivered: u64,
    pub(super) stepped_over: u64,
    pub(super) damaged: Vec<DamagedFrame>,
    pub(super) header_faults: Vec<(u64, String)>,
    pub(super) scan_time: Duration,
}

impl RecoveryReport {
    /// That of a new channel.
    pub fn created() -> Self {
        RecoveryReport {
            created: true,
            clean: true,
            ..RecoveryReport::default()
        }
    }

    /// Of a chain of which nothing was looked at yet.
    pub fn clean() -> Self {
        RecoveryReport {
            clean: true,
            ..RecoveryReport::default()
        }
    }

    /// Adds what was found in one file of a chain.
    pub fn add(&mut self, file: &RecoveryReport, number: u64) {
        self.clean &= file.clean;
        self.kept += file.kept;
        self.redelivered += file.redelivered;
        self.stepped_over += file.stepped_over;
        self.damaged.extend_from_slice(&file.damaged);
        self.scan_time += file.scan_time;
        for (offset, fault) in &file.header_faults {
            let fault = match number {
                0 => fault.clone(),
                _ => format!("segment {number}: {fault}"),
            };
            self.header_faults.push((*offset, fault));
        }
    }

    /// Adds a complete file, which was not scanned.
    pub fn add_complete(&mut self, checkpoint: &Checkpoint) {
        self.kept += checkpoint.unacknowledged;
        self.redelivered += u64::from(checkpoint.handed_out);
    }

    /// Whether the file was made by this open.
    #[must_use]
    pub fn is_created(&self) -> bool {
        self.created
    }

    /// Whether the last incarnation ended in order. Then nothing was scanned, and nothing can be torn.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.clean
    }

    /// Messages that were sent and not acknowledged: they will be delivered.
    ///
    /// Exact, except where a frame below the durable commit is damaged: that is found when it is
    /// delivered.
    #[must_use]
    pub fn kept(&self) -> u64 {
        self.kept
    }

    /// Of the kept messages, those that had been handed out before.
    #[must_use]
    pub fn redelivered(&self) -> u64 {
        self.redelivered
    }

    /// Places where a send had not finished, or was torn by a power cut. Their sends did not return, or
    /// not with a promise that reaches over what happened.
    #[must_use]
    pub fn stepped_over(&self) -> u64 {
        self.stepped_over
    }

    /// Places whose content is not what was sent.
    #[must_use]
    pub fn damaged(&self) -> &[DamagedFrame] {
        &self.damaged
    }

    /// Header copies that were invalid, by their offset in the file, and why; for a segment that
    /// begins with which. The other copy was used, and both are valid again.
    #[must_use]
    pub fn header_faults(&self) -> &[(u64, String)] {
        &self.header_faults
    }

    /// How long the scan took, which reads the messages in the files: zero where the last incarnation ended
    /// in order. What is written and synced behind it is not in it, and may take longer; nor is a look at
    /// segments that turn out to be unused. Reports are equal only if this is, too.
    #[must_use]
    pub fn scan_time(&self) -> Duration {
        self.scan_time
    }
}

impl fmt::Display for RecoveryReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.created {
            return f.write_str("new channel");
        }
        let ended = if self.clean {
            "closed in order"
        } else {
            "not closed in order"
        };
        write!(
            f,
            "{ended}: {} kept, {} of them redelivered, {} stepped over, {} damaged",
            self.kept,
            self.redelivered,
            self.stepped_over,
            self.damaged.len()
        )?;
        for damaged in &self.damaged {
            write!(f, "; damaged: {damaged}")?;
        }
        for (offset, fault) in &self.header_faults {
            write!(f, "; header page at offset {offset}: {fault}")?;
        }
        Ok(())
    }
}
