//! Events as rows of the three tables.
//!
//! Columns are filled by name and cast to the type the catalog gives them; a column nobody knows is an error, a
//! known column that the table lacks is left out. Rows of a table without a key of its own get an id made from
//! the event's number, so that the same event made twice is the same row.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, FixedSizeBinaryArray, Int64Array, RecordBatch, StringArray,
    TimestampMillisecondArray,
};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use nexmark::event::{Auction, Bid, Event, Person};
use tributary_planner::catalog::{ROW_ID, TableDef};
use tributary_planner::ddl::NEXMARK_TABLES;
use tributary_region::TableChange;
use tributary_replication::TableWrites;
use tributary_storage::ObjectId;

/// The three kinds of events, in the order of the source's tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Somebody registers.
    Person,
    /// Something is put up for auction.
    Auction,
    /// Somebody bids.
    Bid,
}

impl Kind {
    /// In the order of the source's tables.
    pub const ALL: [Kind; 3] = [Kind::Person, Kind::Auction, Kind::Bid];
}

/// All columns of one kind, as the source's table has them.
pub fn all_columns(kind: Kind) -> Vec<(&'static str, DataType)> {
    let (_, columns, _) = NEXMARK_TABLES[kind as usize];
    columns
        .iter()
        .map(|(name, sql_type)| (*name, sql_type.arrow()))
        .collect()
}

/// Events of one batch, by kind, each with its number.
pub struct Rows {
    source: ObjectId,
    persons: Vec<(u64, Person)>,
    auctions: Vec<(u64, Auction)>,
    bids: Vec<(u64, Bid)>,
}

impl Rows {
    /// None yet.
    pub fn new(source: ObjectId) -> Rows {
        Rows {
            source,
            persons: Vec::new(),
            auctions: Vec::new(),
            bids: Vec::new(),
        }
    }

    /// Adds the event of this number.
    pub fn push(&mut self, index: u64, event: Event) {
        match event {
            Event::Person(person) => self.persons.push((index, person)),
            Event::Auction(auction) => self.auctions.push((index, auction)),
            Event::Bid(bid) => self.bids.push((index, bid)),
        }
    }

    /// The new rows of one table; `None` when there are none.
    pub fn table(&self, kind: Kind, table: &TableDef) -> Result<Option<TableChange>, String> {
        let schema = table.schema();
        let columns: Vec<(&str, DataType)> = schema
            .fields()
            .iter()
            .map(|field| (field.name().as_str(), field.data_type().clone()))
            .collect();
        let Some(rows) = self.batch(kind, &columns)? else {
            return Ok(None);
        };
        let rows = RecordBatch::try_new(schema.clone(), rows.columns().to_vec())
            .map_err(|error| error.to_string())?;
        let deleted = BooleanArray::from(vec![false; rows.num_rows()]);
        let expected = vec![None; rows.num_rows()];
        Ok(Some(TableChange {
            writes: TableWrites { rows, deleted },
            expected,
        }))
    }

    /// The rows of one kind in columns of these names and types; `None` when there are none.
    pub fn batch(&self, kind: Kind, columns: &[(&str, DataType)]) -> Result<Option<RecordBatch>, String> {
        let numbers: Vec<u64> = match kind {
            Kind::Person => self.persons.iter().map(|(number, _)| *number).collect(),
            Kind::Auction => self.auctions.iter().map(|(number, _)| *number).collect(),
            Kind::Bid => self.bids.iter().map(|(number, _)| *number).collect(),
        };
        if numbers.is_empty() {
            return Ok(None);
        }
        let mut arrays = Vec::with_capacity(columns.len());
        for (name, data_type) in columns {
            let values: ArrayRef = match (*name, kind) {
                (ROW_ID, _) => self.row_ids(kind, &numbers)?,
                ("event", _) => Arc::new(
                    numbers
                        .iter()
                        .map(|number| as_i64(*number))
                        .collect::<Int64Array>(),
                ),
                (name, Kind::Person) => self.person_column(name)?,
                (name, Kind::Auction) => self.auction_column(name)?,
                (name, Kind::Bid) => self.bid_column(name)?,
            };
            let values = cast(&values, data_type).map_err(|error| error.to_string())?;
            arrays.push((*name, values));
        }
        RecordBatch::try_from_iter(arrays)
            .map(Some)
            .map_err(|error| error.to_string())
    }

