//! Filter: `Δ(σ_p R) = σ_p(ΔR)`. Linear, without state.
//!
//! A row on which the predicate fails is left out and enters the errors with its weight.

use arrow::datatypes::DataType;
use tributary_planner::plan::Expr;
use tributary_storage::Delta;

use super::Step;
use crate::error::{ExecutorError, Result};
use crate::expr::Evaluator;

#[derive(Debug)]
pub(crate) struct Filter {
    operator: String,
    predicate: Evaluator,
}

impl Filter {
    pub(crate) fn build(operator: String, predicate: &Expr, input: &[DataType]) -> Result<Self> {
        let predicate = compile_predicate(predicate, input)?;
        Ok(Self { operator, predicate })
    }

    pub(crate) fn eval(&self, step: &mut Step, delta: &Delta) -> Delta {
        let (keep, failed) = self.predicate.holds(delta.rows());
        for (row, message) in failed {
            step.errors.push(
                &self.operator,
                &message,
                delta.rows(),
                row as usize,
                delta.weight(row as usize),
            );
        }
        delta.filter(&keep)
    }
}

/// Compiles a condition.
///
/// # Errors
/// As [`Evaluator::compile`], and when the expression is not boolean.
pub(crate) fn compile_predicate(predicate: &Expr, input: &[DataType]) -> Result<Evaluator> {
    let compiled = Evaluator::compile(std::slice::from_ref(predicate), input)?;
    match compiled.types() {
        [DataType::Boolean] => Ok(compiled),
        [other] => Err(ExecutorError::Plan(format!("a condition has type {other}"))),
        _ => unreachable!("one expression has one type"),
    }
}
