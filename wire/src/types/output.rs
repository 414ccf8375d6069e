//! From Arrow arrays to text and to PostgreSQL's binary form.
//!
//! An array is first brought to one of a closed set of forms ([`normalize`]), then encoded value by value. What has no
//! binary form here (times, structs) is sent as text in both formats only where the client asked for text; asked for
//! binary it is refused, never sent in a wrong form.

use std::fmt::Write;
use std::sync::Arc;

use bytes::{BufMut, BytesMut};
use datafusion::arrow::array::*;
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, IntervalUnit, TimeUnit};
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};

use super::calendar::{DAYS_1970_TO_2000, US_1970_TO_2000};
use super::datetime::{self, Zone};
use super::interval::{self, Interval};
use super::{numeric, wire_type_of};
use crate::error::{SqlError, SqlResult};
use crate::sqlstate;

/// How values are written.
#[derive(Clone, Copy, Debug)]
pub struct OutputStyle {
    /// The zone timestamps with zone are shown in.
    pub zone: Zone,
    /// `bytea_output`: hex, or the old escape form.
    pub bytea_hex: bool,
}

/// Writes the values of one column.
pub struct ColumnEncoder {
    values: Values,
    style: OutputStyle,
    is_char: bool,
}

enum Values {
    Null,
    Bool(BooleanArray),
    Int2(Int16Array),
    Int4(Int32Array),
    Int8(Int64Array),
    Float4(Float32Array),
    Float8(Float64Array),
    Numeric(Decimal128Array, i8),
    Text(StringArray),
    Date(Date32Array),
    Timestamp(TimestampMicrosecondArray),
    TimestampTz(TimestampMicrosecondArray),
    Interval(IntervalMonthDayNanoArray),
    Uuid(FixedSizeBinaryArray),
    Bytea(BinaryArray),
    List(ListArray, Box<ColumnEncoder>, u32),
    /// Anything else, by Arrow's own display.
    Shown(ArrayRef),
}

/// Brings an array to the form in which its SQL type is kept.
fn normalize(array: &ArrayRef) -> SqlResult<ArrayRef> {
    let target = match array.data_type() {
        DataType::Int8 | DataType::UInt8 => DataType::Int16,
        DataType::UInt16 => DataType::Int32,
        DataType::UInt32 => DataType::Int64,
        DataType::UInt64 => DataType::Decimal128(20, 0),
        DataType::Decimal32(precision, scale) | DataType::Decimal64(precision, scale) => {
            DataType::Decimal128(*precision, *scale)
        }
        DataType::Decimal256(_, scale) => DataType::Decimal128(38, *scale),
        DataType::Float16 => DataType::Float32,
        DataType::LargeUtf8 | DataType::Utf8View => DataType::Utf8,
        DataType::LargeBinary | DataType::BinaryView => DataType::Binary,
        DataType::FixedSizeBinary(size) if *size != 16 => DataType::Binary,
        DataType::Date64 => DataType::Timestamp(TimeUnit::Microsecond, None),
        DataType::Timestamp(unit, zone) if *unit != TimeUnit::Microsecond => {
            DataType::Timestamp(TimeUnit::Microsecond, zone.clone())
        }
        DataType::Interval(unit) if *unit != IntervalUnit::MonthDayNano => {
            DataType::Interval(IntervalUnit::MonthDayNano)
        }
        DataType::Duration(_) => DataType::Interval(IntervalUnit::MonthDayNano),
        DataType::LargeList(item) | DataType::FixedSizeList(item, _) => DataType::List(Arc::clone(item)),
        DataType::Dictionary(_, value) => {
            return normalize(&cast(array, value)?);
        }
        _ => return Ok(Arc::clone(array)),
    };
    Ok(cast(array, &target)?)
}