    fn person_column(&self, name: &str) -> Result<ArrayRef, String> {
        let rows = &self.persons;
        Ok(match name {
            "id" => int(rows, |person| person.id as u64),
            "name" => text(rows, |person| &person.name),
            "email_address" => text(rows, |person| &person.email_address),
            "credit_card" => text(rows, |person| &person.credit_card),
            "city" => text(rows, |person| &person.city),
            "state" => text(rows, |person| &person.state),
            "date_time" => time(rows, |person| person.date_time),
            "extra" => text(rows, |person| &person.extra),
            _ => return Err(format!("the events have no column \"{name}\"")),
        })
    }

    fn auction_column(&self, name: &str) -> Result<ArrayRef, String> {
        let rows = &self.auctions;
        Ok(match name {
            "id" => int(rows, |auction| auction.id as u64),
            "item_name" => text(rows, |auction| &auction.item_name),
            "description" => text(rows, |auction| &auction.description),
            "initial_bid" => int(rows, |auction| auction.initial_bid as u64),
            "reserve" => int(rows, |auction| auction.reserve as u64),
            "date_time" => time(rows, |auction| auction.date_time),
            "expires" => time(rows, |auction| auction.expires),
            "seller" => int(rows, |auction| auction.seller as u64),
            "category" => int(rows, |auction| auction.category as u64),
            "extra" => text(rows, |auction| &auction.extra),
            _ => return Err(format!("the events have no column \"{name}\"")),
        })
    }

    fn bid_column(&self, name: &str) -> Result<ArrayRef, String> {
        let rows = &self.bids;
        Ok(match name {
            "auction" => int(rows, |bid| bid.auction as u64),
            "bidder" => int(rows, |bid| bid.bidder as u64),
            "price" => int(rows, |bid| bid.price as u64),
            "channel" => text(rows, |bid| &bid.channel),
            "url" => text(rows, |bid| &bid.url),
            "date_time" => time(rows, |bid| bid.date_time),
            "extra" => text(rows, |bid| &bid.extra),
            _ => return Err(format!("the events have no column \"{name}\"")),
        })
    }

    /// Ids in the form of a version-8 uuid: kind and source, then the event's number.
    fn row_ids(&self, kind: Kind, numbers: &[u64]) -> Result<ArrayRef, String> {
        let ids = numbers.iter().map(|number| {
            let mut bytes = [0_u8; 16];
            bytes[..4].copy_from_slice(&self.source.0.to_be_bytes());
            bytes[4] = kind as u8;
            bytes[8..].copy_from_slice(&number.to_be_bytes());
            uuid::Builder::from_custom_bytes(bytes).into_uuid().into_bytes()
        });
        let ids = FixedSizeBinaryArray::try_from_iter(ids).map_err(|error| error.to_string())?;
        Ok(Arc::new(ids))
    }
}

fn as_i64(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn int<T>(rows: &[(u64, T)], value: impl Fn(&T) -> u64) -> ArrayRef {
    Arc::new(
        rows.iter()
            .map(|(_, row)| as_i64(value(row)))
            .collect::<Int64Array>(),
    )
}

fn text<T>(rows: &[(u64, T)], value: impl Fn(&T) -> &String) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(
        rows.iter().map(|(_, row)| value(row)),
    ))
}

fn time<T>(rows: &[(u64, T)], value: impl Fn(&T) -> u64) -> ArrayRef {
    let times = rows.iter().map(|(_, row)| as_i64(value(row)));
    Arc::new(TimestampMillisecondArray::from_iter_values(times))
}
