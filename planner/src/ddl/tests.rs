//! Golden scripts: each statement is planned and applied to the file's catalog.

use std::fmt::Write;

use tributary_storage::RegionId;

use super::*;
use crate::catalog::{TableDef, TableLocality};
use crate::explain::explain_view;
use crate::{golden, parse};

/// A founded cluster of two regions.
fn founded() -> Catalog {
    let mut catalog = Catalog {
        next_object: 100,
        ..Catalog::default()
    };
    catalog.apply(&CatalogChange::Found {
        cluster: [1; 16],
        regions: vec![
            (RegionId(1), "us".to_owned()),
            (RegionId(2), "eu-west".to_owned()),
        ],
        primary: RegionId(1),
    });
    catalog
}

fn table(table: &TableDef) -> String {
    let mut text = String::new();
    for column in &table.columns {
        let null = if column.nullable { "" } else { " not null" };
        let hidden = if column.hidden { " hidden" } else { "" };
        let default = column
            .default
            .as_ref()
            .map(|default| format!(" default {}", default.to_sql(column.sql_type)));
        writeln!(
            text,
            "  {} {}{null}{}{hidden}",
            column.name,
            column.sql_type,
            default.unwrap_or_default()
        )
        .expect("writing to a string cannot fail");
    }
    let key: Vec<&str> = table
        .primary_key
        .iter()
        .map(|&index| table.columns[index].name.as_str())
        .collect();
    let locality = match table.locality {
        TableLocality::Global => "global".to_owned(),
        TableLocality::RegionalByRow => "regional by row".to_owned(),
        TableLocality::RegionalByTable(region) => format!("regional by table in {}", region.0),
    };
    text + &format!("  key ({}), {locality}\n", key.join(", "))
}

fn object(object: &Object) -> String {
    let columns = |columns: &[ViewColumn]| {
        let column = |column: &ViewColumn| format!("{} {}", column.name, column.sql_type);
        columns.iter().map(column).collect::<Vec<_>>().join(", ")
    };
    let details = match &object.kind {
        ObjectKind::Table(definition) => table(definition),
        ObjectKind::View(view) => format!("  ({})\n  {}\n", columns(&view.columns), view.sql),
        ObjectKind::MaterializedView(view) if object.is_hidden() => explain_view(&object.name, &view.plan)
            .iter()
            .map(|line| format!("  {line}\n"))
            .collect(),
        ObjectKind::MaterializedView(view) => {
            format!(
                "  ({}), time zone {}\n  {}\n",
                columns(&view.columns),
                view.time_zone,
                view.sql
            )
        }
        ObjectKind::Sink(sink) => format!("  {} of {}, {:?}\n", sink.connector, sink.view, sink.options),
        ObjectKind::Source(source) => {
            let tables: Vec<String> = source.tables.iter().map(ToString::to_string).collect();
            let (connector, from) = (&source.connector, source.base_time_ms);
            format!(
                "  {connector} into {} from {from} ms, {:?}\n",
                tables.join(", "),
                source.options
            )
        }
    };
    format!(
        "create {} {} {}\n{details}",
        object.kind_name(),
        object.id,
        object.name
    )
}

fn shown(plan: &DdlPlan) -> String {
    let mut text = String::new();
    for change in &plan.changes {
        text += &match change {
            CatalogChange::Create(created) => object(created),
            CatalogChange::Drop(ids) => {
                format!(
                    "drop {}\n",
                    ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
                )
            }
            CatalogChange::PauseSource { source, paused } => format!("pause {source}: {paused}\n"),
            CatalogChange::Truncate(table) => format!("truncate {table}\n"),
            CatalogChange::SetOptions { table, options } => {
                let set = options.settings();
                let set: Vec<String> = set
                    .iter()
                    .map(|(name, value)| format!("{name} = '{value}'"))
                    .collect();
                format!("options of {table}: {}\n", set.join(", "))
            }
            CatalogChange::Found { .. } => panic!("no statement founds a cluster"),
            CatalogChange::Member { region, change } => format!("region {}: {change:?}\n", region.0),
        };
    }
    for notice in &plan.notices {
        text += &format!("NOTICE: {notice}\n");
    }
    text + &plan.tag + "\n"
}

#[test]
fn golden_scripts() {
    golden::run("ddl", || {
        let mut catalog = founded();
        let mut rows = RowCounts::default();
        move |sql: &str| {
            let mut text = String::new();
            // `rows of t: 100` says what the region holds of a relation.
            if let Some((name, count)) = sql
                .strip_prefix("rows of ")
                .and_then(|rest| rest.split_once(": "))
            {
                let id = catalog.object(name).expect("a relation of the script").id;
                rows.0.insert(id, count.parse().expect("a number of rows"));
                return text;
            }
            let statements = match parse::parse(sql) {
                Ok(statements) => statements,
                Err(error) => return golden::shown(&error),
            };
            for parsed in statements {
                let settings = PlanSettings {
                    time_zone: "Europe/Berlin".to_owned(),
                };
                if let parse::Statement::ExplainCreateMaterializedView(create) = &parsed.statement {
                    text += &match explain(create, &catalog, &settings, &rows) {
                        Ok(lines) => lines.join("\n"),
                        Err(error) => golden::shown(&error),
                    };
                    continue;
                }
                match plan_ddl_counting(&parsed.statement, &catalog, &settings, 1_700_000_000_000, &rows) {
                    Ok(plan) => {
                        plan.changes.iter().for_each(|change| catalog.apply(change));
                        text += &shown(&plan);
                    }
                    Err(error) => text += &golden::shown(&error),
                }
            }
            text
        }
    });
}

#[test]
fn planning_changes_nothing_by_itself() {
    let catalog = founded();
    let parsed = parse::parse("CREATE TABLE t (a int PRIMARY KEY)").expect("valid");
    let plan = || plan_ddl(&parsed[0].statement, &catalog, &PlanSettings::default(), 0).expect("valid");
    assert_eq!(plan(), plan());
    assert!(catalog.object("t").is_none());
}
