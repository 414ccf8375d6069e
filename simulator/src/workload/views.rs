//! Random views as SQL text, over whatever tables and views there are.
//!
//! The grammar keeps to what is meant to be supported; what the planner refuses all the same is counted and
//! another view is drawn. Values stay small, so that sums and products do not leave their types.

use tributary_planner::catalog::{Catalog, Object, ObjectKind};
use tributary_planner::types::SqlType;

use crate::rng::Rng;

/// A query.
pub(super) struct Drawn {
    /// Its text.
    pub(super) sql: String,
    /// Whether it depends on how ties are broken.
    pub(super) ordered: bool,
}

/// A column that expressions may use, as it is written.
#[derive(Clone)]
struct Column {
    text: String,
    class: Class,
}

/// What can be done with a value.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Integer,
    Numeric,
    Float,
    Text,
    Bool,
    Time,
}

/// How deep views may stand on views.
const INPUT_DEPTH_MAX: usize = 3;

/// A random query; `None` when there is nothing to query.
pub(super) fn draw(rng: &mut Rng, catalog: &Catalog) -> Option<Drawn> {
    let inputs: Vec<&Object> = catalog
        .objects
        .values()
        .map(AsRef::as_ref)
        .filter(|object| !object.is_hidden() && depth(catalog, object) < INPUT_DEPTH_MAX)
        .collect();
    if inputs.is_empty() {
        return None;
    }
    let (from, columns) = match rng.percent(10) {
        true => draw_sessions(rng, &inputs)?,
        false => draw_from(rng, &inputs)?,
    };
    let filter = if rng.percent(60) {
        format!(" WHERE {}", predicate(rng, &columns)?)
    } else {
        String::new()
    };
    let source = format!("FROM {from}{filter}");
    let sql = match rng.below(10) {
        0..=1 => format!("SELECT {} {source}", projection(rng, &columns)),
        2..=5 => grouped(rng, &columns, &source)?,
        6 => format!("SELECT {} {source}", aggregates(rng, &columns, 0)?.join(", ")),
        7 => format!("SELECT DISTINCT {} {source}", projection(rng, &columns)),
        8 => {
            let (x, y) = (rng.pick(&inputs), rng.pick(&inputs));
            let part = |rng: &mut Rng, object: &Object| {
                let column = of_class(rng, &columns_of(object, "x"), Class::Integer)?;
                Some(format!(
                    "SELECT CAST({column} AS bigint) AS c0 FROM {} x",
                    object.name
                ))
            };
            format!("{} UNION ALL {}", part(rng, x)?, part(rng, y)?)
        }
        _ => {
            let shown = projection(rng, &columns);
            let order = if rng.percent(50) { "c0 DESC" } else { "c0" };
            let nulls = *rng.pick(&["", " NULLS FIRST", " NULLS LAST"]);
            let limit = rng.between(1, 6);
            return Some(Drawn {
                sql: format!("SELECT {shown} {source} ORDER BY {order}{nulls} LIMIT {limit}"),
                ordered: true,
            });
        }
    };
    Some(Drawn { sql, ordered: false })
}

fn depth(catalog: &Catalog, object: &Object) -> usize {
    let ObjectKind::MaterializedView(def) = &object.kind else {
        return 0;
    };
    let inputs = def.plan.inputs();
    let depths = inputs
        .iter()
        .filter_map(|input| catalog.by_id(*input))
        .map(|input| depth(catalog, input));
    1 + depths.max().unwrap_or(0)
}

/// One input, or two joined.
fn draw_from(rng: &mut Rng, inputs: &[&Object]) -> Option<(String, Vec<Column>)> {
    let first = rng.pick(inputs);
    let mut columns = columns_of(first, "x");
    let mut from = format!("{} x", first.name);
    if rng.percent(45) {
        let second = rng.pick(inputs);
        let others = columns_of(second, "y");
        let class = *rng.pick(&[Class::Integer, Class::Integer, Class::Text]);
        let (left, right) = (of_class(rng, &columns, class)?, of_class(rng, &others, class)?);
        let kind = if rng.percent(40) { "LEFT JOIN" } else { "JOIN" };
        from += &format!(" {kind} {} y ON {left} = {right}", second.name);
        columns.extend(others);
    }
    Some((from, columns))
}

