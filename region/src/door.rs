//! The door: what may leave in a bundle, judged by what is about to leave (invariant 9).
//!
//! Every section of every bundle passes here when it is cut, whatever its origin. The judgement is made from the catalog
//! and the plans that it stores, and from the columns of the section itself; it does not rely on the planner's check at
//! CREATE, and does not follow columns: of a fragment over an enforced table nothing leaves but figures over groups, and
//! keys where a bound on the size of groups is in force *in the running view*. What is not known to be allowed is refused.

use std::collections::BTreeSet;

use arrow::array::RecordBatch;
use arrow::datatypes::DataType;
use tributary_planner::catalog::Catalog;
use tributary_planner::plan::{AggregateFunction, Boundary, LocalFragment, Scan};
use tributary_replication::{SectionObject, SlotLayout, SlotSet};
use tributary_storage::{FragmentId, ObjectId};

use crate::dataflow::conflicts::CONFLICTS;

/// Refuses a section that the catalog does not allow to leave. `rows_min` is the bound on groups that the running view
/// obeys.
///
/// # Errors
/// With the reason, for the operator.
pub(crate) fn check(
    catalog: &Catalog,
    object: &SectionObject,
    rows: &RecordBatch,
    rows_min: impl Fn(FragmentId) -> u64,
) -> Result<(), String> {
    match object {
        SectionObject::Blob(_) => Ok(()),
        // Only of GLOBAL tables: no table whose residency is enforced is one.
        SectionObject::Rows(CONFLICTS) => Ok(()),
        SectionObject::Rows(table) => match catalog.table(*table) {
            Some(def) if def.is_global() && !catalog.is_resident(*table) => Ok(()),
            _ => Err(format!(
                "rows of table {} may not leave the region",
                name(catalog, *table)
            )),
        },
        SectionObject::Slots(id) => {
            let plan = catalog.materialized_view(id.view).map(|def| &def.plan);
            let fragment = plan.and_then(|plan| plan.fragments.get(usize::from(id.number)));
            let Some(fragment) = fragment else {
                return Err(format!("fragment {id} is not in the catalog"));
            };
            check_fragment(catalog, fragment, rows, rows_min(*id)).map_err(|reason| {
                format!(
                    "slots of materialized view {} may not leave the region: {reason}",
                    name(catalog, id.view)
                )
            })
        }
    }
}

fn check_fragment(
    catalog: &Catalog,
    fragment: &LocalFragment,
    rows: &RecordBatch,
    rows_min: u64,
) -> Result<(), String> {
    let mut enforced = BTreeSet::new();
    fragment.root.for_each_leaf(&mut |scan: &Scan| {
        if catalog.is_resident(scan.object) {
            enforced.insert(scan.object);
        }
    });
    if enforced.is_empty() {
        return Ok(());
    }
    let Boundary::MergePartials { keys, aggregates } = &fragment.boundary else {
        return Err("they are rows of a table whose residency is enforced".into());
    };
    for call in aggregates {
        match call.function {
            AggregateFunction::Count
            | AggregateFunction::Sum
            | AggregateFunction::Avg
            | AggregateFunction::BoolAnd
            | AggregateFunction::BoolOr => {}
            AggregateFunction::Min | AggregateFunction::Max => {
                return Err("min and max are values of a table whose residency is enforced".into());
            }
        }
    }
    for table in enforced {
        let wanted = catalog.options(table).min_group_size;
        if !keys.is_empty() && wanted.is_none_or(|wanted| wanted < 2) {
            return Err(format!(
                "their keys are values of table {}, which has no min_group_size",
                name(catalog, table)
            ));
        }
        if wanted.unwrap_or(1) > rows_min {
            return Err(format!(
                "min_group_size of table {} is not in force",
                name(catalog, table)
            ));
        }
    }
    let types = fragment.root.types(&|scan: &Scan| scan.types.clone());
    let allowed = SlotLayout {
        key_types: keys.iter().map(|key| types[*key].clone()).collect(),
        partial_types: aggregates.iter().flat_map(|call| call.partial_types()).collect(),
    };
    let expected = column_types(&RecordBatch::new_empty(SlotSet::row_schema(&allowed)));
    match column_types(rows) == expected {
        true => Ok(()),
        false => Err("they have other columns than keys and figures".into()),
    }
}

fn column_types(rows: &RecordBatch) -> Vec<DataType> {
    let schema = rows.schema();
    schema
        .fields()
        .iter()
        .map(|field| field.data_type().clone())
        .collect()
}

