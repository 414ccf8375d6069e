//! The scalar functions of views: those known to agree with PostgreSQL, and no others.
//!
//! What an [`Expr`] can say itself (coalesce, nullif, abs, round) is said so; the rest are calls by the name of
//! DataFusion's registry, with arguments of exactly the types listed here. A function that PostgreSQL has and
//! this list has not is refused with a reason where there is one.

use arrow_schema::DataType;

use super::comparison::{abs, coalesce, nullif};
use super::{Typed, binary, cast, cast_to, decimal, instants, is_integer, patterns, type_name, unify};
use crate::error::{PlanError, PlanErrorKind};
use crate::plan::{BinaryOp, Expr, Literal, LiteralValue};

/// The functions, by every name they are known under.
pub const NAMES: &[&str] = &[
    "abs",
    "btrim",
    "ceil",
    "ceiling",
    "char_length",
    "character_length",
    "coalesce",
    "concat",
    "date_part",
    "date_trunc",
    "extract",
    "floor",
    "greatest",
    "least",
    "left",
    "length",
    "lower",
    "ltrim",
    "nullif",
    "octet_length",
    "replace",
    "right",
    "round",
    "rtrim",
    "split_part",
    "starts_with",
    "strpos",
    "substr",
    "substring",
    "to_char",
    "trim",
    "trunc",
    "upper",
];

/// Functions that PostgreSQL has and views refuse, with what to say instead.
pub fn refusal(name: &str) -> Option<&'static str> {
    Some(match name {
        "now"
        | "current_timestamp"
        | "current_date"
        | "current_time"
        | "localtime"
        | "localtimestamp"
        | "transaction_timestamp"
        | "statement_timestamp"
        | "clock_timestamp"
        | "timeofday"
        | "age" => "Its value changes with time. Compare with the time in the query that reads the view.",
        "random" | "gen_random_uuid" | "uuid" | "uuidv4" | "uuidv7" | "uuid_generate_v4" | "setseed" => {
            "Its value is random, and every region has to compute the same. Store the value in a column."
        }
        "gateway_region" | "tributary_frontier" | "current_user" | "session_user" | "user"
        | "current_schema" | "current_database" | "current_catalog" | "version" | "current_setting"
        | "pg_backend_pid" | "inet_client_addr" => {
            "It depends on the session. Use it in the query that reads the view."
        }
        "nextval" | "currval" | "lastval" | "setval" => "Sequences do not exist here.",
        "row_number" | "rank" | "dense_rank" | "percent_rank" | "cume_dist" | "ntile" | "lag" | "lead"
        | "first_value" | "last_value" | "nth_value" => {
            "It is a window function. Use row_number() OVER (…) in a subquery and keep the first rows, or rank in the \
             query that reads the view."
        }
        "array_agg" | "string_agg" | "json_agg" | "jsonb_agg" | "stddev" | "stddev_pop" | "stddev_samp"
        | "variance" | "var_pop" | "var_samp" | "corr" | "percentile_cont" | "percentile_disc" | "mode"
        | "bit_and" | "bit_or" | "bit_xor" | "median" | "approx_distinct" | "regr_slope" | "covar_pop"
        | "covar_samp" => "Aggregates in views: count, sum, avg, min, max, bool_and, bool_or.",
        "grouping" => "Write one view per grouping.",
        "generate_series" | "unnest" => "Only tables and views can be read by a view.",
        "to_date" | "to_timestamp" | "to_number" | "md5" | "sha256" | "encode" | "decode"
        | "regexp_replace" | "regexp_match" | "regexp_like" | "regexp_count" | "initcap" | "lpad"
        | "rpad" | "repeat" | "reverse" | "translate" | "ascii" | "chr" | "concat_ws" | "overlay"
        | "format" | "sqrt" | "cbrt" | "power" | "pow" | "exp" | "ln" | "log" | "log10" | "sin" | "cos"
        | "tan" | "asin" | "acos" | "atan" | "atan2" | "pi" | "sign" | "mod" | "div" | "gcd" | "lcm"
        | "degrees" | "radians" | "date_bin" | "make_date" | "make_timestamp" | "justify_days"
        | "justify_hours" | "width_bucket" | "num_nulls" | "num_nonnulls" | "quote_literal"
        | "quote_ident" | "to_hex" | "bit_length" => "Apply it in the query that reads the view.",
        _ => return None,
    })
}

