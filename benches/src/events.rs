//! Events as rows of one relation: the columns of persons, auctions and bids side by side.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, Int32Builder, Int64Builder, RecordBatch, StringBuilder, TimestampMicrosecondBuilder,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use nexmark::event::{Auction, Bid, Event, Person};

use crate::Result;

/// Names and types: `b` bigint, `t` text, `d` timestamp.
const COLUMNS: [(&str, char); 25] = [
    ("p_id", 'b'),
    ("p_name", 't'),
    ("p_email_address", 't'),
    ("p_credit_card", 't'),
    ("p_city", 't'),
    ("p_state", 't'),
    ("p_date_time", 'd'),
    ("p_extra", 't'),
    ("a_id", 'b'),
    ("a_item_name", 't'),
    ("a_description", 't'),
    ("a_initial_bid", 'b'),
    ("a_reserve", 'b'),
    ("a_date_time", 'd'),
    ("a_expires", 'd'),
    ("a_seller", 'b'),
    ("a_category", 'b'),
    ("a_extra", 't'),
    ("b_auction", 'b'),
    ("b_bidder", 'b'),
    ("b_price", 'b'),
    ("b_channel", 't'),
    ("b_url", 't'),
    ("b_date_time", 'd'),
    ("b_extra", 't'),
];
const PERSONS: std::ops::Range<usize> = 0..8;
const AUCTIONS: std::ops::Range<usize> = 8..18;
const BIDS: std::ops::Range<usize> = 18..25;

/// The columns that an event of a kind has values in, counted after the kind.
pub fn columns_of(kind: i32) -> std::ops::Range<usize> {
    match kind {
        0 => PERSONS,
        1 => AUCTIONS,
        _ => BIDS,
    }
}

/// The columns of the relation.
pub fn schema() -> SchemaRef {
    let mut fields = vec![Field::new("event_type", DataType::Int32, false)];
    fields.extend(COLUMNS.iter().map(|(name, kind)| {
        let data_type = match kind {
            'b' => DataType::Int64,
            't' => DataType::Utf8,
            _ => DataType::Timestamp(TimeUnit::Microsecond, None),
        };
        Field::new(*name, data_type, true)
    }));
    Arc::new(Schema::new(fields))
}

enum Column {
    Big(Int64Builder),
    Text(StringBuilder),
    Time(TimestampMicrosecondBuilder),
}

enum Value<'a> {
    Big(usize),
    Text(&'a str),
    Ms(u64),
}

impl Column {
    fn append(&mut self, value: &Value<'_>) {
        match (self, value) {
            (Column::Big(column), Value::Big(value)) => column.append_value(*value as i64),
            (Column::Text(column), Value::Text(value)) => column.append_value(value),
            (Column::Time(column), Value::Ms(value)) => column.append_value(*value as i64 * 1000),
            _ => unreachable!("events have the columns' types"),
        }
    }

    fn append_null(&mut self) {
        match self {
            Column::Big(column) => column.append_null(),
            Column::Text(column) => column.append_null(),
            Column::Time(column) => column.append_null(),
        }
    }

    fn finish(&mut self) -> ArrayRef {
        match self {
            Column::Big(column) => Arc::new(column.finish()),
            Column::Text(column) => Arc::new(column.finish()),
            Column::Time(column) => Arc::new(column.finish()),
        }
    }
}

/// Rows in the making.
pub struct Rows {
    kinds: Int32Builder,
    columns: Vec<Column>,
    schema: SchemaRef,
}

impl Rows {
    /// None yet.
    pub fn new() -> Rows {
        let column = |(_, kind): &(&str, char)| match kind {
            'b' => Column::Big(Int64Builder::new()),
            't' => Column::Text(StringBuilder::new()),
            _ => Column::Time(TimestampMicrosecondBuilder::new()),
        };
        Rows {
            kinds: Int32Builder::new(),
            columns: COLUMNS.iter().map(column).collect(),
            schema: schema(),
        }
    }

    /// Adds an event.
    pub fn push(&mut self, event: &Event) {
        let (kind, range, values) = match event {
            Event::Person(person) => (0, PERSONS, of_person(person)),
            Event::Auction(auction) => (1, AUCTIONS, of_auction(auction)),
            Event::Bid(bid) => (2, BIDS, of_bid(bid)),
        };
        self.kinds.append_value(kind);
        for (at, column) in self.columns.iter_mut().enumerate() {
            match range.contains(&at) {
                true => column.append(&values[at - range.start]),
                false => column.append_null(),
            }
        }
    }

    /// The rows so far.
    pub fn finish(&mut self) -> Result<RecordBatch> {
        let mut columns: Vec<ArrayRef> = vec![Arc::new(self.kinds.finish())];
        columns.extend(self.columns.iter_mut().map(Column::finish));
        RecordBatch::try_new(self.schema.clone(), columns).map_err(|error| error.to_string())
    }
}

fn of_person(person: &Person) -> Vec<Value<'_>> {
    vec![
        Value::Big(person.id),
        Value::Text(&person.name),
        Value::Text(&person.email_address),
        Value::Text(&person.credit_card),
        Value::Text(&person.city),
        Value::Text(&person.state),
        Value::Ms(person.date_time),
        Value::Text(&person.extra),
    ]
}

fn of_auction(auction: &Auction) -> Vec<Value<'_>> {
    vec![
        Value::Big(auction.id),
        Value::Text(&auction.item_name),
        Value::Text(&auction.description),
        Value::Big(auction.initial_bid),
        Value::Big(auction.reserve),
        Value::Ms(auction.date_time),
        Value::Ms(auction.expires),
        Value::Big(auction.seller),
        Value::Big(auction.category),
        Value::Text(&auction.extra),
    ]
}

fn of_bid(bid: &Bid) -> Vec<Value<'_>> {
    vec![
        Value::Big(bid.auction),
        Value::Big(bid.bidder),
        Value::Big(bid.price),
        Value::Text(&bid.channel),
        Value::Text(&bid.url),
        Value::Ms(bid.date_time),
        Value::Text(&bid.extra),
    ]
}
