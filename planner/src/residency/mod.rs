//! Residency: what of a table with `residency = 'enforced'` may leave the region that owns it (RFC 0008).
//!
//! Rows leave a region only through the merge boundaries of views, through statements that read or write in another
//! region, and through statements that copy rows into a table which others can read. A boundary of a fragment that reads
//! an enforced table lets pass:
//!
//! | what leaves | passes |
//! |---|---|
//! | count, sum, avg, bool_and, bool_or | yes: a figure over the rows of a group |
//! | min, max | no: the value of a row |
//! | keys of groups (GROUP BY, DISTINCT, count(DISTINCT …)) | with `min_group_size` from 2, from groups of so many rows |
//! | rows (no aggregate, top-k, joins of rows of different regions) | no |
//!
//! Nothing above a boundary is protected any more: it is in all regions. Conditions (WHERE, ON, FILTER) decide which rows
//! are counted and are no values that leave. The door of a region (`region/src/door.rs`) judges outgoing columns for
//! itself and does not rely on anything here.

mod counted;
mod explain;
mod lineage;
mod statements;

use std::collections::BTreeSet;

use tributary_storage::ObjectId;

use crate::catalog::{Catalog, ObjectKind};
use crate::error::{PlanError, PlanErrorKind};
use crate::plan::{AggregateFunction, Boundary, LocalFragment, Scan, ViewPlan};
pub use explain::explain_residency;
use lineage::{Columns, lineage};
pub use statements::{Copies, check_forwarded, check_statement, may_copy};

/// The least `min_group_size` that lets keys of groups leave: a group of one row is that row.
const GROUP_SIZE_MIN: u64 = 2;

/// Something that would cross a merge boundary, and whether it may.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outgoing {
    /// What it is: a key, an aggregate, a column of a row.
    pub what: String,
    /// The columns of enforced tables that it comes from, by `table.column`.
    pub from: Vec<String>,
    /// Why it may leave, or why not and what to do instead.
    pub verdict: Result<String, Refusal>,
}

/// Why something may not leave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub reason: String,
    pub hint: String,
}

/// The enforced tables that a fragment reads.
pub(crate) fn resident_tables(catalog: &Catalog, fragment: &LocalFragment) -> BTreeSet<ObjectId> {
    let mut tables = BTreeSet::new();
    fragment.root.for_each_leaf(&mut |scan: &Scan| {
        if catalog.is_resident(scan.object) {
            tables.insert(scan.object);
        }
    });
    tables
}

/// How many rows a group of a fragment must have in a region for the group to leave it; 1: there is no bound.
pub fn group_rows_min(catalog: &Catalog, fragment: &LocalFragment) -> u64 {
    let sizes = resident_tables(catalog, fragment)
        .into_iter()
        .filter_map(|table| catalog.options(table).min_group_size);
    sizes.max().unwrap_or(1)
}

/// As [`group_rows_min`] for each fragment of a plan.
pub fn groups_rows_min(catalog: &Catalog, plan: &ViewPlan) -> Vec<u64> {
    let fragments = plan.fragments.iter();
    fragments
        .map(|fragment| group_rows_min(catalog, fragment))
        .collect()
}

/// Why a view may show less than there is, itself or through a view that it reads, if it may.
pub fn incompleteness(catalog: &Catalog, plan: &ViewPlan) -> Option<String> {
    let bounded = plan.fragments.iter().filter_map(|fragment| {
        let rows = group_rows_min(catalog, fragment);
        (rows > 1).then(|| (rows, names(catalog, &resident_tables(catalog, fragment))))
    });
    let Some((rows, tables)) = bounded.max() else {
        let inputs = plan
            .inputs()
            .into_iter()
            .filter_map(|input| catalog.materialized_view(input));
        return inputs
            .filter_map(|view| incompleteness(catalog, &view.plan))
            .next();
    };
    Some(format!(
        "groups with fewer than {rows} rows of {tables} in a region are left out"
    ))
}

