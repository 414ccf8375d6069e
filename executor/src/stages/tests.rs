//! How views are divided into stages, and that nothing depends on how rows are divided among partitions.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int64Array, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, TimeUnit};
use tributary_planner::plan::{
    AggregateCall, AggregateFunction, Boundary, Column, Expr, GlobalLeaf, JoinKind, LocalFragment, Locality,
    Node, Scan, ViewPlan,
};
use tributary_storage::{Delta, ObjectId};

use super::plan::{Source, stages};
use crate::columns::{batch_of, downcast, schema_of};
use crate::placement::Placement;
use crate::{Inline, Inputs, Scope, View};

const TABLE: ObjectId = ObjectId(1);
const INT: DataType = DataType::Int64;
const TIME: DataType = DataType::Timestamp(TimeUnit::Microsecond, None);

fn scan(object: ObjectId, types: &[DataType], append_only: bool) -> Node<Scan> {
    Node::Leaf(Scan {
        object,
        name: "t".to_string(),
        locality: Locality::Regional,
        columns: (0..types.len()).collect(),
        types: types.to_vec(),
        append_only,
    })
}

fn call(function: AggregateFunction, argument: Option<usize>) -> AggregateCall {
    AggregateCall {
        function,
        argument,
        filter: None,
        input_type: argument.map_or(DataType::Null, |_| INT),
        output_type: INT,
    }
}

fn grouped(root: Node<Scan>, keys: &[usize], aggregates: Vec<AggregateCall>) -> LocalFragment {
    LocalFragment {
        root,
        boundary: Boundary::MergePartials {
            keys: keys.to_vec(),
            aggregates,
        },
    }
}

fn plan(fragments: Vec<LocalFragment>, global: Node<GlobalLeaf>) -> Arc<ViewPlan> {
    let types = global.types(&|leaf: &GlobalLeaf| match leaf {
        GlobalLeaf::Scan(scan) => scan.types.clone(),
        GlobalLeaf::Merge(number) => fragments[*number].merged_types(),
    });
    let column = |(number, data_type)| Column {
        name: format!("c{number}"),
        data_type,
    };
    Arc::new(ViewPlan {
        columns: types.into_iter().enumerate().map(column).collect(),
        fragments,
        global,
    })
}

fn view(plan: &Arc<ViewPlan>, partitions: usize) -> View {
    let workers = Arc::new(Inline::new(partitions));
    let mut view = View::new(ObjectId(9), plan.clone(), Scope::Alone, workers).expect("supported");
    view.initialize();
    view
}

fn step(view: &mut View, columns: Vec<ArrayRef>, weights: &[i64]) -> Vec<Delta> {
    let types: Vec<DataType> = columns.iter().map(|column| column.data_type().clone()).collect();
    let rows = batch_of(schema_of(&types), columns, weights.len());
    let all_come = weights.iter().all(|weight| *weight == 1);
    let delta = Delta::new(rows, (!all_come).then(|| weights.to_vec().into()));
    view.step_alone(&Inputs::from([(TABLE, delta)]))
}

fn ints(values: &[Option<i64>]) -> ArrayRef {
    Arc::new(Int64Array::from(values.to_vec()))
}

/// The rows of a result whose columns are numbers or times.
fn rows(view: &View) -> BTreeMap<Vec<Option<i64>>, i64> {
    let mut all = BTreeMap::new();
    for delta in view.result().scan(100) {
        let columns: Vec<ArrayRef> = delta
            .rows()
            .columns()
            .iter()
            .map(|column| arrow::compute::cast(column, &INT).expect("a number or a time"))
            .collect();
        for row in 0..delta.len() {
            let value = |column: &ArrayRef| {
                let column = downcast::<Int64Array>(column);
                column.is_valid(row).then(|| column.value(row))
            };
            *all.entry(columns.iter().map(value).collect()).or_insert(0) += delta.weight(row);
        }
    }
    all
}

