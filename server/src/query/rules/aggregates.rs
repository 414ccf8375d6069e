//! Types of sums and averages as in PostgreSQL and in materialized views: `sum(bigint)` is numeric (and cannot wrap
//! around), `avg` of integers and decimals is an exact numeric.

use std::sync::Arc;

use datafusion::arrow::datatypes::DataType;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{DFSchema, Result};
use datafusion::logical_expr::expr::WindowFunctionDefinition;
use datafusion::logical_expr::{AggregateUDF, Expr, ExprSchemable, LogicalPlan};
use datafusion::optimizer::AnalyzerRule;

use crate::query::functions::exact_average;

#[derive(Debug)]
pub(super) struct Aggregates;

impl AnalyzerRule for Aggregates {
    fn name(&self) -> &str {
        "postgres_aggregates"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        super::rewrite(plan, typed, |_| true)
    }
}

fn typed(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    match expr {
        Expr::AggregateFunction(mut call) => {
            let Some(changed) = changed(&call.func, &call.params.args, schema)? else {
                return Ok(Transformed::no(Expr::AggregateFunction(call)));
            };
            (call.func, call.params.args) = changed;
            Ok(Transformed::yes(Expr::AggregateFunction(call)))
        }
        Expr::WindowFunction(mut call) => {
            let WindowFunctionDefinition::AggregateUDF(function) = &call.fun else {
                return Ok(Transformed::no(Expr::WindowFunction(call)));
            };
            // The exact average cannot slide; in windows DataFusion's own is kept, over decimals.
            let is_sum = function.name() == "sum";
            match changed(function, &call.params.args, schema)? {
                Some((_, args)) if is_sum => {
                    call.params.args = args;
                    Ok(Transformed::yes(Expr::WindowFunction(call)))
                }
                _ => Ok(Transformed::no(Expr::WindowFunction(call))),
            }
        }
        other => Ok(Transformed::no(other)),
    }
}

type Call = (Arc<AggregateUDF>, Vec<Expr>);

fn changed(function: &Arc<AggregateUDF>, args: &[Expr], schema: &DFSchema) -> Result<Option<Call>> {
    let ([arg], "sum" | "avg") = (args, function.name()) else {
        return Ok(None);
    };
    let data_type = arg.get_type(schema)?;
    let target = match (function.name(), &data_type) {
        ("sum", DataType::Int64) => DataType::Decimal128(38, 0),
        ("avg", DataType::Int16 | DataType::Int32 | DataType::Int64) => DataType::Decimal128(38, 0),
        ("avg", DataType::Decimal128(_, scale)) => DataType::Decimal128(38, *scale),
        _ => return Ok(None),
    };
    let function = if function.name() == "avg" {
        exact_average()
    } else {
        Arc::clone(function)
    };
    let arg = if data_type == target {
        arg.clone()
    } else {
        arg.clone().cast_to(&target, schema)?
    };
    Ok(Some((function, vec![arg])))
}