fn name(catalog: &Catalog, object: ObjectId) -> String {
    match catalog.by_id(object) {
        Some(object) => format!("\"{}\"", catalog.name_for_users(object)),
        None => format!("{object}, which is not in the catalog"),
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{Field, Schema};
    use std::sync::Arc;
    use tributary_planner::catalog::{CatalogChange, PlanSettings, Residency, TableOptions};
    use tributary_planner::ddl::plan_ddl;
    use tributary_planner::parse::parse;
    use tributary_storage::RegionId;

    use super::*;

    /// A catalog in which views were made before residency was enforced, as if the planner had let them pass.
    fn catalog(min_group_size: Option<u64>) -> Catalog {
        let mut catalog = Catalog::default();
        catalog.apply(&CatalogChange::Found {
            cluster: [1; 16],
            regions: vec![(RegionId(1), "us".into()), (RegionId(2), "eu".into())],
            primary: RegionId(1),
        });
        for sql in [
            "CREATE TABLE t (id bigint PRIMARY KEY, g text, v int)",
            "CREATE TABLE everywhere (id bigint PRIMARY KEY) LOCALITY GLOBAL",
            "CREATE MATERIALIZED VIEW figures AS SELECT count(*) AS n, sum(v) AS s FROM t",
            "CREATE MATERIALIZED VIEW keyed AS SELECT g, count(*) AS n FROM t GROUP BY g",
            "CREATE MATERIALIZED VIEW largest AS SELECT max(v) AS v FROM t",
            "CREATE MATERIALIZED VIEW plain AS SELECT id, g FROM t",
        ] {
            let statement = parse(sql).expect(sql).remove(0).statement;
            let plan = plan_ddl(&statement, &catalog, &PlanSettings::default(), 0).expect(sql);
            plan.changes.iter().for_each(|change| catalog.apply(change));
        }
        let table = catalog.object("t").expect("just created").id;
        let options = TableOptions {
            residency: Residency::Enforced,
            min_group_size,
            ..TableOptions::default()
        };
        catalog.apply(&CatalogChange::SetOptions { table, options });
        catalog
    }

    fn slots(catalog: &Catalog, view: &str) -> (SectionObject, RecordBatch) {
        let view = catalog.object(view).expect("it exists").id;
        let plan = &catalog.materialized_view(view).expect("a view").plan;
        let layout = tributary_executor::View::slot_layout(plan, 0);
        let id = FragmentId { view, number: 0 };
        (
            SectionObject::Slots(id),
            RecordBatch::new_empty(SlotSet::row_schema(&layout)),
        )
    }

    fn passes(catalog: &Catalog, view: &str, rows_min: u64) -> bool {
        let (object, rows) = slots(catalog, view);
        check(catalog, &object, &rows, |_| rows_min).is_ok()
    }

    #[test]
    fn only_figures_and_keys_of_large_groups_pass() {
        let without = catalog(None);
        let named = ["figures", "keyed", "largest", "plain"];
        assert_eq!(
            named.map(|view| passes(&without, view, 1)),
            [true, false, false, false]
        );
        let with = catalog(Some(3));
        assert_eq!(
            named.map(|view| passes(&with, view, 3)),
            [true, true, false, false]
        );
        assert_eq!(
            named.map(|view| passes(&with, view, 2)),
            [false; 4],
            "the bound is not in force"
        );
    }

    #[test]
    fn other_columns_than_the_plan_says_and_what_is_unknown_are_refused() {
        let catalog = catalog(None);
        let (object, rows) = slots(&catalog, "figures");
        let mut fields: Vec<_> = rows.schema().fields().iter().cloned().collect();
        fields.push(Arc::new(Field::new("extra", DataType::Utf8, true)));
        let more = RecordBatch::new_empty(Arc::new(Schema::new(fields)));
        assert!(check(&catalog, &object, &rows, |_| 1).is_ok());
        assert!(check(&catalog, &object, &more, |_| 1).is_err());
        let rows_of = |name: &str| SectionObject::Rows(catalog.object(name).expect("it exists").id);
        assert!(check(&catalog, &rows_of("everywhere"), &rows, |_| 1).is_ok());
        assert!(check(&catalog, &rows_of("t"), &rows, |_| 1).is_err());
        assert!(check(&catalog, &SectionObject::Rows(CONFLICTS), &rows, |_| 1).is_ok());
        assert!(check(&catalog, &SectionObject::Rows(ObjectId(999)), &rows, |_| 1).is_err());
        let unknown = FragmentId {
            view: ObjectId(999),
            number: 0,
        };
        assert!(check(&catalog, &SectionObject::Slots(unknown), &rows, |_| 1).is_err());
    }
}
