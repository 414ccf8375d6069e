//! Timestamps and the frozen time zone.
//!
//! A `timestamptz` is kept in UTC, and the executor computes in UTC only. So whatever depends on another zone is
//! refused, except for constants, which are read here in the session's zone, and for truncation to a second or
//! minute, which is the same in every zone in use today.

use arrow_schema::DataType;

use super::{TIMESTAMP, Typed, binary, cast, cast_to, timestamptz, type_name};
use crate::error::{PlanError, PlanErrorKind};
use crate::plan::time_format;
use crate::plan::typing::decimal_result;
use crate::plan::{BinaryOp, Expr, Literal, LiteralValue};

/// Whether a zone is UTC under one of its names.
pub fn is_utc(zone: &str) -> bool {
    [
        "utc", "etc/utc", "gmt", "etc/gmt", "zulu", "etc/zulu", "uct", "etc/uct", "+00:00",
    ]
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
    Err(PlanError::new(PlanErrorKind::InvalidDefinition, message)
        .with_hint("Use a name such as Europe/Berlin."))
}

/// A function of an instant. Those of a `timestamptz` depend on the zone, unless the field is a second or less or
/// the zone is UTC.
fn call(
    function: &str,
    field: &str,
    source: Typed,
    returns: DataType,
    zone: &str,
) -> Result<Expr, PlanError> {
    let anywhere = matches!(
        field,
        "epoch" | "minute" | "second" | "millisecond" | "microsecond"
    );
    let fields = field != "minute" || function == "date_trunc";
    if source.data_type != TIMESTAMP && !is_utc(zone) && !(anywhere && fields) {
        return Err(PlanError::unsupported(
            format_args!("{function}('{field}', …) of a timestamptz in the time zone {zone}"),
            "Create the view with SET TIME ZONE 'UTC', or keep local times in a column of type timestamp.",
        ));
    }
    let arguments = vec![Expr::Literal(Literal::text(field)), source.expr];
    Ok(Expr::Call {
        function: function.to_owned(),
        arguments,
        returns,
    })
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
    Ok(Typed::new(
        call("date_trunc", field, source, returns.clone(), &zone)?,
        returns,
    ))
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
        "epoch" => return epoch(source, zone),
        "second" | "seconds" => return Ok(micros_of_minute(source, zone)?.times(6)),
        "millisecond" | "milliseconds" => return Ok(micros_of_minute(source, zone)?.times(3)),
        "microsecond" | "microseconds" => return Ok(micros_of_minute(source, zone)?.times(0)),
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
        "isodow" => "isodow",
        "isoyear" => "isoyear",
        _ => return Err(unsupported_field("extract", &field)),
    };
    let call = call("date_part", part, source, DataType::Int32, zone)?;
    let returns = DataType::Decimal128(10, 0);
    Ok(Typed::new(cast_to(call, &returns), returns))
}

/// `date_part(field, source)`, of type double precision.
///
/// # Errors
/// As [`extract`].
pub fn date_part(field: &Typed, source: Typed, zone: &str) -> Result<Typed, PlanError> {
    let source = if source.is_unknown() {
        cast::implicit(source, &timestamptz(), zone)?
    } else {
        source
    };
    cast::explicit(extract(field, source, zone)?, &DataType::Float64, zone)
}

/// The microseconds since the last full minute, as a numeric. No zone in use today is off by part of a minute.
struct Micros(Expr);

fn micros_of_minute(source: Typed, zone: &str) -> Result<Micros, PlanError> {
    let micros = call("date_part", "microsecond", source, DataType::Int32, zone)?;
    Ok(Micros(cast_to(micros, &DataType::Decimal128(8, 0))))
}

