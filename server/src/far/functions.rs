//! The functions that other regions evaluate for a statement.
//!
//! Each is immutable, is the same in every session, and reads no setting: time zones come with the types of their
//! arguments. Aggregates are those whose states merge, whatever the order of rows, as a view's partials do. An owner knows
//! these by name; whoever sends a name has checked that it means the same function here.

use std::sync::Arc;

use datafusion::arrow::datatypes::DataType;
use datafusion::logical_expr::{AggregateUDF, Operator, ScalarUDF};

use crate::query::context::shared;
use crate::query::functions::{checked, exact_average};

/// DataFusion's.
const SCALARS: &[&str] = &[
    "abs",
    "btrim",
    "ceil",
    "character_length",
    "coalesce",
    "concat",
    "date_bin",
    "date_part",
    "date_trunc",
    "floor",
    "greatest",
    "least",
    "left",
    "lower",
    "ltrim",
    "nullif",
    "octet_length",
    "power",
    "replace",
    "reverse",
    "right",
    "round",
    "rtrim",
    "split_part",
    "sqrt",
    "starts_with",
    "strpos",
    "substr",
    "trunc",
    "upper",
];

/// DataFusion's.
const AGGREGATES: &[&str] = &[
    "avg",
    "bit_and",
    "bit_or",
    "bit_xor",
    "bool_and",
    "bool_or",
    "count",
    "max",
    "min",
    "stddev",
    "stddev_pop",
    "sum",
    "var",
    "var_pop",
];

/// The function of this name for arguments of these types.
pub fn scalar(name: &str, arguments: &[DataType]) -> Option<Arc<ScalarUDF>> {
    let operator = match name {
        "integer_add" => Operator::Plus,
        "integer_subtract" => Operator::Minus,
        "integer_multiply" => Operator::Multiply,
        _ => {
            let listed = SCALARS.contains(&name);
            return listed
                .then(|| shared()?.scalar_functions().get(name).cloned())
                .flatten();
        }
    };
    match arguments {
        [left, right] if left == right => checked(operator, left).map(Arc::new),
        _ => None,
    }
}

/// The aggregate of this name.
pub fn aggregate(name: &str) -> Option<Arc<AggregateUDF>> {
    let average = exact_average();
    if name == average.name() {
        return Some(average);
    }
    let listed = AGGREGATES.contains(&name);
    listed
        .then(|| shared()?.aggregate_functions().get(name).cloned())
        .flatten()
}
