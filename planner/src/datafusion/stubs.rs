//! Functions as DataFusion's front end needs to know them: by name, with a rough type.
//!
//! The front end resolves a name to one of these and looks at its type only to check its own plan. The type that
//! counts is given later, by [`super::typed::functions`] and [`super::aggregates`]. Nothing here can be executed.

use std::sync::Arc;

use arrow_schema::{DataType, Field, FieldRef};
use datafusion_common::{Result, not_impl_err};
use datafusion_expr::function::{AccumulatorArgs, PartitionEvaluatorArgs, WindowUDFFieldArgs};
use datafusion_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, ColumnarValue, PartitionEvaluator, ScalarFunctionArgs,
    ScalarUDF, ScalarUDFImpl, Signature, Volatility, WindowUDF, WindowUDFImpl,
};

use super::typed::{TIMESTAMP, functions, timestamptz};

/// The scalar function of a name, if views may call it.
pub fn scalar(name: &str) -> Option<Arc<ScalarUDF>> {
    let name = *functions::NAMES.iter().find(|known| **known == name)?;
    Some(Arc::new(ScalarUDF::new_from_impl(ScalarStub {
        name,
        signature: any_arguments(),
    })))
}

/// The aggregate function of a name, if views may call it.
pub fn aggregate(name: &str) -> Option<Arc<AggregateUDF>> {
    let name = *super::aggregates::NAMES.iter().find(|known| **known == name)?;
    Some(Arc::new(AggregateUDF::new_from_impl(AggregateStub {
        name,
        signature: any_arguments(),
    })))
}

/// The one window function of views.
pub const ROW_NUMBER: &str = "row_number";

/// The window function of a name, if views may call it.
pub fn window(name: &str) -> Option<Arc<WindowUDF>> {
    (name == ROW_NUMBER).then(|| {
        Arc::new(WindowUDF::new_from_impl(RowNumberStub {
            signature: Signature::nullary(Volatility::Immutable),
        }))
    })
}

fn any_arguments() -> Signature {
    Signature::variadic_any(Volatility::Immutable)
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct ScalarStub {
    name: &'static str,
    signature: Signature,
}

impl ScalarUDFImpl for ScalarStub {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        let argument = |index: usize| arguments.get(index).cloned().unwrap_or(DataType::Utf8);
        Ok(match self.name {
            "length" | "char_length" | "character_length" | "octet_length" | "strpos" => DataType::Int32,
            "starts_with" => DataType::Boolean,
            "date_part" => DataType::Float64,
            "extract" => DataType::Decimal128(26, 6),
            "date_trunc" if argument(1) == TIMESTAMP => TIMESTAMP,
            "date_trunc" => timestamptz(),
            "abs" | "round" | "trunc" | "floor" | "ceil" | "ceiling" => argument(0),
            "coalesce" | "nullif" | "greatest" | "least" => {
                let settled = |data_type: &&DataType| !matches!(data_type, DataType::Null | DataType::Utf8);
                arguments.iter().find(settled).cloned().unwrap_or(DataType::Utf8)
            }
            _ => DataType::Utf8,
        })
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
        not_impl_err!("{} stands for a name only", self.name)
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct AggregateStub {
    name: &'static str,
    signature: Signature,
}

impl AggregateUDFImpl for AggregateStub {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        let argument = arguments.first().unwrap_or(&DataType::Null);
        Ok(super::aggregates::result(self.name, argument).map_or(DataType::Float64, |(_, _, output)| output))
    }

    fn accumulator(&self, _: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        not_impl_err!("{} stands for a name only", self.name)
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct RowNumberStub {
    signature: Signature,
}

impl WindowUDFImpl for RowNumberStub {
    fn name(&self) -> &str {
        ROW_NUMBER
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn field(&self, arguments: WindowUDFFieldArgs) -> Result<FieldRef> {
        Ok(Arc::new(Field::new(arguments.name(), DataType::Int64, false)))
    }

    fn partition_evaluator(&self, _: PartitionEvaluatorArgs) -> Result<Box<dyn PartitionEvaluator>> {
        not_impl_err!("{ROW_NUMBER} stands for a name only")
    }
}