/// The rows of one input with the bounds of their sessions.
fn draw_sessions(rng: &mut Rng, inputs: &[&Object]) -> Option<(String, Vec<Column>)> {
    let input = rng.pick(inputs);
    let mut columns = columns_of(input, "x");
    let time = of_class(rng, &columns, Class::Time)?;
    let mut arguments = vec![input.name.clone(), time];
    for _ in 0..rng.below(3) {
        arguments.push(rng.pick(&columns).text.clone());
    }
    // Columns of an argument are those of the input by its own name.
    let own = format!("{}.", input.name);
    let arguments = arguments.join(", ").replace("x.", &own);
    let from = format!("SESSION({arguments}, INTERVAL '{}' SECOND) x", rng.between(1, 8));
    columns.extend(["window_start", "window_end"].map(|bound| Column {
        text: format!("x.{bound}"),
        class: Class::Time,
    }));
    Some((from, columns))
}

fn columns_of(object: &Object, alias: &str) -> Vec<Column> {
    let column = |name: &str, sql_type: &SqlType| {
        let class = match sql_type {
            SqlType::Int2 | SqlType::Int4 | SqlType::Int8 => Class::Integer,
            SqlType::Numeric { .. } => Class::Numeric,
            SqlType::Float8 => Class::Float,
            SqlType::Text | SqlType::Varchar(_) => Class::Text,
            SqlType::Bool => Class::Bool,
            SqlType::Timestamp => Class::Time,
            _ => return None,
        };
        Some(Column {
            text: format!("{alias}.{name}"),
            class,
        })
    };
    match &object.kind {
        ObjectKind::Table(def) => def
            .columns
            .iter()
            .filter(|c| !c.hidden)
            .filter_map(|c| column(&c.name, &c.sql_type))
            .collect(),
        ObjectKind::MaterializedView(def) => def
            .columns
            .iter()
            .filter_map(|c| column(&c.name, &c.sql_type))
            .collect(),
        ObjectKind::View(_) | ObjectKind::Source(_) | ObjectKind::Sink(_) => Vec::new(),
    }
}

fn of_class(rng: &mut Rng, columns: &[Column], class: Class) -> Option<String> {
    let fitting: Vec<&Column> = columns.iter().filter(|column| column.class == class).collect();
    (!fitting.is_empty()).then(|| rng.pick(&fitting).text.clone())
}

fn projection(rng: &mut Rng, columns: &[Column]) -> String {
    let count = rng.between(1, 4);
    let shown: Vec<String> = (0..count)
        .map(|number| format!("{} AS c{number}", scalar(rng, columns).text))
        .collect();
    shown.join(", ")
}

fn grouped(rng: &mut Rng, columns: &[Column], source: &str) -> Option<String> {
    let keys: Vec<String> = (0..rng.between(1, 2))
        .map(|_| {
            if rng.percent(70) {
                rng.pick(columns).text.clone()
            } else {
                scalar(rng, columns).text
            }
        })
        .collect();
    let mut shown: Vec<String> = keys
        .iter()
        .enumerate()
        .map(|(number, key)| format!("{key} AS c{number}"))
        .collect();
    shown.extend(aggregates(rng, columns, keys.len())?);
    let having = match rng.below(5) {
        0 => format!(" HAVING count(*) > {}", rng.between(1, 2)),
        _ => String::new(),
    };
    Some(format!(
        "SELECT {} {source} GROUP BY {}{having}",
        shown.join(", "),
        keys.join(", ")
    ))
}

