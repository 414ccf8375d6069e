//! Every error of the crates below, and of DataFusion and Arrow, to its SQLSTATE.
//!
//! DataFusion's errors are partly prose: where a variant does not say what happened, the wording is read. An
//! unknown wording becomes the class of its variant, never a success. Positions come from the spans that
//! DataFusion attaches while planning.

use datafusion::arrow::error::ArrowError;
use datafusion::common::SchemaError;
use datafusion::error::DataFusionError;
use tributary_planner::error::{PlanError, PlanErrorKind};

use super::error::{SqlError, SqlState};

/// Makes the constants, and the list of all of them.
macro_rules! codes {
    ($($name:ident = $code:literal,)+) => {
        $(#[allow(missing_docs)] pub const $name: SqlState = $code;)+

        /// All of these.
        pub const ALL: &[SqlState] = &[$($code),+];
    };
}

codes! {
    PROTOCOL_VIOLATION = "08P01",
    FEATURE_NOT_SUPPORTED = "0A000",
    CARDINALITY_VIOLATION = "21000",
    STRING_TRUNCATION = "22001",
    NUMERIC_OUT_OF_RANGE = "22003",
    INVALID_DATETIME = "22007",
    DATETIME_OVERFLOW = "22008",
    DIVISION_BY_ZERO = "22012",
    INVALID_REGEX = "2201B",
    INVALID_PARAMETER_VALUE = "22023",
    INVALID_TEXT = "22P02",
    INVALID_BINARY = "22P03",
    BAD_COPY_FORMAT = "22P04",
    CHARACTER_NOT_IN_REPERTOIRE = "22021",
    NOT_NULL_VIOLATION = "23502",
    UNIQUE_VIOLATION = "23505",
    ACTIVE_TRANSACTION = "25001",
    READ_ONLY_TRANSACTION = "25006",
    NO_ACTIVE_TRANSACTION = "25P01",
    IN_FAILED_TRANSACTION = "25P02",
    INVALID_STATEMENT_NAME = "26000",
    DEPENDENT_OBJECTS = "2BP01",
    INVALID_CURSOR_NAME = "34000",
    INVALID_CATALOG_NAME = "3D000",
    INVALID_SCHEMA_NAME = "3F000",
    SERIALIZATION_FAILURE = "40001",
    COMPLETION_UNKNOWN = "40003",
    SYNTAX_ERROR = "42601",
    DUPLICATE_COLUMN = "42701",
    AMBIGUOUS_COLUMN = "42702",
    UNDEFINED_COLUMN = "42703",
    UNDEFINED_OBJECT = "42704",
    DUPLICATE_OBJECT = "42710",
    DUPLICATE_ALIAS = "42712",
    GROUPING_ERROR = "42803",
    DATATYPE_MISMATCH = "42804",
    WRONG_OBJECT_TYPE = "42809",
    CANNOT_COERCE = "42846",
    UNDEFINED_FUNCTION = "42883",
    UNDEFINED_TABLE = "42P01",
    UNDEFINED_PARAMETER = "42P02",
    DUPLICATE_CURSOR = "42P03",
    DUPLICATE_STATEMENT = "42P05",
    DUPLICATE_TABLE = "42P07",
    INVALID_TABLE_DEFINITION = "42P16",
    INDETERMINATE_DATATYPE = "42P18",
    INSUFFICIENT_PRIVILEGE = "42501",
    OUT_OF_MEMORY = "53200",
    DISK_FULL = "53100",
    TOO_BUSY = "53400",
    TOO_MANY_CONNECTIONS = "53300",
    PROGRAM_LIMIT = "54000",
    TOO_COMPLEX = "54001",
    NOT_IN_PREREQUISITE_STATE = "55000",
    CANT_CHANGE_NOW = "55P02",
    QUERY_CANCELED = "57014",
    ADMIN_SHUTDOWN = "57P01",
    CANNOT_CONNECT_NOW = "57P03",
    IO_ERROR = "58030",
    INTERNAL_ERROR = "XX000",
}

/// The code of a planning error.
pub fn of_plan_error(kind: &PlanErrorKind) -> SqlState {
    match kind {
        PlanErrorKind::Syntax => SYNTAX_ERROR,
        PlanErrorKind::TooLong => PROGRAM_LIMIT,
        PlanErrorKind::TooDeep => TOO_COMPLEX,
        PlanErrorKind::Unsupported => FEATURE_NOT_SUPPORTED,
        PlanErrorKind::UndefinedTable => UNDEFINED_TABLE,
        PlanErrorKind::UndefinedColumn => UNDEFINED_COLUMN,
        PlanErrorKind::UndefinedFunction => UNDEFINED_FUNCTION,
        PlanErrorKind::AmbiguousColumn => AMBIGUOUS_COLUMN,
        PlanErrorKind::DuplicateTable => DUPLICATE_TABLE,
        PlanErrorKind::DuplicateColumn => DUPLICATE_COLUMN,
        PlanErrorKind::DatatypeMismatch => DATATYPE_MISMATCH,
        PlanErrorKind::InvalidDefinition => INVALID_TABLE_DEFINITION,
        PlanErrorKind::DependentObjects => DEPENDENT_OBJECTS,
        PlanErrorKind::WrongObjectType => WRONG_OBJECT_TYPE,
        PlanErrorKind::NotNull => NOT_NULL_VIOLATION,
        PlanErrorKind::GroupingError => GROUPING_ERROR,
        PlanErrorKind::UndefinedObject => UNDEFINED_OBJECT,
        PlanErrorKind::DuplicateObject => DUPLICATE_OBJECT,
        PlanErrorKind::UndefinedDatabase => INVALID_CATALOG_NAME,
        PlanErrorKind::PrerequisiteState => NOT_IN_PREREQUISITE_STATE,
        PlanErrorKind::InvalidParameter => INVALID_PARAMETER_VALUE,
        PlanErrorKind::Forbidden => INSUFFICIENT_PRIVILEGE,
        PlanErrorKind::Internal => INTERNAL_ERROR,
    }
}

impl From<PlanError> for SqlError {
    fn from(error: PlanError) -> Self {
        let mut sql = SqlError::new(of_plan_error(&error.kind), error.message).at(error.position);
        sql.hint = error.hint;
        sql
    }
}

impl From<ArrowError> for SqlError {
    fn from(error: ArrowError) -> Self {
        match error {
            ArrowError::DivideByZero => SqlError::new(DIVISION_BY_ZERO, "division by zero"),
            ArrowError::ArithmeticOverflow(what) => {
                SqlError::new(NUMERIC_OUT_OF_RANGE, "value out of range").detail(what)
            }
            ArrowError::ExternalError(inner) => of_external(inner),
            ArrowError::CastError(message)
            | ArrowError::ParseError(message)
            | ArrowError::InvalidArgumentError(message)
            | ArrowError::ComputeError(message) => of_value_message(&message),
            ArrowError::OffsetOverflowError(_) | ArrowError::MemoryError(_) => {
                SqlError::new(PROGRAM_LIMIT, "a column of the result is too large")
            }
            other => SqlError::internal(other.to_string()),
        }
    }
}

impl From<DataFusionError> for SqlError {
    fn from(error: DataFusionError) -> Self {
        of_datafusion(error)
    }
}

fn of_datafusion(error: DataFusionError) -> SqlError {
    match error {
        DataFusionError::Diagnostic(diagnostic, inner) => {
            let mut error = of_datafusion(*inner);
            error.position = error.position.or(diagnostic.span.map(encode_span));
            error
        }
        DataFusionError::Context(_, inner) => of_datafusion(*inner),
        DataFusionError::Collection(errors) => match errors.into_iter().next() {
            Some(first) => of_datafusion(first),
            None => SqlError::internal("an empty collection of errors"),
        },
        DataFusionError::Shared(inner) => match std::sync::Arc::try_unwrap(inner) {
            Ok(inner) => of_datafusion(inner),
            Err(shared) => of_shared(&shared),
        },
        DataFusionError::ArrowError(inner, _) => SqlError::from(*inner),
        DataFusionError::External(inner) => of_external(inner),
        DataFusionError::SQL(inner, _) => SqlError::new(SYNTAX_ERROR, inner.to_string()),
        DataFusionError::SchemaError(inner, _) => of_schema_error(*inner),
        DataFusionError::NotImplemented(message) => SqlError::unsupported(first_line(&message)),
        DataFusionError::Plan(message) => of_plan_message(&message),
        DataFusionError::Execution(message) => of_value_message(&message),
        DataFusionError::ResourcesExhausted(message) => {
            SqlError::new(OUT_OF_MEMORY, "the statement needs more memory than it may use")
                .detail(first_line(&message))
        }
        DataFusionError::Configuration(message) => SqlError::new(INVALID_PARAMETER_VALUE, message),
        DataFusionError::IoError(inner) => SqlError::new(IO_ERROR, inner.to_string()),
        other => SqlError::internal(first_line(&other.to_string())),
    }
}

/// Several consumers hold the error (a shared input failed): all of it that can be told without owning it.
fn of_shared(error: &DataFusionError) -> SqlError {
    match error.find_root() {
        DataFusionError::ArrowError(inner, _) => match inner.as_ref() {
            ArrowError::DivideByZero => SqlError::new(DIVISION_BY_ZERO, "division by zero"),
            ArrowError::ArithmeticOverflow(what) => {
                SqlError::new(NUMERIC_OUT_OF_RANGE, "value out of range").detail(what)
            }
            other => of_value_message(&other.to_string()),
        },
        DataFusionError::External(inner) => match inner.downcast_ref::<SqlError>() {
            Some(sql) => sql.clone(),
            None => SqlError::internal(inner.to_string()),
        },
        other => of_value_message(&other.to_string()),
    }
}

fn of_external(error: Box<dyn std::error::Error + Send + Sync>) -> SqlError {
    let error = match error.downcast::<SqlError>() {
        Ok(sql) => return *sql,
        Err(error) => error,
    };
    let error = match error.downcast::<DataFusionError>() {
        Ok(inner) => return of_datafusion(*inner),
        Err(error) => error,
    };
    let error = match error.downcast::<PlanError>() {
        Ok(inner) => return SqlError::from(*inner),
        Err(error) => error,
    };
    match error.downcast::<ArrowError>() {
        Ok(inner) => SqlError::from(*inner),
        Err(error) => SqlError::internal(first_line(&error.to_string())),
    }
}

fn of_schema_error(error: SchemaError) -> SqlError {
    match error {
        SchemaError::AmbiguousReference { field } => SqlError::new(
            AMBIGUOUS_COLUMN,
            format!("column reference \"{}\" is ambiguous", field.name),
        )
        .hint("write the table's name or alias before the column"),
        SchemaError::DuplicateQualifiedField { name, .. }
        | SchemaError::DuplicateUnqualifiedField { name } => SqlError::new(
            DUPLICATE_COLUMN,
            format!("column name \"{name}\" appears more than once"),
        )
        .hint("give each column its own name with AS"),
        SchemaError::FieldNotFound { field, valid_fields } => {
            let name = match &field.relation {
                Some(relation) => format!("{}.{}", relation.table(), field.name),
                None => format!("\"{}\"", field.name),
            };
            let mut error = SqlError::new(UNDEFINED_COLUMN, format!("column {name} does not exist"));
            error.position = field.spans().first().map(encode_span);
            if let Some(close) = closest(
                &field.name,
                valid_fields.iter().map(|column| column.name.as_str()),
            ) {
                error.hint = Some(format!("perhaps you meant the column \"{close}\""));
            }
            error
        }
    }
}

/// Spans give line and column; until [`resolve_position`] sees the text they travel packed in `position`.
const PACKED: usize = 1 << 62;

fn encode_span(span: datafusion::common::Span) -> usize {
    PACKED | ((span.start.line as usize & 0x3FFF_FFFF) << 30) | (span.start.column as usize & 0x3FFF_FFFF)
}

/// Turns a packed line and column into a character position of `text`.
pub fn resolve_position(mut error: SqlError, text: &str) -> SqlError {
    if let Some(packed) = error.position.filter(|position| position & PACKED != 0) {
        let (line, column) = ((packed >> 30) & 0x3FFF_FFFF, packed & 0x3FFF_FFFF);
        let before: usize = text
            .split('\n')
            .take(line.saturating_sub(1))
            .map(|line| line.chars().count() + 1)
            .sum();
        let position = before + column;
        error.position = (position >= 1 && position <= text.chars().count() + 1).then_some(position);
    }
    error
}

fn closest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let wanted = name.to_lowercase();
    let distance = |candidate: &str| edit_distance(&wanted, &candidate.to_lowercase());
    let best = candidates
        .map(|candidate| (distance(candidate), candidate))
        .min()?;
    (best.0 <= 1 + wanted.len() / 4).then_some(best.1)
}

