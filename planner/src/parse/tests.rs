//! Golden scripts, limits, and texts that must not overflow the stack or take for ever.

use std::ops::ControlFlow;

use proptest::prelude::*;
use sqlparser::ast::{Value, visit_expressions, visit_expressions_mut};

use super::*;
use crate::golden;

fn kind(sql: &str) -> Result<usize, PlanErrorKind> {
    parse(sql)
        .map(|statements| statements.len())
        .map_err(|error| error.kind)
}

fn shown(statement: &Statement) -> String {
    match statement {
        Statement::Sql(statement) => format!("Sql {statement}"),
        Statement::Insert(insert) => format!("Insert {insert}"),
        Statement::Update(update) => format!("Update {update}"),
        Statement::Delete(delete) => format!("Delete {delete}"),
        Statement::CreateTable(create) => format!("CreateTable {}\n  {:?}", create.table, create.locality),
        Statement::CreateView(view) => format!(
            "CreateView {:?} {:?} {:?}",
            view.name, view.columns, view.query_text
        ),
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
    let parsed =
        parse(" ;; SELECT 'ä;' ; -- a comment;\n\tCREATE SOURCE s WITH (a = 1) -- end\n;").expect("valid");
    let texts: Vec<&str> = parsed.iter().map(|parsed| parsed.text.as_str()).collect();
    assert_eq!(
        texts,
        ["SELECT 'ä;'", "-- a comment;\n\tCREATE SOURCE s WITH (a = 1)"]
            .map(|text| { text.trim_start_matches("-- a comment;\n\t") })
    );
    assert_eq!(kind(" ; -- nothing\n;;"), Ok(0));
}

#[test]
fn too_long_texts_are_refused_before_parsing() {
    assert_eq!(
        kind(&format!("SELECT '{}'", "x".repeat(limits::TEXT_BYTES_MAX))),
        Err(PlanErrorKind::TooLong)
    );
    assert_eq!(
        kind(&"a ".repeat(limits::TOKENS_MAX + 1)),
        Err(PlanErrorKind::TooLong)
    );
    assert_eq!(kind(&",".repeat(16_000_000)), Err(PlanErrorKind::TooLong));
    // One long string is one token, however it is quoted.
    let long = ",".repeat(3_000_000);
    assert_eq!(
        kind(&format!("SELECT '{long}', $${long}$$, $t${long}$t$ -- {long}")),
        Ok(1)
    );
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
        format!("{}SELECT 1{}", "(".repeat(400), ")".repeat(400)),
        format!("SELECT {}SELECT 1{}", "(".repeat(400), ")".repeat(400)),
        format!("SELECT {}1{}", "(SELECT ".repeat(400), ")".repeat(400)),
    ] {
        let start = sql[..20.min(sql.len())].to_owned();
        assert_eq!(kind(&sql), Err(PlanErrorKind::TooDeep), "{start}");
    }
}

/// The stack of the server's threads.
const STACK_BYTES: usize = 8 * 1024 * 1024;

/// What is just within the limits has to be parsed, printed, copied, compared and dropped on three quarters of the
/// stack of the server's threads.
#[test]
fn texts_within_the_limits_do_not_overflow() {
    let run = std::thread::Builder::new().stack_size(STACK_BYTES / 2 + STACK_BYTES / 4);
    run.spawn(deepest_texts)
        .expect("a thread")
        .join()
        .expect("no panic");
}