/// What the reader of a query is to be told of the views that it reads and that leave groups out.
pub fn incomplete_views(catalog: &Catalog, query: &sqlparser::ast::Query) -> Vec<String> {
    if !catalog.has_resident_tables() {
        return Vec::new();
    }
    let named = crate::parse::relation_names(query);
    let mut left: Vec<ObjectId> = named
        .iter()
        .filter_map(|name| catalog.object(name))
        .map(|object| object.id)
        .collect();
    let (mut seen, mut told) = (BTreeSet::new(), Vec::new());
    while let Some(object) = left.pop().and_then(|id| catalog.by_id(id)) {
        if !seen.insert(object.id) {
            continue;
        }
        match &object.kind {
            ObjectKind::View(_) => left.extend(catalog.dependencies(object.id)),
            ObjectKind::MaterializedView(view) => told.extend(
                incompleteness(catalog, &view.plan)
                    .map(|why| format!("view \"{}\" is incomplete: {why}", object.name)),
            ),
            _ => {}
        }
    }
    told
}

/// Refuses a view through which values of enforced tables would leave.
///
/// # Errors
/// `Forbidden`, naming what would leave, where it comes from, and an alternative.
pub fn check_view(catalog: &Catalog, name: &str, plan: &ViewPlan) -> Result<(), PlanError> {
    for fragment in &plan.fragments {
        for outgoing in outgoing(catalog, fragment) {
            let Err(refusal) = outgoing.verdict else { continue };
            let from = match outgoing.from.is_empty() {
                true => String::new(),
                false => format!(", which holds values of {},", outgoing.from.join(", ")),
            };
            let tables = names(catalog, &resident_tables(catalog, fragment));
            let message = format!(
                "materialized view \"{name}\" would send {}{from} out of its region: {} (residency of {tables} is enforced)",
                outgoing.what, refusal.reason
            );
            return Err(PlanError::new(PlanErrorKind::Forbidden, message).with_hint(refusal.hint));
        }
    }
    Ok(())
}

/// Refuses options of a table that views which read it contradict.
///
/// # Errors
/// `Forbidden` for a view through which values would leave; `DependentObjects` where a bound on groups would change, by
/// which an existing view was computed.
pub fn check_dependents(before: &Catalog, after: &Catalog, table: ObjectId) -> Result<(), PlanError> {
    for object in after.objects.values() {
        let ObjectKind::MaterializedView(view) = &object.kind else {
            continue;
        };
        let reads = |fragment: &&LocalFragment| {
            let mut found = false;
            fragment
                .root
                .for_each_leaf(&mut |scan: &Scan| found |= scan.object == table);
            found
        };
        for fragment in view.plan.fragments.iter().filter(reads) {
            if group_rows_min(before, fragment) != group_rows_min(after, fragment) {
                let message = format!(
                    "materialized view \"{}\" was computed with another min_group_size",
                    after.name_for_users(object)
                );
                return Err(PlanError::new(PlanErrorKind::DependentObjects, message)
                    .with_hint("Drop the view, change the table, and create the view again."));
            }
        }
        check_view(after, &after.name_for_users(object), &view.plan)?;
    }
    Ok(())
}

