//! Who syncs, when: group commit, the limit, poison.
//!
//! One caller leads at a time. The leader takes the published prefix as its target, stores a
//! checkpoint of what is already true, and makes one sync of the whole file: data, checkpoint and
//! acknowledgements go together. Then it raises the commit and the limit, and wakes everyone. Nobody
//! holds a lock that senders need while the disk works: the role of the leader is a mutex that is
//! only ever tried.
//!
//! The rules for the limit (which space may be reused) are in `pages`.

mod flags;
mod flush;
pub mod housekeeper;
mod log;
mod mode;
mod pages;
mod receive;
mod rounds;
mod sealing;
mod send;
mod shared;
pub mod timer;
pub mod timer_thread;

pub use log::{Log, LogSetup};
pub use mode::{Mode, SendFailure, Wait};
pub use pages::Stage;
pub use shared::{Failure, Sending, Shared};
