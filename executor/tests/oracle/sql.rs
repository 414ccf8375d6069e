//! From SQL text to values: the planner's expressions, run here, mean what they mean in PostgreSQL.
//!
//! Each case is an expression over one row of every type, written as text by `::text`. What the planner inserts and
//! what this crate computes must fit: types, casts, names of functions.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, FixedSizeBinaryArray,
    Float32Array, Float64Array, Int16Array, Int32Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use tributary_executor::{Inline, Scope, View};
use tributary_planner::catalog::{Catalog, CatalogChange, ObjectKind, PlanSettings};
use tributary_planner::ddl::plan_ddl;
use tributary_planner::parse::parse;
use tributary_storage::{Delta, ObjectId};

const TABLE: &str = "CREATE TABLE t (i2 smallint, i4 int PRIMARY KEY, i8 bigint, f4 real, f8 double precision,
    n numeric(10,2), t text, b boolean, d date, ts timestamp, tz timestamptz, u uuid, y bytea, z int) LOCALITY GLOBAL";

/// 2024-02-29 12:34:56.789 in microseconds.
const MOMENT: i64 = 1_709_210_096_789_000;

fn row() -> Vec<ArrayRef> {
    vec![
        Arc::new(Int16Array::from(vec![7])),
        Arc::new(Int32Array::from(vec![-3])),
        Arc::new(Int64Array::from(vec![10])),
        Arc::new(Float32Array::from(vec![1.5])),
        Arc::new(Float64Array::from(vec![2.5])),
        Arc::new(
            Decimal128Array::from(vec![1234])
                .with_precision_and_scale(10, 2)
                .expect("fits"),
        ),
        Arc::new(StringArray::from(vec!["Hello wörld"])),
        Arc::new(BooleanArray::from(vec![true])),
        Arc::new(Date32Array::from(vec![19_782])),
        Arc::new(TimestampMicrosecondArray::from(vec![MOMENT])),
        Arc::new(TimestampMicrosecondArray::from(vec![MOMENT]).with_timezone("UTC")),
        Arc::new(FixedSizeBinaryArray::try_from_iter([[0xab; 16]].into_iter()).expect("sixteen bytes")),
        Arc::new(BinaryArray::from_vec(vec![&[0, 255]])),
        Arc::new(Int32Array::from(vec![None])),
    ]
}

