//! [`Log`] over any [`Kv`].
//!
//! What opening does with damage:
//!
//! - damaged records at the very end, none whole after them, are a torn write that was never acknowledged:
//!   they are dropped;
//! - unless the log knows them to be durable: every append also notes up to where syncs had succeeded
//!   before. Damage at or below that mark, damage before a whole record, and holes refuse to open. Only
//!   damage to the last synced group, with nothing appended since, is indistinguishable from a torn write.

use super::record::{
    ANCHOR_KEY, SYNCED_KEY, Unreadable, decode, decode_point, encode, encode_point, position_of, record_key,
};
use super::{ChainHash, Log, Position, Record};
use crate::error::{Result, StorageError};
use crate::kv::{Family, Kv, WriteBatch};

/// How many records are read at once while the log is verified.
const OPEN_RECORDS_MAX: usize = 64;

/// A log in the log family of a [`Kv`].
#[derive(Debug)]
pub struct KvLog<K: Kv> {
    kv: K,
    /// The record before the first that is kept.
    anchor: (Position, ChainHash),
    last: (Position, ChainHash),
    synced: (Position, ChainHash),
    engine_oldest: Option<u16>,
}

impl<K: Kv> KvLog<K> {
    /// Opens the log, verifies every record, and drops a torn tail.
    ///
    /// # Errors
    /// [`StorageError::Corrupt`] for damage that is no torn tail, and for records of a newer release.
    pub fn open(kv: K) -> Result<Self> {
        let genesis = (Position(0), ChainHash::GENESIS);
        let anchor = read_point(&kv, ANCHOR_KEY, "anchor")?.unwrap_or(genesis);
        let synced = read_point(&kv, SYNCED_KEY, "synced mark")?.unwrap_or(genesis);
        let mut log = Self {
            kv,
            anchor,
            last: anchor,
            synced,
            engine_oldest: None,
        };
        log.remove(Position(0), anchor.0.next())?;
        if let Some((torn, detail)) = log.verify()? {
            if torn <= synced.0 {
                return Err(corrupt(
                    torn,
                    &format!("{detail}, and it was durable up to {}", synced.0),
                ));
            }
            log.remove(torn, Position(u64::MAX))?;
        }
        if log.last.0 < synced.0 {
            let detail = format!(
                "the log ends at {}, and it was durable up to {}",
                log.last.0, synced.0
            );
            return Err(corrupt(synced.0, &detail));
        }
        // What a killed process left may still be on its way to the disk.
        log.sync()?;
        Ok(log)
    }

    /// The oldest engine version among the records that were there at opening. When it is older than
    /// [`super::ENGINE_VERSION`], replaying them gives other state than their epochs announced.
    pub fn engine_oldest_at_open(&self) -> Option<u16> {
        self.engine_oldest
    }

    /// Walks all records. Sets `last`, and returns the first damaged record when no whole one follows.
    fn verify(&mut self) -> Result<Option<(Position, &'static str)>> {
        let mut torn: Option<(Position, &'static str)> = None;
        let mut from = self.anchor.0.next();
        loop {
            let entries = self
                .kv
                .scan(Family::Log, &record_key(from), None, OPEN_RECORDS_MAX)?;
            for (key, value) in &entries {
                let position =
                    position_of(key).ok_or_else(|| corrupt(from, "there is a key of no record"))?;
                match decode(position, value) {
                    Err(Unreadable::Damaged(detail)) => torn = torn.or(Some((position, detail))),
                    Err(Unreadable::Version { format, engine }) => {
                        return Err(newer(position, format, engine));
                    }
                    Ok((record, engine)) => {
                        if let Some((damaged, detail)) = torn {
                            return Err(corrupt(
                                damaged,
                                &format!("{detail}, and record {position} is whole"),
                            ));
                        }
                        check_follows(self.last, &record)?;
                        self.last = (record.position, record.chain);
                        self.engine_oldest = Some(self.engine_oldest.map_or(engine, |o| o.min(engine)));
                    }
                }
                from = position;
            }
            if entries.len() < OPEN_RECORDS_MAX {
                return Ok(torn);
            }
            from = from.next();
        }
    }

    /// Removes the records in `[from, to)`.
    fn remove(&self, from: Position, to: Position) -> Result<()> {
        if self
            .kv
            .scan(Family::Log, &record_key(from), Some(&record_key(to)), 1)?
            .is_empty()
        {
            return Ok(());
        }
        let mut batch = WriteBatch::new();
        batch.delete_range(Family::Log, record_key(from), record_key(to));
        self.kv.write(batch)
    }

    /// The hash of the log up to `position`, which is kept or the anchor.
    fn chain_at(&self, position: Position) -> Result<ChainHash> {
        if position == self.anchor.0 {
            return Ok(self.anchor.1);
        }
        if position == self.last.0 {
            return Ok(self.last.1);
        }
        let value = self.kv.get(Family::Log, &record_key(position))?;
        let value = value.ok_or_else(|| corrupt(position, "it is missing"))?;
        Ok(readable(position, &value)?.chain)
    }
}

impl<K: Kv> Log for KvLog<K> {
    fn append(&mut self, records: &[Record]) -> Result<()> {
        let Some(newest) = records.last() else {
            return Ok(());
        };
        let mut batch = WriteBatch::new();
        // First in the batch: were the batch torn, it would be a record that suffers, and records may.
        batch.put(Family::Log, SYNCED_KEY, encode_point(self.synced));
        let mut last = self.last;
        for record in records {
            assert_eq!(
                record.position,
                last.0.next(),
                "positions of a log follow one another"
            );
            let chain = last.1.next(record.position, &record.payload);
            assert_eq!(
                record.chain, chain,
                "record {} continues the chain of its log",
                record.position
            );
            batch.put(Family::Log, record_key(record.position), encode(record));
            last = (record.position, chain);
        }
        debug_assert_eq!(last, (newest.position, newest.chain));
        self.kv.write(batch)?;
        self.last = last;
        Ok(())
    }