fn aggregates(rng: &mut Rng, columns: &[Column], after: usize) -> Option<Vec<String>> {
    let count = usize::try_from(rng.between(1, 4)).ok()?;
    (0..count)
        .map(|number| Some(format!("{} AS c{}", one_aggregate(rng, columns)?, after + number)))
        .collect()
}

fn one_aggregate(rng: &mut Rng, columns: &[Column]) -> Option<String> {
    let filter = match rng.percent(25) {
        true => format!(" FILTER (WHERE {})", predicate(rng, columns)?),
        false => String::new(),
    };
    let column = if rng.percent(70) {
        rng.pick(columns).clone()
    } else {
        scalar(rng, columns)
    };
    let function = match (rng.below(6), column.class) {
        (0, _) => return Some(format!("count(*){filter}")),
        (1, _) | (_, Class::Bool) => "count",
        (2 | 3, Class::Integer | Class::Numeric | Class::Float) => "sum",
        (4, Class::Integer | Class::Numeric | Class::Float) => "avg",
        (value, _) if value % 2 == 0 => "min",
        _ => "max",
    };
    Some(format!("{function}({}){filter}", column.text))
}

/// A column, or something computed from columns.
fn scalar(rng: &mut Rng, columns: &[Column]) -> Column {
    let column = rng.pick(columns).clone();
    let text = &column.text;
    let made = |text: String, class: Class| Column { text, class };
    let number = rng.between_signed(-3, 7);
    match (column.class, rng.below(6)) {
        (Class::Integer, 0) => made(format!("({text} + {number})"), Class::Integer),
        (Class::Integer, 1) => made(format!("({text} % 5)"), Class::Integer),
        (Class::Integer, 2) => made(format!("coalesce({text}, 0)"), Class::Integer),
        (Class::Integer, 3) => match predicate(rng, columns) {
            Some(condition) => made(
                format!("CASE WHEN {condition} THEN {text} ELSE {number} END"),
                Class::Integer,
            ),
            None => column,
        },
        (Class::Integer, 4) => made(format!("(100 / {text})"), Class::Integer),
        (Class::Numeric, 0) => made(format!("({text} + 1.25)"), Class::Numeric),
        (Class::Float, 0) => made(format!("({text} + {text})"), Class::Float),
        (Class::Text, 0) => made(format!("upper({text})"), Class::Text),
        (Class::Text, 1) => made(format!("({text} || '-')"), Class::Text),
        (Class::Bool, 0) => made(format!("(NOT {text})"), Class::Bool),
        _ => column,
    }
}

fn predicate(rng: &mut Rng, columns: &[Column]) -> Option<String> {
    if rng.percent(20) {
        let (left, right) = (comparison(rng, columns), comparison(rng, columns));
        let op = *rng.pick(&["AND", "OR"]);
        return Some(format!("({left} {op} {right})"));
    }
    Some(comparison(rng, columns))
}

fn comparison(rng: &mut Rng, columns: &[Column]) -> String {
    let Column { text, class } = rng.pick(columns);
    if rng.percent(12) {
        let not = *rng.pick(&["", " NOT"]);
        return format!("{text} IS{not} NULL");
    }
    let op = *rng.pick(&["=", "<>", "<", "<=", ">", ">="]);
    match class {
        Class::Integer if rng.percent(20) => format!("{text} IN (1, 2, 5, 8)"),
        Class::Integer => format!("{text} {op} {}", rng.between_signed(-5, 40)),
        Class::Numeric => format!("{text} {op} {}.5", rng.between_signed(-10, 120)),
        Class::Float => format!("{text} {op} {}", rng.between_signed(-50, 150)),
        Class::Text if rng.percent(30) => format!("{text} LIKE 'a%'"),
        Class::Text => format!("{text} {op} '{}'", rng.pick(&["a", "b", "ab"])),
        Class::Time => format!("{text} {op} timestamp '1970-01-01 00:00:{}'", rng.between(10, 40)),
        Class::Bool => (*rng.pick(&["", "NOT "])).to_owned() + text,
    }
}
