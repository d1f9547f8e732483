//! What a transaction does to streams and cursors.
//!
//! Never here: carrying it out.

use super::cursor::check_value;
use super::{Cursor, Message, Stream, TopicCursor, Transaction};
use crate::engine::{CursorChange, SnapshotSave, StreamAppend, shown};
use crate::error::Result;
use crate::ids::{Expected, Position};

fn stream_name(stream: &Stream) -> String {
    format!("stream {:?}", shown(stream.key()))
}

impl Transaction<'_> {
    /// Appends events to a stream, as [`Stream::append`]. Of several appends to one stream each counts
    /// the events of those before it: it expects their versions. Events that were appended
    /// before reject the transaction with `DedupConflict`. [`Committed::versions`](crate::Committed::versions) has the versions.
    ///
    /// # Errors
    /// `InvalidTransaction` if the stream is of another store; `InvalidOption`, `TooLarge`, `InvalidName`.
    pub fn append<'m, M: Into<Message<'m>>>(
        &mut self,
        stream: &Stream,
        expected: Expected,
        events: impl IntoIterator<Item = M>,
    ) -> Result<()> {
        let done = self.check_store(&stream.inner().shared, || stream_name(stream));
        let done = done.and_then(|()| stream.outgoing(events));
        let outgoing = self.noted(done)?;
        let counted = self.count(outgoing.len());
        self.noted(counted)?;
        let (stream, key) = stream.id_and_key();
        self.appends.push(StreamAppend { stream, key, expected, outgoing });
        Ok(())
    }

    /// Saves a snapshot of a stream, as [`Stream::save_snapshot`]. It may be of an event that the transaction appends to the stream.
    ///
    /// # Errors
    /// `InvalidTransaction` if the stream is of another store; `TooLarge`.
    pub fn save_snapshot(&mut self, stream: &Stream, version: u64, payload: impl AsRef<[u8]>) -> Result<()> {
        let done = self.check_store(&stream.inner().shared, || stream_name(stream));
        let done = done.and_then(|()| self.count(1)).and_then(|()| stream.note(payload.as_ref()));
        let note = self.noted(done)?;
        let (stream, key) = stream.id_and_key();
        self.snapshots.push(SnapshotSave { stream, key, version, note });
        Ok(())
    }

    /// Sets a cursor if it stands at `expected`, or if it is not there and `expected` is `None`: as [`Cursor::set`], in the frame of all
    /// else. A cursor can be set once in a transaction.
    ///
    /// # Errors
    /// `InvalidTransaction` if it is of another store; `TooLarge`.
    pub fn set_cursor(&mut self, cursor: &Cursor, expected: Option<&[u8]>, value: impl AsRef<[u8]>) -> Result<()> {
        let value = value.as_ref();
        let done = self.check_store(&cursor.shared, || format!("cursor {:?}", cursor.name));
        let done = done.and_then(|()| check_value(value)).and_then(|()| self.count(1));
        self.noted(done)?;
        let (expected, value) = (expected.map(<[u8]>::to_vec), value.to_vec());
        self.cursors.push(CursorChange { name: cursor.name.clone(), expected, value, hold: None });
        Ok(())
    }

    /// Moves a topic's cursor, as [`TopicCursor::advance`], in the frame of all else.
    ///
    /// # Errors
    /// `InvalidTransaction` if it is of another store; `InvalidPosition`.
    pub fn advance(&mut self, cursor: &TopicCursor, expected: Option<Position>, to: Position) -> Result<()> {
        let done = self.check_store(&cursor.topic.inner().shared, || format!("cursor {:?}", cursor.name));
        let done = done.and_then(|()| self.count(1)).and_then(|()| cursor.change(expected, to));
        let (expected, value, hold) = self.noted(done)?;
        self.cursors.push(CursorChange { name: cursor.name.clone(), expected, value, hold: Some(hold) });
        Ok(())
    }
}
