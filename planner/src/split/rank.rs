//! `row_number()` with a bound: `WHERE n <= k` above a numbering makes it the first `k` rows of each partition.
//!
//! The conversion numbers all rows ([`UNBOUNDED`]). Filters on their way down meet the numbering and bound it; one
//! that stays unbounded is refused, since it would keep every row in order.

use crate::error::PlanError;
use crate::plan::{BinaryOp, Expr, LiteralValue, Node, Scan};

/// How many rows a numbering keeps before a bound is found.
pub const UNBOUNDED: usize = usize::MAX;

/// What a condition says about a row's number.
pub struct Bound {
    /// Rows with greater numbers do not satisfy it.
    pub fetch: usize,
    /// Whether all others do, so that nothing is left to check.
    pub exact: bool,
}

/// The bound that a condition sets on the number, which is the column `number`.
pub fn bound(condition: &Expr, number: usize) -> Option<Bound> {
    let Expr::Binary { op, left, right } = condition else {
        return None;
    };
    let (op, limit) = match (integer(left), integer(right)) {
        (None, Some(limit)) if is_number(left, number) => (*op, limit),
        (Some(limit), None) if is_number(right, number) => (mirrored(*op)?, limit),
        _ => return None,
    };
    let (last, exact) = match op {
        BinaryOp::LessOrEqual => (limit, true),
        BinaryOp::Less => (limit.saturating_sub(1), true),
        BinaryOp::Equal => (limit, limit <= 1),
        _ => return None,
    };
    let fetch = usize::try_from(last.max(0)).unwrap_or(UNBOUNDED - 1);
    // `= 0` keeps nothing, and neither does a bound of 0.
    Some(Bound {
        fetch: fetch.min(UNBOUNDED - 1),
        exact,
    })
}

fn is_number(expr: &Expr, number: usize) -> bool {
    match expr {
        Expr::Column(column) => *column == number,
        Expr::Cast { input, to } => to.is_integer() && is_number(input, number),
        _ => false,
    }
}

fn integer(expr: &Expr) -> Option<i128> {
    match expr {
        Expr::Literal(literal) if literal.data_type.is_integer() => match literal.value {
            Some(LiteralValue::Integer(value)) => Some(value),
            _ => None,
        },
        Expr::Cast { input, to } if to.is_integer() => integer(input),
        _ => None,
    }
}

fn mirrored(op: BinaryOp) -> Option<BinaryOp> {
    Some(match op {
        BinaryOp::GreaterOrEqual => BinaryOp::LessOrEqual,
        BinaryOp::Greater => BinaryOp::Less,
        BinaryOp::Equal => BinaryOp::Equal,
        _ => return None,
    })
}

/// Refuses a tree with a numbering that has no bound.
///
/// # Errors
/// `Unsupported`.
pub fn check(tree: &Node<Scan>) -> Result<(), PlanError> {
    if let Node::TopK { fetch: UNBOUNDED, .. } = tree {
        return Err(PlanError::unsupported(
            "row_number() without an upper bound in a view",
            "Put it into a subquery and keep the first rows: SELECT … FROM (SELECT …, row_number() OVER (…) AS n …) q \
             WHERE n <= 10.",
        ));
    }
    tree.inputs().into_iter().try_for_each(check)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Literal;

    #[test]
    fn upper_bounds_are_found_on_either_side() {
        let column = || Box::new(Expr::Column(3));
        let constant = |value| Box::new(Expr::Literal(Literal::int64(value)));
        let found = |op, left, right| {
            let bound = bound(&Expr::Binary { op, left, right }, 3)?;
            Some((bound.fetch, bound.exact))
        };
        assert_eq!(
            found(BinaryOp::LessOrEqual, column(), constant(10)),
            Some((10, true))
        );
        assert_eq!(found(BinaryOp::Less, column(), constant(10)), Some((9, true)));
        assert_eq!(found(BinaryOp::Equal, column(), constant(1)), Some((1, true)));
        assert_eq!(found(BinaryOp::Equal, column(), constant(3)), Some((3, false)));
        assert_eq!(found(BinaryOp::Equal, column(), constant(-3)), Some((0, true)));
        assert_eq!(found(BinaryOp::Greater, constant(3), column()), Some((2, true)));
        assert_eq!(found(BinaryOp::Greater, column(), constant(3)), None);
        let other = Box::new(Expr::Column(2));
        assert_eq!(found(BinaryOp::Less, other, constant(3)), None);
    }
}
