//! Whether the rows of a group are rows of an enforced table, each counted once.
//!
//! `min_group_size` is compared with the number of rows of a group. That is a number of rows of the enforced table only
//! where nothing below the boundary repeats them or mixes others in: a row that a join repeats ten times is not a group of
//! ten. Whatever is not known to be harmless here is refused.

use std::collections::BTreeSet;

use tributary_storage::ObjectId;

use super::{Refusal, table_name};
use crate::catalog::Catalog;
use crate::plan::{Expr, JoinKind, LocalFragment, Node, Scan};

/// How often rows of a table occur in those of a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Counted {
    /// The table is not read.
    Absent,
    /// Each row of the tree stands for a row of the table, and no two for the same.
    Once,
    /// Neither, because of this.
    Otherwise(&'static str),
}

/// Refuses fragments whose groups are bounded in size but do not count rows of the tables with the bound.
pub(super) fn check(
    catalog: &Catalog,
    fragment: &LocalFragment,
    tables: &BTreeSet<ObjectId>,
) -> Result<(), Refusal> {
    for &table in tables
        .iter()
        .filter(|table| catalog.options(**table).min_group_size.is_some())
    {
        if let Counted::Otherwise(because) = counted(catalog, &fragment.root, table) {
            let name = table_name(catalog, table);
            return Err(Refusal {
                reason: format!("min_group_size of table \"{name}\" cannot be checked, because {because}"),
                hint: format!(
                    "Group rows of {name} alone, of TUMBLE windows of it, or of it joined with other tables by their \
                     primary keys."
                ),
            });
        }
    }
    Ok(())
}

fn counted(catalog: &Catalog, node: &Node<Scan>, table: ObjectId) -> Counted {
    match node {
        Node::Leaf(scan) if scan.object == table => Counted::Once,
        Node::Leaf(_) => Counted::Absent,
        Node::Filter { input, .. }
        | Node::Project { input, .. }
        | Node::TopK { input, .. }
        | Node::Session { input, .. } => counted(catalog, input, table),
        Node::Hop {
            input,
            slide_us,
            size_us,
            ..
        } => match counted(catalog, input, table) {
            Counted::Once if slide_us < size_us => {
                Counted::Otherwise("a sliding window counts a row several times")
            }
            other => other,
        },
        Node::Join {
            kind,
            left,
            right,
            on,
            ..
        } => {
            let keys = |side: fn(&(usize, usize)) -> usize| on.iter().map(side).collect::<Vec<_>>();
            match (counted(catalog, left, table), counted(catalog, right, table)) {
                (Counted::Absent, Counted::Absent) => Counted::Absent,
                (other @ Counted::Otherwise(_), _) | (_, other @ Counted::Otherwise(_)) => other,
                (Counted::Once, Counted::Absent) => once_if(is_unique(catalog, right, &keys(|pair| pair.1))),
                (Counted::Absent, Counted::Once) if *kind == JoinKind::Inner => {
                    once_if(is_unique(catalog, left, &keys(|pair| pair.0)))
                }
                (Counted::Absent, Counted::Once) => {
                    Counted::Otherwise("a left join keeps rows without one of it")
                }
                (Counted::Once, Counted::Once) => Counted::Otherwise("it is joined with itself"),
            }
        }
        Node::Union { inputs } => {
            let read = inputs
                .iter()
                .any(|input| counted(catalog, input, table) != Counted::Absent);
            match read {
                true => Counted::Otherwise("UNION ALL counts rows of several queries together"),
                false => Counted::Absent,
            }
        }
        Node::Aggregate { input, .. } | Node::Distinct { input } => match counted(catalog, input, table) {
            Counted::Absent => Counted::Absent,
            _ => Counted::Otherwise("rows are grouped before they are counted"),
        },
    }
}

fn once_if(unique: bool) -> Counted {
    match unique {
        true => Counted::Once,
        false => Counted::Otherwise("a join can repeat its rows"),
    }
}

/// Whether no two rows of a tree are equal in these columns: they hold the primary key of the one table it reads.
fn is_unique(catalog: &Catalog, node: &Node<Scan>, columns: &[usize]) -> bool {
    match node {
        Node::Leaf(scan) => {
            let read: Vec<usize> = columns.iter().map(|column| scan.columns[*column]).collect();
            let key = catalog.table(scan.object).map(|table| &table.primary_key);
            key.is_some_and(|key| key.iter().all(|column| read.contains(column)))
        }
        Node::Filter { input, .. } => is_unique(catalog, input, columns),
        Node::Project {
            input, expressions, ..
        } => {
            let read = columns.iter().filter_map(|column| match &expressions[*column] {
                Expr::Column(column) => Some(*column),
                _ => None,
            });
            is_unique(catalog, input, &read.collect::<Vec<_>>())
        }
        _ => false,
    }
}
