//! Applying changes, bytes, dependents.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::*;
use crate::plan::{Column, GlobalLeaf, Literal, LocalFragment, Locality, Node, Scan, ViewPlan};
use crate::types::SqlType;

fn table(id: u32, name: &str) -> Object {
    let column = |name: &str, default| ColumnDef {
        name: name.to_owned(),
        sql_type: SqlType::Int8,
        nullable: false,
        default,
        hidden: false,
    };
    let columns = vec![
        column("id", None),
        column("v", Some(ColumnDefault::Literal(Literal::int64(7)))),
    ];
    let kind = ObjectKind::Table(TableDef {
        columns,
        primary_key: vec![0],
        locality: TableLocality::RegionalByTable(RegionId(2)),
    });
    Object {
        id: ObjectId(id),
        name: name.to_owned(),
        kind,
    }
}

fn view(id: u32, name: &str, sql: &str) -> Object {
    let columns = vec![ViewColumn {
        name: "id".to_owned(),
        sql_type: SqlType::Int8,
    }];
    Object {
        id: ObjectId(id),
        name: name.to_owned(),
        kind: ObjectKind::View(ViewDef {
            sql: sql.to_owned(),
            columns,
        }),
    }
}

fn materialized(id: u32, name: &str, sql: &str, input: u32) -> Object {
    let types = vec![SqlType::Int8.arrow()];
    let scan = Scan {
        object: ObjectId(input),
        name: "t".to_owned(),
        locality: Locality::Regional,
        columns: vec![0],
        types,
        append_only: false,
    };
    let plan = ViewPlan {
        fragments: vec![LocalFragment {
            root: Node::Leaf(scan),
            boundary: crate::plan::Boundary::MergeRows,
        }],
        global: Node::Leaf(GlobalLeaf::Merge(0)),
        columns: vec![Column {
            name: "id".to_owned(),
            data_type: SqlType::Int8.arrow(),
        }],
    };
    let kind = ObjectKind::MaterializedView(MaterializedViewDef {
        sql: sql.to_owned(),
        columns: vec![ViewColumn {
            name: "id".to_owned(),
            sql_type: SqlType::Int8,
        }],
        fingerprint: plan.fingerprint(),
        plan: Arc::new(plan),
        time_zone: "Europe/Berlin".to_owned(),
    });
    Object {
        id: ObjectId(id),
        name: name.to_owned(),
        kind,
    }
}

fn founded() -> Catalog {
    let mut catalog = Catalog::default();
    catalog.apply(&CatalogChange::Found {
        cluster: [7; 16],
        regions: vec![(RegionId(1), "us".to_owned()), (RegionId(2), "eu".to_owned())],
        primary: RegionId(1),
    });
    catalog.apply(&CatalogChange::Create(table(4, "t")));
    catalog.apply(&CatalogChange::Create(view(5, "v", "SELECT id FROM t")));
    catalog.apply(&CatalogChange::Create(view(
        6,
        "shadow",
        "WITH t AS (SELECT 1 AS id) SELECT id FROM t",
    )));
    catalog.apply(&CatalogChange::Create(view(
        7,
        "own",
        "WITH t AS (SELECT id FROM t) SELECT id FROM t",
    )));
    catalog.apply(&CatalogChange::Create(materialized(
        8,
        "m",
        "SELECT id FROM v",
        4,
    )));
    catalog
}

#[test]
fn ids_are_never_given_out_again() {
    let mut catalog = founded();
    assert_eq!((catalog.version, catalog.next_object), (6, 9));
    catalog.apply(&CatalogChange::Drop(vec![ObjectId(8)]));
    assert_eq!((catalog.version, catalog.next_object), (7, 9));
    assert!(catalog.object("m").is_none());
    assert_eq!(catalog.region_named("eu"), Some(RegionId(2)));
}

#[test]
fn bytes_round_trip() {
    let catalog = founded();
    let bytes = catalog.to_bytes();
    let read = Catalog::from_bytes(&bytes).expect("its own bytes");
    assert_eq!(read, catalog);
    assert_eq!(read.to_bytes(), bytes);
    assert!(Catalog::from_bytes(&bytes[..bytes.len() - 3]).is_err());
    assert!(Catalog::from_bytes(b"TCT\x01").is_err());
    assert!(Catalog::from_bytes(b"").is_err());
}

#[test]
fn dependents_are_those_that_name_it() {
    let catalog = founded();
    let ids = |ids: &[u32]| ids.iter().map(|&id| ObjectId(id)).collect::<Vec<_>>();
    // `shadow` means its own `t`; `own` reads the table inside of its; `m` reads it through `v`.
    assert_eq!(catalog.dependents(ObjectId(4)), ids(&[5, 7, 8]));
    assert_eq!(catalog.dependents(ObjectId(5)), ids(&[8]));
    assert_eq!(catalog.dependents(ObjectId(8)), ids(&[]));
}

#[test]
fn a_source_with_columns_is_a_regional_relation_that_views_depend_on() {
    let mut catalog = founded();
    let column = |name: &str, hidden| ColumnDef {
        name: name.to_owned(),
        sql_type: SqlType::TimestampTz,
        nullable: true,
        default: None,
        hidden,
    };
    let source = SourceDef {
        connector: "file".to_owned(),
        options: BTreeMap::new(),
        tables: Vec::new(),
        base_time_ms: 0,
        columns: vec![column("at", false), column("tributary_time", true)],
    };
    let id = ObjectId(catalog.next_object);
    catalog.apply(&CatalogChange::Create(Object {
        id,
        name: "events".to_owned(),
        kind: ObjectKind::Source(source),
    }));
    let sql = "SELECT at FROM TUMBLE(events, at, INTERVAL '1' SECOND)";
    catalog.apply(&CatalogChange::Create(view(20, "reader", sql)));
    let object = catalog.by_id(id).expect("just created");
    assert_eq!(object.locality(), Locality::Regional);
    assert_eq!(object.columns_arrow().fields().len(), 2);
    assert_eq!(catalog.dependents(id), vec![ObjectId(20)]);
}
