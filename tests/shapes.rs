//! The types are what users of `std::sync::mpsc` expect: bounds, literals, comparisons, conversions.
#![allow(clippy::unwrap_used)]

mod support;

use std::error::Error as StdError;
use std::panic::{RefUnwindSafe, UnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Duration;
use support::{flush, watchdog};
use walchan::{
    CodecError, Corrupt, Delivery, Durability, Error, MessageId, Options, Receiver,
    ReceiverOptions, RecoveryReport, RecvError, RecvTimeoutError, SendError, SendErrorKind,
    SendTimeoutError, Sender, SyncSender, TryRecvError, TrySendError, Undecodable,
};

/// A message type that implements nothing, and cannot leave its thread.
struct Plain(Rc<u8>);

fn sender<S: Clone + Send + Sync + UnwindSafe + RefUnwindSafe + std::fmt::Debug>() {}
fn sendable<S: Send>() {}
fn shared<S: Send + Sync>() {}
fn unwind_safe<S: UnwindSafe + RefUnwindSafe>() {}
fn error<E: StdError>() {}
fn sendable_error<E: StdError + Send + Sync + 'static>() {}

#[test]
fn handles_need_nothing_of_the_message_type() {
    sender::<Sender<Plain>>();
    sender::<SyncSender<Plain>>();
    sendable::<Receiver<Plain>>();
    unwind_safe::<Receiver<Plain>>();
    sendable::<Delivery<u8>>();
    shared::<Delivery<u8>>();
    unwind_safe::<Delivery<String>>();
    shared::<Undecodable>();
    shared::<Corrupt>();
    shared::<MessageId>();
    shared::<RecoveryReport>();
}

#[test]
fn a_delivery_can_move_only_where_its_message_can() {
    // Ambiguous, and so no program, for a type that is `Send`.
    trait UnlessSend<A> {
        fn holds() {}
    }
    struct Sent;
    impl<T: ?Sized> UnlessSend<()> for T {}
    impl<T: ?Sized + Send> UnlessSend<Sent> for T {}
    <Delivery<Rc<u8>> as UnlessSend<_>>::holds();
}

#[test]
fn errors_are_errors_whatever_the_message_is() {
    error::<SendError<Plain>>();
    error::<TrySendError<Plain>>();
    error::<SendTimeoutError<Plain>>();
    sendable_error::<SendError<Vec<u8>>>();
    sendable_error::<TrySendError<Vec<u8>>>();
    sendable_error::<SendTimeoutError<Vec<u8>>>();
    sendable_error::<RecvError>();
    sendable_error::<TryRecvError>();
    sendable_error::<RecvTimeoutError>();
    sendable_error::<Error>();
    sendable_error::<CodecError>();
    let e = SendError {
        value: Plain(Rc::new(3)),
        kind: SendErrorKind::Disconnected,
    };
    assert!(!format!("{e:?}").is_empty() && !e.to_string().is_empty());
    assert_eq!(*e.into_inner().0, 3);
}

#[test]
fn options_are_written_as_literals() {
    let o = Options {
        durability: Durability::FlushOnly,
        ..Options::default()
    };
    assert!(o.truncate_corrupt_tail);
    assert_eq!(Options::default().durability, Durability::SyncPerSend);
    let all = Options {
        durability: Durability::SyncEvery {
            max_ops: 1,
            max_delay: Duration::ZERO,
        },
        truncate_corrupt_tail: false,
        ring_bytes: Some(1),
        max_bytes: Some(2),
        schema: Some("x".to_owned()),
    };
    assert_ne!(all, o);
    let r = ReceiverOptions {
        commit_every: 1,
        commit_max_delay: Duration::ZERO,
    };
    assert_eq!(r, ReceiverOptions::default());
}

#[test]
fn receive_errors_compare_with_what_was_expected() {
    let _dog = watchdog();
    let dir = tempfile::tempdir().unwrap();
    let (tx, rx) = walchan::channel_with_options::<String>(dir.path().join("q"), flush()).unwrap();
    assert!(rx.try_recv() == Err(TryRecvError::Empty));
    assert!(rx.recv_timeout(Duration::ZERO) == Err(RecvTimeoutError::Timeout));
    drop(tx);
    assert!(rx.try_recv() == Err(TryRecvError::Disconnected));
    assert!(rx.recv_timeout(Duration::ZERO) == Err(RecvTimeoutError::Disconnected));
    assert!(rx.recv() == Err(RecvError::Disconnected));
    assert_ne!(
        RecvError::Disconnected,
        RecvError::Io(std::io::ErrorKind::Other.into())
    );
    assert_eq!(
        RecvError::Io(std::io::Error::from_raw_os_error(5)),
        RecvError::Io(std::io::Error::from_raw_os_error(5))
    );
    assert_ne!(
        RecvError::Io(std::io::Error::from_raw_os_error(5)),
        RecvError::Io(std::io::Error::from_raw_os_error(28))
    );
}

#[test]
fn every_send_error_hands_the_value_back() {
    let disconnected = || SendError {
        value: 7,
        kind: SendErrorKind::Disconnected,
    };
    let large = || SendError {
        value: 7,
        kind: SendErrorKind::TooLarge { len: 9, max: 8 },
    };
    assert!(disconnected().is_disconnected());
    assert!(!large().is_disconnected());
    assert_eq!(disconnected().into_inner(), 7);
    let e = TrySendError::from(disconnected());
    assert_eq!(e, TrySendError::Disconnected(7));
    assert!(e.is_disconnected());
    let e = TrySendError::from(large());
    assert_eq!(e, TrySendError::Failed(large()));
    assert!(!e.is_disconnected());
    assert_eq!(e.into_inner(), 7);
    assert_eq!(TrySendError::Full(7).into_inner(), 7);
    assert_eq!(TrySendError::Disconnected(7).into_inner(), 7);
    let e = SendTimeoutError::from(disconnected());
    assert_eq!(e, SendTimeoutError::Disconnected(7));
    assert!(e.is_disconnected());
    assert_eq!(
        SendTimeoutError::from(large()),
        SendTimeoutError::Failed(large())
    );
    assert_eq!(SendTimeoutError::from(large()).into_inner(), 7);
    assert_eq!(SendTimeoutError::Timeout(7).into_inner(), 7);
    assert_eq!(SendTimeoutError::Disconnected(7).into_inner(), 7);
    assert!(!SendTimeoutError::Timeout(7).is_disconnected());
}

#[test]
fn receive_errors_widen_as_in_std() {
    assert_eq!(
        TryRecvError::from(RecvError::Disconnected),
        TryRecvError::Disconnected
    );
    assert_eq!(
        RecvTimeoutError::from(RecvError::Disconnected),
        RecvTimeoutError::Disconnected
    );
    let io = || RecvError::Io(std::io::Error::from_raw_os_error(5));
    assert_eq!(
        TryRecvError::from(io()),
        TryRecvError::Io(std::io::Error::from_raw_os_error(5))
    );
    assert_eq!(
        RecvTimeoutError::from(io()),
        RecvTimeoutError::Io(std::io::Error::from_raw_os_error(5))
    );
    assert!(io().source().is_some());
}

#[test]
fn handles_are_used_inside_catch_unwind() {
    let _dog = watchdog();
    let dir = tempfile::tempdir().unwrap();
    let (tx, rx) =
        walchan::sync_channel_with_options::<u8>(dir.path().join("q"), 4, flush()).unwrap();
    tx.send(1).unwrap();
    let caught = catch_unwind(|| {
        tx.send(2).unwrap();
        let d = rx.recv().unwrap();
        assert_eq!(d, 1);
        drop(d);
        panic!("planned");
    });
    assert!(caught.is_err());
    assert_eq!(rx.recv().unwrap(), 2);
    let d = {
        tx.send(3).unwrap();
        rx.recv().unwrap()
    };
    assert!(catch_unwind(move || drop(d)).is_ok());
    assert_eq!(rx.try_recv(), Err(TryRecvError::Empty));
}
