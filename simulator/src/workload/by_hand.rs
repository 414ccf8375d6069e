//! Views whose plans are built here, without the planner: they keep the executor and the regions under test when
//! the planner is not, and hold shapes that the planner would choose otherwise.

use std::sync::Arc;

use arrow::datatypes::DataType;
use tributary_planner::catalog::{Catalog, MaterializedViewDef, Object, ObjectKind, TableDef, ViewColumn};
use tributary_planner::plan::{
    AggregateCall, AggregateFunction, BinaryOp, Boundary, Column, Expr, GlobalLeaf, JoinKind, Literal,
    LocalFragment, Locality, Node, Scan, SortKey, ViewPlan,
};
use tributary_planner::types::SqlType;
use tributary_storage::ObjectId;

use crate::rng::Rng;

/// A random view over REGIONAL and GLOBAL tables; `None` when there is none to read. Tables whose residency is enforced
/// are read only if `forbidden`: most of these plans send rows.
pub(super) fn draw(rng: &mut Rng, catalog: &Catalog, name: String, forbidden: bool) -> Option<Object> {
    let tables: Vec<_> = catalog
        .objects
        .values()
        .filter(|object| forbidden || !catalog.is_resident(object.id))
        .filter_map(|object| Some((object, object.as_table()?)))
        .collect();
    let of = |global: bool| -> Vec<Scan> {
        let fitting = tables.iter().filter(|(_, def)| def.is_global() == global);
        fitting
            .map(|(object, def)| scan(object.id, &object.name, def))
            .collect()
    };
    let (regional, global) = (of(false), of(true));
    let plan = match (regional.is_empty(), global.is_empty()) {
        (true, true) => return None,
        (true, false) => top_k(Source::Global(rng.pick(&global).clone())),
        (false, _) => {
            let own = rng.pick(&regional).clone();
            match rng.below(5) {
                0 if !global.is_empty() => {
                    let other = rng.pick(&global).clone();
                    joined_groups(rng, own, other)
                }
                1 if !global.is_empty() => left_joined_rows(own, rng.pick(&global).clone()),
                2 => filtered_rows(own),
                3 => top_k(Source::Regional(own)),
                _ => distinct(own),
            }
        }
    };
    Some(object(catalog, name, plan))
}

enum Source {
    Regional(Scan),
    Global(Scan),
}

/// The columns that plans by hand use, in this order.
const COLUMNS: [&str; 5] = ["k", "g", "r", "a", "e"];
const K: usize = 0;
const G: usize = 1;
const R: usize = 2;
const A: usize = 3;
const E: usize = 4;

fn scan(object: ObjectId, name: &str, def: &TableDef) -> Scan {
    let columns: Vec<usize> = COLUMNS
        .iter()
        .map(|name| def.column(name).expect("every table has these columns"))
        .collect();
    let types = columns
        .iter()
        .map(|&column| def.columns[column].sql_type.arrow())
        .collect();
    let locality = if def.is_global() {
        Locality::Global
    } else {
        Locality::Regional
    };
    Scan {
        object,
        name: name.to_owned(),
        locality,
        columns,
        types,
        append_only: false,
    }
}

fn object(catalog: &Catalog, name: String, plan: ViewPlan) -> Object {
    let columns = plan.columns.iter();
    let columns = columns
        .map(|column| ViewColumn {
            name: column.name.clone(),
            sql_type: SqlType::from_arrow(&column.data_type).expect("types of tables and aggregates"),
        })
        .collect();
    let fingerprint = plan.fingerprint();
    let def = MaterializedViewDef {
        sql: String::new(),
        columns,
        plan: Arc::new(plan),
        fingerprint,
        time_zone: "UTC".to_owned(),
    };
    Object {
        id: ObjectId(catalog.next_object),
        name,
        kind: ObjectKind::MaterializedView(def),
    }
}

fn columns(types: Vec<DataType>) -> Vec<Column> {
    let named = types.into_iter().enumerate();
    named
        .map(|(number, data_type)| Column {
            name: format!("c{number}"),
            data_type,
        })
        .collect()
}

fn one_fragment(root: Node<Scan>, boundary: Boundary) -> ViewPlan {
    let fragment = LocalFragment { root, boundary };
    let columns = columns(fragment.merged_types());
    ViewPlan {
        fragments: vec![fragment],
        global: Node::Leaf(GlobalLeaf::Merge(0)),
        columns,
    }
}