fn edit_distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().take(64).collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (index, a) in left.chars().take(64).enumerate() {
        let mut diagonal = row[0];
        row[0] = index + 1;
        for (column, b) in right.iter().enumerate() {
            let replaced = diagonal + usize::from(a != *b);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[right.len()]
}

/// What DataFusion's planner says in prose.
fn of_plan_message(message: &str) -> SqlError {
    let line = first_line(message);
    let lower = line.to_lowercase();
    if let Some(name) = between(message, "table '", "' not found") {
        let short = name.rsplit('.').next().unwrap_or(name);
        return SqlError::new(UNDEFINED_TABLE, format!("relation \"{short}\" does not exist"))
            .hint("SHOW TABLES lists what there is");
    }
    if let Some(name) = between(message, "Invalid function '", "'") {
        return SqlError::new(UNDEFINED_FUNCTION, format!("function {name} does not exist"));
    }
    if let Some(name) = between(&lower, "table function '", "' not found")
        && matches!(name, "tumble" | "hop")
    {
        let what = format!(
            "{}() outside of a materialized view is not supported",
            name.to_uppercase()
        );
        return SqlError::unsupported(what).hint("Make it a materialized view, and read that.");
    }
    if lower.contains("table function") && lower.contains("not found") {
        return SqlError::new(UNDEFINED_FUNCTION, line);
    }
    let rules: &[(&[&str], SqlState)] = &[
        (
            &["failed to resolve schema", "schema not found"],
            INVALID_SCHEMA_NAME,
        ),
        (&["failed to resolve catalog"], INVALID_CATALOG_NAME),
        (
            &[
                "must appear in the group by",
                "must be in group by",
                "group by clause",
            ],
            GROUPING_ERROR,
        ),
        (
            &[
                "no function matches",
                "does not support zero arguments",
                "signature",
            ],
            UNDEFINED_FUNCTION,
        ),
        (
            &[
                "cannot coerce",
                "cannot infer common",
                "cannot get result type",
                "incompatible",
                "coercion",
            ],
            DATATYPE_MISMATCH,
        ),
        (&["unsupported cast", "cast from", "cannot cast"], CANNOT_COERCE),
        (&["ambiguous"], AMBIGUOUS_COLUMN),
        (&["duplicate", "require unique expression names"], DUPLICATE_ALIAS),
        (
            &["unsupported", "not supported", "not implemented"],
            FEATURE_NOT_SUPPORTED,
        ),
        (&["invalid placeholder", "placeholder"], UNDEFINED_PARAMETER),
        (&["boolean", "filter predicate"], DATATYPE_MISMATCH),
    ];
    for (patterns, state) in rules {
        if patterns.iter().any(|pattern| lower.contains(pattern)) {
            return SqlError::new(state, line);
        }
    }
    SqlError::new(SYNTAX_ERROR, line)
}

/// What a value did wrong: Arrow's casts and DataFusion's functions.
fn of_value_message(message: &str) -> SqlError {
    let line = first_line(message);
    let lower = line.to_lowercase();
    if let (Some(value), Some(to)) = (
        between(message, "Cannot cast string '", "'"),
        between(message, "value of ", " type"),
    ) {
        let name = super::types::sql_name_of_arrow_text(to);
        let state = if name.starts_with("timestamp") || name == "date" {
            INVALID_DATETIME
        } else {
            INVALID_TEXT
        };
        let fits_not = name.contains("int")
            && value
                .trim()
                .trim_start_matches(['+', '-'])
                .bytes()
                .all(|b| b.is_ascii_digit())
            && !value.trim().is_empty();
        return match fits_not {
            true => SqlError::new(
                NUMERIC_OUT_OF_RANGE,
                format!("value \"{value}\" is out of range for type {name}"),
            ),
            false => SqlError::new(
                state,
                format!("invalid input syntax for type {name}: \"{value}\""),
            ),
        };
    }
    if lower.contains("division by zero") || lower.contains("divide by zero") {
        return SqlError::new(DIVISION_BY_ZERO, "division by zero");
    }
    let rules: &[(&[&str], SqlState)] = &[
        (
            &[
                "can't cast value",
                "overflow",
                "out of range",
                "too large to store",
                "exceeds",
                "too small to store",
            ],
            NUMERIC_OUT_OF_RANGE,
        ),
        (
            &[
                "error parsing timestamp",
                "error parsing date",
                "invalid timezone",
                "invalid time",
                "error parsing",
            ],
            INVALID_DATETIME,
        ),
        (&["regular expression", "regex"], INVALID_REGEX),
        (&["more than one row", "subquery returned"], CARDINALITY_VIOLATION),
        (
            &["cannot cast", "parse", "invalid", "failed to convert"],
            INVALID_TEXT,
        ),
        (
            &[
                "not supported",
                "unsupported",
                "not implemented",
                "does not support",
            ],
            FEATURE_NOT_SUPPORTED,
        ),
    ];
    for (patterns, state) in rules {
        if patterns.iter().any(|pattern| lower.contains(pattern)) {
            return SqlError::new(state, line);
        }
    }
    SqlError::internal(line)
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    let start = text.find(before)? + before.len();
    let length = text[start..].find(after)?;
    Some(&text[start..start + length])
}

fn first_line(message: &str) -> String {
    let mut line = message.lines().next().unwrap_or("unknown error");
    for prefix in [
        "Error during planning: ",
        "Execution error: ",
        "Arrow error: ",
        "Cast error: ",
        "Parser error: ",
    ] {
        line = line.strip_prefix(prefix).unwrap_or(line);
    }
    let mut chars = line.chars().peekable();
    let mut lowered = String::with_capacity(line.len());
    if let Some(first) = chars.next() {
        let second_is_upper = chars.peek().is_some_and(|c| c.is_uppercase());
        if second_is_upper {
            lowered.push(first)
        } else {
            lowered.extend(first.to_lowercase())
        }
    }
    lowered.extend(chars);
    lowered
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_do_not_parse_or_fit() {
        let cast = |text: &str| SqlError::from(ArrowError::CastError(text.into()));
        let text = cast("Cannot cast string 'x' to value of Int32 type");
        assert_eq!(
            (text.state, text.message.as_str()),
            ("22P02", "invalid input syntax for type integer: \"x\"")
        );
        assert_eq!(
            cast("Cannot cast string '99999999999' to value of Int32 type").state,
            "22003"
        );
        assert_eq!(cast("Can't cast value 100000 to type Int16").state, "22003");
        assert_eq!(SqlError::from(ArrowError::DivideByZero).state, "22012");
    }

    #[test]
    fn our_own_errors_pass_through_every_wrapping() {
        let own = SqlError::new("23505", "duplicate");
        let wrapped = DataFusionError::Context(
            "somewhere".into(),
            Box::new(DataFusionError::ArrowError(
                Box::new(ArrowError::ExternalError(Box::new(DataFusionError::External(
                    Box::new(own.clone()),
                )))),
                None,
            )),
        );
        assert_eq!(SqlError::from(wrapped), own);
    }

    #[test]
    fn positions_count_characters_over_lines() {
        let span = datafusion::common::Span::new(
            datafusion::common::Location { line: 2, column: 3 },
            datafusion::common::Location { line: 2, column: 4 },
        );
        let error = SqlError::new("42703", "x").at(Some(encode_span(span)));
        assert_eq!(resolve_position(error, "säl\n  x").position, Some(7));
    }

    #[test]
    fn a_missing_table_is_named_without_its_catalog() {
        let error = of_plan_message("table 'tributary.public.nope' not found");
        assert_eq!(
            (error.state, error.message.as_str()),
            ("42P01", "relation \"nope\" does not exist")
        );
    }

    #[test]
    fn close_names_are_suggested() {
        assert_eq!(closest("amuont", ["id", "amount"].into_iter()), Some("amount"));
        assert_eq!(closest("zzz", ["id", "amount"].into_iter()), None);
    }
}
