//! SQLite through rusqlite, with the library that it bundles: a table whose key counts up, in WAL mode,
//! prepared statements, one transaction for each message sent.
//!
//! `synchronous=FULL`, with which a commit syncs the log, or `OFF`. SQLite has one writer at a time, and
//! whoever finds it busy sleeps; so a lock says whose turn it is. The consumer reads from a connection of its
//! own, and deletes up to 64 rows at a time under `synchronous=NORMAL`, so that an acknowledgement waits for
//! no sync, as in walchan.

#![allow(clippy::disallowed_types)]

use super::bell::{self, BATCH};
use super::{Ends, Produce};
use crate::messages::Command;
use rusqlite::{Connection, params};
use std::path::Path;
use std::sync::{Arc, Mutex};

fn connect(path: &Path, synchronous: &str) -> Connection {
    let connection = Connection::open(path).expect("a database");
    for (pragma, value) in [("journal_mode", "WAL"), ("synchronous", synchronous)] {
        let set = connection.pragma_update(None, pragma, value);
        set.expect("a pragma that it knows");
    }
    connection
}

pub fn open(dir: &Path, durable: bool, producers: usize) -> Ends {
    let path = dir.join("queue.sqlite");
    let (when_sending, when_deleting) = if durable {
        ("FULL", "NORMAL")
    } else {
        ("OFF", "OFF")
    };
    let writer = connect(&path, when_sending);
    let create = "CREATE TABLE queue (id INTEGER PRIMARY KEY, body BLOB NOT NULL)";
    writer.execute_batch(create).expect("a new table");
    let writer = Arc::new(Mutex::new(writer));
    let reader = connect(&path, when_deleting);
    let (ring, waiter) = bell::bell();
    let producer = |_| -> Produce {
        let (writer, ring) = (Arc::clone(&writer), ring.clone());
        Box::new(move |message| {
            let writer = writer.lock().expect("nobody panicked");
            let insert = writer.prepare_cached("INSERT INTO queue (body) VALUES (?1)");
            let mut insert = insert.expect("a statement");
            let inserted = insert.execute(params![message.to_bytes()]);
            inserted.expect("inserted");
            drop(insert);
            drop(writer);
            ring.send(()).expect("the consumer is there");
        })
    };
    Ends {
        producers: (0..producers).map(producer).collect(),
        consumer: Box::new(move |look| {
            let count = waiter.wait();
            debug_assert!(count <= BATCH);
            let select = "SELECT id, body FROM queue ORDER BY id LIMIT ?1";
            let mut select = reader.prepare_cached(select).expect("a statement");
            let mut last = 0i64;
            let mut rows = select.query(params![count as i64]).expect("rows");
            while let Some(row) = rows.next().expect("a row") {
                last = row.get(0).expect("its key");
                let body = row.get_ref(1).expect("its body");
                look(&Command::from_bytes(body.as_blob().expect("bytes")));
            }
            drop(rows);
            let turn = writer.lock().expect("nobody panicked");
            let delete = reader.prepare_cached("DELETE FROM queue WHERE id <= ?1");
            delete
                .expect("a statement")
                .execute(params![last])
                .expect("deleted");
            drop(turn);
        }),
    }
}
