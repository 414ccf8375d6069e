//! ORDER BY … LIMIT. Projections between the two keep rows, so they are made afterwards. An ORDER BY without LIMIT
//! means nothing in a view.

use datafusion_common::DFSchema;
use datafusion_expr::SortExpr;
use datafusion_expr::logical_plan::{
    FetchType, Limit, LogicalPlan, Projection, SkipType, Sort, SubqueryAlias,
};

use super::{Columns, Converter, Relation, projected};
use crate::datafusion::errors::plan_error;
use crate::datafusion::typed::{Typed, comparison};
use crate::error::{PlanError, PlanErrorKind};
use crate::plan::{Expr, Node, SortKey};

impl Converter<'_> {
    /// ORDER BY … LIMIT. Projections between the two keep rows, so they are made afterwards.
    pub(super) fn limit(&self, limit: &Limit) -> Result<Relation, PlanError> {
        let literal = "LIMIT and OFFSET in a view have to be constants";
        let constant = || PlanError::new(PlanErrorKind::Unsupported, literal).with_hint("Write the number.");
        let skip = match limit.get_skip_type().map_err(|error| plan_error(&error))? {
            SkipType::Literal(skip) => skip,
            SkipType::UnsupportedExpr => return Err(constant()),
        };
        let fetch = match limit.get_fetch_type().map_err(|error| plan_error(&error))? {
            FetchType::Literal(Some(fetch)) => fetch,
            FetchType::Literal(None) => {
                return Err(PlanError::unsupported(
                    "OFFSET without LIMIT in a view",
                    "Add a LIMIT.",
                ));
            }
            FetchType::UnsupportedExpr => return Err(constant()),
        };
        if skip.checked_add(fetch).is_none() {
            return Err(PlanError::new(
                PlanErrorKind::InvalidDefinition,
                "LIMIT and OFFSET are too large",
            ));
        }
        self.top_k(&limit.input, skip, fetch)
    }

    fn top_k(&self, plan: &LogicalPlan, skip: usize, fetch: usize) -> Result<Relation, PlanError> {
        match plan {
            LogicalPlan::Projection(Projection { expr, input, .. }) => {
                let relation = self.top_k(input, skip, fetch)?;
                let relation = self.project(relation, input.schema(), expr)?;
                self.settle(relation)
            }
            LogicalPlan::SubqueryAlias(SubqueryAlias { input, .. }) => self.top_k(input, skip, fetch),
            LogicalPlan::Sort(Sort { expr, input, .. }) => {
                self.sorted(self.convert(input)?, input.schema(), expr, skip, fetch)
            }
            _ => Err(PlanError::unsupported(
                "LIMIT without ORDER BY in a view",
                "Add an ORDER BY.",
            )),
        }
    }

    fn sorted(
        &self,
        input: Relation,
        schema: &DFSchema,
        order: &[SortExpr],
        skip: usize,
        fetch: usize,
    ) -> Result<Relation, PlanError> {
        let width = input.types.len();
        let scope = self.scope(schema, &input.types);
        let own = input
            .types
            .iter()
            .enumerate()
            .map(|(index, data_type)| Typed::column(index, data_type.clone()));
        let mut columns = Columns(own.collect());
        let mut keys = Vec::with_capacity(order.len());
        for SortExpr {
            expr,
            asc,
            nulls_first,
        } in order
        {
            let key = scope.convert(expr)?.settled(scope.zone)?;
            comparison::check_comparable(&key.data_type, "an ORDER BY expression")?;
            let column = columns.position(key);
            keys.push(SortKey {
                column,
                descending: !asc,
                nulls_first: *nulls_first,
            });
        }
        let extended = columns.0.len() > width;
        let (expressions, types) = columns
            .0
            .into_iter()
            .map(|column| (column.expr, column.data_type))
            .unzip();
        let below = if extended {
            projected(input.node, expressions, types).node
        } else {
            input.node
        };
        let top = Node::TopK {
            input: Box::new(below),
            partition: Vec::new(),
            keys,
            skip,
            fetch,
            rank: false,
        };
        let own = (0..width).map(Expr::Column).collect();
        Ok(if extended {
            projected(top, own, input.types)
        } else {
            Relation {
                node: top,
                types: input.types,
            }
        })
    }
}
