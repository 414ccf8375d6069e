//! Casts to text with PostgreSQL's output functions: the same writer that results use. Only booleans differ: as a
//! result they are `t` and `f`, cast to text they are `true` and `false`.

use std::sync::Arc;

use datafusion::arrow::array::{Array, AsArray, StringBuilder};
use datafusion::arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::{ColumnarValue, ScalarUDF, Volatility, create_udf};

use crate::pgwire::types::output::{ColumnEncoder, OutputStyle};

/// The function that writes values of this type as text.
pub fn text_out(data_type: &DataType, style: OutputStyle) -> ScalarUDF {
    let evaluate = Arc::new(move |values: &[ColumnarValue]| write(style, &values[0]));
    create_udf(
        "text",
        vec![data_type.clone()],
        DataType::Utf8,
        Volatility::Immutable,
        evaluate,
    )
}

fn write(style: OutputStyle, value: &ColumnarValue) -> Result<ColumnarValue> {
    let is_scalar = matches!(value, ColumnarValue::Scalar(_));
    let array = value.to_array(1)?;
    let external = |error| DataFusionError::External(Box::new(error) as _);
    let encoder = ColumnEncoder::new(&array, style, false).map_err(external)?;
    let booleans = array.as_boolean_opt();
    let mut builder = StringBuilder::new();
    let mut text = String::new();
    for row in 0..array.len() {
        if encoder.is_null(row) {
            builder.append_null();
        } else if let Some(booleans) = booleans {
            builder.append_value(if booleans.value(row) { "true" } else { "false" });
        } else {
            text.clear();
            encoder.write_text(row, &mut text).map_err(external)?;
            builder.append_value(&text);
        }
    }
    let array: datafusion::arrow::array::ArrayRef = Arc::new(builder.finish());
    Ok(match is_scalar {
        true => ColumnarValue::Scalar(ScalarValue::try_from_array(&array, 0)?),
        false => ColumnarValue::Array(array),
    })
}
