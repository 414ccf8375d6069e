//! `tributary_region` below merge boundaries.
//!
//! The region of a regional row is a column that no relation has: a scan reads it under a number of its own,
//! [`COLUMN`]. All rows that meet within a region have the same, so an equality of two such columns is what makes
//! a join of regional rows local, and then it is true and goes away. Whatever else is done with the column is
//! refused: a plan that leaves this room never reads it.

use crate::error::PlanError;
use crate::plan::{Boundary, Expr, JoinKind, LocalFragment, Node, Scan, SortKey};

/// The number under which a scan reads the region.
pub const COLUMN: usize = usize::MAX;

/// Whether a join's keys compare the region of both sides.
pub fn same_region(left: &Node<Scan>, right: &Node<Scan>, on: &[(usize, usize)]) -> bool {
    let (left, right) = (columns(left), columns(right));
    on.iter().any(|&(l, r)| left[l] && right[r])
}

/// Which columns are the region of the row.
fn columns(node: &Node<Scan>) -> Vec<bool> {
    match node {
        Node::Leaf(scan) => scan.columns.iter().map(|&column| column == COLUMN).collect(),
        Node::Filter { input, .. } | Node::Distinct { input } => columns(input),
        Node::Project {
            input, expressions, ..
        } => {
            let below = columns(input);
            let is_region = |expr: &Expr| matches!(expr, Expr::Column(column) if below[*column]);
            expressions.iter().map(is_region).collect()
        }
        Node::Hop { input, .. } | Node::Session { input, .. } => with(columns(input), [false, false]),
        Node::TopK { input, rank, .. } => with(columns(input), rank.then_some(false)),
        Node::Join {
            kind, left, right, ..
        } => {
            // Without a match it is null, and not the region.
            let right = columns(right).into_iter();
            with(
                columns(left),
                right.map(|region| region && *kind == JoinKind::Inner),
            )
        }
        Node::Union { inputs } => {
            let mut all = columns(&inputs[0]);
            for input in &inputs[1..] {
                for (region, other) in all.iter_mut().zip(columns(input)) {
                    *region &= other;
                }
            }
            all
        }
        Node::Aggregate { keys, aggregates, .. } => vec![false; keys.len() + aggregates.len()],
    }
}

fn with<Item>(mut all: Vec<Item>, more: impl IntoIterator<Item = Item>) -> Vec<Item> {
    all.extend(more);
    all
}

/// The fragment without the region.
///
/// # Errors
/// `Unsupported` where the region is more than compared with that of the other side of a join.
pub fn without(fragment: LocalFragment) -> Result<LocalFragment, PlanError> {
    let mut read = false;
    fragment
        .root
        .for_each_leaf(&mut |scan: &Scan| read |= scan.columns.contains(&COLUMN));
    if !read {
        return Ok(fragment);
    }
    let Erased { node: root, kept } = erase(fragment.root)?;
    let boundary = match fragment.boundary {
        Boundary::MergePartials { keys, aggregates } => {
            let keys = keys.into_iter().map(|key| position(&kept, key));
            let moved = aggregates.into_iter().map(|mut call| {
                call.argument = call.argument.map(|column| position(&kept, column)).transpose()?;
                call.filter = call.filter.map(|column| position(&kept, column)).transpose()?;
                Ok(call)
            });
            Boundary::MergePartials {
                keys: keys.collect::<Result<_, _>>()?,
                aggregates: moved.collect::<Result<_, PlanError>>()?,
            }
        }
        rows => {
            if kept.contains(&None) {
                return Err(refused());
            }
            rows
        }
    };
    Ok(LocalFragment { root, boundary })
}

/// A tree without the region.
struct Erased {
    node: Node<Scan>,
    /// Where each of the old columns is now; `None` for the region.
    kept: Vec<Option<usize>>,
}

