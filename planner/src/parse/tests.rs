//! Golden scripts, limits, and texts that must not overflow the stack or take for ever.

use super::*;
use crate::golden;

fn kind(sql: &str) -> Result<usize, PlanErrorKind> {
    parse(sql).map(|statements| statements.len()).map_err(|error| error.kind)
}

fn shown(statement: &Statement) -> String {
    match statement {
        Statement::Sql(statement) => format!("Sql {statement}"),
        Statement::Insert(insert) => format!("Insert {insert}"),
        Statement::Update(update) => format!("Update {update}"),
        Statement::Delete(delete) => format!("Delete {delete}"),
        Statement::CreateTable(create) => format!("CreateTable {}\n  {:?}", create.table, create.locality),
        Statement::CreateView(view) => format!("CreateView {:?} {:?} {:?}", view.name, view.columns, view.query_text),
        Statement::CreateMaterializedView(view) | Statement::ExplainCreateMaterializedView(view) => {
            let explain = matches!(statement, Statement::ExplainCreateMaterializedView(_));
            let exists = if view.if_not_exists { " if not exists" } else { "" };
            format!(
                "{}CreateMaterializedView{exists} {:?} {:?} {:?}",
                if explain { "Explain" } else { "" },
                view.name,
                view.columns,
                view.query_text
            )
        }
        other => format!("{other:?}"),
    }
}

#[test]
fn golden_scripts() {
    golden::run("parse", || {
        |sql: &str| match parse(sql) {
            Ok(statements) => {
                let line = |parsed: &Parsed| format!("{}\n", shown(&parsed.statement));
                statements.iter().map(line).collect::<String>()
            }
            Err(error) => golden::shown(&error),
        }
    });
}

#[test]
fn texts_are_those_of_the_statements() {
    let parsed = parse(" ;; SELECT 'ä;' ; -- a comment;\n\tCREATE SOURCE s WITH (a = 1) -- end\n;").expect("valid");
    let texts: Vec<&str> = parsed.iter().map(|parsed| parsed.text.as_str()).collect();
    assert_eq!(texts, ["SELECT 'ä;'", "-- a comment;\n\tCREATE SOURCE s WITH (a = 1)"].map(|text| {
        text.trim_start_matches("-- a comment;\n\t")
    }));
    assert_eq!(kind(" ; -- nothing\n;;"), Ok(0));
}

#[test]
fn too_long_texts_are_refused_before_parsing() {
    assert_eq!(kind(&format!("SELECT '{}'", "x".repeat(limits::TEXT_BYTES_MAX))), Err(PlanErrorKind::TooLong));
    assert_eq!(kind(&"a ".repeat(limits::TOKENS_MAX + 1)), Err(PlanErrorKind::TooLong));
    assert_eq!(kind(&",".repeat(16_000_000)), Err(PlanErrorKind::TooLong));
    // One long string is one token, however it is quoted.
    let long = ",".repeat(3_000_000);
    assert_eq!(kind(&format!("SELECT '{long}', $${long}$$, $t${long}$t$ -- {long}")), Ok(1));
}

#[test]
fn deep_texts_are_refused_before_parsing() {
    let n = 100_000;
    for sql in [
        format!("SELECT {}1{}", "(".repeat(n), ")".repeat(n)),
        format!("SELECT {}", "(".repeat(n)),
        format!("SELECT 1{}", "+1".repeat(n - 10)),
        format!("SELECT {} true", "NOT ".repeat(n)),
        format!("SELECT {}1", "- ".repeat(n)),
        format!("SELECT {}1", "CASE WHEN ".repeat(n / 2)),
        format!("SELECT 1{}", "::int".repeat(n / 2)),
        format!("SELECT a{}", "[1".repeat(n / 2)),
        format!("SELECT 1 {}", "UNION SELECT 1 ".repeat(n / 2)),
        format!("SELECT * FROM a{}", ", a".repeat(n - 10)),
        format!("SELECT * FROM a {}", "JOIN a ON true ".repeat(n / 4)),
        format!("{} SELECT 1", "EXPLAIN ".repeat(n)),
        format!("{} SELECT 1", "PREPARE p AS ".repeat(n / 2)),
        format!("SELECT {} '1'", "INTERVAL ".repeat(n)),
        format!("SELECT 1 WHERE a {}", "IS NULL ".repeat(n / 2)),
        format!("SELECT NOT a {}", "= NOT a ".repeat(n / 4)),
    ] {
        let start = sql[..20.min(sql.len())].to_owned();
        assert_eq!(kind(&sql), Err(PlanErrorKind::TooDeep), "{start}");
    }
}

/// What is just within the limits has to be parsed, printed, cloned, compared and dropped on the ordinary stack
/// of a thread.
#[test]
fn texts_within_the_limits_do_not_overflow() {
    let terms = limits::DEPTH_MAX - 10;
    let depth = limits::NESTING_MAX - 2;
    for sql in [
        format!("SELECT 1{}", "+1".repeat(terms)),
        format!("SELECT {}1{}", "(".repeat(depth), ")".repeat(depth)),
        format!("SELECT {} true", "NOT ".repeat(depth)),
        format!("SELECT a{}", " OR a".repeat(terms)),
        format!("SELECT 1 {}", "UNION SELECT 1 ".repeat(terms)),
        format!("SELECT {}1{}", "(SELECT ".repeat(depth / 2), ")".repeat(depth / 2)),
        format!("SELECT * FROM {}t{}", "(".repeat(depth / 2), ")".repeat(depth / 2)),
        format!("SELECT * FROM t{}", " JOIN t ON true".repeat(terms / 2)),
        format!("SELECT {}0{}", "CASE WHEN true THEN ".repeat(depth), " END".repeat(depth)),
        format!("SELECT f{}1{}", "(f".repeat(depth / 2), ")".repeat(depth / 2)),
    ] {
        let start = sql[..30].to_owned();
        match parse(&sql) {
            Ok(parsed) => assert_eq!(parsed.clone(), parsed, "{start}"),
            Err(error) => panic!("{start}: {error}"),
        }
    }
}

#[test]
fn many_rows_are_not_many_terms() {
    let rows = vec!["(1 + 2, 'a', -3)"; 15_000].join(", ");
    assert_eq!(kind(&format!("INSERT INTO t VALUES {rows}")), Ok(1));
    let elements = vec!["-1"; 60_000].join(", ");
    assert_eq!(kind(&format!("SELECT * FROM t WHERE a IN ({elements})")), Ok(1));
    let branches = "WHEN a = 1 THEN 2 ".repeat(10_000);
    assert_eq!(kind(&format!("SELECT CASE {branches} END")), Ok(1));
    assert_eq!(kind(&"SELECT 1 + 1;".repeat(20_000)), Ok(20_000));
}

/// Errors deep inside make a parser that tries alternatives try them at every level.
#[test]
fn errors_at_depth_take_no_exponential_time() {
    let depth = limits::NESTING_MAX / 2 - 2;
    for opening in ["not (", "cast(", "exists (", "f(", "(", "case when ", "interval (", "date (", "array[", "(select ", "coalesce(a, "] {
        let sql = format!("SELECT {} 1 !! FROM", opening.repeat(depth));
        assert!(parse(&sql).is_err(), "{opening}");
    }
    assert!(parse(&format!("SELECT * FROM {} t where !!", "(".repeat(depth))).is_err());
}
