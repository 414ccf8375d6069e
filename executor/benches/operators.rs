//! What a step of 10 k rows costs each operator that already holds 100 k rows: in a region that is alone, on one thread;
//! and the two halves of an aggregate in a cluster.
//!
//! Rows have a key of 10 k values, a number that goes up, a short text and a time. *Append-only* rows come and stay; of
//! *updating* ones a fifth of a step takes back rows that came before.

use std::hint::black_box;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use tributary_executor::{Inline, Inputs, Scope, View};
use tributary_planner::plan::{
    AggregateCall, AggregateFunction, BinaryOp, Boundary, Column, Expr, GlobalLeaf, JoinKind, Literal,
    LiteralValue, LocalFragment, Locality, Node, Scan, SortKey, ViewPlan,
};
use tributary_replication::{Epoch, SlotSet};
use tributary_storage::{Delta, ObjectId, OriginId, RegionId};

const EVENTS: ObjectId = ObjectId(1);
const OTHERS: ObjectId = ObjectId(2);
const STEP_ROWS: i64 = 10_000;
const HELD_ROWS: i64 = 100_000;
const KEYS: i64 = 10_000;

const KEY: usize = 0;
const NUMBER: usize = 1;
const TEXT: usize = 2;
const TIME: usize = 3;

fn types() -> Vec<DataType> {
    vec![
        DataType::Int64,
        DataType::Int64,
        DataType::Utf8,
        DataType::Timestamp(TimeUnit::Microsecond, None),
    ]
}

fn rows(numbers: std::ops::Range<i64>) -> RecordBatch {
    let numbers: Vec<i64> = numbers.collect();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter_values(
            numbers.iter().map(|n| n * 7919 % KEYS),
        )),
        Arc::new(Int64Array::from(numbers.clone())),
        Arc::new(StringArray::from_iter_values(
            numbers.iter().map(|n| format!("channel {}", n % 100)),
        )),
        Arc::new(TimestampMicrosecondArray::from_iter_values(
            numbers.iter().map(|n| n * 1_000),
        )),
    ];
    let fields = types().into_iter().enumerate();
    let fields: Vec<Field> = fields
        .map(|(i, t)| Field::new(format!("c{i}"), t, true))
        .collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).expect("four columns of one length")
}

/// A step's change.
fn change(append_only: bool) -> Delta {
    if append_only {
        return Delta::inserts(rows(HELD_ROWS..HELD_ROWS + STEP_ROWS));
    }
    let gone = STEP_ROWS / 5;
    let come = rows(HELD_ROWS..HELD_ROWS + STEP_ROWS - gone);
    let old = rows(HELD_ROWS / 2..HELD_ROWS / 2 + gone);
    let both = arrow::compute::concat_batches(&come.schema(), [&come, &old]).expect("rows of one kind");
    let weights = (0..STEP_ROWS).map(|row| if row < STEP_ROWS - gone { 1 } else { -1 });
    Delta::new(both, Some(weights.collect::<Vec<i64>>().into()))
}

fn scan(object: ObjectId, append_only: bool) -> Node<Scan> {
    Node::Leaf(Scan {
        object,
        name: "t".to_string(),
        locality: Locality::Regional,
        columns: (0..types().len()).collect(),
        types: types(),
        append_only,
    })
}

fn call(function: AggregateFunction, argument: usize, output_type: DataType) -> AggregateCall {
    AggregateCall {
        function,
        argument: Some(argument),
        filter: None,
        input_type: types()[argument].clone(),
        output_type,
    }
}

fn plan(root: Node<Scan>, boundary: Boundary) -> Arc<ViewPlan> {
    let fragments = vec![LocalFragment { root, boundary }];
    let column = |(number, data_type)| Column {
        name: format!("r{number}"),
        data_type,
    };
    Arc::new(ViewPlan {
        columns: fragments[0]
            .merged_types()
            .into_iter()
            .enumerate()
            .map(column)
            .collect(),
        fragments,
        global: Node::Leaf(GlobalLeaf::Merge(0)),
    })
}

