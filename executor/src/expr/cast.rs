//! Casts with PostgreSQL's meaning over whole columns.
//!
//! Where Arrow's kernel means the same it is used; where it truncates, wraps or reads leniently there is a
//! kernel here. A value that does not fit is an error, never null and never wrapped. [`supports`] is the closed
//! list of pairs: a pair that is not on it is refused when the view is built.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BinaryArray, BooleanArray, Decimal128Array, FixedSizeBinaryArray, Float32Array,
    Float64Array, Int16Array, Int32Array, Int64Array, StringArray, TimestampMicrosecondArray,
};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Float32Type, Float64Type, TimeUnit};

use super::arithmetic::{self, Message};
use super::text;
use crate::columns::downcast;

/// SQL's classes of types, as far as casts tell them apart.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Null,
    Boolean,
    Integer,
    Float,
    Decimal,
    Text,
    Date,
    Timestamp,
    Interval,
    Uuid,
    Bytes,
}

fn class_of(data_type: &DataType) -> Option<Class> {
    Some(match data_type {
        DataType::Null => Class::Null,
        DataType::Boolean => Class::Boolean,
        DataType::Int16 | DataType::Int32 | DataType::Int64 => Class::Integer,
        DataType::Float32 | DataType::Float64 => Class::Float,
        DataType::Decimal128(..) => Class::Decimal,
        DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8 => Class::Text,
        DataType::Date32 => Class::Date,
        DataType::Timestamp(TimeUnit::Microsecond, zone) if is_utc(zone.as_deref()) => Class::Timestamp,
        DataType::Interval(_) => Class::Interval,
        DataType::FixedSizeBinary(16) => Class::Uuid,
        DataType::Binary => Class::Bytes,
        _ => return None,
    })
}

/// A session's zone never reaches the executor: what is written down is UTC.
fn is_utc(zone: Option<&str>) -> bool {
    zone.is_none_or(|zone| zone == "UTC")
}

/// Whether values of `from` can be cast to `to`.
pub(crate) fn supports(from: &DataType, to: &DataType) -> bool {
    use Class::*;
    if from == to {
        return true;
    }
    // Functions may return narrower or wider machine integers than SQL has; they come back exactly or fail.
    let machine = |t: &DataType| t.is_integer();
    if machine(from) && matches!(class_of(to), Some(Integer)) {
        return true;
    }
    let (Some(from), Some(to)) = (class_of(from), class_of(to)) else {
        return false;
    };
    match (from, to) {
        (Null, _) => true,
        (Interval, Interval) => false,
        (Text, Interval) | (Interval, Text) => false,
        (Text, _) | (_, Text) => true,
        (Boolean, Integer) | (Integer, Boolean) => true,
        (Integer | Float | Decimal, Integer | Float | Decimal) => true,
        (Date | Timestamp, Date | Timestamp) => true,
        _ => false,
    }
}

/// Whether two types are forms of one SQL class of types, such as text in two layouts.
pub(crate) fn same_class(a: &DataType, b: &DataType) -> bool {
    let integers = a.is_integer() && b.is_integer();
    a == b || integers || (class_of(a) == Some(Class::Text) && class_of(b) == Some(Class::Text))
}

/// The column as type `to`.
///
/// # Errors
/// A value that does not fit, or text that is not a value of the type.
pub(crate) fn cast_column(column: &ArrayRef, to: &DataType) -> Result<ArrayRef, Message> {
    let from = column.data_type();
    if from == to {
        return Ok(column.clone());
    }
    match (class_of(from), class_of(to)) {
        (Some(Class::Float), Some(Class::Integer)) => strict(&rounded_half_even(column), to),
        (Some(Class::Decimal), Some(Class::Integer)) => {
            strict(&strict(column, &DataType::Decimal128(38, 0))?, to)
        }
        (Some(Class::Decimal), Some(Class::Decimal)) => arithmetic::decimal_in_range(&strict(column, to)?),
        (Some(Class::Float), Some(Class::Float)) => narrowed_float(column, to),
        (Some(Class::Float), Some(Class::Decimal)) => float_to_decimal(column, to),
        (Some(Class::Decimal), Some(Class::Float)) => decimal_to_float(column, to),
        (Some(Class::Text), Some(Class::Text)) => strict(column, to),
        (Some(Class::Text), Some(_)) => from_text(&strict(column, &DataType::Utf8)?, to),
        (Some(_), Some(Class::Text)) => strict(&to_text(column)?, to),
        _ => strict(column, to),
    }
}