/// `NULL` for null, `ERROR …` for a row that cannot be computed.
const CASES: &[(&str, &str)] = &[
    ("i4 + i8", "7"),
    ("i2 * i4", "-21"),
    ("i8 / 3", "3"),
    ("i4 / 2", "-1"),
    ("i4 % 2", "-1"),
    ("-i4", "3"),
    ("i8 / (i4 + 3)", "ERROR division by zero"),
    ("i4 * 2000000000", "ERROR value out of range"),
    ("n + 1", "13.34"),
    ("n * n", "152.2756"),
    ("n - i4", "15.34"),
    ("n / 3", "4.1133333333333333"),
    ("n % 5", "2.34"),
    ("i8 / 4.0", "2.5000000000000000"),
    ("f8 * 2", "5"),
    ("f4 / 2", "0.75"),
    ("f8 * '1e300'::double precision", "2.5e+300"),
    (
        "f8 * '1e308'::double precision",
        "ERROR value out of range: overflow",
    ),
    ("f8 / (f8 - 2.5)", "ERROR division by zero"),
    ("n::int", "12"),
    ("(n + 0.16)::int", "13"),
    ("f8::int", "2"),
    ("(f8 + 1)::bigint", "4"),
    ("n::double precision", "12.34"),
    ("f8::numeric(10,1)", "2.5"),
    ("i8::numeric(3,2)", "ERROR"),
    ("b::int", "1"),
    ("i4::boolean", "true"),
    ("t || '!'", "Hello wörld!"),
    ("t || i4", "Hello wörld-3"),
    ("t::int", "ERROR invalid input syntax for type integer"),
    ("upper(t)", "HELLO WÖRLD"),
    ("lower(t)", "hello wörld"),
    ("length(t)", "11"),
    ("octet_length(t)", "12"),
    ("substr(t, 2, 3)", "ell"),
    ("substring(t from 7)", "wörld"),
    ("left(t, 2)", "He"),
    ("left(t, -9)", "He"),
    ("right(t, 2)", "ld"),
    ("replace(t, 'l', 'L')", "HeLLo wörLd"),
    ("split_part(t, ' ', 2)", "wörld"),
    ("strpos(t, 'w')", "7"),
    ("starts_with(t, 'He')", "true"),
    ("trim(t)", "Hello wörld"),
    ("btrim(t, 'Hd')", "ello wörl"),
    ("ltrim(t, 'H')", "ello wörld"),
    ("rtrim(t, 'd')", "Hello wörl"),
    ("concat(t, z, '?')", "Hello wörld?"),
    ("coalesce(z, i4)", "-3"),
    ("nullif(i4, -3)", "NULL"),
    ("greatest(i4, i8, z)", "10"),
    ("least(f8, f4)", "1.5"),
    ("abs(i4)", "3"),
    ("abs(n - 20)", "7.66"),
    ("round(n)", "12"),
    ("round(n, 1)", "12.3"),
    ("floor(n)", "12"),
    ("ceil(n)", "13"),
    ("trunc(-n)", "-12"),
    ("date_trunc('hour', ts)", "2024-02-29 12:00:00"),
    ("date_trunc('month', tz)", "2024-02-01 00:00:00+00"),
    ("extract(year from ts)", "2024"),
    ("extract(month from d)", "2"),
    ("extract(dow from tz)", "4"),
    ("date_part('year', ts)", "2024"),
    ("ts + interval '1 day'", "2024-03-01 12:34:56.789"),
    ("tz - interval '1 hour'", "2024-02-29 11:34:56.789+00"),
    ("i4 in (1, -3)", "true"),
    ("i4 not in (1, 2)", "true"),
    ("z in (1, 2)", "NULL"),
    ("f8 between 2 and 3", "true"),
    ("n = 12.34", "true"),
    ("i8 > n", "false"),
    ("t like 'Hel%'", "true"),
    ("t not ilike 'hEL%'", "false"),
    ("case when i4 < 0 then 'negative' else 'positive' end", "negative"),
    ("case when i4 > 0 then i8 / (i4 + 3) end", "NULL"),
    ("b and i4 < 0", "true"),
    ("z is null", "true"),
    ("z is distinct from 1", "true"),
    ("z + 1", "NULL"),
    ("u", "abababab-abab-abab-abab-abababababab"),
    ("y", "\\x00ff"),
    ("d", "2024-02-29"),
    ("tz", "2024-02-29 12:34:56.789+00"),
];

/// The value of `expression`, as text.
fn evaluate(expression: &str) -> String {
    let mut catalog = Catalog::default();
    create(&mut catalog, TABLE).expect("the table is plain");
    let view = format!("CREATE MATERIALIZED VIEW v AS SELECT ({expression})::text AS r FROM t");
    if let Err(error) = create(&mut catalog, &view) {
        return format!("refused: {error}");
    }
    let table = catalog.object("t").expect("created");
    let ObjectKind::MaterializedView(view) = &catalog.object("v").expect("created").kind else {
        panic!("v is a materialized view")
    };
    let mut view = match View::new(
        ObjectId(9),
        view.plan.clone(),
        Scope::Cluster,
        Arc::new(Inline::new(1)),
    ) {
        Ok(view) => view,
        Err(error) => return format!("not built: {error}"),
    };
    let rows = RecordBatch::try_new(table.columns_arrow(), row()).expect("a row of the table");
    let result = view.step_global(&BTreeMap::from([(table.id, Delta::inserts(rows))]), &[]);
    match view.errors().first() {
        Some(error) => format!("ERROR {}", error.message),
        None => {
            let text = result
                .rows()
                .column(0)
                .as_any()
                .downcast_ref::<StringArray>()
                .expect("text");
            if text.is_null(0) {
                "NULL".to_string()
            } else {
                text.value(0).to_string()
            }
        }
    }
}

fn create(catalog: &mut Catalog, sql: &str) -> Result<(), String> {
    let statements = parse(sql).map_err(|error| error.message)?;
    let plan = plan_ddl(&statements[0].statement, catalog, &PlanSettings::default(), 0);
    let changes: Vec<CatalogChange> = plan.map_err(|error| error.message)?.changes;
    changes.iter().for_each(|change| catalog.apply(change));
    Ok(())
}

#[test]
fn expressions_mean_what_they_mean_in_postgres() {
    let wrong: Vec<String> = CASES
        .iter()
        .map(|(expression, expected)| (expression, expected, evaluate(expression)))
        .filter(|(_, expected, actual)| match expected.starts_with("ERROR") {
            true => !actual.starts_with(**expected),
            false => actual != *expected,
        })
        .map(|(expression, expected, actual)| format!("{expression}: expected {expected}, got {actual}"))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
