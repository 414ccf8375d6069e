//! `row_number() OVER (PARTITION BY … ORDER BY …)`: a numbering of all rows, to which [`crate::split`] finds a bound.

use datafusion_expr::Expr as DfExpr;
use datafusion_expr::expr::WindowFunction;
use datafusion_expr::logical_plan::{LogicalPlan, Window};

use super::top_k::First;
use super::{Converter, Relation};
use crate::datafusion::stubs::ROW_NUMBER;
use crate::error::PlanError;
use crate::split::rank::UNBOUNDED;

impl Converter<'_> {
    pub(super) fn row_number(&self, window: &Window) -> Result<Relation, PlanError> {
        let [expr] = window.window_expr.as_slice() else {
            return Err(several());
        };
        if matches!(*window.input, LogicalPlan::Window(_)) {
            return Err(several());
        }
        let function = numbering(expr).ok_or_else(|| {
            PlanError::unsupported(
                "a window function in a view",
                "Use row_number() in a subquery and keep the first rows, or rank in the query that reads the view.",
            )
        })?;
        if function.params.order_by.is_empty() {
            let alternative = "Say by what the rows are numbered: OVER (… ORDER BY …).";
            return Err(PlanError::unsupported(
                "row_number() without ORDER BY in a view",
                alternative,
            ));
        }
        let first = First {
            partition: &function.params.partition_by,
            order: &function.params.order_by,
            skip: 0,
            fetch: UNBOUNDED,
            rank: true,
        };
        self.ordered(self.convert(&window.input)?, window.input.schema(), &first)
    }
}

/// The call of `row_number()`, if that is what an expression is.
fn numbering(expr: &DfExpr) -> Option<&WindowFunction> {
    match expr {
        DfExpr::Alias(alias) => numbering(&alias.expr),
        DfExpr::WindowFunction(function) => {
            let plain = function.params.args.is_empty()
                && function.params.filter.is_none()
                && function.params.null_treatment.is_none()
                && !function.params.distinct;
            (plain && function.fun.name() == ROW_NUMBER).then_some(&**function)
        }
        _ => None,
    }
}

fn several() -> PlanError {
    PlanError::unsupported(
        "more than one window function in a SELECT of a view",
        "Number the rows in one subquery, keep the first, and number those in another.",
    )
}
