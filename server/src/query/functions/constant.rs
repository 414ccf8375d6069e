//! Functions without arguments whose value is fixed for the statement.

use std::sync::Arc;

use datafusion::arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::logical_expr::{ColumnarValue, ScalarUDF, Volatility, create_udf};

/// A function that returns this text.
pub fn text(name: &str, value: &str) -> Arc<ScalarUDF> {
    of(name, DataType::Utf8, ScalarValue::from(value))
}

/// A function that returns this integer.
pub fn integer(name: &str, value: i32) -> Arc<ScalarUDF> {
    of(name, DataType::Int32, ScalarValue::from(value))
}

fn of(name: &str, data_type: DataType, value: ScalarValue) -> Arc<ScalarUDF> {
    let evaluate = Arc::new(move |_: &[ColumnarValue]| Ok(ColumnarValue::Scalar(value.clone())));
    Arc::new(create_udf(name, vec![], data_type, Volatility::Stable, evaluate))
}
