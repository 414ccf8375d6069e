//! Filters towards the tables: a row that will be dropped is best never joined, kept or shipped.
//!
//! A condition goes below a projection (with its columns replaced), a union, a DISTINCT, an aggregate (if it reads
//! keys only), a top-k of partitions (if it reads their columns only), into the sides of an inner join and into the
//! preserved side of a left join. It stays above other top-ks, and bounds row numbers. What reads both sides of an
//! inner join becomes the join's condition.

use super::rank;
use crate::plan::{BinaryOp, Expr, JoinKind, Node, Scan};

/// The tree with `conditions` applied to its rows and all filters as low as they go.
pub fn push_down(tree: Node<Scan>, mut conditions: Vec<Expr>) -> Node<Scan> {
    match tree {
        Node::Leaf(scan) => filtered(Node::Leaf(scan), conditions),
        Node::Filter { input, predicate } => {
            let mut all = conjuncts(predicate);
            all.append(&mut conditions);
            push_down(*input, all)
        }
        Node::Project {
            input,
            expressions,
            types,
        } => {
            let below = conditions
                .iter()
                .map(|condition| condition.substitute(&|column| expressions[column].clone()));
            let input = Box::new(push_down(*input, below.collect()));
            Node::Project {
                input,
                expressions,
                types,
            }
        }
        Node::Union { inputs } => {
            let inputs = inputs
                .into_iter()
                .map(|input| push_down(input, conditions.clone()));
            Node::Union {
                inputs: inputs.collect(),
            }
        }
        Node::Distinct { input } => Node::Distinct {
            input: Box::new(push_down(*input, conditions)),
        },
        Node::Aggregate {
            input,
            keys,
            aggregates,
        } => {
            // Without keys there is a row even for no input, so nothing may go below.
            let (below, above): (Vec<Expr>, Vec<Expr>) = conditions.into_iter().partition(|condition| {
                !keys.is_empty() && condition.columns_all(|column| column < keys.len())
            });
            let below = below
                .iter()
                .map(|condition| condition.map_columns(&|column| keys[column]))
                .collect();
            let input = Box::new(push_down(*input, below));
            filtered(
                Node::Aggregate {
                    input,
                    keys,
                    aggregates,
                },
                above,
            )
        }
        Node::TopK {
            input,
            partition,
            keys,
            skip,
            mut fetch,
            rank,
        } => {
            let number = input.width(&|scan: &Scan| scan.columns.len());
            let numbers = rank && skip == 0;
            let (mut below, mut above) = (Vec::new(), Vec::new());
            for condition in conditions {
                let bound = numbers.then(|| rank::bound(&condition, number)).flatten();
                fetch = fetch.min(bound.as_ref().map_or(fetch, |bound| bound.fetch));
                if bound.is_some_and(|bound| bound.exact) {
                    continue;
                }
                // Whole partitions may go before they are ordered.
                let whole =
                    !partition.is_empty() && condition.columns_all(|column| partition.contains(&column));
                if whole {
                    below.push(condition);
                } else {
                    above.push(condition);
                }
            }
            let node = Node::TopK {
                input: Box::new(push_down(*input, below)),
                partition,
                keys,
                skip,
                fetch,
                rank,
            };
            filtered(node, above)
        }
        Node::Hop {
            input,
            column,
            slide_us,
            size_us,
        } => {
            let width = input.width(&|scan: &Scan| scan.columns.len());
            let (below, above): (Vec<Expr>, Vec<Expr>) = conditions
                .into_iter()
                .partition(|condition| condition.columns_all(|column| column < width));
            let input = Box::new(push_down(*input, below));
            let node = Node::Hop {
                input,
                column,
                slide_us,
                size_us,
            };
            filtered(node, above)
        }
        Node::Session {
            input,
            partition,
            column,
            gap_us,
        } => {
            // Only whole partitions may go before sessions are formed.
            let (below, above): (Vec<Expr>, Vec<Expr>) = conditions.into_iter().partition(|condition| {
                !partition.is_empty() && condition.columns_all(|column| partition.contains(&column))
            });
            let node = Node::Session {
                input: Box::new(push_down(*input, below)),
                partition,
                column,
                gap_us,
            };
            filtered(node, above)
        }
        Node::Join {
            kind,
            left,
            right,
            on,
            filter,
            null_safe: _,
        } => {
            let own = filter.map(conjuncts).unwrap_or_default();
            join(kind, *left, *right, on, own, conditions)
        }
    }
}

/// A join with its own conditions `own` and conditions `above` on its result.
fn join(
    kind: JoinKind,
    left: Node<Scan>,
    right: Node<Scan>,
    on: Vec<(usize, usize)>,
    own: Vec<Expr>,
    above: Vec<Expr>,
) -> Node<Scan> {
    let width = left.width(&|scan: &Scan| scan.columns.len());
    let (mut to_left, mut to_right, mut kept, mut remaining) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let reads_left = |condition: &Expr| condition.columns_all(|column| column < width);
    let reads_right = |condition: &Expr| condition.columns_all(|column| column >= width);
    for condition in own {
        if kind == JoinKind::Inner && reads_left(&condition) {
            to_left.push(condition);
        } else if reads_right(&condition) && !reads_left(&condition) {
            to_right.push(condition.map_columns(&|column| column - width));
        } else {
            kept.push(condition);
        }
    }
    for condition in above {
        if reads_left(&condition) {
            to_left.push(condition);
        } else if kind == JoinKind::Left {
            remaining.push(condition);
        } else if reads_right(&condition) {
            to_right.push(condition.map_columns(&|column| column - width));
        } else {
            kept.push(condition);
        }
    }
    let node = Node::Join {
        kind,
        left: Box::new(push_down(left, to_left)),
        right: Box::new(push_down(right, to_right)),
        on,
        filter: conjunction(kept),
        null_safe: false,
    };
    filtered(node, remaining)
}

fn filtered(input: Node<Scan>, conditions: Vec<Expr>) -> Node<Scan> {
    match conjunction(conditions) {
        Some(predicate) => Node::Filter {
            input: Box::new(input),
            predicate,
        },
        None => input,
    }
}

/// The conditions that a conjunction consists of.
pub fn conjuncts(predicate: Expr) -> Vec<Expr> {
    match predicate {
        Expr::Binary {
            op: BinaryOp::And,
            left,
            right,
        } => {
            let mut all = conjuncts(*left);
            all.append(&mut conjuncts(*right));
            all
        }
        other => vec![other],
    }
}

/// The conjunction of conditions, each once.
pub fn conjunction(conditions: Vec<Expr>) -> Option<Expr> {
    let mut distinct: Vec<Expr> = Vec::with_capacity(conditions.len());
    for condition in conditions {
        if !distinct.contains(&condition) {
            distinct.push(condition);
        }
    }
    distinct.into_iter().reduce(|left, right| Expr::Binary {
        op: BinaryOp::And,
        left: Box::new(left),
        right: Box::new(right),
    })
}
