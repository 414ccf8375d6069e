//! The keys of joins: equalities between the sides become pairs of columns.
//!
//! A side of an equality that is more than a column is computed by a projection below the join and taken away
//! above it. A join that has no equality is refused: it would keep every pair.

use arrow_schema::DataType;

use super::push_down::{conjunction, conjuncts};
use crate::error::PlanError;
use crate::plan::{BinaryOp, Expr, JoinKind, Node, Scan};

/// The tree with the keys of all joins found.
///
/// # Errors
/// `Unsupported` for a join without an equality.
pub fn keys(tree: Node<Scan>) -> Result<Node<Scan>, PlanError> {
    match tree.map_inputs(&mut keys)? {
        Node::Join {
            kind,
            left,
            right,
            on: _,
            filter,
            null_safe: _,
        } => join(kind, Side::new(*left), Side::new(*right), filter),
        other => Ok(other),
    }
}

/// One side of a join, with key expressions appended as columns.
struct Side {
    node: Node<Scan>,
    types: Vec<DataType>,
    computed: Vec<Expr>,
}

impl Side {
    fn new(node: Node<Scan>) -> Self {
        let types = node.types(&|scan: &Scan| scan.types.clone());
        Self {
            node,
            types,
            computed: Vec::new(),
        }
    }

    /// The column that holds a key expression.
    fn column(&mut self, key: Expr) -> usize {
        if let Expr::Column(column) = key {
            return column;
        }
        let position = self
            .computed
            .iter()
            .position(|computed| *computed == key)
            .unwrap_or_else(|| {
                self.computed.push(key);
                self.computed.len() - 1
            });
        self.types.len() + position
    }

    fn finish(self) -> Node<Scan> {
        if self.computed.is_empty() {
            return self.node;
        }
        let computed_types = self.computed.iter().map(|key| key.data_type(&self.types));
        let types = self.types.iter().cloned().chain(computed_types).collect();
        let own = (0..self.types.len()).map(Expr::Column);
        let expressions = own.chain(self.computed).collect();
        Node::Project {
            input: Box::new(self.node),
            expressions,
            types,
        }
    }
}

fn join(
    kind: JoinKind,
    mut left: Side,
    mut right: Side,
    filter: Option<Expr>,
) -> Result<Node<Scan>, PlanError> {
    let (left_width, right_width) = (left.types.len(), right.types.len());
    let mut on = Vec::new();
    let mut rest = Vec::new();
    for condition in filter.map(conjuncts).unwrap_or_default() {
        match sides(&condition, left_width) {
            Some((left_key, right_key)) => {
                let right_key = right_key.map_columns(&|column| column - left_width);
                let pair = (left.column(left_key), right.column(right_key));
                if !on.contains(&pair) {
                    on.push(pair);
                }
            }
            None => rest.push(condition),
        }
    }
    if on.is_empty() {
        let what = if rest.is_empty() {
            "a cross join in a view"
        } else {
            "a join without an equality in a view"
        };
        return Err(PlanError::unsupported(
            what,
            "Join on an equality between columns of both sides.",
        ));
    }
    let (left_computed, right_computed) = (left.computed.len(), right.computed.len());
    let shift = |column: usize| {
        if column < left_width {
            column
        } else {
            column + left_computed
        }
    };
    let filter = conjunction(rest).map(|filter| filter.map_columns(&shift));
    let types: Vec<DataType> = left.types.iter().chain(&right.types).cloned().collect();
    let node = Node::Join {
        kind,
        left: Box::new(left.finish()),
        right: Box::new(right.finish()),
        on,
        filter,
        null_safe: false,
    };
    if left_computed + right_computed == 0 {
        return Ok(node);
    }
    let own = (0..left_width + right_width)
        .map(|column| Expr::Column(shift(column)))
        .collect();
    Ok(Node::Project {
        input: Box::new(node),
        expressions: own,
        types,
    })
}

/// The sides of an equality, left one first, if each reads exactly one side of the join.
fn sides(condition: &Expr, left_width: usize) -> Option<(Expr, Expr)> {
    let Expr::Binary {
        op: BinaryOp::Equal,
        left,
        right,
    } = condition
    else {
        return None;
    };
    let only_left = |expr: &Expr| reads(expr) && expr.columns_all(|column| column < left_width);
    let only_right = |expr: &Expr| reads(expr) && expr.columns_all(|column| column >= left_width);
    if only_left(left) && only_right(right) {
        Some(((**left).clone(), (**right).clone()))
    } else if only_left(right) && only_right(left) {
        Some(((**right).clone(), (**left).clone()))
    } else {
        None
    }
}

fn reads(expr: &Expr) -> bool {
    let mut any = false;
    expr.for_each_column(&mut |_| any = true);
    any
}
