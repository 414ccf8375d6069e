//! EXPLAIN of a view: its local fragments, what crosses between regions, its global fragment.
//!
//! Columns are written `$n`, by position in the input; of a join, the left side's come first. Each operator stands
//! above its inputs, which are indented.

use std::fmt::Write;

use arrow_schema::DataType;

use crate::catalog::Catalog;
use crate::plan::{
    AggregateCall, AggregateFunction, Boundary, Expr, GlobalLeaf, JoinKind, Literal, LiteralValue,
    LocalFragment, Locality, Node, Scan, SortKey, ViewPlan,
};
use crate::residency::explain_residency;
use crate::types::SqlType;

/// The plans of a view and of the hidden views that it reads, with what residency says of each, as lines of text.
pub fn explain_with_hidden(catalog: &Catalog, name: &str, plan: &ViewPlan) -> Vec<String> {
    let mut lines = Vec::new();
    for hidden in catalog.hidden_below(plan) {
        if let Some(view) = catalog.materialized_view(hidden.id) {
            lines.extend(explain_as("hidden view", &hidden.name, &view.plan));
            lines.extend(explain_residency(catalog, &view.plan));
        }
    }
    lines.extend(explain_view(name, plan));
    lines.extend(explain_residency(catalog, plan));
    lines
}

/// The plan of a view as lines of text.
pub fn explain_view(name: &str, plan: &ViewPlan) -> Vec<String> {
    explain_as("materialized view", name, plan)
}

fn explain_as(kind: &str, name: &str, plan: &ViewPlan) -> Vec<String> {
    let columns: Vec<String> = plan
        .columns
        .iter()
        .map(|column| format!("{} {}", column.name, type_name(&column.data_type)))
        .collect();
    let mut lines = vec![format!("{kind} {name} ({})", columns.join(", "))];
    for (number, fragment) in plan.fragments.iter().enumerate() {
        lines.push(format!(
            "local fragment {number}: in each region, over its own rows"
        ));
        tree(&fragment.root, 1, &|scan: &Scan| scan_line(scan), &mut lines);
        boundary(number, fragment, &mut lines);
    }
    lines.push("global fragment: in every region, over the same rows".to_owned());
    let leaf = |leaf: &GlobalLeaf| match leaf {
        GlobalLeaf::Scan(scan) => scan_line(scan),
        GlobalLeaf::Merge(number) => format!("merged rows of local fragment {number}"),
    };
    tree(&plan.global, 1, &leaf, &mut lines);
    lines
}

/// A tree over tables as lines of text, for the golden scripts.
pub fn explain_tree(node: &Node<Scan>) -> Vec<String> {
    let mut lines = Vec::new();
    tree(node, 0, &|scan: &Scan| scan_line(scan), &mut lines);
    lines
}

fn boundary(number: usize, fragment: &LocalFragment, lines: &mut Vec<String>) {
    let types = fragment.root.types(&|scan: &Scan| scan.types.clone());
    match &fragment.boundary {
        Boundary::MergePartials { keys, aggregates } => {
            lines.push(format!(
                "merge boundary {number}: partials, a slot per key and region"
            ));
            let keys: Vec<String> = keys
                .iter()
                .map(|&key| format!("${key} {}", type_name(&types[key])))
                .collect();
            let key = if keys.is_empty() {
                "none, a single group".to_owned()
            } else {
                keys.join(", ")
            };
            lines.push(format!("  key: {key}"));
            for call in aggregates {
                let columns = list(call.partial_types().iter().map(type_name));
                lines.push(format!(
                    "  partial: {} as ({columns}), result {}",
                    aggregate(call),
                    type_name(&call.output_type)
                ));
            }
        }
        Boundary::MergeRows | Boundary::AppendRows => {
            let slots = if fragment.boundary == Boundary::AppendRows {
                "rows that are only appended, a slot per number and region"
            } else {
                "rows, a slot per row and region"
            };
            lines.push(format!("merge boundary {number}: {slots}"));
            let columns: Vec<String> = types
                .iter()
                .enumerate()
                .map(|(index, t)| format!("${index} {}", type_name(t)))
                .collect();
            lines.push(format!("  row: {}", columns.join(", ")));
        }
    }
}

