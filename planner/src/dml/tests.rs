//! Golden scripts over a catalog of a few tables.

use tributary_storage::RegionId;

use super::*;
use crate::catalog::{CatalogChange, PlanSettings};
use crate::{ddl, golden, parse};

const TABLES: &str = "
    CREATE TABLE accounts (
        id bigint PRIMARY KEY,
        owner text NOT NULL DEFAULT 'nobody',
        balance numeric(12,2) DEFAULT 0,
        opened timestamptz DEFAULT now(),
        tag uuid DEFAULT gen_random_uuid(),
        code varchar(4),
        raw bytea DEFAULT '\\x00ff'
    ) LOCALITY GLOBAL;
    CREATE TABLE events (at timestamp, \"Kind\" text, note text DEFAULT 'it''s');
    CREATE TABLE pairs (a int, b int, v int, PRIMARY KEY (b, a));
    CREATE SOURCE gen WITH (connector = 'nexmark');
";

fn catalog() -> Catalog {
    let mut catalog = Catalog::default();
    let regions = vec![(RegionId(1), "us".to_owned())];
    catalog.apply(&CatalogChange::Found {
        cluster: [1; 16],
        regions,
        primary: RegionId(1),
    });
    for parsed in parse::parse(TABLES).expect("valid") {
        let plan = ddl::plan_ddl(&parsed.statement, &catalog, &PlanSettings::default(), 0).expect("valid");
        plan.changes.iter().for_each(|change| catalog.apply(change));
    }
    catalog
}

fn shown(bound: &BoundDml) -> String {
    let returning = |query: &Option<Box<ast::Query>>| match query {
        Some(query) => format!("returning: {query}\n"),
        None => String::new(),
    };
    match bound {
        BoundDml::Insert(insert) => {
            let source = match &insert.source {
                InsertSource::Query(query) => query.to_string(),
                InsertSource::DefaultValues => "default values".to_owned(),
            };
            let conflict = match &insert.on_conflict {
                None => String::new(),
                Some(OnConflict::DoNothing) => "conflict: nothing\n".to_owned(),
                Some(OnConflict::DoUpdate { query, assigned }) => format!("conflict {assigned:?}: {query}\n"),
            };
            format!(
                "insert {} {:?}: {source}\n{conflict}{}",
                insert.table,
                insert.columns,
                returning(&insert.returning)
            )
        }
        BoundDml::Update(update) => {
            let (table, assigned) = (update.table, &update.assigned);
            format!(
                "update {table} {assigned:?}: {}\n{}",
                update.query,
                returning(&update.returning)
            )
        }
        BoundDml::Delete(delete) => {
            format!(
                "delete {}: {}\n{}",
                delete.table,
                delete.query,
                returning(&delete.returning)
            )
        }
    }
}

#[test]
fn golden_scripts() {
    let catalog = catalog();
    golden::run("dml", || {
        |sql: &str| {
            let statement = match parse::parse(sql) {
                Ok(mut statements) => statements.remove(0).statement,
                Err(error) => return golden::shown(&error),
            };
            match bind_dml(&statement, &catalog) {
                Ok(bound) => shown(&bound),
                Err(error) => golden::shown(&error),
            }
        }
    });
}

#[test]
fn a_source_without_a_column_list_may_be_narrower() {
    let catalog = catalog();
    let bound = |sql: &str| match bind_dml(&parse::parse(sql).expect("valid")[0].statement, &catalog) {
        Ok(BoundDml::Insert(insert)) => insert,
        other => panic!("{other:?}"),
    };
    let open = bound("INSERT INTO pairs SELECT * FROM pairs");
    assert_eq!(open.targets(2), Ok([0, 1].as_slice()));
    assert!(open.targets(4).is_err());
    let listed = bound("INSERT INTO pairs (b, a) SELECT * FROM pairs");
    assert_eq!(listed.targets(2), Ok([1, 0].as_slice()));
    assert!(listed.targets(1).is_err());
}

#[test]
fn columns_of_copy_are_checked() {
    let catalog = catalog();
    let (object, table) = writable_table(&catalog, "events").expect("it exists");
    let columns = |names: &[&str]| {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        copy_columns(table, &object.name, &names).map_err(|error| error.kind)
    };
    assert_eq!(columns(&[]), Ok(vec![0, 1, 2]));
    assert_eq!(columns(&["Kind", "at"]), Ok(vec![1, 0]));
    assert_eq!(
        columns(&["kind"]),
        Err(crate::error::PlanErrorKind::UndefinedColumn)
    );
    assert_eq!(
        columns(&["at", "at"]),
        Err(crate::error::PlanErrorKind::DuplicateColumn)
    );
    assert_eq!(
        columns(&["tributary_row_id"]),
        Err(crate::error::PlanErrorKind::WrongObjectType)
    );
    assert!(writable_table(&catalog, "bid").is_err());
}