fn view(plan: &Arc<ViewPlan>, scope: Scope, partitions: usize) -> View {
    let workers = Arc::new(Inline::new(partitions));
    View::new(ObjectId(9), plan.clone(), scope, workers).expect("the plan is supported")
}

/// Measures a step of a view in a region that is alone.
fn measure(
    criterion: &mut Criterion,
    name: &str,
    plan: &Arc<ViewPlan>,
    append_only: bool,
    partitions: usize,
) {
    let mut group = criterion.benchmark_group(name);
    group.throughput(Throughput::Elements(STEP_ROWS as u64));
    let kind = if append_only { "append-only" } else { "updating" };
    let step = Inputs::from([(EVENTS, change(append_only))]);
    let setup = || {
        let mut view = view(plan, Scope::Alone, partitions);
        view.initialize();
        for start in (0..HELD_ROWS).step_by(STEP_ROWS as usize) {
            let rows = Delta::inserts(rows(start..start + STEP_ROWS));
            view.step_alone(&Inputs::from([(EVENTS, rows)]));
        }
        view.step_alone(&Inputs::from([(OTHERS, Delta::inserts(rows(0..KEYS)))]));
        view
    };
    group.bench_function(kind, |bencher| {
        // The view is given back, so that dropping it is not measured.
        let run = |mut view: View| {
            black_box(view.step_alone(&step));
            view
        };
        bencher.iter_batched(setup, run, BatchSize::PerIteration);
    });
    group.finish();
}

fn by_rows(criterion: &mut Criterion, name: &str, root: impl Fn(bool) -> Node<Scan>) {
    for append_only in [true, false] {
        measure(
            criterion,
            name,
            &plan(root(append_only), Boundary::MergeRows),
            append_only,
            1,
        );
    }
}

fn stateless(criterion: &mut Criterion) {
    by_rows(criterion, "scan and result", |append_only| {
        scan(EVENTS, append_only)
    });
    by_rows(criterion, "filter", |append_only| Node::Filter {
        input: Box::new(scan(EVENTS, append_only)),
        predicate: Expr::Binary {
            op: BinaryOp::Less,
            left: Box::new(Expr::Column(KEY)),
            right: Box::new(Expr::Literal(Literal {
                data_type: DataType::Int64,
                value: Some(LiteralValue::Integer(i128::from(KEYS / 10))),
            })),
        },
    });
    by_rows(criterion, "project", |append_only| Node::Project {
        input: Box::new(scan(EVENTS, append_only)),
        expressions: vec![Expr::Column(NUMBER), Expr::Column(KEY)],
        types: vec![DataType::Int64, DataType::Int64],
    });
    by_rows(criterion, "hop, five windows", |append_only| {
        hop(scan(EVENTS, append_only))
    });
}

fn hop(input: Node<Scan>) -> Node<Scan> {
    Node::Hop {
        input: Box::new(input),
        column: TIME,
        slide_us: 2_000_000,
        size_us: 10_000_000,
    }
}

fn keyed(criterion: &mut Criterion) {
    by_rows(criterion, "distinct", |append_only| Node::Distinct {
        input: Box::new(scan(EVENTS, append_only)),
    });
    by_rows(criterion, "join with 10 k rows", |append_only| Node::Join {
        kind: JoinKind::Inner,
        left: Box::new(scan(EVENTS, append_only)),
        right: Box::new(scan(OTHERS, append_only)),
        on: vec![(KEY, NUMBER)],
        filter: None,
        null_safe: false,
    });
    by_rows(criterion, "left join with 10 k rows", |append_only| Node::Join {
        kind: JoinKind::Left,
        left: Box::new(scan(EVENTS, append_only)),
        right: Box::new(scan(OTHERS, append_only)),
        on: vec![(KEY, NUMBER)],
        filter: None,
        null_safe: false,
    });
    for (name, rank) in [
        ("first of each key", false),
        ("first ten of each key, ranked", true),
    ] {
        by_rows(criterion, name, |append_only| Node::TopK {
            input: Box::new(scan(EVENTS, append_only)),
            partition: vec![KEY],
            keys: vec![SortKey {
                column: NUMBER,
                descending: true,
                nulls_first: true,
            }],
            skip: 0,
            fetch: if rank { 10 } else { 1 },
            rank,
        });
    }
}