    fn sync(&mut self) -> Result<()> {
        self.kv.sync()?;
        self.synced = self.last;
        Ok(())
    }

    fn read(&self, from: Position, records_max: usize) -> Result<Vec<Record>> {
        let from = from.max(Position(1));
        if from <= self.anchor.0 {
            return Err(corrupt(
                from,
                &format!("records up to {} were truncated", self.anchor.0),
            ));
        }
        if from > self.last.0 {
            return Ok(Vec::new());
        }
        let count = usize::try_from(self.last.0.0 - from.0 + 1)
            .unwrap_or(usize::MAX)
            .min(records_max);
        let entries = self.kv.scan(Family::Log, &record_key(from), None, count)?;
        let before = Position(from.0 - 1);
        let mut last = (before, self.chain_at(before)?);
        let mut records = Vec::with_capacity(entries.len());
        for (key, value) in &entries {
            let position = position_of(key).ok_or_else(|| corrupt(last.0, "there is a key of no record"))?;
            let record = readable(position, value)?;
            check_follows(last, &record)?;
            last = (record.position, record.chain);
            records.push(record);
        }
        if records.len() < count {
            return Err(corrupt(last.0.next(), "it is missing"));
        }
        Ok(records)
    }

    fn first(&self) -> Result<Option<(Position, ChainHash)>> {
        if self.last.0 == self.anchor.0 {
            return Ok(None);
        }
        let first = self.anchor.0.next();
        Ok(Some((first, self.chain_at(first)?)))
    }

    fn last(&self) -> Result<Option<(Position, ChainHash)>> {
        Ok((self.last.0 > Position(0)).then_some(self.last))
    }

    fn truncate_before(&mut self, position: Position) -> Result<()> {
        let end = Position(position.0.saturating_sub(1)).min(self.last.0);
        if end <= self.anchor.0 {
            return Ok(());
        }
        let anchor = (end, self.chain_at(end)?);
        let mut batch = WriteBatch::new();
        // The deletion is last: were it torn off, opening would do it again.
        batch.put(Family::Log, ANCHOR_KEY, encode_point(anchor));
        batch.delete_range(Family::Log, record_key(self.anchor.0), record_key(end.next()));
        self.kv.write(batch)?;
        self.anchor = anchor;
        Ok(())
    }
}

fn read_point<K: Kv>(kv: &K, key: &[u8], name: &str) -> Result<Option<(Position, ChainHash)>> {
    let Some(value) = kv.get(Family::Log, key)? else {
        return Ok(None);
    };
    let point = decode_point(&value).ok_or_else(|| StorageError::Corrupt {
        what: format!("the log's {name}"),
        detail: format!("its checksum is wrong. {ADVICE}"),
    })?;
    Ok(Some(point))
}

fn readable(position: Position, value: &bytes::Bytes) -> Result<Record> {
    match decode(position, value) {
        Ok((record, _)) => Ok(record),
        Err(Unreadable::Damaged(detail)) => Err(corrupt(position, detail)),
        Err(Unreadable::Version { format, engine }) => Err(newer(position, format, engine)),
    }
}

fn check_follows(last: (Position, ChainHash), record: &Record) -> Result<()> {
    if record.position != last.0.next() {
        return Err(corrupt(
            last.0.next(),
            &format!("it is missing, and record {} is whole", record.position),
        ));
    }
    if record.chain != last.1.next(record.position, &record.payload) {
        return Err(corrupt(record.position, "its hash does not continue the chain"));
    }
    Ok(())
}

const ADVICE: &str =
    "Keep this directory as evidence and restore it from a copy taken while the region was stopped";

fn corrupt(position: Position, detail: &str) -> StorageError {
    StorageError::Corrupt {
        what: format!("log record {position}"),
        detail: format!("{detail}. {ADVICE}"),
    }
}

fn newer(position: Position, format: u16, engine: u16) -> StorageError {
    let detail = format!(
        "it was written by another release (format {format}, engine {engine}; this one reads format {}, \
         engine up to {}). Start the release that wrote it, or a newer one",
        super::FORMAT_VERSION,
        super::ENGINE_VERSION
    );
    StorageError::Corrupt {
        what: format!("log record {position}"),
        detail,
    }
}