fn deepest_texts() {
    let terms = limits::DEPTH_MAX - 100;
    let depth = limits::NESTING_MAX - 2;
    let subqueries = terms / 23;
    for sql in [
        format!("SELECT 1{}", "+1".repeat(terms)),
        format!("SELECT {}1{}", "(".repeat(depth), ")".repeat(depth)),
        format!("SELECT {} true", "NOT ".repeat(depth)),
        format!("SELECT a{}", " OR a".repeat(terms)),
        format!("SELECT 1 {}", "UNION SELECT 1 ".repeat(terms / 4)),
        format!(
            "SELECT {}1{}",
            "(SELECT ".repeat(subqueries),
            ")".repeat(subqueries)
        ),
        format!(
            "SELECT * FROM {}t{}",
            "(SELECT * FROM ".repeat(subqueries),
            ") t".repeat(subqueries)
        ),
        format!(
            "{}SELECT 1{}",
            "WITH t AS (".repeat(subqueries),
            ") SELECT 1".repeat(subqueries)
        ),
        format!(
            "SELECT * FROM {}t JOIN t ON true{}",
            "(".repeat(terms / 7),
            ")".repeat(terms / 7)
        ),
        format!("{}SELECT 1{}", "(".repeat(subqueries), ")".repeat(subqueries)),
        format!("SELECT {}'1'", "interval ".repeat(depth / 5 - 1)),
        format!("SELECT * FROM t{}", " JOIN t ON true".repeat(terms / 2)),
        format!(
            "SELECT {}0{}",
            "CASE WHEN true THEN ".repeat(terms / 4),
            " END".repeat(terms / 4)
        ),
        format!("SELECT f{}1{}", "(f".repeat(depth), ")".repeat(depth)),
        format!("SELECT {}1{}", "cast(".repeat(depth), " as int)".repeat(depth)),
        format!("SELECT {}1{}", "coalesce(a, ".repeat(depth), ")".repeat(depth)),
        format!("SELECT {}a{}", "a in (".repeat(terms / 2), ")".repeat(terms / 2)),
        format!("SELECT {}1{}", "array[".repeat(depth), "]".repeat(depth)),
    ] {
        let start = sql[..30].to_owned();
        match parse(&sql) {
            Ok(parsed) => {
                let copy = parsed.clone();
                assert!(copy == parsed, "{start}");
                assert!(!shown(&copy[0].statement).is_empty());
            }
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

/// A parser that tries alternatives can try them at every level: the number of tries is bounded.
#[test]
fn errors_at_depth_take_no_exponential_time() {
    let depth = limits::NESTING_MAX / 2 - 2;
    for opening in [
        "not (",
        "cast(",
        "exists (",
        "f(",
        "(",
        "case when ",
        "interval (",
        "date (",
        "array[",
        "(select ",
        "coalesce(a, ",
        "position(",
        "cast(f(",
        "substring(",
        "row(",
        "any(",
        "lateral (",
        "extract(year from ",
    ] {
        for depth in [10, 30, depth] {
            let sql = format!("SELECT {} 1 !! FROM", opening.repeat(depth));
            assert!(parse(&sql).is_err(), "{opening}");
        }
    }
    for opening in ["f(", "(", "unnest(", "lateral ("] {
        assert!(parse(&format!("SELECT * FROM {} t where !!", opening.repeat(depth))).is_err());
    }
}

#[test]
fn named_arguments_are_parsed() {
    assert_eq!(kind("SELECT make_interval(days => 10, hours := f(1))"), Ok(1));
}

/// Texts of words that mean something, in any order.
fn soup() -> impl Strategy<Value = String> {
    let words = prop::sample::select(vec![
        "SELECT",
        "FROM",
        "WHERE",
        "t",
        "\"T\"",
        "a",
        "1",
        "'x'",
        "$1",
        "(",
        ")",
        ",",
        ";",
        "*",
        "+",
        "NOT",
        "AND",
        "CASE",
        "WHEN",
        "THEN",
        "END",
        "CREATE",
        "TABLE",
        "VIEW",
        "MATERIALIZED",
        "SOURCE",
        "AS",
        "WITH",
        "LOCALITY",
        "GLOBAL",
        "REGIONAL",
        "BY",
        "ROW",
        "IN",
        "DROP",
        "IF",
        "EXISTS",
        "CASCADE",
        "EXPLAIN",
        "COPY",
        "STDIN",
        "CSV",
        "INSERT",
        "INTO",
        "VALUES",
        "DEFAULT",
        "UPDATE",
        "SET",
        "=",
        "DELETE",
        "RETURNING",
        "ON",
        "CONFLICT",
        "DO",
        "NOTHING",
        "UNION",
        "JOIN",
        "cast",
        "int",
        "::",
        "[",
        "]",
        "é",
        "--",
        "\n",
        "interval",
        "SHOW",
        "FLUSH",
        ".",
    ]);
    prop::collection::vec(words, 0..30).prop_map(|words| words.join(" "))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_panics(text in prop_oneof![soup(), ".{0,60}"]) {
        let _ = parse(&text);
    }

    /// The text kept with a statement is that statement.
    #[test]
    fn texts_parse_to_their_statements(text in prop_oneof![
        soup(),
        soup().prop_map(|text| format!("SELECT a; {text}; FLUSH")),
    ]) {
        for parsed in parse(&text).unwrap_or_default() {
            let text = &parsed.text;
            let again = parse(text).map_err(|error| TestCaseError::fail(format!("{text}: {error}")))?;
            prop_assert_eq!(again, [parsed]);
        }
    }

    /// Whatever a value is, it is that value in the text, and nothing else of the statement changes.
    #[test]
    fn bound_texts_parse_to_statements_with_the_values(
        strings in prop::collection::vec(prop_oneof!["['\"\\\\$; -]{0,8}", ".{0,12}"], 3),
        number in any::<i64>(),
    ) {
        let string = |text: &String| Expr::value(Value::SingleQuotedString(text.clone()));
        let mut parsed = parse("UPDATE t SET \"a\"\"b\" = $1, c = E'\\'$2', d = U&$4 WHERE e = '''$1' AND f = $3/*$3*/;")
            .expect("it parses")
            .remove(0);
        parsed.parameters = strings.iter().map(string).collect();
        let typed = format!("SELECT CAST({} AS BIGINT)", if number < 0 { format!("'{number}'") } else { number.to_string() });
        let Statement::Sql(typed) = parse(&typed).expect("it parses").remove(0).statement else {
            unreachable!("it is a query");
        };
        let mut constants = Vec::new();
        let _: ControlFlow<()> = visit_expressions(&*typed, |expr| {
            constants.push(expr.clone());
            ControlFlow::Continue(())
        });
        parsed.parameters.push(constants.remove(0));
        let text = parsed.bound_text().map_err(|error| TestCaseError::fail(error.to_string()))?;
        let [bound] = parse(&text).map_err(|error| TestCaseError::fail(format!("{text}: {error}")))?.try_into().expect("one");
        let (Statement::Update(update), Statement::Update(mut expected)) = (bound.statement, parsed.statement.clone()) else {
            unreachable!("both are updates");
        };
        let _: ControlFlow<()> = visit_expressions_mut(&mut expected, |expr| {
            if let Expr::Value(value) = expr && let Value::Placeholder(name) = &value.value {
                let number: usize = name[1..].parse().expect("a number");
                *expr = parsed.parameters[number - 1].clone();
            }
            ControlFlow::Continue(())
        });
        prop_assert_eq!(update, expected, "{}", text);
    }
}
