//! Timestamps and the frozen time zone.
//!
//! A `timestamptz` is kept in UTC. What depends on the zone (truncation, fields, local timestamps) is computed on
//! the same instant labelled with the zone: `Timestamp(us, "Europe/Berlin")`, which is a cast that changes no
//! value, and labelled back with UTC. The zone stands in the plan, so every region computes in the same one.

use std::sync::Arc;

use arrow_schema::{DataType, TimeUnit};

use super::{TIMESTAMP, Typed, binary, cast, cast_to, timestamptz, type_name};
use crate::error::{PlanError, PlanErrorKind};
use crate::plan::{BinaryOp, Expr, Literal, LiteralValue};

/// Whether a zone is UTC under one of its names.
pub fn is_utc(zone: &str) -> bool {
    ["utc", "etc/utc", "gmt", "etc/gmt", "zulu", "etc/zulu", "uct", "etc/uct", "+00:00"]
        .contains(&zone.to_ascii_lowercase().as_str())
}

/// Refuses a zone that is not an IANA name.
///
/// # Errors
/// `InvalidDefinition`.
pub fn check_zone(zone: &str) -> Result<(), PlanError> {
    if is_utc(zone) || zone.parse::<chrono_tz::Tz>().is_ok() {
        return Ok(());
    }
    let message = format!("time zone \"{zone}\" is not known");
    Err(PlanError::new(PlanErrorKind::InvalidDefinition, message).with_hint("Use a name such as Europe/Berlin."))
}

fn in_zone(zone: &str) -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some(Arc::from(zone)))
}

/// The instant of a local timestamp in the zone.
pub fn to_utc(local: Expr, zone: &str) -> Expr {
    if is_utc(zone) {
        return cast_to(local, &timestamptz());
    }
    cast_to(cast_to(local, &in_zone(zone)), &timestamptz())
}

/// An instant labelled with the zone.
fn labelled(instant: Expr, zone: &str) -> (Expr, DataType) {
    if is_utc(zone) { (instant, timestamptz()) } else { (cast_to(instant, &in_zone(zone)), in_zone(zone)) }
}

/// `date_trunc(field, source [, zone])`.
///
/// # Errors
/// For fields that are not constant or do not agree with PostgreSQL.
pub fn date_trunc(arguments: Vec<Typed>, zone: &str) -> Result<Typed, PlanError> {
    let mut arguments = arguments.into_iter();
    let (Some(field), Some(source)) = (arguments.next(), arguments.next()) else {
        return Err(super::functions::wrong_arguments("date_trunc"));
    };
    let zone = match arguments.next() {
        None => zone.to_owned(),
        Some(named) => constant(&named, "the time zone of date_trunc")?,
    };
    check_zone(&zone)?;
    let field = constant(&field, "the field of date_trunc")?.to_ascii_lowercase();
    let field = match field.as_str() {
        "microsecond" | "microseconds" => "microsecond",
        "millisecond" | "milliseconds" => "millisecond",
        "second" | "minute" | "hour" | "day" | "week" | "month" | "quarter" | "year" => &field,
        _ => return Err(unsupported_field("date_trunc", &field)),
    };
    // PostgreSQL prefers timestamptz for dates and constants.
    let source = match source.data_type {
        DataType::Timestamp(..) => source,
        DataType::Date32 | DataType::Null => cast::implicit(source, &timestamptz(), &zone)?,
        other => return Err(not_an_instant("date_trunc", &other)),
    };
    let returns = source.data_type.clone();
    let (input, labelled_type) =
        if returns == TIMESTAMP { (source.expr, TIMESTAMP) } else { labelled(source.expr, &zone) };
    let call = Expr::Call {
        function: "date_trunc".to_owned(),
        arguments: vec![Expr::Literal(Literal::text(field)), input],
        returns: labelled_type.clone(),
    };
    let expr = if labelled_type == returns { call } else { cast_to(call, &returns) };
    Ok(Typed::new(expr, returns))
}

