//! Joins: inner and left; a right join becomes a left join of the other side. Their keys are found later, by
//! [`crate::split`], among the conditions.

use arrow_schema::DataType;
use datafusion_common::{JoinConstraint, JoinType, NullEquality};
use datafusion_expr::logical_plan::Join;

use super::{Converter, Relation, projected};
use crate::datafusion::errors::plan_error;
use crate::datafusion::typed::{binary, comparison};
use crate::error::PlanError;
use crate::plan::{BinaryOp, Expr, JoinKind, Node, Scan};

impl Converter<'_> {
    pub(super) fn join(&self, join: &Join) -> Result<Relation, PlanError> {
        let (kind, swapped) = match join.join_type {
            JoinType::Inner => (JoinKind::Inner, false),
            JoinType::Left => (JoinKind::Left, false),
            JoinType::Right => (JoinKind::Left, true),
            JoinType::Full => {
                let alternative = "Use the union of a LEFT JOIN and of the unmatched rows of the other side.";
                return Err(PlanError::unsupported("FULL JOIN in a view", alternative));
            }
            _ => {
                return Err(PlanError::unsupported(
                    "a semi or anti join in a view",
                    "Use an inner or left join.",
                ));
            }
        };
        if join.null_equality != NullEquality::NullEqualsNothing || join.null_aware {
            return Err(PlanError::unsupported(
                "a join in which nulls are equal",
                "Use =.",
            ));
        }
        if swapped && join.join_constraint == JoinConstraint::Using {
            let alternative = "Write the join as a LEFT JOIN, or with ON.";
            return Err(PlanError::unsupported(
                "RIGHT JOIN with USING or NATURAL in a view",
                alternative,
            ));
        }
        let left = self.convert(&join.left)?;
        let right = self.convert(&join.right)?;
        let types: Vec<DataType> = left.types.iter().chain(&right.types).cloned().collect();
        let both = join
            .left
            .schema()
            .join(join.right.schema())
            .map_err(|error| plan_error(&error))?;
        let scope = self.scope(&both, &types);
        let mut condition: Option<Expr> = None;
        for (left, right) in &join.on {
            let (left, right) = (scope.convert(left)?, scope.convert(right)?);
            let equal = comparison::compare(BinaryOp::Equal, left, right, scope.zone)?;
            condition = Some(and(condition, equal.expr));
        }
        if let Some(filter) = &join.filter {
            condition = Some(and(condition, scope.condition(filter, "JOIN/ON")?));
        }
        let widths = (left.types.len(), right.types.len());
        let node = if swapped {
            let condition = condition.map(|condition| {
                condition.map_columns(&|column| {
                    if column < widths.0 {
                        column + widths.1
                    } else {
                        column - widths.0
                    }
                })
            });
            let node = join_node(kind, right.node, left.node, condition);
            let order = (widths.1..widths.1 + widths.0)
                .chain(0..widths.1)
                .map(Expr::Column)
                .collect();
            projected(node, order, types.clone()).node
        } else {
            join_node(kind, left.node, right.node, condition)
        };
        Ok(Relation { node, types })
    }
}

fn join_node(kind: JoinKind, left: Node<Scan>, right: Node<Scan>, filter: Option<Expr>) -> Node<Scan> {
    Node::Join {
        kind,
        left: Box::new(left),
        right: Box::new(right),
        on: Vec::new(),
        filter,
        null_safe: false,
    }
}

fn and(left: Option<Expr>, right: Expr) -> Expr {
    match left {
        None => right,
        Some(left) => binary(BinaryOp::And, left, right),
    }
}
