//! Casts with PostgreSQL's meaning where Arrow's differs: from text and to text by the input and output functions of
//! the wire, from floats and decimals to integers by rounding.

use std::sync::Arc;

use datafusion::arrow::datatypes::DataType;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{DFSchema, Result};
use datafusion::functions::math::round;
use datafusion::logical_expr::expr::Cast;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan};
use datafusion::optimizer::AnalyzerRule;
use tributary_planner::types::SqlType;

use crate::pgwire::types::output::OutputStyle;
use crate::query::functions::{text_in, text_out};

#[derive(Debug)]
pub(super) struct Casts {
    style: OutputStyle,
}

impl Casts {
    pub(super) fn new(style: OutputStyle) -> Self {
        Self { style }
    }

    fn changed(&self, expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
        let Expr::Cast(cast) = expr else {
            return Ok(Transformed::no(expr));
        };
        let from = cast.expr.get_type(schema)?;
        let to = cast.field.data_type().clone();
        let replaced = match (is_text(&from), is_text(&to)) {
            (true, false) => self.text_to(&cast, &to),
            (false, true) => self.to_text(&cast, &from),
            _ => None,
        };
        Ok(match replaced.or_else(|| rounded(&cast, &from, &to)) {
            Some(expr) => Transformed::yes(expr),
            None => Transformed::no(Expr::Cast(cast)),
        })
    }

    fn text_to(&self, cast: &Cast, to: &DataType) -> Option<Expr> {
        let sql_type = SqlType::from_arrow(to).filter(|sql_type| sql_type.arrow() == *to)?;
        Some(Arc::new(text_in(sql_type, self.style.zone)).call(vec![(*cast.expr).clone()]))
    }

    fn to_text(&self, cast: &Cast, from: &DataType) -> Option<Expr> {
        SqlType::from_arrow(from)?;
        let text = Arc::new(text_out(from, self.style)).call(vec![(*cast.expr).clone()]);
        Some(match cast.field.data_type() {
            DataType::Utf8 => text,
            _ => Expr::Cast(Cast {
                expr: Box::new(text),
                field: Arc::clone(&cast.field),
            }),
        })
    }
}

fn is_text(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View
    )
}

/// Arrow cuts the fraction off; PostgreSQL rounds.
fn rounded(cast: &Cast, from: &DataType, to: &DataType) -> Option<Expr> {
    let is_fraction = match from {
        DataType::Float32 | DataType::Float64 => true,
        DataType::Decimal128(_, scale) => *scale > 0,
        _ => false,
    };
    if !is_fraction || !matches!(to, DataType::Int16 | DataType::Int32 | DataType::Int64) {
        return None;
    }
    if matches!(&*cast.expr, Expr::ScalarFunction(call) if call.func.name() == "round") {
        return None;
    }
    let rounded = round().call(vec![(*cast.expr).clone()]);
    Some(Expr::Cast(Cast {
        expr: Box::new(rounded),
        field: Arc::clone(&cast.field),
    }))
}

impl AnalyzerRule for Casts {
    fn name(&self) -> &str {
        "postgres_casts"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        super::rewrite(plan, |expr, schema| self.changed(expr, schema), |_| true)
    }
}