fn tree<Leaf>(node: &Node<Leaf>, depth: usize, leaf: &impl Fn(&Leaf) -> String, lines: &mut Vec<String>) {
    let line = match node {
        Node::Leaf(scan) => leaf(scan),
        Node::Filter { predicate, .. } => format!("filter {}", expr(predicate)),
        Node::Project { expressions, .. } => format!("project {}", list(expressions.iter().map(expr))),
        Node::Join {
            kind,
            on,
            filter,
            null_safe,
            ..
        } => join_line(*kind, on, filter.as_ref(), *null_safe),
        Node::Union { .. } => "union all".to_owned(),
        Node::Aggregate { keys, aggregates, .. } => {
            let keys = if keys.is_empty() {
                "all".to_owned()
            } else {
                keyed(keys)
            };
            format!("aggregate {keys}: {}", list(aggregates.iter().map(aggregate)))
        }
        Node::Distinct { .. } => "distinct".to_owned(),
        Node::TopK {
            partition,
            keys,
            skip,
            fetch,
            rank,
            ..
        } => {
            let numbered = if *rank { ", numbered" } else { "" };
            let each = each(partition);
            format!("{}{each}{numbered}", top_line(keys, *skip, *fetch))
        }
        Node::Hop {
            column,
            slide_us,
            size_us,
            ..
        } => format!("windows of ${column}: {size_us} us long, every {slide_us} us"),
        Node::Session {
            partition,
            column,
            gap_us,
            ..
        } => {
            let each = each(partition);
            format!("sessions of ${column}{each}: {gap_us} us apart")
        }
    };
    lines.push(format!("{}{line}", "  ".repeat(depth)));
    for input in node.inputs() {
        tree(input, depth + 1, leaf, lines);
    }
}

/// The columns by which rows are apart, if there are any.
fn each(partition: &[usize]) -> String {
    if partition.is_empty() {
        return String::new();
    }
    format!(" of each {}", list(partition.iter().map(|key| format!("${key}"))))
}

fn scan_line(scan: &Scan) -> String {
    let locality = match scan.locality {
        Locality::Regional => "regional",
        Locality::Global => "global",
    };
    let columns = scan
        .columns
        .iter()
        .zip(&scan.types)
        .map(|(column, t)| format!("{column} {}", type_name(t)));
    format!("scan {} ({locality}) columns {}", scan.name, list(columns))
}

fn join_line(kind: JoinKind, on: &[(usize, usize)], filter: Option<&Expr>, null_safe: bool) -> String {
    let equal = if null_safe { "is" } else { "=" };
    let kind = match kind {
        JoinKind::Inner => "inner",
        JoinKind::Left => "left",
    };
    let on = on
        .iter()
        .map(|(left, right)| format!("left ${left} {equal} right ${right}"))
        .collect::<Vec<_>>()
        .join(" and ");
    match filter {
        Some(filter) => format!("{kind} join on {on} and {}", expr(filter)),
        None => format!("{kind} join on {on}"),
    }
}

fn keyed(keys: &[usize]) -> String {
    format!("by {}", list(keys.iter().map(|key| format!("${key}"))))
}

fn top_line(keys: &[SortKey], skip: usize, fetch: usize) -> String {
    let keys = keys.iter().map(|key| {
        let direction = if key.descending { " desc" } else { "" };
        // The default: nulls are the largest values.
        let nulls = match (key.nulls_first, key.descending) {
            (true, false) => " nulls first",
            (false, true) => " nulls last",
            _ => "",
        };
        format!("${}{direction}{nulls}", key.column)
    });
    let skip = if skip == 0 {
        String::new()
    } else {
        format!(" after {skip}")
    };
    format!("first {fetch}{skip} by {}", list(keys))
}