fn aggregates(criterion: &mut Criterion) {
    use AggregateFunction::{Count, Max, Sum};
    let int = DataType::Int64;
    let cases = [
        ("count", vec![KEY], vec![call(Count, NUMBER, int.clone())]),
        (
            "sum",
            vec![KEY],
            vec![call(Sum, NUMBER, DataType::Decimal128(38, 0))],
        ),
        ("max", vec![KEY], vec![call(Max, NUMBER, int.clone())]),
        (
            "count by text and key",
            vec![TEXT, KEY],
            vec![call(Count, NUMBER, int.clone())],
        ),
    ];
    for (name, keys, aggregates) in cases {
        for append_only in [true, false] {
            let boundary = Boundary::MergePartials {
                keys: keys.clone(),
                aggregates: aggregates.clone(),
            };
            measure(
                criterion,
                name,
                &plan(scan(EVENTS, append_only), boundary),
                append_only,
                1,
            );
        }
    }
    // Counted by pane of the slide first.
    let boundary = Boundary::MergePartials {
        keys: vec![KEY, TIME + 1, TIME + 2],
        aggregates: vec![call(Count, NUMBER, int.clone())],
    };
    measure(
        criterion,
        "count by key and sliding window",
        &plan(hop(scan(EVENTS, true)), boundary),
        true,
        1,
    );
    // Rows of three partitions on one thread: what dividing them costs.
    let boundary = Boundary::MergePartials {
        keys: vec![KEY],
        aggregates: vec![call(Max, NUMBER, int)],
    };
    measure(
        criterion,
        "max, three partitions",
        &plan(scan(EVENTS, false), boundary),
        false,
        3,
    );
}

/// An aggregate in a cluster: what a region makes of its rows, and what it makes of another's slots.
fn cluster(criterion: &mut Criterion) {
    let aggregates = vec![call(AggregateFunction::Count, NUMBER, DataType::Int64)];
    let boundary = Boundary::MergePartials {
        keys: vec![KEY],
        aggregates,
    };
    let plan = plan(scan(EVENTS, false), boundary);
    let step = Inputs::from([(EVENTS, change(false))]);
    criterion.bench_function("cluster: partial aggregate", |bencher| {
        let setup = || {
            let mut view = view(&plan, Scope::Cluster, 1);
            view.step_local(&Inputs::from([(EVENTS, Delta::inserts(rows(0..HELD_ROWS)))]));
            view.seal(1);
            view
        };
        let run = |mut view: View| {
            black_box(view.step_local(&step));
            view
        };
        bencher.iter_batched(setup, run, BatchSize::PerIteration);
    });
    let origin = OriginId::first(RegionId(1));
    let mut local = view(&plan, Scope::Cluster, 1);
    let mut slots = SlotSet::new(View::slot_layout(&plan, 0));
    let mut written = |epoch, delta: Delta| {
        let changes = local.step_local(&Inputs::from([(EVENTS, delta)])).remove(0);
        let deltas = slots.write_own(origin, Epoch(epoch), &changes.expect("rows make slots"));
        local.seal(epoch);
        deltas
    };
    let first = [Some(written(1, Delta::inserts(rows(0..HELD_ROWS))))];
    let second = [Some(written(2, change(false)))];
    criterion.bench_function("cluster: merge of changed slots", |bencher| {
        let setup = || {
            let mut view = view(&plan, Scope::Cluster, 1);
            view.step_global(&Inputs::new(), &first);
            view.seal(1);
            view
        };
        let run = |mut view: View| {
            black_box(view.step_global(&Inputs::new(), &second));
            view
        };
        bencher.iter_batched(setup, run, BatchSize::PerIteration);
    });
}

criterion_group! {
    name = operators;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(std::time::Duration::from_millis(300))
        .measurement_time(std::time::Duration::from_secs(1));
    targets = stateless, keyed, aggregates, cluster
}
criterion_main!(operators);