impl ColumnEncoder {
    /// Prepares a column; `is_char` marks PostgreSQL's one-byte `"char"`.
    pub fn new(array: &ArrayRef, style: OutputStyle, is_char: bool) -> SqlResult<Self> {
        let array = normalize(array)?;
        let values = match array.data_type() {
            DataType::Null => Values::Null,
            DataType::Boolean => Values::Bool(array.as_boolean().clone()),
            DataType::Int16 => Values::Int2(array.as_primitive().clone()),
            DataType::Int32 => Values::Int4(array.as_primitive().clone()),
            DataType::Int64 => Values::Int8(array.as_primitive().clone()),
            DataType::Float32 => Values::Float4(array.as_primitive().clone()),
            DataType::Float64 => Values::Float8(array.as_primitive().clone()),
            DataType::Decimal128(_, scale) => Values::Numeric(array.as_primitive().clone(), *scale),
            DataType::Utf8 => Values::Text(array.as_string().clone()),
            DataType::Date32 => Values::Date(array.as_primitive().clone()),
            DataType::Timestamp(_, None) => Values::Timestamp(array.as_primitive().clone()),
            DataType::Timestamp(_, Some(_)) => Values::TimestampTz(array.as_primitive().clone()),
            DataType::Interval(_) => Values::Interval(array.as_primitive().clone()),
            DataType::FixedSizeBinary(_) => Values::Uuid(array.as_fixed_size_binary().clone()),
            DataType::Binary => Values::Bytea(array.as_binary().clone()),
            DataType::List(item) => {
                let list = array.as_list::<i32>().clone();
                let items = ColumnEncoder::new(list.values(), style, false)?;
                Values::List(list, Box::new(items), wire_type_of(item.data_type()).oid)
            }
            _ => Values::Shown(array),
        };
        Ok(Self {
            values,
            style,
            is_char,
        })
    }

    /// Whether the value is null.
    pub fn is_null(&self, row: usize) -> bool {
        match &self.values {
            Values::Null => true,
            Values::Bool(array) => array.is_null(row),
            Values::Int2(array) => array.is_null(row),
            Values::Int4(array) => array.is_null(row),
            Values::Int8(array) => array.is_null(row),
            Values::Float4(array) => array.is_null(row),
            Values::Float8(array) => array.is_null(row),
            Values::Numeric(array, _) => array.is_null(row),
            Values::Text(array) => array.is_null(row),
            Values::Date(array) => array.is_null(row),
            Values::Timestamp(array) | Values::TimestampTz(array) => array.is_null(row),
            Values::Interval(array) => array.is_null(row),
            Values::Uuid(array) => array.is_null(row),
            Values::Bytea(array) => array.is_null(row),
            Values::List(array, ..) => array.is_null(row),
            Values::Shown(array) => array.is_null(row),
        }
    }

    /// Appends the text of a value that is not null.
    pub fn write_text(&self, row: usize, out: &mut String) -> SqlResult<()> {
        match &self.values {
            Values::Null => {}
            Values::Bool(array) => out.push(if array.value(row) { 't' } else { 'f' }),
            Values::Int2(array) => shown(out, array.value(row)),
            Values::Int4(array) => shown(out, array.value(row)),
            Values::Int8(array) => shown(out, array.value(row)),
            Values::Float4(array) => write_float(
                &format!("{:e}", array.value(row)),
                array.value(row).into(),
                6,
                out,
            ),
            Values::Float8(array) => {
                write_float(&format!("{:e}", array.value(row)), array.value(row), 15, out)
            }
            Values::Numeric(array, scale) => {
                numeric::write_text(array.value(row), *scale, out).expect("a String takes everything")
            }
            Values::Text(array) => out.push_str(array.value(row)),
            Values::Date(array) => datetime::write_date(array.value(row).into(), out),
            Values::Timestamp(array) => datetime::write_timestamp(array.value(row), None, out),
            Values::TimestampTz(array) => {
                datetime::write_timestamp(array.value(row), Some(&self.style.zone), out)
            }
            Values::Interval(array) => interval::write(of_arrow_interval(array.value(row)), out),
            Values::Uuid(array) => write_uuid(array.value(row), out),
            Values::Bytea(array) => write_bytea(array.value(row), self.style.bytea_hex, out),
            Values::List(array, items, _) => write_list(array, items, row, out)?,
            Values::Shown(array) => {
                let formatter = ArrayFormatter::try_new(array, &FormatOptions::default())?;
                write!(out, "{}", formatter.value(row)).expect("a String takes everything");
            }
        }
        Ok(())
    }

