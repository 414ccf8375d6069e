//! Golden scripts of analysis and split: `testscripts/split/*.txt`.
//!
//! A script is a sequence of blocks divided by empty lines: a statement, `---`, what comes out. Statements:
//! `create table … locality …` (`source` for a source that views read), `create view`, `create materialized view` (into the script's catalog; a
//! materialized view prints its plan), `analyse <query>` (the typed tree before the split), `columns <query>`,
//! `set time zone '…'`. With BLESS=1 the scripts are rewritten with what came out.

mod nexmark;

use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::parser::Parser;
use std::fmt::Write;
use std::path::PathBuf;
use std::sync::Arc;

use sqlparser::ast::Statement;
use tributary_storage::ObjectId;

use super::*;
use crate::catalog::{
    CatalogChange, ColumnDef, MaterializedViewDef, Object, ObjectKind, SourceDef, TableDef, TableLocality,
    ViewDef,
};
use crate::explain::{explain_tree, explain_view};

#[test]
fn scripts() {
    let folder = PathBuf::from("testscripts/split");
    let bless = std::env::var_os("BLESS").is_some();
    let mut paths: Vec<PathBuf> = std::fs::read_dir(&folder)
        .expect("the folder exists")
        .map(|entry| entry.expect("readable").path())
        .collect();
    paths.sort();
    assert!(!paths.is_empty(), "there are scripts");
    let mut differing = Vec::new();
    for path in paths {
        let expected = std::fs::read_to_string(&path).expect("readable");
        let actual = run(&expected);
        if bless {
            std::fs::write(&path, &actual).expect("writable");
        } else if actual != expected {
            differing.push(format!(
                "{}:\n{}",
                path.display(),
                first_difference(&expected, &actual)
            ));
        }
    }
    assert!(
        differing.is_empty(),
        "{}\nBLESS=1 rewrites them",
        differing.join("\n")
    );
}

fn first_difference(expected: &str, actual: &str) -> String {
    let (expected, actual): (Vec<&str>, Vec<&str>) = (expected.lines().collect(), actual.lines().collect());
    let at = (0..)
        .find(|&line| expected.get(line) != actual.get(line))
        .expect("they differ");
    let around = |lines: &[&str]| {
        let near: Vec<&str> = lines.iter().skip(at.saturating_sub(3)).take(8).copied().collect();
        near.join("\n")
    };
    format!(
        "line {}\nexpected\n{}\nactual\n{}\n",
        at + 1,
        around(&expected),
        around(&actual)
    )
}

/// Runs a script and gives it back with what came out.
fn run(script: &str) -> String {
    let mut session = Session::default();
    let mut text = String::new();
    for block in script.split("\n\n") {
        let block = block.trim_matches('\n');
        if block.is_empty() {
            continue;
        }
        if !text.is_empty() {
            text.push('\n');
        }
        let input = block.split("\n---").next().expect("there is a first part");
        let code: Vec<&str> = input.lines().filter(|line| !line.starts_with('#')).collect();
        writeln!(text, "{input}").expect("a string takes all");
        if code.is_empty() {
            continue;
        }
        let output = match session.execute(&code.join("\n")) {
            Ok(output) => output,
            Err(error) => {
                let hint = error
                    .hint
                    .map_or_else(String::new, |hint| format!("\nhint: {hint}"));
                format!("{:?}: {}{hint}", error.kind, error.message)
            }
        };
        writeln!(text, "---").expect("a string takes all");
        if !output.is_empty() {
            writeln!(text, "{output}").expect("a string takes all");
        }
    }
    text
}

#[derive(Default)]
struct Session {
    catalog: Catalog,
    settings: PlanSettings,
}

impl Session {
    fn execute(&mut self, statement: &str) -> Result<String, PlanError> {
        if let Some(query) = statement.strip_prefix("analyse ") {
            let (relation, names) = relation(&query_of(query)?, &self.catalog, &self.settings)?;
            let columns = view_columns(&relation, names)?;
            let mut lines = vec![column_list(&columns)];
            lines.extend(explain_tree(&relation.node));
            return Ok(lines.join("\n"));
        }
        if let Some(query) = statement.strip_prefix("columns ") {
            return Ok(column_list(&query_columns(
                &query_of(query)?,
                &self.catalog,
                &self.settings,
            )?));
        }
        if let Some(zone) = statement.strip_prefix("set time zone ") {
            self.settings.time_zone = zone.trim_matches('\'').to_owned();
            return Ok(String::new());
        }
        if let Some(table) = statement.strip_suffix(" locality source") {
            return Ok(self.create_source(table));
        }
        if let Some((table, locality)) = statement.split_once(" locality ") {
            let locality = match locality {
                "global" => TableLocality::Global,
                "regional" => TableLocality::RegionalByRow,
                other => panic!("no locality {other}"),
            };
            return Ok(self.create_table(table, locality));
        }
        self.create_view(statement)
    }