/// Everything that crosses a fragment's boundary, when the fragment reads an enforced table.
pub(crate) fn outgoing(catalog: &Catalog, fragment: &LocalFragment) -> Vec<Outgoing> {
    let tables = resident_tables(catalog, fragment);
    if tables.is_empty() {
        return Vec::new();
    }
    let columns = lineage(catalog, &fragment.root);
    let from = |column: usize| source_names(catalog, &columns[column]);
    let Boundary::MergePartials { keys, aggregates } = &fragment.boundary else {
        return (0..columns.len())
            .map(|column| Outgoing {
                what: format!("column {} of each row", column + 1),
                from: from(column),
                verdict: Err(rows_refused(catalog, &tables)),
            })
            .collect();
    };
    let counted = counted::check(catalog, fragment, &tables);
    let key_verdict = key_verdict(catalog, &tables, &counted);
    let mut all: Vec<Outgoing> = keys
        .iter()
        .enumerate()
        .map(|(number, &column)| Outgoing {
            what: format!("key {} of its groups", number + 1),
            from: from(column),
            verdict: key_verdict.clone(),
        })
        .collect();
    for call in aggregates {
        let name = aggregate_name(call.function);
        let verdict = match (call.function, &counted) {
            (AggregateFunction::Min | AggregateFunction::Max, _) => Err(Refusal {
                reason: format!("{name} is the value of one row"),
                hint: "Use count, sum or avg, or read the value in its region with SET regional_reads = 'local'.".to_owned(),
            }),
            (_, Err(refusal)) => Err(refusal.clone()),
            _ => Ok("a figure over the rows of a group".to_owned()),
        };
        all.push(Outgoing {
            what: format!("{name} of its groups"),
            from: call.argument.map(from).unwrap_or_default(),
            verdict,
        });
    }
    all
}

fn key_verdict(
    catalog: &Catalog,
    tables: &BTreeSet<ObjectId>,
    counted: &Result<(), Refusal>,
) -> Result<String, Refusal> {
    for &table in tables {
        let name = table_name(catalog, table);
        let size = catalog.options(table).min_group_size;
        if size.is_none_or(|size| size < GROUP_SIZE_MIN) {
            return Err(Refusal {
                reason: format!(
                    "the key of a group is a value of its rows, and table \"{name}\" has no min_group_size of 2 or more"
                ),
                hint: format!(
                    "ALTER TABLE {name} SET (min_group_size = n) lets groups of at least n rows leave; or leave GROUP BY and DISTINCT out."
                ),
            });
        }
    }
    counted.clone()?;
    let sizes = tables
        .iter()
        .filter_map(|table| catalog.options(*table).min_group_size);
    Ok(format!(
        "from groups of at least {} rows; smaller ones stay",
        sizes.max().unwrap_or(GROUP_SIZE_MIN)
    ))
}

fn rows_refused(catalog: &Catalog, tables: &BTreeSet<ObjectId>) -> Refusal {
    Refusal {
        reason: "rows may not leave as they are".to_owned(),
        hint: format!(
            "Aggregate the rows of {} with count, sum or avg; join tables of one region with a.tributary_region = \
             b.tributary_region, or with rows of another relation that WITH (merge = 'relation') brings to them; or read rows \
             in their region with SET regional_reads = 'local'.",
            names(catalog, tables)
        ),
    }
}

fn aggregate_name(function: AggregateFunction) -> &'static str {
    match function {
        AggregateFunction::Count => "count",
        AggregateFunction::Sum => "sum",
        AggregateFunction::Avg => "avg",
        AggregateFunction::Min => "min",
        AggregateFunction::Max => "max",
        AggregateFunction::BoolAnd => "bool_and",
        AggregateFunction::BoolOr => "bool_or",
    }
}

fn source_names(catalog: &Catalog, columns: &Columns) -> Vec<String> {
    let name = |(table, column): &(ObjectId, usize)| {
        let def = catalog.table(*table).and_then(|table| table.columns.get(*column));
        let column = def.map_or("?", |column| column.name.as_str());
        format!("{}.{column}", table_name(catalog, *table))
    };
    columns.iter().map(name).collect()
}

fn names(catalog: &Catalog, tables: &BTreeSet<ObjectId>) -> String {
    let names: Vec<String> = tables
        .iter()
        .map(|table| format!("\"{}\"", table_name(catalog, *table)))
        .collect();
    names.join(", ")
}

fn table_name(catalog: &Catalog, table: ObjectId) -> &str {
    catalog.by_id(table).map_or("?", |object| object.name.as_str())
}

#[cfg(test)]
mod tests;