/// A call of a function with typed arguments.
///
/// # Errors
/// `UndefinedFunction` for arguments it does not take, `Unsupported` where it would not agree with PostgreSQL.
pub fn call(name: &str, arguments: Vec<Typed>, zone: &str) -> Result<Typed, PlanError> {
    match name {
        "coalesce" => return coalesce(arguments, zone),
        "greatest" | "least" => return extreme(name, arguments, zone),
        "concat" => return concat(arguments, zone),
        "date_trunc" => return instants::date_trunc(arguments, zone),
        _ => {}
    }
    let count = arguments.len();
    let given = arguments.clone();
    let mut arguments = arguments.into_iter();
    let mut next = || arguments.next().expect("counted before");
    let text = |function, wanted| texts(function, &given, wanted, zone);
    match (name, count) {
        ("nullif", 2) => nullif(next(), next(), zone),
        ("extract", 2) => instants::extract(&next(), next(), zone),
        ("date_part", 2) => instants::date_part(&next(), next(), zone),
        ("to_char", 2) => {
            let (source, format) = (next(), next());
            instants::to_char(source, &format, zone)
        }
        ("abs", 1) => abs(next()),
        ("round", 1 | 2) => round(next(), (count == 2).then(&mut next)),
        ("trunc", 1) => whole(Rounding::Truncate, next(), name),
        ("floor", 1) => whole(Rounding::Down, next(), name),
        ("ceil" | "ceiling", 1) => whole(Rounding::Up, next(), "ceil"),
        ("lower" | "upper", 1) => text(name, &[Kind::Text]),
        ("length" | "char_length" | "character_length", 1) => text("character_length", &[Kind::Text]),
        ("octet_length", 1) => text(name, &[Kind::Text]),
        ("trim", 1 | 2) => text("btrim", &[Kind::Text; 2][..count]),
        ("btrim" | "ltrim" | "rtrim", 1 | 2) => text(name, &[Kind::Text; 2][..count]),
        ("substr" | "substring", 2) if given[1].is_unknown() || given[1].data_type == DataType::Utf8 => {
            patterns::substring(next(), &given[1], zone)
        }
        ("substr" | "substring", 2 | 3) => {
            text("substr", &[Kind::Text, Kind::Integer, Kind::Integer][..count])
        }
        ("left" | "right", 2) => text(name, &[Kind::Text, Kind::Integer]),
        ("replace", 3) => text(name, &[Kind::Text, Kind::NotEmpty, Kind::Text]),
        ("split_part", 3) => text(name, &[Kind::Text, Kind::NotEmpty, Kind::Integer]),
        ("strpos" | "starts_with", 2) => text(name, &[Kind::Text, Kind::Text]),
        _ => Err(undefined(name, &given)),
    }
}

/// What a text function takes in one place.
#[derive(Clone, Copy)]
enum Kind {
    /// Text.
    Text,
    /// A constant text that is not empty: for the empty one DataFusion's answer differs from PostgreSQL's.
    NotEmpty,
    /// An integer, passed as int8.
    Integer,
}

/// A call of a function of texts and positions.
fn texts(function: &str, given: &[Typed], wanted: &[Kind], zone: &str) -> Result<Typed, PlanError> {
    let mut arguments = Vec::with_capacity(given.len());
    for (argument, kind) in given.iter().zip(wanted) {
        let fits = argument.is_unknown()
            || match kind {
                Kind::Integer => is_integer(&argument.data_type),
                _ => argument.data_type == DataType::Utf8,
            };
        if !fits {
            return Err(undefined(function, given));
        }
        if matches!(kind, Kind::NotEmpty) && argument.as_text().is_none_or(str::is_empty) {
            return Err(PlanError::unsupported(
                format_args!("{function} with a second argument that is empty or not constant"),
                "Write it as a quoted constant.",
            ));
        }
        let to = if matches!(kind, Kind::Integer) {
            DataType::Int64
        } else {
            DataType::Utf8
        };
        arguments.push(cast::implicit(argument.clone(), &to, zone)?.expr);
    }
    let returns = match function {
        "character_length" | "octet_length" | "strpos" => DataType::Int32,
        "starts_with" => DataType::Boolean,
        _ => DataType::Utf8,
    };
    Ok(Typed::new(
        Expr::Call {
            function: function.to_owned(),
            arguments,
            returns: returns.clone(),
        },
        returns,
    ))
}

/// `greatest` and `least`: nulls are ignored.
fn extreme(name: &str, arguments: Vec<Typed>, zone: &str) -> Result<Typed, PlanError> {
    if arguments.is_empty() {
        return Err(wrong_arguments(name));
    }
    let (arguments, data_type) = unify(&name.to_ascii_uppercase(), arguments, zone)?;
    super::comparison::check_comparable(&data_type, name)?;
    let arguments = arguments.into_iter().map(|argument| argument.expr).collect();
    Ok(Typed::new(
        Expr::Call {
            function: name.to_owned(),
            arguments,
            returns: data_type.clone(),
        },
        data_type,
    ))
}

