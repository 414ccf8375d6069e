//! What an aggregate ships of each group: the columns of its partial.
//!
//! | aggregate | partial |
//! |---|---|
//! | count | rows |
//! | sum, avg of integers | the exact sum, rows |
//! | sum, avg of numerics | the low and high words of the exact sum, rows |
//! | sum, avg of floats | an exact, order-independent sum with its rows |
//! | min, max | the value |
//! | bool_and, bool_or | rows that are true, rows that are false |

use arrow_schema::DataType;

use super::node::{AggregateCall, AggregateFunction};

impl AggregateCall {
    /// The types of the partial's columns, which are those that the executor ships.
    pub fn partial_types(&self) -> Vec<DataType> {
        match (self.function, &self.input_type) {
            (AggregateFunction::Count, _) => vec![DataType::Int64],
            (AggregateFunction::Sum | AggregateFunction::Avg, DataType::Float32 | DataType::Float64) => {
                vec![DataType::Binary]
            }
            (AggregateFunction::Sum | AggregateFunction::Avg, DataType::Decimal128(_, scale)) => {
                vec![DataType::Decimal128(38, *scale), DataType::Int64, DataType::Int64]
            }
            (AggregateFunction::Sum | AggregateFunction::Avg, _) => {
                vec![DataType::Decimal128(38, 0), DataType::Int64]
            }
            (AggregateFunction::Min | AggregateFunction::Max, _) => vec![self.output_type.clone()],
            (AggregateFunction::BoolAnd | AggregateFunction::BoolOr, _) => {
                vec![DataType::Int64, DataType::Int64]
            }
        }
    }
}