/// Arrow's cast, failing on the first value that does not fit.
fn strict(column: &ArrayRef, to: &DataType) -> Result<ArrayRef, Message> {
    let options = CastOptions {
        safe: false,
        ..CastOptions::default()
    };
    cast_with_options(column, to, &options).map_err(arithmetic::text)
}

fn rounded_half_even(column: &ArrayRef) -> ArrayRef {
    match column.data_type() {
        DataType::Float32 => {
            Arc::new(downcast::<Float32Array>(column).unary::<_, Float32Type>(f32::round_ties_even))
        }
        _ => Arc::new(downcast::<Float64Array>(column).unary::<_, Float64Type>(f64::round_ties_even)),
    }
}

fn narrowed_float(column: &ArrayRef, to: &DataType) -> Result<ArrayRef, Message> {
    if *to == DataType::Float64 {
        return strict(column, to);
    }
    let wide = downcast::<Float64Array>(column);
    let narrow = wide.try_unary::<_, Float32Type, Message>(|value| {
        let narrow = value as f32;
        if narrow.is_infinite() && value.is_finite() {
            Err("value out of range: overflow".to_string())
        } else if narrow == 0.0 && value != 0.0 {
            Err("value out of range: underflow".to_string())
        } else {
            Ok(narrow)
        }
    })?;
    Ok(Arc::new(narrow))
}

/// PostgreSQL takes the float's first 15 digits (6 of a float4), then rounds those.
fn float_to_decimal(column: &ArrayRef, to: &DataType) -> Result<ArrayRef, Message> {
    let DataType::Decimal128(precision, scale) = *to else {
        return Err(format!("{to} is no numeric"));
    };
    let digits = if *column.data_type() == DataType::Float32 {
        5
    } else {
        14
    };
    let wide = strict(column, &DataType::Float64)?;
    let parsed: Decimal128Array = downcast::<Float64Array>(&wide)
        .iter()
        .map(|value| {
            value
                .map(|v| match v.is_finite() {
                    true => text::parse_decimal(&format!("{v:.digits$e}"), scale),
                    false => Err(format!(
                        "cannot convert {} to numeric",
                        text::format_float(v, "", 15)
                    )),
                })
                .transpose()
        })
        .collect::<Result<_, Message>>()?;
    decimals(parsed, precision, scale)
}

fn decimals(values: Decimal128Array, precision: u8, scale: i8) -> Result<ArrayRef, Message> {
    let typed = values
        .with_precision_and_scale(precision, scale)
        .map_err(arithmetic::text)?;
    arithmetic::decimal_in_range(&(Arc::new(typed) as ArrayRef))
}

/// Through text, so that the result is the nearest float.
fn decimal_to_float(column: &ArrayRef, to: &DataType) -> Result<ArrayRef, Message> {
    let decimal = downcast::<Decimal128Array>(column);
    let scale = decimal.scale();
    let written = decimal
        .iter()
        .map(|value| value.map(|v| text::format_decimal(v, scale)));
    from_text(&(Arc::new(written.collect::<StringArray>()) as ArrayRef), to)
}

/// One value per text, nulls kept.
fn read<T, C: FromIterator<Option<T>>>(
    column: &StringArray,
    parse: impl Fn(&str) -> Result<T, Message>,
) -> Result<C, Message> {
    column.iter().map(|text| text.map(&parse).transpose()).collect()
}