fn call(
    function: AggregateFunction,
    argument: Option<(usize, DataType)>,
    output_type: DataType,
) -> AggregateCall {
    let (argument, input_type) = argument.map_or((None, DataType::Null), |(column, of)| (Some(column), of));
    AggregateCall {
        function,
        argument,
        filter: None,
        input_type,
        output_type,
    }
}

/// Own rows joined with GLOBAL ones, then grouped: the partials are shipped.
fn joined_groups(rng: &mut Rng, own: Scan, global: Scan) -> ViewPlan {
    let width = own.columns.len();
    let root = Node::Join {
        kind: JoinKind::Inner,
        left: Box::new(Node::Leaf(own)),
        right: Box::new(Node::Leaf(global)),
        on: vec![(R, K)],
        filter: None,
        null_safe: false,
    };
    let keys = if rng.percent(80) {
        vec![width + G]
    } else {
        Vec::new()
    };
    let aggregates = vec![
        call(AggregateFunction::Count, None, DataType::Int64),
        call(
            AggregateFunction::Sum,
            Some((A, DataType::Int32)),
            DataType::Int64,
        ),
        call(
            AggregateFunction::Min,
            Some((A, DataType::Int32)),
            DataType::Int32,
        ),
        call(
            AggregateFunction::Max,
            Some((width + A, DataType::Int32)),
            DataType::Int32,
        ),
        call(
            AggregateFunction::Avg,
            Some((E, DataType::Float64)),
            DataType::Float64,
        ),
    ];
    one_fragment(root, Boundary::MergePartials { keys, aggregates })
}

/// Own rows with what GLOBAL rows fit, all shipped as rows.
fn left_joined_rows(own: Scan, global: Scan) -> ViewPlan {
    let root = Node::Join {
        kind: JoinKind::Left,
        left: Box::new(Node::Leaf(own)),
        right: Box::new(Node::Leaf(global)),
        on: vec![(G, G), (R, K)],
        filter: None,
        null_safe: false,
    };
    one_fragment(root, Boundary::MergeRows)
}

/// Some own rows, shipped as rows; equal ones count.
fn filtered_rows(own: Scan) -> ViewPlan {
    let type_of = |column: usize| own.types[column].clone();
    let types = vec![type_of(G), type_of(R)];
    let ten = Expr::Literal(Literal {
        data_type: DataType::Int32,
        ..Literal::int64(10)
    });
    let predicate = Expr::Binary {
        op: BinaryOp::GreaterOrEqual,
        left: Box::new(Expr::Column(A)),
        right: Box::new(ten),
    };
    let filtered = Node::Filter {
        input: Box::new(Node::Leaf(own)),
        predicate,
    };
    let expressions = vec![Expr::Column(G), Expr::Column(R)];
    one_fragment(
        Node::Project {
            input: Box::new(filtered),
            expressions,
            types,
        },
        Boundary::MergeRows,
    )
}

/// Distinct values: groups without aggregates.
fn distinct(own: Scan) -> ViewPlan {
    one_fragment(
        Node::Leaf(own),
        Boundary::MergePartials {
            keys: vec![G, R],
            aggregates: Vec::new(),
        },
    )
}

/// The first rows of all: first the first of each region.
fn top_k(source: Source) -> ViewPlan {
    let keys = vec![SortKey {
        column: A,
        descending: true,
        nulls_first: false,
    }];
    let fetch = 4;
    match source {
        Source::Global(scan) => {
            let columns = columns(scan.types.clone());
            let input = Box::new(Node::Leaf(GlobalLeaf::Scan(scan)));
            ViewPlan {
                fragments: Vec::new(),
                global: Node::TopK {
                    input,
                    partition: Vec::new(),
                    keys,
                    skip: 1,
                    fetch,
                    rank: false,
                },
                columns,
            }
        }
        Source::Regional(scan) => {
            let columns = columns(scan.types.clone());
            let input = Box::new(Node::Leaf(scan));
            let root = Node::TopK {
                input,
                partition: Vec::new(),
                keys: keys.clone(),
                skip: 0,
                fetch,
                rank: false,
            };
            let input = Box::new(Node::Leaf(GlobalLeaf::Merge(0)));
            ViewPlan {
                fragments: vec![LocalFragment {
                    root,
                    boundary: Boundary::MergeRows,
                }],
                global: Node::TopK {
                    input,
                    partition: Vec::new(),
                    keys,
                    skip: 0,
                    fetch,
                    rank: false,
                },
                columns,
            }
        }
    }
}