fn erase(node: Node<Scan>) -> Result<Erased, PlanError> {
    match node {
        Node::Leaf(scan) => leaf(scan),
        Node::Filter { input, predicate } => {
            let Erased { node, kept } = erase(*input)?;
            let predicate = moved(&predicate, &kept)?;
            let node = Node::Filter {
                input: Box::new(node),
                predicate,
            };
            Ok(Erased { node, kept })
        }
        Node::Project {
            input, expressions, ..
        } => project(*input, &expressions),
        Node::Hop {
            input,
            column,
            slide_us,
            size_us,
        } => {
            let Erased { node, kept } = erase(*input)?;
            let column = position(&kept, column)?;
            let width = kept.iter().flatten().count();
            let node = Node::Hop {
                input: Box::new(node),
                column,
                slide_us,
                size_us,
            };
            let kept = with(kept, [Some(width), Some(width + 1)]);
            Ok(Erased { node, kept })
        }
        Node::Session {
            input,
            partition,
            column,
            gap_us,
        } => {
            let Erased { node, kept } = erase(*input)?;
            let width = kept.iter().flatten().count();
            let partition = partition.into_iter().map(|column| position(&kept, column));
            let node = Node::Session {
                input: Box::new(node),
                partition: partition.collect::<Result<_, _>>()?,
                column: position(&kept, column)?,
                gap_us,
            };
            let kept = with(kept, [Some(width), Some(width + 1)]);
            Ok(Erased { node, kept })
        }
        Node::TopK {
            input,
            partition,
            keys,
            skip,
            fetch,
            rank,
        } => {
            let Erased { node, kept } = erase(*input)?;
            let width = kept.iter().flatten().count();
            let keys = keys.into_iter().map(|key| {
                let column = position(&kept, key.column)?;
                Ok(SortKey { column, ..key })
            });
            let partition = partition.into_iter().map(|column| position(&kept, column));
            let node = Node::TopK {
                input: Box::new(node),
                partition: partition.collect::<Result<_, _>>()?,
                keys: keys.collect::<Result<_, PlanError>>()?,
                skip,
                fetch,
                rank,
            };
            let kept = with(kept, rank.then_some(Some(width)));
            Ok(Erased { node, kept })
        }
        join @ Node::Join { .. } => erase_join(join),
        Node::Union { inputs } => {
            let erased: Vec<Erased> = inputs.into_iter().map(erase).collect::<Result<_, _>>()?;
            let kept = erased[0].kept.clone();
            if erased.iter().any(|input| input.kept != kept) {
                return Err(refused());
            }
            let inputs = erased.into_iter().map(|input| input.node).collect();
            let node = Node::Union { inputs };
            Ok(Erased { node, kept })
        }
        whole @ (Node::Distinct { .. } | Node::Aggregate { .. }) => {
            let regions = columns(&whole);
            if whole
                .inputs()
                .into_iter()
                .any(|input| columns(input).contains(&true))
            {
                return Err(refused());
            }
            let kept = (0..regions.len()).map(Some).collect();
            Ok(Erased { node: whole, kept })
        }
    }
}

fn leaf(scan: Scan) -> Result<Erased, PlanError> {
    let mut kept = Vec::with_capacity(scan.columns.len());
    let (mut columns, mut types) = (Vec::new(), Vec::new());
    for (&column, data_type) in scan.columns.iter().zip(&scan.types) {
        kept.push((column != COLUMN).then_some(columns.len()));
        if column != COLUMN {
            columns.push(column);
            types.push(data_type.clone());
        }
    }
    if columns.is_empty() {
        return Err(refused());
    }
    let node = Node::Leaf(Scan {
        columns,
        types,
        ..scan
    });
    Ok(Erased { node, kept })
}

fn project(input: Node<Scan>, projected: &[Expr]) -> Result<Erased, PlanError> {
    let Erased { node, kept: below } = erase(input)?;
    let input_types = node.types(&|scan: &Scan| scan.types.clone());
    let mut kept = Vec::with_capacity(projected.len());
    let mut expressions = Vec::with_capacity(projected.len());
    for expr in projected {
        if matches!(expr, Expr::Column(column) if below[*column].is_none()) {
            kept.push(None);
            continue;
        }
        kept.push(Some(expressions.len()));
        expressions.push(moved(expr, &below)?);
    }
    if expressions.is_empty() {
        return Err(refused());
    }
    let same = |(index, expr): (usize, &Expr)| *expr == Expr::Column(index);
    if expressions.len() == input_types.len() && expressions.iter().enumerate().all(same) {
        return Ok(Erased { node, kept });
    }
    let types = expressions
        .iter()
        .map(|expr| expr.data_type(&input_types))
        .collect();
    let node = Node::Project {
        input: Box::new(node),
        expressions,
        types,
    };
    Ok(Erased { node, kept })
}

fn erase_join(join: Node<Scan>) -> Result<Erased, PlanError> {
    let Node::Join {
        kind,
        left,
        right,
        on,
        filter,
        null_safe,
    } = join
    else {
        unreachable!("called with a join");
    };
    let regions = (columns(&left), columns(&right));
    let (left, right) = (erase(*left)?, erase(*right)?);
    let compared = on.into_iter().filter(|&(l, r)| !(regions.0[l] && regions.1[r]));
    let on: Vec<(usize, usize)> = compared
        .map(|(l, r)| Ok((position(&left.kept, l)?, position(&right.kept, r)?)))
        .collect::<Result<_, PlanError>>()?;
    if on.is_empty() {
        return Err(PlanError::unsupported(
            "a join by the region alone in a view",
            "Join on an equality between other columns as well.",
        ));
    }
    let width = left.kept.iter().flatten().count();
    let shifted = right
        .kept
        .into_iter()
        .map(|column| column.map(|column| column + width));
    let kept = with(left.kept, shifted);
    let filter = filter.map(|filter| moved(&filter, &kept)).transpose()?;
    let node = Node::Join {
        kind,
        left: Box::new(left.node),
        right: Box::new(right.node),
        on,
        filter,
        null_safe,
    };
    Ok(Erased { node, kept })
}

fn position(kept: &[Option<usize>], column: usize) -> Result<usize, PlanError> {
    kept[column].ok_or_else(refused)
}

fn moved(expr: &Expr, kept: &[Option<usize>]) -> Result<Expr, PlanError> {
    if !expr.columns_all(|column| kept[column].is_some()) {
        return Err(refused());
    }
    Ok(expr.map_columns(&|column| kept[column].expect("just looked at")))
}

fn refused() -> PlanError {
    PlanError::unsupported(
        "tributary_region in a view, except to join rows of the same region,",
        "Compare it with the other side's in the join's condition, or keep the region in a column of your own.",
    )
}