#[test]
fn sliding_windows_are_counted_by_pane() {
    const SLIDE: i64 = 2;
    const SIZE: i64 = 6;
    let hop = Node::Hop {
        input: Box::new(scan(TABLE, &[INT, TIME], false)),
        column: 1,
        slide_us: SLIDE,
        size_us: SIZE,
    };
    // The order of the keys is not that of the columns.
    let counted = grouped(hop, &[3, 0, 2], vec![call(AggregateFunction::Count, None)]);
    let plan = plan(vec![counted], Node::Leaf(GlobalLeaf::Merge(0)));
    let with_ends = stages(&plan, 1)
        .iter()
        .filter(|stage| stage.end.is_some())
        .count();
    assert_eq!(
        with_ends, 1,
        "panes are counted whatever the number of partitions"
    );
    for partitions in [1, 3] {
        let mut view = view(&plan, partitions);
        let mut expected: BTreeMap<Vec<Option<i64>>, i64> = BTreeMap::new();
        let batches: [&[(i64, Option<i64>, i64)]; 3] = [
            &[
                (1, Some(5), 1),
                (1, Some(6), 2),
                (2, None, 1),
                (1, Some(-1), 1),
                (3, Some(0), 1),
            ],
            &[(1, Some(i64::MAX), 1), (2, Some(5), 1), (1, Some(5), 1)],
            &[(1, Some(6), -2), (2, None, -1), (3, Some(0), -1)],
        ];
        for batch in batches {
            for (key, time, weight) in batch.iter().filter(|(_, time, _)| time.is_some_and(|t| t < 1000)) {
                let time = time.expect("filtered");
                for start in (-20..20)
                    .map(|n| n * SLIDE)
                    .filter(|start| (*start..start + SIZE).contains(&time))
                {
                    let group = vec![Some(start + SIZE), Some(*key), Some(start)];
                    *expected.entry(group).or_insert(0) += weight;
                }
            }
            let keys = ints(&batch.iter().map(|(key, ..)| Some(*key)).collect::<Vec<_>>());
            let times: TimestampMicrosecondArray = batch.iter().map(|(_, time, _)| *time).collect();
            let weights: Vec<i64> = batch.iter().map(|(.., weight)| *weight).collect();
            step(&mut view, vec![keys, Arc::new(times)], &weights);
        }
        let counted = expected.into_iter().filter(|(_, count)| *count != 0);
        let counted = counted.map(|(mut group, count)| {
            group.push(Some(count));
            (group, 1)
        });
        assert_eq!(rows(&view), counted.collect(), "{partitions} partitions");
        let errors = view.errors();
        assert_eq!(errors.len(), 1, "{errors:?}");
        assert!(errors[0].operator.contains("hop") && errors[0].message == "timestamp out of range");
    }
}

/// count(*) and max of another column by the same key, joined on it.
fn two_aggregates() -> Arc<ViewPlan> {
    let input = scan(TABLE, &[INT, INT], true);
    let merge = |number| Box::new(Node::Leaf(GlobalLeaf::Merge(number)));
    plan(
        vec![
            grouped(input.clone(), &[0], vec![call(AggregateFunction::Count, None)]),
            grouped(input, &[0], vec![call(AggregateFunction::Max, Some(1))]),
        ],
        Node::Join {
            kind: JoinKind::Inner,
            left: merge(0),
            right: merge(1),
            on: vec![(0, 0)],
            filter: None,
            null_safe: true,
        },
    )
}

#[test]
fn joins_of_aggregates_give_old_and_new_pairs_only() {
    for partitions in [1, 2] {
        let mut view = view(&two_aggregates(), partitions);
        step(
            &mut view,
            vec![ints(&[Some(1), None, Some(2)]), ints(&[Some(10), Some(20), None])],
            &[1; 3],
        );
        let deltas = step(
            &mut view,
            vec![ints(&[Some(1), None, None]), ints(&[Some(11), Some(5), Some(7)])],
            &[1; 3],
        );
        let mut weights: Vec<i64> = deltas
            .iter()
            .flat_map(|delta| (0..delta.len()).map(|row| delta.weight(row)))
            .collect();
        weights.sort_unstable();
        assert_eq!(
            weights,
            [-1, -1, 1, 1],
            "a pair less and a pair more for each key"
        );
        let expected = [
            (vec![None, Some(3), None, Some(20)], 1),
            (vec![Some(1), Some(2), Some(1), Some(11)], 1),
            (vec![Some(2), Some(1), Some(2), None], 1),
        ];
        assert_eq!(rows(&view), BTreeMap::from(expected));
    }
}