/// `concat`: nulls are ignored.
fn concat(arguments: Vec<Typed>, zone: &str) -> Result<Typed, PlanError> {
    if arguments.is_empty() {
        return Err(wrong_arguments("concat"));
    }
    // PostgreSQL writes booleans as t and f here, but as true and false in a cast.
    if arguments
        .iter()
        .any(|argument| argument.data_type == DataType::Boolean)
    {
        return Err(PlanError::unsupported("concat of a boolean", "Use || or a CASE."));
    }
    let texts = arguments
        .into_iter()
        .map(|argument| Ok(cast::explicit(argument, &DataType::Utf8, zone)?.expr));
    let arguments = texts.collect::<Result<_, PlanError>>()?;
    let returns = DataType::Utf8;
    Ok(Typed::new(
        Expr::Call {
            function: "concat".to_owned(),
            arguments,
            returns: returns.clone(),
        },
        returns,
    ))
}

/// `round(numeric [, digits])`, half away from zero: a cast to another scale.
fn round(input: Typed, digits: Option<Typed>) -> Result<Typed, PlanError> {
    if is_integer(&input.data_type) && digits.is_none() {
        // PostgreSQL has round(numeric) and round(double precision), and prefers the latter.
        return cast::explicit(input, &DataType::Float64, "UTC");
    }
    let (precision, scale) = match (&input.data_type, super::decimal_shape(&input.data_type)) {
        (_, Some(shape)) => shape,
        (DataType::Float32 | DataType::Float64, None) if digits.is_none() => {
            return Err(PlanError::unsupported(
                "round(double precision)",
                "Cast to numeric first.",
            ));
        }
        _ => return Err(undefined("round", &[input])),
    };
    let digits = match digits {
        None => 0,
        Some(digits) => match digits.as_integer() {
            Some(digits @ 0..=38) => i8::try_from(digits).expect("at most 38"),
            _ => {
                return Err(PlanError::unsupported(
                    "round with a number of digits that is negative or not constant",
                    "Write the number of digits as a constant.",
                ));
            }
        },
    };
    let to = decimal(i16::from(precision) - i16::from(scale) + 1, digits);
    cast::explicit(input, &to, "UTC")
}

/// Ways to a whole number.
#[derive(Clone, Copy)]
enum Rounding {
    Down,
    Up,
    Truncate,
}

/// `floor`, `ceil`, `trunc` of a numeric or integer: round, then correct by one where that went too far.
fn whole(rounding: Rounding, input: Typed, name: &str) -> Result<Typed, PlanError> {
    let DataType::Decimal128(precision, scale) = input.data_type else {
        if is_integer(&input.data_type) {
            return cast::explicit(input, &DataType::Float64, "UTC");
        }
        if super::is_float(&input.data_type) {
            return Err(PlanError::unsupported(
                format_args!("{name}(double precision)"),
                "Cast to numeric first.",
            ));
        }
        return Err(undefined(name, &[input]));
    };
    let to = decimal(i16::from(precision) - i16::from(scale) + 1, 0);
    let rounded = cast_to(input.expr.clone(), &to);
    let zero = || constant(0, &input.data_type);
    let compared = cast_to(rounded.clone(), &input.data_type);
    let too_high = binary(BinaryOp::Greater, compared.clone(), input.expr.clone());
    let too_low = binary(BinaryOp::Less, compared, input.expr.clone());
    let (down, up) = match rounding {
        Rounding::Down => (Some(too_high), None),
        Rounding::Up => (None, Some(too_low)),
        Rounding::Truncate => {
            let positive = binary(BinaryOp::Greater, input.expr.clone(), zero());
            let negative = binary(BinaryOp::Less, input.expr.clone(), zero());
            (
                Some(binary(BinaryOp::And, positive, too_high)),
                Some(binary(BinaryOp::And, negative, too_low)),
            )
        }
    };
    let corrected = |op| {
        cast_to(
            binary(op, rounded.clone(), constant(1, &DataType::Decimal128(1, 0))),
            &to,
        )
    };
    let branches = down
        .map(|condition| (condition, corrected(BinaryOp::Subtract)))
        .into_iter()
        .chain(up.map(|condition| (condition, corrected(BinaryOp::Add))))
        .collect();
    Ok(Typed::new(
        Expr::Case {
            branches,
            otherwise: Some(Box::new(rounded)),
        },
        to,
    ))
}

fn constant(value: i128, data_type: &DataType) -> Expr {
    Expr::Literal(Literal {
        data_type: data_type.clone(),
        value: Some(LiteralValue::Integer(value)),
    })
}

/// The error for arguments that a function does not take.
pub fn undefined(name: &str, arguments: &[Typed]) -> PlanError {
    let types: Vec<String> = arguments
        .iter()
        .map(|argument| type_name(&argument.data_type))
        .collect();
    let message = format!("function {name}({}) does not exist", types.join(", "));
    PlanError::new(PlanErrorKind::UndefinedFunction, message)
        .with_hint("No function matches the name and argument types. An explicit cast may help.")
}

/// The error for a wrong number of arguments.
pub fn wrong_arguments(name: &str) -> PlanError {
    PlanError::new(
        PlanErrorKind::UndefinedFunction,
        format!("wrong number of arguments for {name}"),
    )
}
