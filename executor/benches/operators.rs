//! What a step costs: the partial aggregate, the merge, and the join of regional with global rows.

use std::hint::black_box;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema};
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use tributary_executor::{Inline, Inputs, Scope, View};
use tributary_planner::plan::{
    AggregateCall, AggregateFunction, Boundary, Column, GlobalLeaf, JoinKind, LocalFragment, Locality, Node,
    Scan, ViewPlan,
};
use tributary_replication::{Epoch, SlotSet};
use tributary_storage::{Delta, ObjectId, OriginId, RegionId};

const ORDERS: ObjectId = ObjectId(1);
const CUSTOMERS: ObjectId = ObjectId(2);
const ROWS: i64 = 10_000;
const GROUPS: i64 = 1_000;

fn scan(object: ObjectId, locality: Locality) -> Node<Scan> {
    let types = vec![DataType::Int64; 2];
    Node::Leaf(Scan {
        object,
        name: "t".to_string(),
        locality,
        columns: vec![0, 1],
        types,
        append_only: false,
    })
}

/// `count(*), sum(b), min(b)` by column 0 of `root`.
fn view(root: Node<Scan>) -> View {
    let call = |function, output_type| AggregateCall {
        function,
        argument: Some(1),
        filter: None,
        input_type: DataType::Int64,
        output_type,
    };
    let aggregates = vec![
        call(AggregateFunction::Count, DataType::Int64),
        call(AggregateFunction::Sum, DataType::Decimal128(38, 0)),
        call(AggregateFunction::Min, DataType::Int64),
    ];
    let types = [
        DataType::Int64,
        DataType::Int64,
        DataType::Decimal128(38, 0),
        DataType::Int64,
    ];
    let columns = types.into_iter().enumerate();
    let columns = columns
        .map(|(i, data_type)| Column {
            name: format!("r{i}"),
            data_type,
        })
        .collect();
    let boundary = Boundary::MergePartials {
        keys: vec![0],
        aggregates,
    };
    let fragments = vec![LocalFragment { root, boundary }];
    let plan = ViewPlan {
        fragments,
        global: Node::Leaf(GlobalLeaf::Merge(0)),
        columns,
    };
    View::new(
        ObjectId(9),
        Arc::new(plan),
        Scope::Cluster,
        Arc::new(Inline::new(1)),
    )
    .expect("the plan is supported")
}

fn rows(first: i64, count: i64) -> Delta {
    let fields = ["a", "b"].map(|name| Field::new(name, DataType::Int64, true));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter_values(
            (first..first + count).map(|i| i * 7919 % GROUPS),
        )),
        Arc::new(Int64Array::from_iter_values(first..first + count)),
    ];
    let schema = Arc::new(Schema::new(fields.to_vec()));
    Delta::inserts(RecordBatch::try_new(schema, columns).expect("two columns of one length"))
}

fn filled(root: Node<Scan>) -> View {
    let mut view = view(root);
    view.step_local(&Inputs::from([
        (CUSTOMERS, rows(0, GROUPS)),
        (ORDERS, rows(0, ROWS)),
    ]));
    view.seal(1);
    view
}

fn partial_aggregate(criterion: &mut Criterion) {
    let step = Inputs::from([(ORDERS, rows(ROWS, ROWS))]);
    criterion.bench_function("partial aggregate, 10 k rows into 1 k groups", |bencher| {
        let setup = || filled(scan(ORDERS, Locality::Regional));
        bencher.iter_batched(
            setup,
            |mut view| black_box(view.step_local(&step)),
            BatchSize::LargeInput,
        );
    });
}

fn join(criterion: &mut Criterion) {
    let root = || Node::Join {
        kind: JoinKind::Inner,
        left: Box::new(scan(ORDERS, Locality::Regional)),
        right: Box::new(scan(CUSTOMERS, Locality::Global)),
        on: vec![(0, 0)],
        filter: None,
        null_safe: false,
    };
    let step = Inputs::from([(ORDERS, rows(ROWS, ROWS))]);
    criterion.bench_function(
        "join and partial aggregate, 10 k rows with 1 k global rows",
        |bencher| {
            let setup = || filled(root());
            bencher.iter_batched(
                setup,
                |mut view| black_box(view.step_local(&step)),
                BatchSize::LargeInput,
            );
        },
    );
}

fn merge(criterion: &mut Criterion) {
    let origin = OriginId {
        region: RegionId(1),
        incarnation: 1,
    };
    let changes = |first| {
        let mut view = view(scan(ORDERS, Locality::Regional));
        let changes = view
            .step_local(&Inputs::from([(ORDERS, rows(first, ROWS))]))
            .remove(0);
        changes.expect("rows make slots")
    };
    let mut slots = SlotSet::new(View::slot_layout(
        view(scan(ORDERS, Locality::Regional)).plan(),
        0,
    ));
    let first = Some(slots.write_own(origin, Epoch(1), &changes(0)));
    let second = [Some(slots.write_own(origin, Epoch(2), &changes(ROWS)))];
    criterion.bench_function("merge, 1 k changed slots", |bencher| {
        let setup = || {
            let mut view = view(scan(ORDERS, Locality::Regional));
            view.step_global(&Inputs::new(), std::slice::from_ref(&first));
            view.seal(1);
            view
        };
        let run = |mut view: View| black_box(view.step_global(&Inputs::new(), &second));
        bencher.iter_batched(setup, run, BatchSize::LargeInput);
    });
}

criterion_group! {
    name = operators;
    config = Criterion::default().sample_size(10);
    targets = partial_aggregate, join, merge
}
criterion_main!(operators);
