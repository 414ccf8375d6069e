//! Which columns of enforced tables each column of a fragment holds values of.
//!
//! An expression holds what its operands hold. A column of the other side of a join holds what the join's keys hold, too:
//! `customers.country` next to an order says which customer ordered.

use std::collections::BTreeSet;

use tributary_storage::ObjectId;

use crate::catalog::Catalog;
use crate::plan::{Expr, Node, Scan};

/// Columns of enforced tables: table, and index in its columns.
pub(super) type Columns = BTreeSet<(ObjectId, usize)>;

/// What each output column of a tree holds values of.
pub(super) fn lineage(catalog: &Catalog, node: &Node<Scan>) -> Vec<Columns> {
    match node {
        Node::Leaf(scan) => {
            let resident = catalog.is_resident(scan.object);
            let columns = scan.columns.iter();
            let held = |column: &usize| resident.then_some((scan.object, *column)).into_iter().collect();
            columns.map(held).collect()
        }
        Node::Filter { input, .. } | Node::Distinct { input } => lineage(catalog, input),
        Node::Project {
            input, expressions, ..
        } => {
            let input = lineage(catalog, input);
            expressions
                .iter()
                .map(|expression| of_expression(expression, &input))
                .collect()
        }
        Node::Join { left, right, on, .. } => {
            let (mut left, mut right) = (lineage(catalog, left), lineage(catalog, right));
            let keys = |side: &[Columns], key: &dyn Fn(&(usize, usize)) -> usize| -> Columns {
                on.iter().flat_map(|pair| side[key(pair)].clone()).collect()
            };
            let of_left = keys(&left, &|pair| pair.0);
            let of_right = keys(&right, &|pair| pair.1);
            left.iter_mut()
                .for_each(|column| column.extend(of_right.iter().copied()));
            right
                .iter_mut()
                .for_each(|column| column.extend(of_left.iter().copied()));
            left.extend(right);
            left
        }
        Node::Union { inputs } => {
            let mut inputs = inputs.iter().map(|input| lineage(catalog, input));
            let mut all = inputs.next().unwrap_or_default();
            for input in inputs {
                for (column, more) in all.iter_mut().zip(input) {
                    column.extend(more);
                }
            }
            all
        }
        Node::Aggregate {
            input,
            keys,
            aggregates,
        } => {
            let input = lineage(catalog, input);
            let keys = keys.iter().map(|key| input[*key].clone());
            let results = aggregates.iter().map(|call| {
                call.argument
                    .map_or_else(Columns::new, |argument| input[argument].clone())
            });
            keys.chain(results).collect()
        }
        Node::TopK {
            input,
            partition,
            keys,
            rank,
            ..
        } => {
            let mut columns = lineage(catalog, input);
            if *rank {
                let by = partition.iter().copied().chain(keys.iter().map(|key| key.column));
                columns.push(by.flat_map(|column| columns[column].clone()).collect());
            }
            columns
        }
        Node::Hop { input, column, .. } | Node::Session { input, column, .. } => {
            let mut columns = lineage(catalog, input);
            let time = columns[*column].clone();
            columns.extend([time.clone(), time]);
            columns
        }
    }
}

fn of_expression(expression: &Expr, input: &[Columns]) -> Columns {
    let mut held = Columns::new();
    expression.for_each_column(&mut |column| held.extend(input[column].iter().copied()));
    held
}