    fn create_table(&mut self, text: &str, locality: TableLocality) -> String {
        let (name, columns) = columns_of(text);
        let table_def = TableDef {
            columns,
            primary_key: vec![0],
            locality,
        };
        self.create(&name, ObjectKind::Table(table_def));
        String::new()
    }

    fn create_source(&mut self, text: &str) -> String {
        let (name, columns) = columns_of(text);
        let source = SourceDef {
            connector: "file".to_owned(),
            options: Default::default(),
            tables: Vec::new(),
            base_time_ms: 0,
            columns,
        };
        self.create(&name, ObjectKind::Source(source));
        String::new()
    }

    fn create_view(&mut self, text: &str) -> Result<String, PlanError> {
        let Statement::CreateView(view) = statement(text)? else {
            panic!("no view: {text}")
        };
        let name = view.name.to_string();
        let sql = view.query.to_string();
        if !view.materialized {
            let columns = query_columns(&view.query, &self.catalog, &self.settings)?;
            self.create(&name, ObjectKind::View(ViewDef { sql, columns }));
            return Ok(String::new());
        }
        let planned = plan_view(&view.query, &self.catalog, &self.settings)?;
        let lines = explain_view(&name, &planned.plan);
        let (fingerprint, time_zone) = (planned.plan.fingerprint(), self.settings.time_zone.clone());
        let plan = Arc::new(planned.plan);
        let columns = planned.columns;
        let definition = MaterializedViewDef {
            sql,
            columns,
            plan,
            fingerprint,
            time_zone,
        };
        self.create(&name, ObjectKind::MaterializedView(definition));
        Ok(lines.join("\n"))
    }

    fn create(&mut self, name: &str, kind: ObjectKind) {
        let id = ObjectId(self.catalog.next_object);
        self.catalog.apply(&CatalogChange::Create(Object {
            id,
            name: name.to_owned(),
            kind,
        }));
    }
}

/// The name and columns of a CREATE TABLE; those whose names begin with `hidden_` or `tributary_` are hidden.
fn columns_of(text: &str) -> (String, Vec<ColumnDef>) {
    let Statement::CreateTable(table) = statement(text).expect("a script's table") else {
        panic!("no table")
    };
    let hidden = |name: &str| name.starts_with("hidden_") || name.starts_with("tributary_");
    let columns = table.columns.iter().map(|column| ColumnDef {
        name: column.name.value.clone(),
        sql_type: SqlType::from_ast(&column.data_type).expect("a type"),
        nullable: true,
        default: None,
        hidden: hidden(&column.name.value),
    });
    (table.name.to_string(), columns.collect())
}

fn column_list(columns: &[ViewColumn]) -> String {
    let columns: Vec<String> = columns
        .iter()
        .map(|column| format!("{} {}", column.name, column.sql_type))
        .collect();
    columns.join(", ")
}

fn statement(text: &str) -> Result<Statement, PlanError> {
    let syntax = |message: String| PlanError::new(PlanErrorKind::Syntax, message);
    let mut statements =
        Parser::parse_sql(&PostgreSqlDialect {}, text).map_err(|error| syntax(error.to_string()))?;
    statements.pop().ok_or_else(|| syntax("nothing".to_owned()))
}

fn query_of(text: &str) -> Result<Query, PlanError> {
    match statement(text)? {
        Statement::Query(query) => Ok(*query),
        other => panic!("no query: {other}"),
    }
}

#[test]
fn plans_are_a_function_of_the_statement() {
    let plan = || {
        let mut session = Session::default();
        session
            .execute("create table t (a int, b text) locality regional")
            .expect("a table");
        let query = query_of("select b, count(*), sum(a) from t where a > 1 group by b").expect("a query");
        plan_view(&query, &session.catalog, &session.settings)
            .expect("a plan")
            .plan
            .fingerprint()
    };
    assert_eq!(plan(), plan());
}
