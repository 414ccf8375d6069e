//! Project: `Δ(π_e R) = π_e(ΔR)`. Linear, without state.
//!
//! A row on which any expression fails is left out and enters the errors with its weight.

use arrow::datatypes::{DataType, SchemaRef};
use tributary_planner::plan::Expr;
use tributary_storage::Delta;

use super::Step;
use crate::columns::{batch_of, schema_of};
use crate::error::{ExecutorError, Result};
use crate::expr::Evaluator;

#[derive(Debug)]
pub(crate) struct Project {
    operator: String,
    expressions: Evaluator,
    schema: SchemaRef,
}

impl Project {
    pub(crate) fn build(
        operator: String,
        expressions: &[Expr],
        types: &[DataType],
        input: &[DataType],
    ) -> Result<Self> {
        let expressions = Evaluator::compile(expressions, input)?;
        if expressions.types() != types {
            return Err(ExecutorError::Plan(format!(
                "a projection yields {:?}, the plan says {types:?}",
                expressions.types()
            )));
        }
        Ok(Self {
            operator,
            expressions,
            schema: schema_of(types),
        })
    }

    pub(crate) fn eval(&self, step: &mut Step, delta: &Delta) -> Delta {
        let evaluated = self.expressions.evaluate(delta.rows());
        for (row, message) in &evaluated.failed {
            let row = *row as usize;
            step.errors
                .push(&self.operator, message, delta.rows(), row, delta.weight(row));
        }
        let computed = match evaluated.computed(delta.len()) {
            Some(computed) => delta.filter(&computed),
            None => delta.clone(),
        };
        computed.with_rows(batch_of(self.schema.clone(), evaluated.columns, computed.len()))
    }
}
