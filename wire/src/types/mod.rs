//! Values on the wire: SQL types, their text and binary forms, and the Arrow arrays they come from and go to.
//!
//! ```text
//!   text or bytes ─▶ input::ColumnBuilder ─▶ Arrow array ─▶ output::ColumnEncoder ─▶ text or bytes
//! ```
//!
//! COPY, parameters and casts from text share the way in; results and casts to text share the way out. So a value
//! that was printed is read back as itself, wherever it was printed.

pub mod calendar;
pub mod datetime;
pub mod input;
pub mod interval;
mod iso;
pub mod numeric;
pub mod output;

use datafusion::arrow::datatypes::{DataType, Field};
use tributary_planner::types::SqlType;

/// What a RowDescription says of a column's type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WireType {
    /// The type's OID.
    pub oid: u32,
    /// Its size in bytes, negative for variable sizes.
    pub size: i16,
    /// Its modifier, -1 for none.
    pub modifier: i32,
}

/// Key of field metadata by which catalog tables mark columns of type `oid` and its aliases.
const OID_ALIAS: &str = "pg.oid_alias";
/// Key of field metadata by which catalog tables mark columns of type `"char"`.
const CHAR: &str = "pg.char";

/// The type a client sees for an Arrow field.
pub fn wire_type(field: &Field) -> WireType {
    if field.data_type() == &DataType::Int32 && field.metadata().contains_key(OID_ALIAS) {
        return WireType {
            oid: 26,
            size: 4,
            modifier: -1,
        };
    }
    if field.metadata().contains_key(CHAR) {
        return WireType {
            oid: 18,
            size: 1,
            modifier: -1,
        };
    }
    wire_type_of(field.data_type())
}

fn wire_type_of(data_type: &DataType) -> WireType {
    match data_type {
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => WireType {
            oid: array_oid(wire_type_of(item.data_type()).oid),
            size: -1,
            modifier: -1,
        },
        DataType::Dictionary(_, value) => wire_type_of(value),
        DataType::Time32(_) | DataType::Time64(_) => WireType {
            oid: 1083,
            size: 8,
            modifier: -1,
        },
        DataType::Date64 => wire_type_of(&SqlType::Timestamp.arrow()),
        DataType::Duration(_) => wire_type_of(&SqlType::Interval.arrow()),
        DataType::UInt64 => WireType {
            oid: 1700,
            size: -1,
            modifier: -1,
        },
        DataType::UInt32 => wire_type_of(&DataType::Int64),
        other => match SqlType::from_arrow(other) {
            // Decimals that come out of expressions have a scale but promise no modifier.
            Some(sql_type) => WireType {
                oid: sql_type.oid(),
                size: sql_type.length(),
                modifier: -1,
            },
            None => WireType {
                oid: 25,
                size: -1,
                modifier: -1,
            },
        },
    }
}

/// The OID of the array type of an element type.
fn array_oid(element: u32) -> u32 {
    match element {
        16 => 1000,
        17 => 1001,
        20 => 1016,
        21 => 1005,
        23 => 1007,
        26 => 1028,
        700 => 1021,
        701 => 1022,
        1082 => 1182,
        1083 => 1183,
        1114 => 1115,
        1184 => 1185,
        1186 => 1187,
        1700 => 1231,
        2950 => 2951,
        _ => 1009,
    }
}

/// The SQL name of a type that an Arrow error names by its debug form.
pub fn sql_name_of_arrow_text(text: &str) -> &'static str {
    match text.split('(').next().unwrap_or(text) {
        "Boolean" => "boolean",
        "Int8" | "Int16" | "UInt8" => "smallint",
        "Int32" | "UInt16" => "integer",
        "Int64" | "UInt32" | "UInt64" => "bigint",
        "Float32" | "Float16" => "real",
        "Float64" => "double precision",
        "Decimal32" | "Decimal64" | "Decimal128" | "Decimal256" => "numeric",
        "Date32" | "Date64" => "date",
        "Timestamp" => "timestamp",
        "Interval" | "Duration" => "interval",
        "Time32" | "Time64" => "time",
        "Binary" | "LargeBinary" | "BinaryView" | "FixedSizeBinary" => "bytea",
        _ => "text",
    }
}