/// `extract(field from source)`, of type numeric.
///
/// # Errors
/// For fields that are not constant or do not agree with PostgreSQL.
pub fn extract(field: &Typed, source: Typed, zone: &str) -> Result<Typed, PlanError> {
    let field = constant(field, "the field of extract")?.to_ascii_lowercase();
    let source = match source.data_type {
        DataType::Timestamp(..) => source,
        DataType::Date32 => cast::implicit(source, &TIMESTAMP, zone)?,
        other => return Err(not_an_instant("extract", &other)),
    };
    match field.as_str() {
        "epoch" => return Ok(seconds(cast_to(source.expr, &DataType::Int64))),
        "second" | "seconds" => return Ok(seconds(micros_of_minute(source.expr))),
        _ => {}
    }
    let part = match field.as_str() {
        "year" | "years" => "year",
        "quarter" => "quarter",
        "month" | "months" => "month",
        "week" | "weeks" => "week",
        "day" | "days" => "day",
        "hour" | "hours" => "hour",
        "minute" | "minutes" => "minute",
        "doy" => "doy",
        "dow" => "dow",
        _ => return Err(unsupported_field("extract", &field)),
    };
    let input = if source.data_type == TIMESTAMP { source.expr } else { labelled(source.expr, zone).0 };
    let call = Expr::Call {
        function: "date_part".to_owned(),
        arguments: vec![Expr::Literal(Literal::text(part)), input],
        returns: DataType::Int32,
    };
    let returns = DataType::Decimal128(10, 0);
    Ok(Typed::new(cast_to(call, &returns), returns))
}

/// `date_part(field, source)`, of type double precision.
///
/// # Errors
/// As [`extract`].
pub fn date_part(field: &Typed, source: Typed, zone: &str) -> Result<Typed, PlanError> {
    let source = if source.is_unknown() { cast::implicit(source, &timestamptz(), zone)? } else { source };
    cast::explicit(extract(field, source, zone)?, &DataType::Float64, zone)
}

/// Microseconds as numeric seconds with six decimals: exact, unlike a division.
fn seconds(micros: Expr) -> Typed {
    let millionth = Literal { data_type: DataType::Decimal128(6, 6), value: Some(LiteralValue::Integer(1)) };
    let micros = cast_to(micros, &DataType::Decimal128(19, 0));
    let expr = binary(BinaryOp::Multiply, micros, Expr::Literal(millionth));
    Typed::new(expr, DataType::Decimal128(26, 6))
}

/// The microseconds since the last full minute, for instants before 1970 too. No zone in use today is off by a
/// fraction of a minute.
fn micros_of_minute(instant: Expr) -> Expr {
    let minute = || Expr::Literal(Literal::int64(60_000_000));
    let remainder = binary(BinaryOp::Modulo, cast_to(instant, &DataType::Int64), minute());
    binary(BinaryOp::Modulo, binary(BinaryOp::Add, remainder, minute()), minute())
}

fn constant(argument: &Typed, what: &str) -> Result<String, PlanError> {
    argument.as_text().map(str::to_owned).ok_or_else(|| {
        PlanError::unsupported(format_args!("{what} as anything but a constant"), "Write it as a quoted constant.")
    })
}

fn unsupported_field(function: &str, field: &str) -> PlanError {
    let known = if function == "extract" {
        "Fields: year, quarter, month, week, day, hour, minute, second, doy, dow, epoch."
    } else {
        "Fields: microseconds, milliseconds, second, minute, hour, day, week, month, quarter, year."
    };
    PlanError::unsupported(format_args!("the field \"{field}\" of {function}"), known)
}

fn not_an_instant(function: &str, data_type: &DataType) -> PlanError {
    let message = format!("function {function}(unknown, {}) does not exist", type_name(data_type));
    PlanError::new(PlanErrorKind::UndefinedFunction, message).with_hint("Cast the argument to timestamp.")
}
