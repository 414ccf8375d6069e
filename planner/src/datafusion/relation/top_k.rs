//! ORDER BY … LIMIT. Projections between the two keep rows, so they are made afterwards. An ORDER BY without LIMIT
//! means nothing in a view.

use arrow_schema::DataType;
use datafusion_common::DFSchema;
use datafusion_expr::logical_plan::{
    FetchType, Limit, LogicalPlan, Projection, SkipType, Sort, SubqueryAlias,
};
use datafusion_expr::{Expr as DfExpr, SortExpr};

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
                let first = First {
                    partition: &[],
                    order: expr,
                    skip,
                    fetch,
                    rank: false,
                };
                self.ordered(self.convert(input)?, input.schema(), &first)
            }
            _ => Err(PlanError::unsupported(
                "LIMIT without ORDER BY in a view",
                "Add an ORDER BY.",
            )),
        }
    }

    /// The first rows in an order, of each partition.
    pub(super) fn ordered(
        &self,
        input: Relation,
        schema: &DFSchema,
        first: &First<'_>,
    ) -> Result<Relation, PlanError> {
        let width = input.types.len();
        let scope = self.scope(schema, &input.types);
        let own = input.types.iter().enumerate();
        let mut columns = Columns(
            own.map(|(index, data_type)| Typed::column(index, data_type.clone()))
                .collect(),
        );
        let mut column = |expr: &DfExpr, place: &str| {
            let key = scope.convert(expr)?.settled(scope.zone)?;
            comparison::check_comparable(&key.data_type, place)?;
            Ok(columns.position(key))
        };
        let partition = first
            .partition
            .iter()
            .map(|expr| column(expr, "a PARTITION BY expression"));
        let partition = partition.collect::<Result<_, PlanError>>()?;
        let keys = first.order.iter().map(|sort| {
            Ok(SortKey {
                column: column(&sort.expr, "an ORDER BY expression")?,
                descending: !sort.asc,
                nulls_first: sort.nulls_first,
            })
        });
        let keys = keys.collect::<Result<_, PlanError>>()?;
        let extended = columns.0.len();
        let (expressions, types) = columns
            .0
            .into_iter()
            .map(|column| (column.expr, column.data_type))
            .unzip();
        let below = if extended > width {
            projected(input.node, expressions, types).node
        } else {
            input.node
        };
        let top = Node::TopK {
            input: Box::new(below),
            partition,
            keys,
            skip: first.skip,
            fetch: first.fetch,
            rank: first.rank,
        };
        let mut types = input.types;
        types.extend(first.rank.then_some(DataType::Int64));
        if extended == width {
            return Ok(Relation { node: top, types });
        }
        let number = first.rank.then_some(extended);
        let own = (0..width).chain(number).map(Expr::Column).collect();
        Ok(projected(top, own, types))
    }
}

/// Which rows are the first.
pub(super) struct First<'a> {
    /// What sets rows apart.
    pub(super) partition: &'a [DfExpr],
    /// The order within a partition.
    pub(super) order: &'a [SortExpr],
    /// Rows skipped.
    pub(super) skip: usize,
    /// Rows kept.
    pub(super) fetch: usize,
    /// Whether the rows are numbered.
    pub(super) rank: bool,
}
