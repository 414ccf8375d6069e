//! Analyzer rules that give DataFusion's plans PostgreSQL's meaning, and the planners of types and operators.
//!
//! Order matters: literals and aggregates before type coercion (they choose types), arithmetic and casts after it (they
//! need to know them).
//!
//! ```text
//!   SQL ─▶ SqlToRel (types, operators) ─▶ Literals ─▶ Aggregates ─▶ DataFusion's coercion ─▶ Arithmetic ─▶ Casts
//! ```

mod aggregates;
mod arithmetic;
mod casts;
mod literals;
pub mod operators;
pub mod types;

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, Result};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::optimizer::AnalyzerRule;
use datafusion::optimizer::analyzer::resolve_grouping_function::ResolveGroupingFunction;
use datafusion::optimizer::analyzer::type_coercion::TypeCoercion;

use crate::pgwire::types::output::OutputStyle;

/// The analyzer's rules in order; `style` carries the session's time zone.
pub fn analyzer_rules(style: OutputStyle) -> Vec<Arc<dyn AnalyzerRule + Send + Sync>> {
    vec![
        Arc::new(literals::Literals),
        Arc::new(aggregates::Aggregates),
        Arc::new(ResolveGroupingFunction::new()),
        Arc::new(TypeCoercion::new()),
        Arc::new(arithmetic::Arithmetic),
        Arc::new(casts::Casts::new(style)),
    ]
}

/// Rewrites every expression of a plan, bottom up, with the columns it may name at hand. Names of output columns stay.
fn rewrite(
    plan: LogicalPlan,
    mut change: impl FnMut(Expr, &DFSchema) -> Result<Transformed<Expr>>,
    mut is_wanted: impl FnMut(&LogicalPlan) -> bool,
) -> Result<LogicalPlan> {
    let rewritten = plan.transform_up_with_subqueries(|plan| {
        if !is_wanted(&plan) {
            return Ok(Transformed::no(plan));
        }
        let mut schema = merge_schema(&plan.inputs());
        if let LogicalPlan::TableScan(scan) = &plan {
            schema.merge(&DFSchema::try_from_qualified_schema(
                scan.table_name.clone(),
                &scan.source.schema(),
            )?);
        }
        let names = NamePreserver::new(&plan);
        let changed = plan.map_expressions(|expr| {
            let name = names.save(&expr);
            let changed = expr.transform_up(|expr| change(expr, &schema))?;
            Ok(changed.update_data(|expr| name.restore(expr)))
        })?;
        match changed.transformed {
            true => changed.map_data(LogicalPlan::recompute_schema),
            // An input may have got other types even where nothing changed here.
            false => Ok(Transformed::yes(changed.data.recompute_schema()?)),
        }
    })?;
    Ok(rewritten.data)
}
