//! Unused columns away: scans read, joins keep and boundaries ship only what is needed above.
//!
//! `prune(node, needed)` gives a tree whose columns are exactly `needed`, in that order. Projections on the way are
//! merged where that computes nothing twice.

use std::collections::BTreeSet;

use arrow_schema::DataType;

use crate::plan::{AggregateCall, Expr, JoinKind, Node, Scan, SortKey};

/// The tree with exactly the columns `needed` (each at most once).
pub fn prune(tree: Node<Scan>, needed: &[usize]) -> Node<Scan> {
    match tree {
        Node::Leaf(scan) => leaf(scan, needed),
        Node::Filter { input, predicate } => {
            let available = with_columns_of(needed, [&predicate]);
            let predicate = predicate.map_columns(&|column| position(&available, column));
            let node = Node::Filter {
                input: Box::new(prune(*input, &available)),
                predicate,
            };
            selected(node, needed.len(), available.len())
        }
        Node::Project {
            input,
            expressions,
            types,
        } => project(*input, &expressions, &types, needed),
        Node::Join {
            kind,
            left,
            right,
            on,
            filter,
            null_safe: _,
        } => join(kind, *left, *right, &on, filter, needed),
        Node::Union { inputs } => Node::Union {
            inputs: inputs.into_iter().map(|input| prune(input, needed)).collect(),
        },
        Node::Aggregate {
            input,
            keys,
            aggregates,
        } => aggregate(*input, &keys, &aggregates, needed),
        Node::Distinct { input } => {
            let all: Vec<usize> = (0..width(&input)).collect();
            reordered(
                Node::Distinct {
                    input: Box::new(prune(*input, &all)),
                },
                &all,
                needed,
            )
        }
        Node::TopK {
            input,
            partition,
            keys,
            skip,
            fetch,
            rank,
        } => {
            let number = width(&input);
            let mut available: Vec<usize> = needed
                .iter()
                .copied()
                .filter(|&column| column != number)
                .collect();
            extend(&mut available, partition.iter().copied());
            extend(&mut available, keys.iter().map(|key| key.column));
            let moved = |key: &SortKey| SortKey {
                column: position(&available, key.column),
                ..*key
            };
            let rank = rank && needed.contains(&number);
            let node = Node::TopK {
                partition: partition
                    .iter()
                    .map(|&column| position(&available, column))
                    .collect(),
                keys: keys.iter().map(moved).collect(),
                input: Box::new(prune(*input, &available)),
                skip,
                fetch,
                rank,
            };
            available.extend(rank.then_some(number));
            reordered(node, &available, needed)
        }
        Node::Hop {
            input,
            column,
            slide_us,
            size_us,
        } => {
            let start = width(&input);
            let mut available: Vec<usize> = needed.iter().copied().filter(|&column| column < start).collect();
            extend(&mut available, [column]);
            let node = Node::Hop {
                column: position(&available, column),
                input: Box::new(prune(*input, &available)),
                slide_us,
                size_us,
            };
            available.extend([start, start + 1]);
            reordered(node, &available, needed)
        }
        Node::Session {
            input,
            partition,
            column,
            gap_us,
        } => {
            let start = width(&input);
            let mut available: Vec<usize> = needed.iter().copied().filter(|&column| column < start).collect();
            extend(&mut available, partition.iter().copied());
            extend(&mut available, [column]);
            let moved = partition.iter().map(|&column| position(&available, column));
            let node = Node::Session {
                partition: moved.collect(),
                column: position(&available, column),
                input: Box::new(prune(*input, &available)),
                gap_us,
            };
            available.extend([start, start + 1]);
            reordered(node, &available, needed)
        }
    }
}

fn leaf(scan: Scan, needed: &[usize]) -> Node<Scan> {
    let columns = needed.iter().map(|&column| scan.columns[column]).collect();
    let types = needed.iter().map(|&column| scan.types[column].clone()).collect();
    Node::Leaf(Scan {
        columns,
        types,
        ..scan
    })
}

fn project(input: Node<Scan>, expressions: &[Expr], types: &[DataType], needed: &[usize]) -> Node<Scan> {
    let expressions: Vec<Expr> = needed.iter().map(|&column| expressions[column].clone()).collect();
    let types: Vec<DataType> = needed.iter().map(|&column| types[column].clone()).collect();
    let (input, expressions) = merged(input, expressions);
    let available = with_columns_of(&[], &expressions);
    // Rows without columns are awkward to count, so one column stays.
    let available = if available.is_empty() { vec![0] } else { available };
    let expressions: Vec<Expr> = expressions
        .iter()
        .map(|expr| expr.map_columns(&|column| position(&available, column)))
        .collect();
    projection(prune(input, &available), expressions, types)
}

/// A projection, merged with one below it, and left out if it changes nothing.
pub fn projection(input: Node<Scan>, expressions: Vec<Expr>, types: Vec<DataType>) -> Node<Scan> {
    let (input, expressions) = merged(input, expressions);
    let identity = expressions.len() == width(&input)
        && expressions
            .iter()
            .enumerate()
            .all(|(index, expr)| *expr == Expr::Column(index));
    if identity {
        input
    } else {
        Node::Project {
            input: Box::new(input),
            expressions,
            types,
        }
    }
}

