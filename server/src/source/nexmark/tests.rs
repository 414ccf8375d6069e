//! The generator gives the same rows however it is cut into batches.

use std::collections::BTreeMap;

use arrow::array::{Int64Array, RecordBatch};
use tributary_planner::catalog::{CatalogChange, ColumnDef, Object, TableLocality};
use tributary_planner::types::SqlType;

use super::*;

const TABLES: [(&str, &[&str]); 3] = [
    ("person", &["id", "name"]),
    ("auction", &["id", "category"]),
    ("bid", &["auction", "price"]),
];

fn catalog() -> Catalog {
    let mut catalog = Catalog::default();
    let regions = vec![(RegionId(1), "us".to_owned()), (RegionId(2), "eu".to_owned())];
    catalog.apply(&CatalogChange::Found {
        cluster: [1; 16],
        regions,
        primary: RegionId(1),
    });
    for (index, (name, columns)) in TABLES.into_iter().enumerate() {
        let column = |name: &str, sql_type, hidden| ColumnDef {
            name: name.to_owned(),
            sql_type,
            nullable: false,
            default: None,
            hidden,
        };
        let sql_type = |name: &str| {
            if name == "name" {
                SqlType::Text
            } else {
                SqlType::Int8
            }
        };
        let mut defs: Vec<ColumnDef> = columns
            .iter()
            .map(|name| column(name, sql_type(name), false))
            .collect();
        defs.push(column(tributary_planner::catalog::ROW_ID, SqlType::Uuid, true));
        let primary_key = vec![defs.len() - 1];
        let table = TableDef {
            columns: defs,
            primary_key,
            locality: TableLocality::RegionalByRow,
        };
        let id = ObjectId(10 + u32::try_from(index).expect("three tables"));
        catalog.apply(&CatalogChange::Create(Object {
            id,
            name: name.to_owned(),
            kind: ObjectKind::Table(table),
        }));
    }
    catalog
}

fn generator(region: u16) -> Generator {
    let options = BTreeMap::from([("events".to_owned(), "1000".to_owned())]);
    let def = SourceDef {
        connector: "nexmark".to_owned(),
        options,
        tables: vec![ObjectId(10), ObjectId(11), ObjectId(12)],
        base_time_ms: 1_700_000_000_000,
        columns: Vec::new(),
    };
    Generator::new(ObjectId(9), &def, &catalog(), RegionId(region)).expect("a good source")
}

fn rows(generator: &Generator, batches: &[u64]) -> BTreeMap<ObjectId, RecordBatch> {
    let mut parts: BTreeMap<ObjectId, Vec<RecordBatch>> = BTreeMap::new();
    let mut from = 0;
    for count in batches {
        for (table, change) in generator.batch(from, *count).expect("the tables fit") {
            assert_eq!(change.expected.len(), change.writes.rows.num_rows());
            parts.entry(table).or_default().push(change.writes.rows);
        }
        from += count;
    }
    parts
        .into_iter()
        .map(|(table, parts)| {
            let all = arrow::compute::concat_batches(&parts[0].schema(), &parts).expect("one schema");
            (table, all)
        })
        .collect()
}

#[test]
fn the_same_events_come_again_whatever_the_batches() {
    let generator = generator(1);
    assert_eq!(generator.events_total(), 500);
    assert_eq!(rows(&generator, &[500]), rows(&generator, &[1, 99, 100, 300]));
}

#[test]
fn regions_make_different_events_and_all_of_them() {
    let mut persons = Vec::new();
    let mut count = 0;
    for region in [1, 2] {
        let rows = rows(&generator(region), &[500]);
        count += rows.values().map(RecordBatch::num_rows).sum::<usize>();
        let ids = rows.get(&ObjectId(10)).map(|rows| rows.column(0).clone());
        let ids = ids
            .as_ref()
            .and_then(|ids| ids.as_any().downcast_ref::<Int64Array>());
        persons.extend(ids.into_iter().flat_map(|ids| ids.values().to_vec()));
    }
    assert_eq!(count, 1000);
    persons.sort_unstable();
    let expected: Vec<i64> = (1000..1020).collect();
    assert_eq!(
        persons, expected,
        "one event in fifty is a person, and each has an id of its own"
    );
}
