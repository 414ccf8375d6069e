//! `set_config(name, value, is_local)`: SET as a function, which drivers send on connecting.

use std::sync::{Arc, Mutex, PoisonError};

use datafusion::arrow::array::{Array, AsArray, StringArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::DataType;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::{ColumnarValue, ScalarUDF, Volatility, create_udf};

use crate::pgwire::error::SqlError;
use crate::session::settings::Settings;

/// The function over the session's settings. It is volatile, so it runs when the statement runs, once.
pub fn function(settings: Arc<Mutex<Settings>>) -> Arc<ScalarUDF> {
    let arguments = vec![DataType::Utf8, DataType::Utf8, DataType::Boolean];
    let evaluate = Arc::new(move |values: &[ColumnarValue]| run(&settings, values));
    Arc::new(create_udf(
        "set_config",
        arguments,
        DataType::Utf8,
        Volatility::Volatile,
        evaluate,
    ))
}

fn run(settings: &Mutex<Settings>, values: &[ColumnarValue]) -> Result<ColumnarValue> {
    let external = |error: SqlError| DataFusionError::External(Box::new(error));
    let arrays = ColumnarValue::values_to_arrays(values)?;
    let (names, texts) = (
        cast(&arrays[0], &DataType::Utf8)?,
        cast(&arrays[1], &DataType::Utf8)?,
    );
    let (names, texts) = (names.as_string::<i32>(), texts.as_string::<i32>());
    let is_local = arrays[2].as_boolean();
    let mut settings = settings.lock().unwrap_or_else(PoisonError::into_inner);
    let mut set = Vec::with_capacity(names.len());
    for row in 0..names.len() {
        if names.is_null(row) {
            return Err(external(SqlError::new("22004", "a setting needs a name")));
        }
        if !is_local.is_null(row) && is_local.value(row) {
            return Err(external(
                SqlError::unsupported("set_config for one transaction is not supported")
                    .hint("pass false as its third argument"),
            ));
        }
        let text = if texts.is_null(row) { "" } else { texts.value(row) };
        settings.set(names.value(row), text).map_err(external)?;
        set.push(settings.get(names.value(row)).map_err(external)?);
    }
    Ok(ColumnarValue::Array(Arc::new(StringArray::from(set))))
}