impl Micros {
    /// Divided by `10^digits`, with so many digits after the point: exact, unlike a division.
    fn times(self, digits: i8) -> Typed {
        if digits == 0 {
            return Typed::new(self.0, DataType::Decimal128(8, 0));
        }
        let shape = DataType::Decimal128(digits.unsigned_abs(), digits);
        let unit = Expr::Literal(Literal {
            data_type: shape.clone(),
            value: Some(LiteralValue::Integer(1)),
        });
        let returns = decimal_result(BinaryOp::Multiply, &DataType::Decimal128(8, 0), &shape);
        Typed::new(
            binary(BinaryOp::Multiply, self.0, unit),
            returns.expect("few digits"),
        )
    }
}

/// The seconds since 1970: those of the last full minute, which a float holds exactly, and the rest as a numeric.
fn epoch(source: Typed, zone: &str) -> Result<Typed, PlanError> {
    let data_type = source.data_type.clone();
    let minute = call("date_trunc", "minute", source.clone(), data_type.clone(), zone)?;
    let minute = Typed::new(minute, data_type);
    let minute = call("date_part", "epoch", minute, DataType::Float64, zone)?;
    let minute = cast_to(cast_to(minute, &DataType::Int64), &DataType::Decimal128(19, 0));
    let rest = micros_of_minute(source, zone)?.times(6);
    let returns = decimal_result(BinaryOp::Add, &DataType::Decimal128(19, 0), &rest.data_type);
    Ok(Typed::new(
        binary(BinaryOp::Add, minute, rest.expr),
        returns.expect("few digits"),
    ))
}

/// `to_char(source, format)` for the formats of [`time_format`].
///
/// # Errors
/// For formats that are not constant or have other patterns.
pub fn to_char(source: Typed, format: &Typed, zone: &str) -> Result<Typed, PlanError> {
    let format = constant(format, "the format of to_char")?;
    let source = match source.data_type {
        DataType::Timestamp(..) => source,
        DataType::Date32 => cast::implicit(source, &TIMESTAMP, zone)?,
        other => {
            return Err(PlanError::unsupported(
                format_args!("to_char of {} in a view", type_name(&other)),
                "Cast to timestamp, or apply it in the query that reads the view.",
            ));
        }
    };
    if source.data_type != TIMESTAMP && !is_utc(zone) {
        return Err(PlanError::unsupported(
            format_args!("to_char of a timestamptz in the time zone {zone}"),
            "Create the view with SET TIME ZONE 'UTC', or keep local times in a column of type timestamp.",
        ));
    }
    if time_format::parse(&format).is_none() {
        return Err(PlanError::unsupported(
            format_args!("the format '{format}' of to_char"),
            "Patterns: YYYY, MM, DD, HH24, MI, SS; other letters in double quotes.",
        ));
    }
    let arguments = vec![source.expr, Expr::Literal(Literal::text(format))];
    let returns = DataType::Utf8;
    Ok(Typed::new(
        Expr::Call {
            function: "tributary_to_char".to_owned(),
            arguments,
            returns: returns.clone(),
        },
        returns,
    ))
}

fn constant(argument: &Typed, what: &str) -> Result<String, PlanError> {
    argument.as_text().map(str::to_owned).ok_or_else(|| {
        PlanError::unsupported(
            format_args!("{what} as anything but a constant"),
            "Write it as a quoted constant.",
        )
    })
}

fn unsupported_field(function: &str, field: &str) -> PlanError {
    let known = if function == "extract" {
        "Fields: year, quarter, month, week, day, hour, minute, second, milliseconds, microseconds, doy, dow, isodow, \
         isoyear, epoch."
    } else {
        "Fields: microseconds, milliseconds, second, minute, hour, day, week, month, quarter, year."
    };
    PlanError::unsupported(format_args!("the field \"{field}\" of {function}"), known)
}

fn not_an_instant(function: &str, data_type: &DataType) -> PlanError {
    let message = format!(
        "function {function}(unknown, {}) does not exist",
        type_name(data_type)
    );
    PlanError::new(PlanErrorKind::UndefinedFunction, message).with_hint("Cast the argument to timestamp.")
}