    /// Appends the binary form of a value that is not null.
    pub fn write_binary(&self, row: usize, out: &mut BytesMut) -> SqlResult<()> {
        match &self.values {
            Values::Null => {}
            Values::Bool(array) => out.put_u8(array.value(row).into()),
            Values::Int2(array) => out.put_i16(array.value(row)),
            Values::Int4(array) => out.put_i32(array.value(row)),
            Values::Int8(array) => out.put_i64(array.value(row)),
            Values::Float4(array) => out.put_f32(array.value(row)),
            Values::Float8(array) => out.put_f64(array.value(row)),
            Values::Numeric(array, scale) => numeric::write_binary(array.value(row), *scale, out),
            Values::Text(array) => out.put_slice(array.value(row).as_bytes()),
            Values::Date(array) => {
                let days = array.value(row).checked_sub(DAYS_1970_TO_2000);
                out.put_i32(days.ok_or_else(out_of_range)?);
            }
            Values::Timestamp(array) | Values::TimestampTz(array) => {
                let us = array.value(row).checked_sub(US_1970_TO_2000);
                out.put_i64(us.ok_or_else(out_of_range)?);
            }
            Values::Interval(array) => {
                let interval = of_arrow_interval(array.value(row));
                out.put_i64(interval.us);
                out.put_i32(interval.days);
                out.put_i32(interval.months);
            }
            Values::Uuid(array) => out.put_slice(array.value(row)),
            Values::Bytea(array) => out.put_slice(array.value(row)),
            Values::List(array, items, item_oid) => write_list_binary(array, items, *item_oid, row, out)?,
            Values::Shown(array) => {
                return Err(
                    SqlError::unsupported(format!("no binary form of {}", array.data_type()))
                        .hint("cast the column to text"),
                );
            }
        }
        Ok(())
    }

    /// Appends a value as a field of a DataRow: length, then the value; a null has length -1.
    pub fn write_field(
        &self,
        row: usize,
        is_binary: bool,
        scratch: &mut String,
        out: &mut BytesMut,
    ) -> SqlResult<()> {
        if self.is_null(row) {
            out.put_i32(-1);
            return Ok(());
        }
        let start = out.len();
        out.put_i32(0);
        if is_binary && !self.is_char {
            self.write_binary(row, out)?;
        } else {
            scratch.clear();
            self.write_text(row, scratch)?;
            out.put_slice(scratch.as_bytes());
        }
        let length = out.len() - start - 4;
        let length = i32::try_from(length)
            .map_err(|_| SqlError::new(sqlstate::PROGRAM_LIMIT, "a value is too large"))?;
        out[start..start + 4].copy_from_slice(&length.to_be_bytes());
        Ok(())
    }
}

fn shown(out: &mut String, value: impl std::fmt::Display) {
    write!(out, "{value}").expect("a String takes everything");
}

fn out_of_range() -> SqlError {
    SqlError::new(
        sqlstate::DATETIME_OVERFLOW,
        "date or timestamp out of range of the binary form",
    )
}