#[test]
fn a_root_that_two_aggregates_read_is_computed_once() {
    let stages = stages(&two_aggregates(), 1);
    let scans = stages.iter().flat_map(|stage| &stage.inputs);
    let scans = scans
        .filter(|input| matches!(input.source, Source::Scan(_)))
        .count();
    assert_eq!(scans, 1);
}

#[test]
fn operators_agree_on_columns_where_they_can() {
    // Bids with their auction, grouped by auction and category: one division serves both. By category alone: another.
    let side = |object, width| Box::new(scan(ObjectId(object), &vec![INT; width], true));
    let join = Node::Join {
        kind: JoinKind::Inner,
        left: side(1, 2),
        right: side(2, 2),
        on: vec![(0, 0)],
        filter: None,
        null_safe: false,
    };
    let by_both = grouped(join, &[0, 1], vec![call(AggregateFunction::Max, Some(3))]);
    let by_category = Node::Aggregate {
        input: Box::new(Node::Project {
            input: Box::new(Node::Leaf(GlobalLeaf::Merge(0))),
            expressions: vec![Expr::Column(1), Expr::Column(2)],
            types: vec![INT, INT],
        }),
        keys: vec![0],
        aggregates: vec![call(AggregateFunction::Count, Some(1))],
    };
    let plan = plan(vec![by_both], by_category);
    for partitions in [1, 4] {
        let stages = stages(&plan, partitions);
        assert_eq!(stages.len(), 2);
        let divided: Vec<&Placement> = stages[0].inputs.iter().map(|input| &input.placement).collect();
        assert_eq!(divided, [&Placement::Keys(vec![0]), &Placement::Keys(vec![0])]);
        assert_eq!(
            stages[0].end.is_some(),
            partitions > 1,
            "groups are exchanged, not rows"
        );
        assert_eq!(stages[1].placement, Placement::Keys(vec![0]));
    }
}

/// A column that is picked twice is two columns for whoever reads it, and divided by one.
#[test]
fn columns_that_are_picked_twice_can_be_keys() {
    let twice = |input: Node<Scan>| Node::Project {
        input: Box::new(input),
        expressions: vec![Expr::Column(0), Expr::Column(0)],
        types: vec![INT, INT],
    };
    let merged = |root: Node<Scan>| {
        let boundary = Boundary::MergeRows;
        plan(
            vec![LocalFragment { root, boundary }],
            Node::Leaf(GlobalLeaf::Merge(0)),
        )
    };
    let table = |append_only| scan(TABLE, &[INT, INT], append_only);
    let union = Node::Distinct {
        input: Box::new(Node::Union {
            inputs: vec![twice(table(false)), table(false)],
        }),
    };
    let joined = Node::Join {
        kind: JoinKind::Inner,
        left: Box::new(table(false)),
        right: Box::new(twice(table(false))),
        on: vec![(0, 1)],
        filter: None,
        null_safe: false,
    };
    let first = Node::TopK {
        input: Box::new(twice(table(false))),
        partition: vec![1],
        keys: vec![],
        skip: 0,
        fetch: 1,
        rank: false,
    };
    let expected = [
        (
            merged(union),
            vec![vec![1, 1], vec![1, 5], vec![2, 2], vec![2, 6]],
        ),
        (merged(joined), vec![vec![1, 5, 1, 1], vec![2, 6, 2, 2]]),
        (merged(first), vec![vec![1, 1], vec![2, 2]]),
    ];
    for (plan, expected) in expected {
        for partitions in [1, 3] {
            let mut view = view(&plan, partitions);
            step(
                &mut view,
                vec![ints(&[Some(1), Some(2)]), ints(&[Some(5), Some(6)])],
                &[1, 1],
            );
            let all: Vec<Vec<i64>> = rows(&view)
                .into_keys()
                .map(|row| row.into_iter().flatten().collect())
                .collect();
            assert_eq!(all, expected, "{partitions} partitions");
        }
    }
}