fn aggregate(call: &AggregateCall) -> String {
    let name = match call.function {
        AggregateFunction::Count => "count",
        AggregateFunction::Sum => "sum",
        AggregateFunction::Avg => "avg",
        AggregateFunction::Min => "min",
        AggregateFunction::Max => "max",
        AggregateFunction::BoolAnd => "bool_and",
        AggregateFunction::BoolOr => "bool_or",
    };
    let argument = call
        .argument
        .map_or_else(|| "*".to_owned(), |column| format!("${column}"));
    let filter = call
        .filter
        .map_or_else(String::new, |column| format!(" filter ${column}"));
    format!("{name}({argument}){filter}")
}

fn list(items: impl Iterator<Item = String>) -> String {
    items.collect::<Vec<_>>().join(", ")
}

/// An expression as text, fully parenthesized.
fn expr(value: &Expr) -> String {
    match value {
        Expr::Column(column) => format!("${column}"),
        Expr::Literal(literal) => constant(literal),
        Expr::Binary { op, left, right } => format!("({} {} {})", expr(left), op.symbol(), expr(right)),
        Expr::Not(input) => format!("not {}", expr(input)),
        Expr::Negate(input) => format!("-{}", expr(input)),
        Expr::IsNull(input) => format!("({} is null)", expr(input)),
        Expr::Case { branches, otherwise } => {
            let mut text = "case".to_owned();
            for (condition, result) in branches {
                write!(text, " when {} then {}", expr(condition), expr(result)).expect("a string takes all");
            }
            if let Some(otherwise) = otherwise {
                write!(text, " else {}", expr(otherwise)).expect("a string takes all");
            }
            text + " end"
        }
        Expr::Cast { input, to } => format!("{}::{}", expr(input), type_name(to)),
        Expr::Like {
            input,
            pattern,
            negated,
            case_insensitive,
        } => {
            let op = if *case_insensitive { "ilike" } else { "like" };
            format!("({}{} {op} {})", expr(input), not(*negated), expr(pattern))
        }
        Expr::InList {
            input,
            list: items,
            negated,
        } => {
            format!(
                "({}{} in ({}))",
                expr(input),
                not(*negated),
                list(items.iter().map(expr))
            )
        }
        Expr::Call {
            function, arguments, ..
        } => format!("{function}({})", list(arguments.iter().map(expr))),
    }
}

fn not(negated: bool) -> &'static str {
    if negated { " not" } else { "" }
}

fn constant(literal: &Literal) -> String {
    let Some(value) = &literal.value else {
        return "null".to_owned();
    };
    match (value, &literal.data_type) {
        (LiteralValue::Boolean(value), _) => value.to_string(),
        (LiteralValue::Integer(value), DataType::Decimal128(_, scale)) => decimal(*value, *scale),
        (LiteralValue::Integer(value), DataType::Int16 | DataType::Int32 | DataType::Int64) => {
            value.to_string()
        }
        (LiteralValue::Integer(value), other) => format!("{value}::{}", type_name(other)),
        (LiteralValue::Float(bits), _) => format!("{:?}", f64::from_bits(*bits)),
        (LiteralValue::Text(text), _) => format!("'{}'", text.replace('\'', "''")),
        (LiteralValue::Bytes(bytes), other) => {
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("'{hex}'::{}", type_name(other))
        }
        (
            LiteralValue::Interval {
                months,
                days,
                nanoseconds,
            },
            _,
        ) => {
            format!("interval '{months} months {days} days {nanoseconds} ns'")
        }
    }
}

fn decimal(value: i128, scale: i8) -> String {
    let Ok(scale) = usize::try_from(scale) else {
        return format!("{value}e{}", -scale);
    };
    if scale == 0 {
        return value.to_string();
    }
    let digits = format!("{:0>width$}", value.unsigned_abs(), width = scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    format!("{}{whole}.{fraction}", if value < 0 { "-" } else { "" })
}

fn type_name(data_type: &DataType) -> String {
    SqlType::from_arrow(data_type).map_or_else(|| data_type.to_string(), |sql_type| sql_type.name())
}
