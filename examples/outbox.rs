//! An outbox: what a service has to tell another one is durable before it goes on, and sent until accepted.
//!
//! `cargo run --example outbox -- PATH`. The other service may hear of an event twice; the id tells it.

use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::error::Error;
use std::thread;
use std::time::Duration;
use walchan::{Delivery, MessageId, RecvError};

#[derive(Serialize, Deserialize)]
struct OrderPlaced(u32);

/// The other service. It is down now and then, and remembers what it has accepted.
#[derive(Default)]
struct Remote {
    calls: u32,
    accepted: HashSet<MessageId>,
}

impl Remote {
    fn tell(&mut self, id: MessageId, event: &OrderPlaced) -> Result<(), String> {
        self.calls += 1;
        if self.calls.is_multiple_of(3) {
            return Err(format!("down, cannot take order {}", event.0));
        }
        self.accepted.insert(id);
        Ok(())
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args()
        .nth(1)
        .unwrap_or("outbox-state/events".into());
    let (tx, rx) = walchan::channel::<OrderPlaced>(path)?;
    let service = thread::spawn(move || {
        // When `send` has returned, the event survives a power cut.
        (1..=10).try_for_each(|order| tx.send(OrderPlaced(order)))
    });

    let mut remote = Remote::default();
    loop {
        let event = match rx.recv() {
            Ok(event) => event,
            Err(RecvError::Disconnected) => break,
            Err(error) => return Err(error.into()),
        };
        while let Err(reason) = remote.tell(Delivery::id(&event), &event) {
            eprintln!("{reason}; again");
            thread::sleep(Duration::from_millis(10));
        }
        Delivery::ack(event)?; // accepted: it is not told again
    }
    service.join().map_err(|_| "the service panicked")??;
    rx.close()?;
    println!("{} events accepted", remote.accepted.len());
    Ok(())
}
