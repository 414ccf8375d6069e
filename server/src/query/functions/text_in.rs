//! Casts from text with PostgreSQL's input functions: the same parser that COPY and parameters use.

use std::sync::Arc;

use datafusion::arrow::array::{Array, AsArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::{ColumnarValue, ScalarUDF, Volatility, create_udf};
use tributary_planner::types::SqlType;

use crate::pgwire::types::datetime::Zone;
use crate::pgwire::types::input::ColumnBuilder;

/// The function that reads text as this type; `zone` is where timestamps without a zone are read.
pub fn text_in(sql_type: SqlType, zone: Zone) -> ScalarUDF {
    let evaluate = Arc::new(move |values: &[ColumnarValue]| read(sql_type, zone, &values[0]));
    create_udf(
        &format!("{}_in", sql_type.catalog_name()),
        vec![DataType::Utf8],
        sql_type.arrow(),
        Volatility::Immutable,
        evaluate,
    )
}

fn read(sql_type: SqlType, zone: Zone, value: &ColumnarValue) -> Result<ColumnarValue> {
    let is_scalar = matches!(value, ColumnarValue::Scalar(_));
    let texts = cast(&value.to_array(1)?, &DataType::Utf8)?;
    let texts = texts.as_string::<i32>();
    let mut builder = ColumnBuilder::new(sql_type, zone);
    for row in 0..texts.len() {
        if texts.is_null(row) {
            builder.append_null();
        } else {
            let read = builder.append_text(texts.value(row));
            read.map_err(|error| DataFusionError::External(Box::new(error)))?;
        }
    }
    let array = builder.finish();
    Ok(match is_scalar {
        true => ColumnarValue::Scalar(ScalarValue::try_from_array(&array, 0)?),
        false => ColumnarValue::Array(array),
    })
}