fn from_text(column: &ArrayRef, to: &DataType) -> Result<ArrayRef, Message> {
    let texts = downcast::<StringArray>(column);
    Ok(match to {
        DataType::Boolean => Arc::new(read::<_, BooleanArray>(texts, text::parse_bool)?),
        DataType::Int16 => Arc::new(read::<i16, Int16Array>(texts, |t| narrow(t, "smallint"))?),
        DataType::Int32 => Arc::new(read::<i32, Int32Array>(texts, |t| narrow(t, "integer"))?),
        DataType::Int64 => Arc::new(read::<i64, Int64Array>(texts, |t| {
            text::parse_integer(t, "bigint")
        })?),
        DataType::Float64 => Arc::new(read::<f64, Float64Array>(texts, |t| {
            text::parse_float(t, "double precision")
        })?),
        DataType::Float32 => Arc::new(read::<f32, Float32Array>(texts, parse_real)?),
        DataType::Decimal128(precision, scale) => {
            let values = read::<i128, Decimal128Array>(texts, |t| text::parse_decimal(t, *scale))?;
            decimals(values, *precision, *scale)?
        }
        DataType::FixedSizeBinary(16) => {
            let uuids: Vec<Option<[u8; 16]>> = read(texts, text::parse_uuid)?;
            let array = FixedSizeBinaryArray::try_from_sparse_iter_with_size(uuids.into_iter(), 16);
            Arc::new(array.map_err(arithmetic::text)?)
        }
        DataType::Binary => Arc::new(read::<Vec<u8>, BinaryArray>(texts, text::parse_bytes)?),
        DataType::Timestamp(_, None) => {
            let local: StringArray = texts.iter().map(|t| t.map(text::without_offset)).collect();
            strict(&(Arc::new(local) as ArrayRef), to)?
        }
        DataType::Date32 | DataType::Timestamp(..) => {
            let trimmed: StringArray = texts.iter().map(|t| t.map(str::trim)).collect();
            strict(&(Arc::new(trimmed) as ArrayRef), to)?
        }
        other => return Err(format!("text cannot be cast to {other}")),
    })
}

fn narrow<T: TryFrom<i64>>(input: &str, kind: &str) -> Result<T, Message> {
    let wide = text::parse_integer(input, kind)?;
    T::try_from(wide).map_err(|_| format!("value \"{input}\" is out of range for type {kind}"))
}

fn parse_real(input: &str) -> Result<f32, Message> {
    let wide = text::parse_float(input, "real")?;
    // Read again as f32: narrowing the f64 would round twice.
    let value: f32 = input
        .trim()
        .parse()
        .map_err(|_| format!("invalid input syntax for type real: \"{input}\""))?;
    if (value.is_infinite() && wide.is_finite()) || (value == 0.0 && wide != 0.0) {
        return Err(format!("\"{input}\" is out of range for type real"));
    }
    Ok(value)
}