/// The shortest digits that read back as the same float, laid out as PostgreSQL does: `scientific` is Rust's
/// `{:e}`, positional notation is used from 10^-4 up to 10^`positional_max`.
fn write_float(scientific: &str, value: f64, positional_max: i32, out: &mut String) {
    if !value.is_finite() {
        out.push_str(match (value.is_nan(), value > 0.0) {
            (true, _) => "NaN",
            (_, true) => "Infinity",
            _ => "-Infinity",
        });
        return;
    }
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..positional_max).contains(&exponent) {
        let digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
        if mantissa.starts_with('-') {
            out.push('-');
        }
        if exponent < 0 {
            let zeros = "0".repeat((-exponent - 1) as usize);
            write!(out, "0.{zeros}{digits}").expect("a String takes everything");
        } else {
            let whole = exponent as usize + 1;
            if digits.len() <= whole {
                write!(out, "{digits}{}", "0".repeat(whole - digits.len()))
                    .expect("a String takes everything");
            } else {
                write!(out, "{}.{}", &digits[..whole], &digits[whole..]).expect("a String takes everything");
            }
        }
    } else {
        let sign = if exponent < 0 { '-' } else { '+' };
        write!(out, "{mantissa}e{sign}{:02}", exponent.abs()).expect("a String takes everything");
    }
}

fn of_arrow_interval(value: datafusion::arrow::datatypes::IntervalMonthDayNano) -> Interval {
    Interval {
        months: value.months,
        days: value.days,
        us: value.nanoseconds / 1000,
    }
}

fn write_hex(bytes: &[u8], out: &mut String) {
    for byte in bytes {
        write!(out, "{byte:02x}").expect("a String takes everything");
    }
}

fn write_uuid(bytes: &[u8], out: &mut String) {
    let groups = [0..4, 4..6, 6..8, 8..10, 10..16];
    for (index, group) in groups.into_iter().enumerate() {
        if index > 0 {
            out.push('-');
        }
        write_hex(&bytes[group], out);
    }
}

fn write_bytea(bytes: &[u8], is_hex: bool, out: &mut String) {
    if is_hex {
        out.push_str("\\x");
        return write_hex(bytes, out);
    }
    for &byte in bytes {
        match byte {
            b'\\' => out.push_str("\\\\"),
            0x20..=0x7e => out.push(byte.into()),
            _ => write!(out, "\\{byte:03o}").expect("a String takes everything"),
        }
    }
}

fn write_list(array: &ListArray, items: &ColumnEncoder, row: usize, out: &mut String) -> SqlResult<()> {
    let offsets = array.value_offsets();
    out.push('{');
    for index in offsets[row]..offsets[row + 1] {
        if index > offsets[row] {
            out.push(',');
        }
        let index = index as usize;
        if items.is_null(index) {
            out.push_str("NULL");
            continue;
        }
        let mut item = String::new();
        items.write_text(index, &mut item)?;
        let is_nested = matches!(items.values, Values::List(..));
        let needs_quotes = item.is_empty()
            || item.eq_ignore_ascii_case("null")
            || item.contains(|c: char| matches!(c, '{' | '}' | ',' | '"' | '\\') || c.is_whitespace());
        if needs_quotes && !is_nested {
            let escaped = item.replace('\\', "\\\\").replace('"', "\\\"");
            write!(out, "\"{escaped}\"").expect("a String takes everything");
        } else {
            out.push_str(&item);
        }
    }
    out.push('}');
    Ok(())
}