/// A projection over a projection as one, if no expression below is then computed more often.
fn merged(input: Node<Scan>, expressions: Vec<Expr>) -> (Node<Scan>, Vec<Expr>) {
    let Node::Project {
        input: below,
        expressions: inner,
        types,
    } = input
    else {
        return (input, expressions);
    };
    let mut uses = vec![0_usize; inner.len()];
    for expr in &expressions {
        expr.for_each_column(&mut |column| uses[column] += 1);
    }
    let cheap = |expr: &Expr| matches!(expr, Expr::Column(_) | Expr::Literal(_));
    if inner
        .iter()
        .zip(&uses)
        .any(|(expr, &count)| count > 1 && !cheap(expr))
    {
        return (
            Node::Project {
                input: below,
                expressions: inner,
                types,
            },
            expressions,
        );
    }
    let expressions = expressions
        .iter()
        .map(|expr| expr.substitute(&|column| inner[column].clone()))
        .collect();
    merged(*below, expressions)
}

fn join(
    kind: JoinKind,
    left: Node<Scan>,
    right: Node<Scan>,
    on: &[(usize, usize)],
    filter: Option<Expr>,
    needed: &[usize],
) -> Node<Scan> {
    let left_width = width(&left);
    let wanted = with_columns_of(needed, filter.as_ref());
    let (mut from_left, mut from_right) = (Vec::new(), Vec::new());
    extend(
        &mut from_left,
        wanted.iter().copied().filter(|&column| column < left_width),
    );
    extend(&mut from_left, on.iter().map(|pair| pair.0));
    extend(
        &mut from_right,
        wanted
            .iter()
            .filter(|&&column| column >= left_width)
            .map(|column| column - left_width),
    );
    extend(&mut from_right, on.iter().map(|pair| pair.1));
    // In the order of the table, so that scans need no projection on top.
    from_left.sort_unstable();
    from_right.sort_unstable();
    let on = on
        .iter()
        .map(|&(l, r)| (position(&from_left, l), position(&from_right, r)))
        .collect();
    let available: Vec<usize> = from_left
        .iter()
        .copied()
        .chain(from_right.iter().map(|column| column + left_width))
        .collect();
    let filter = filter.map(|filter| filter.map_columns(&|column| position(&available, column)));
    let left = Box::new(prune(left, &from_left));
    let right = Box::new(prune(right, &from_right));
    reordered(
        Node::Join {
            kind,
            left,
            right,
            on,
            filter,
            null_safe: false,
        },
        &available,
        needed,
    )
}

fn aggregate(input: Node<Scan>, keys: &[usize], calls: &[AggregateCall], needed: &[usize]) -> Node<Scan> {
    let mut kept: Vec<usize> = (0..calls.len())
        .filter(|index| needed.contains(&(keys.len() + index)))
        .collect();
    if kept.is_empty() && keys.is_empty() {
        // The one row of an aggregate without keys needs a column.
        kept.push(0);
    }
    let mut columns = Vec::new();
    extend(&mut columns, keys.iter().copied());
    extend(
        &mut columns,
        kept.iter()
            .flat_map(|&index| calls[index].argument.into_iter().chain(calls[index].filter)),
    );
    // count(*) reads no column, but rows without columns are awkward to count.
    let input = prune(input, if columns.is_empty() { &[0] } else { &columns });
    let moved = |column: usize| position(&columns, column);
    let aggregates = kept
        .iter()
        .map(|&index| {
            let call = calls[index].clone();
            AggregateCall {
                argument: call.argument.map(moved),
                filter: call.filter.map(moved),
                ..call
            }
        })
        .collect();
    let available: Vec<usize> = (0..keys.len())
        .chain(kept.iter().map(|index| keys.len() + index))
        .collect();
    let keys = keys.iter().map(|&key| moved(key)).collect();
    reordered(
        Node::Aggregate {
            input: Box::new(input),
            keys,
            aggregates,
        },
        &available,
        needed,
    )
}

/// `needed` and then whatever else the expressions read, ascending.
fn with_columns_of<'e>(needed: &[usize], exprs: impl IntoIterator<Item = &'e Expr>) -> Vec<usize> {
    let mut read = BTreeSet::new();
    for expr in exprs {
        expr.for_each_column(&mut |column| {
            read.insert(column);
        });
    }
    let mut all = needed.to_vec();
    extend(&mut all, read);
    all
}

/// Appends columns that are not there yet.
fn extend(columns: &mut Vec<usize>, more: impl IntoIterator<Item = usize>) {
    for column in more {
        if !columns.contains(&column) {
            columns.push(column);
        }
    }
}

fn position(columns: &[usize], column: usize) -> usize {
    columns
        .iter()
        .position(|&other| other == column)
        .expect("every column that is read was asked for")
}

/// The first `count` of `available` columns.
fn selected(node: Node<Scan>, count: usize, available: usize) -> Node<Scan> {
    let all: Vec<usize> = (0..available).collect();
    reordered(node, &all, &all[..count])
}

/// The columns `needed` of a node whose columns are `available`.
fn reordered(node: Node<Scan>, available: &[usize], needed: &[usize]) -> Node<Scan> {
    if available == needed {
        return node;
    }
    let all = node.types(&|scan: &Scan| scan.types.clone());
    let positions: Vec<usize> = needed.iter().map(|&column| position(available, column)).collect();
    let types = positions.iter().map(|&at| all[at].clone()).collect();
    projection(node, positions.into_iter().map(Expr::Column).collect(), types)
}

fn width(node: &Node<Scan>) -> usize {
    node.width(&|scan: &Scan| scan.columns.len())
}
