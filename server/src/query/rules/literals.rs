//! Integer literals that fit are `integer`, as in PostgreSQL; DataFusion takes all for `bigint`.

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::optimizer::AnalyzerRule;

#[derive(Debug)]
pub(super) struct Literals;

impl AnalyzerRule for Literals {
    fn name(&self) -> &str {
        "integer_literals"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        // LIMIT needs a bigint; the schema of VALUES is not computed again.
        let is_wanted = |plan: &LogicalPlan| {
            !matches!(
                plan,
                LogicalPlan::Limit(_) | LogicalPlan::Values(_) | LogicalPlan::Window(_)
            )
        };
        super::rewrite(plan, |expr, _| Ok(narrowed(expr)), is_wanted)
    }
}

fn narrowed(expr: Expr) -> Transformed<Expr> {
    match expr {
        Expr::Literal(ScalarValue::Int64(Some(value)), metadata) => match i32::try_from(value) {
            Ok(value) => Transformed::yes(Expr::Literal(ScalarValue::Int32(Some(value)), metadata)),
            Err(_) => Transformed::no(Expr::Literal(ScalarValue::Int64(Some(value)), metadata)),
        },
        other => Transformed::no(other),
    }
}
