//! `avg` of integers and decimals: exact, as numeric, like the same aggregate in a materialized view. DataFusion's
//! own turns integers into floats.
//!
//! The sum is kept without a scale in 128 bits; the quotient is rounded half away from zero.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray};
use datafusion::arrow::datatypes::{DataType, Decimal128Type, Field, FieldRef, Int64Type, i256};
use datafusion::common::ScalarValue;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::format_state_name;
use datafusion::logical_expr::{Accumulator, AggregateUDF, AggregateUDFImpl, Signature, Volatility};

use crate::pgwire::error::SqlError;
use crate::pgwire::sqlstate;

/// The aggregate; its argument has been cast to `Decimal128(38, scale)`.
pub fn exact_average() -> Arc<AggregateUDF> {
    let signature = Signature::any(1, Volatility::Immutable);
    Arc::new(AggregateUDF::from(ExactAverage { signature }))
}

/// The scale of the average of decimals of this scale.
fn result_scale(scale: i8) -> i8 {
    scale.max(16)
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct ExactAverage {
    signature: Signature,
}

impl AggregateUDFImpl for ExactAverage {
    fn name(&self) -> &str {
        "exact_avg"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        match arguments {
            [DataType::Decimal128(_, scale)] => Ok(DataType::Decimal128(38, result_scale(*scale))),
            other => Err(DataFusionError::Internal(format!("exact_avg of {other:?}"))),
        }
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        let DataType::Decimal128(_, result_scale) = *args.return_field.data_type() else {
            return Err(DataFusionError::Internal("exact_avg returns a decimal".into()));
        };
        let DataType::Decimal128(_, scale) = *args.expr_fields[0].data_type() else {
            return Err(DataFusionError::Internal("exact_avg takes a decimal".into()));
        };
        Ok(Box::new(Average {
            sum: 0,
            count: 0,
            scale,
            result_scale,
        }))
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        let scale = match args.input_fields[0].data_type() {
            DataType::Decimal128(_, scale) => *scale,
            other => return Err(DataFusionError::Internal(format!("exact_avg of {other}"))),
        };
        let field =
            |part: &str, data_type| Arc::new(Field::new(format_state_name(args.name, part), data_type, true));
        Ok(vec![
            field("sum", DataType::Decimal128(38, scale)),
            field("count", DataType::Int64),
        ])
    }
}

#[derive(Debug)]
struct Average {
    sum: i128,
    count: i64,
    scale: i8,
    result_scale: i8,
}

fn overflow() -> DataFusionError {
    let error = SqlError::new(sqlstate::NUMERIC_OUT_OF_RANGE, "numeric out of range in avg");
    DataFusionError::External(Box::new(error))
}

impl Average {
    fn add(&mut self, sums: &ArrayRef) -> Result<()> {
        for value in sums.as_primitive::<Decimal128Type>().iter().flatten() {
            self.sum = self.sum.checked_add(value).ok_or_else(overflow)?;
        }
        Ok(())
    }

    fn quotient(&self) -> Option<i128> {
        let shift = u32::try_from(i32::from(self.result_scale) - i32::from(self.scale)).ok()?;
        let scaled = i256::from_i128(self.sum).checked_mul(i256::from_i128(10).checked_pow(shift)?)?;
        let count = i256::from_i128(self.count.into());
        let (quotient, rest) = (scaled.checked_div(count)?, scaled.checked_rem(count)?);
        let doubled = rest.checked_abs()?.checked_mul(i256::from_i128(2))?;
        let away = if scaled.is_negative() {
            i256::from_i128(-1)
        } else {
            i256::ONE
        };
        let rounded = if doubled >= count {
            quotient.checked_add(away)?
        } else {
            quotient
        };
        rounded.to_i128()
    }
}

impl Accumulator for Average {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.count += (values[0].len() - values[0].null_count()) as i64;
        self.add(&values[0])
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let value = match self.count {
            0 => None,
            _ => Some(self.quotient().ok_or_else(overflow)?),
        };
        Ok(ScalarValue::Decimal128(value, 38, self.result_scale))
    }

    fn size(&self) -> usize {
        std::mem::size_of_val(self)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![
            ScalarValue::Decimal128(Some(self.sum), 38, self.scale),
            ScalarValue::Int64(Some(self.count)),
        ])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.count += states[1]
            .as_primitive::<Int64Type>()
            .iter()
            .flatten()
            .sum::<i64>();
        self.add(&states[0])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotients_are_rounded_half_away_from_zero() {
        let average = |sum, count| {
            Average {
                sum,
                count,
                scale: 0,
                result_scale: 1,
            }
            .quotient()
        };
        assert_eq!(average(5, 4), Some(13));
        assert_eq!(average(-5, 4), Some(-13));
        assert_eq!(average(i128::MAX, 1), None);
    }
}