fn to_text(column: &ArrayRef) -> Result<ArrayRef, Message> {
    let written: StringArray = match column.data_type() {
        DataType::Float64 => downcast::<Float64Array>(column)
            .iter()
            .map(|value| value.map(|v| text::format_float(v, &format!("{v:e}"), 15)))
            .collect(),
        DataType::Float32 => downcast::<Float32Array>(column)
            .iter()
            .map(|value| value.map(|v| text::format_float(f64::from(v), &format!("{v:e}"), 6)))
            .collect(),
        DataType::Decimal128(_, scale) => downcast::<Decimal128Array>(column)
            .iter()
            .map(|value| value.map(|v| text::format_decimal(v, *scale)))
            .collect(),
        DataType::Timestamp(_, zone) => downcast::<TimestampMicrosecondArray>(column)
            .iter()
            .map(|value| {
                value
                    .map(|v| text::format_timestamp(v, zone.is_some()))
                    .transpose()
            })
            .collect::<Result<_, Message>>()?,
        DataType::FixedSizeBinary(16) => downcast::<FixedSizeBinaryArray>(column)
            .iter()
            .map(|value| value.map(text::format_uuid))
            .collect(),
        DataType::Binary => downcast::<BinaryArray>(column)
            .iter()
            .map(|value| value.map(text::format_bytes))
            .collect(),
        _ => return strict(column, &DataType::Utf8),
    };
    Ok(Arc::new(written))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cast(column: impl Array + 'static, to: DataType) -> Result<ArrayRef, Message> {
        let column: ArrayRef = Arc::new(column);
        assert!(supports(column.data_type(), &to));
        cast_column(&column, &to)
    }

    fn ints(column: Result<ArrayRef, Message>) -> Vec<Option<i32>> {
        downcast::<Int32Array>(&column.expect("casts")).iter().collect()
    }

    #[test]
    fn floats_round_half_to_even_and_numerics_half_away() {
        let floats = Float64Array::from(vec![
            Some(0.5),
            Some(1.5),
            Some(2.5),
            Some(-0.5),
            Some(-1.5),
            None,
        ]);
        let expected = vec![Some(0), Some(2), Some(2), Some(0), Some(-2), None];
        assert_eq!(ints(cast(floats, DataType::Int32)), expected);
        let numerics = Decimal128Array::from(vec![Some(5), Some(15), Some(25), Some(-5), Some(-15), None]);
        let numerics = numerics.with_precision_and_scale(10, 1).expect("fits");
        let expected = vec![Some(1), Some(2), Some(3), Some(-1), Some(-2), None];
        assert_eq!(ints(cast(numerics, DataType::Int32)), expected);
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        assert!(cast(Int64Array::from(vec![1 << 40]), DataType::Int32).is_err());
        assert!(cast(Float64Array::from(vec![3e9]), DataType::Int32).is_err());
        assert!(cast(Float64Array::from(vec![f64::NAN]), DataType::Int64).is_err());
        assert!(cast(Float64Array::from(vec![1e300]), DataType::Float32).is_err());
        assert!(cast(Int64Array::from(vec![1000]), DataType::Decimal128(4, 2)).is_err());
        assert!(cast(StringArray::from(vec!["70000"]), DataType::Int16).is_err());
        assert!(cast(StringArray::from(vec!["999.99"]), DataType::Decimal128(4, 2)).is_err());
        assert!(cast(StringArray::from(vec!["2024-02-30"]), DataType::Date32).is_err());
        assert!(
            cast(
                Float64Array::from(vec![f64::INFINITY]),
                DataType::Decimal128(38, 2)
            )
            .is_err()
        );
    }

    #[test]
    fn text_and_back() {
        for (text, to) in [
            ("true", DataType::Boolean),
            ("-12.50", DataType::Decimal128(10, 2)),
            ("1.5e+300", DataType::Float64),
            ("2024-02-29", DataType::Date32),
            (
                "2024-02-29 12:34:56.789",
                DataType::Timestamp(TimeUnit::Microsecond, None),
            ),
            (
                "2024-02-29 12:34:56+00",
                DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            ),
            (
                "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
                DataType::FixedSizeBinary(16),
            ),
            ("\\x00ff", DataType::Binary),
        ] {
            let value = cast(StringArray::from(vec![Some(text), None]), to.clone()).expect("reads");
            assert_eq!(*value.data_type(), to);
            let back = cast_column(&value, &DataType::Utf8).expect("writes");
            assert_eq!(downcast::<StringArray>(&back).value(0), text);
            assert!(back.is_null(1));
        }
    }

    #[test]
    fn floats_become_numerics_by_their_decimal_digits() {
        let cast = cast(
            Float64Array::from(vec![0.1, 1.005, 2.5]),
            DataType::Decimal128(38, 20),
        )
        .expect("casts");
        let digits: Vec<i128> = downcast::<Decimal128Array>(&cast).values().to_vec();
        assert_eq!(digits[0], 10_000_000_000_000_000_000);
        assert_eq!(digits[1], 100_500_000_000_000_000_000);
    }
}
