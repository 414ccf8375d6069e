//! Integer `+`, `-`, `*` and negation that fail on overflow: DataFusion's own wrap around silently.

use std::sync::{Arc, LazyLock};

use datafusion::arrow::array::{ArrayRef, Datum, Scalar};
use datafusion::arrow::compute::kernels::numeric::{add, mul, sub};
use datafusion::arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::logical_expr::{ColumnarValue, Operator, ScalarUDF, Volatility, create_udf};

use crate::pgwire::error::SqlError;
use crate::pgwire::sqlstate;
use crate::pgwire::types::sql_name_of_arrow_text;

/// One function per operator and type, made once: that it is the same one tells that two plans mean the same.
static MADE: LazyLock<Vec<(Operator, DataType, ScalarUDF)>> = LazyLock::new(|| {
    let operators: [(Operator, &str, Kernel); 3] = [
        (Operator::Plus, "integer_add", add),
        (Operator::Minus, "integer_subtract", sub),
        (Operator::Multiply, "integer_multiply", mul),
    ];
    let types = [DataType::Int16, DataType::Int32, DataType::Int64];
    let made = operators.into_iter().flat_map(|(operator, name, kernel)| {
        let made = move |data_type: &DataType| (operator, data_type.clone(), make(name, kernel, data_type));
        types.iter().map(made).collect::<Vec<_>>()
    });
    made.collect()
});

/// The function of an operator over two integers of one type; `None` for operators that cannot overflow or are
/// checked already.
pub fn checked(operator: Operator, data_type: &DataType) -> Option<ScalarUDF> {
    let mut made = MADE.iter();
    let found = made.find(|(of, over, _)| *of == operator && over == data_type)?;
    Some(found.2.clone())
}

fn make(name: &str, kernel: Kernel, data_type: &DataType) -> ScalarUDF {
    let evaluate = Arc::new(move |values: &[ColumnarValue]| apply(kernel, &values[0], &values[1]));
    let arguments = vec![data_type.clone(), data_type.clone()];
    create_udf(
        name,
        arguments,
        data_type.clone(),
        Volatility::Immutable,
        evaluate,
    )
}

type Kernel =
    fn(&dyn Datum, &dyn Datum) -> std::result::Result<ArrayRef, datafusion::arrow::error::ArrowError>;

fn apply(kernel: Kernel, left: &ColumnarValue, right: &ColumnarValue) -> Result<ColumnarValue> {
    let result = match (left, right) {
        (ColumnarValue::Array(left), ColumnarValue::Array(right)) => kernel(left, right),
        (ColumnarValue::Array(left), ColumnarValue::Scalar(right)) => kernel(left, &right.to_scalar()?),
        (ColumnarValue::Scalar(left), ColumnarValue::Array(right)) => kernel(&left.to_scalar()?, right),
        (ColumnarValue::Scalar(left), ColumnarValue::Scalar(right)) => {
            let left: Scalar<ArrayRef> = left.to_scalar()?;
            let result = kernel(&left, &right.to_scalar()?).map_err(|_| out_of_range(&right.data_type()))?;
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&result, 0)?));
        }
    };
    let result = result.map_err(|_| out_of_range(&left.data_type()))?;
    Ok(ColumnarValue::Array(result))
}

fn out_of_range(data_type: &DataType) -> datafusion::error::DataFusionError {
    let name = sql_name_of_arrow_text(&format!("{data_type:?}"));
    let error = SqlError::new(sqlstate::NUMERIC_OUT_OF_RANGE, format!("{name} out of range"));
    datafusion::error::DataFusionError::External(Box::new(error))
}