fn write_list_binary(
    array: &ListArray,
    items: &ColumnEncoder,
    item_oid: u32,
    row: usize,
    out: &mut BytesMut,
) -> SqlResult<()> {
    if matches!(items.values, Values::List(..)) {
        return Err(SqlError::unsupported("no binary form of nested arrays").hint("cast the column to text"));
    }
    let offsets = array.value_offsets();
    let range = offsets[row] as usize..offsets[row + 1] as usize;
    out.put_i32(i32::from(!range.is_empty()));
    out.put_i32(i32::from(range.clone().any(|index| items.is_null(index))));
    out.put_u32(item_oid);
    if !range.is_empty() {
        out.put_i32(range.len() as i32);
        out.put_i32(1);
    }
    let mut scratch = String::new();
    range
        .into_iter()
        .try_for_each(|index| items.write_field(index, true, &mut scratch, out))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tributary_planner::types::SqlType;

    use super::super::input::ColumnBuilder;
    use super::*;

    const STYLE: OutputStyle = OutputStyle {
        zone: Zone::UTC,
        bytea_hex: true,
    };

    fn text_of(array: ArrayRef) -> String {
        let mut out = String::new();
        ColumnEncoder::new(&array, STYLE, false)
            .expect("a form")
            .write_text(0, &mut out)
            .expect("text");
        out
    }

    #[test]
    fn floats_are_laid_out_as_postgres_does() {
        for (value, expected) in [
            (0.1, "0.1"),
            (1.0, "1"),
            (-0.0, "-0"),
            (1e15, "1e+15"),
            (123456789012345.0, "123456789012345"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (1.5e300, "1.5e+300"),
            (f64::NAN, "NaN"),
            (f64::NEG_INFINITY, "-Infinity"),
        ] {
            assert_eq!(text_of(Arc::new(Float64Array::from(vec![value]))), expected);
        }
        assert_eq!(text_of(Arc::new(Float32Array::from(vec![1e6f32]))), "1e+06");
    }

    #[test]
    fn lists_are_quoted_where_needed() {
        let mut builder = ListBuilder::new(StringBuilder::new());
        builder.append_value([
            Some("a"),
            None,
            Some("b c"),
            Some("q\"\\"),
            Some("null"),
            Some(""),
        ]);
        assert_eq!(
            text_of(Arc::new(builder.finish())),
            r#"{a,NULL,"b c","q\"\\","null",""}"#
        );
    }

    /// What was printed is read back as itself, in both forms.
    #[test]
    fn round_trips_of_every_type() {
        for (sql_type, text) in [
            (SqlType::Bool, "t"),
            (SqlType::Int2, "-32768"),
            (SqlType::Int4, "2147483647"),
            (SqlType::Int8, "-9223372036854775808"),
            (SqlType::Float4, "3.4028235e+38"),
            (SqlType::Float8, "2.2250738585072014e-308"),
            (
                SqlType::Numeric {
                    precision: 12,
                    scale: 3,
                },
                "-12345.670",
            ),
            (SqlType::Text, "grüße"),
            (SqlType::Varchar(Some(3)), "abc"),
            (SqlType::Date, "1815-12-10"),
            (SqlType::Timestamp, "1999-12-31 23:59:59.999999"),
            (SqlType::TimestampTz, "2024-02-29 12:00:00+00"),
            (SqlType::Interval, "1 mon -2 days +03:04:05.000006"),
            (SqlType::Uuid, "00112233-4455-6677-8899-aabbccddeeff"),
            (SqlType::Bytea, "\\x00ff7f"),
        ] {
            let mut builder = ColumnBuilder::new(sql_type, Zone::UTC);
            builder.append_text(text).expect(text);
            let array = builder.finish();
            assert_eq!(array.data_type(), &sql_type.arrow());
            assert_eq!(text_of(Arc::clone(&array)), text);
            let mut binary = BytesMut::new();
            let encoder = ColumnEncoder::new(&array, STYLE, false).expect("a form");
            encoder.write_binary(0, &mut binary).expect("binary");
            let mut again = ColumnBuilder::new(sql_type, Zone::UTC);
            again.append_binary(&binary).expect(text);
            assert_eq!(&again.finish(), &array, "{sql_type}");
        }
    }

    proptest! {
        #[test]
        fn floats_read_back(value in any::<f64>()) {
            let text = text_of(Arc::new(Float64Array::from(vec![value])));
            let back: f64 = text.parse().expect("a float");
            prop_assert!(back == value || (back.is_nan() && value.is_nan()));
        }
    }
}
