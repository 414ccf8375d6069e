//! Whole views, from deltas to results, in one and in two regions.

use arrow::array::{Array, ArrayRef, Float64Array, Int32Array, Int64Array};
use tributary_planner::plan::{
    AggregateCall, AggregateFunction, BinaryOp, Boundary, Column, Expr, GlobalLeaf, Literal, LocalFragment,
    Locality, Node, SortKey,
};
use tributary_replication::{Epoch, SlotSet};
use tributary_storage::{Layout, OriginId, RegionId, RowStore, RunTrace, StorageError};

use super::*;
use crate::columns::{downcast, schema_of};
use crate::workers::Inline;

const TABLE: ObjectId = ObjectId(1);
const US: OriginId = OriginId {
    region: RegionId(1),
    incarnation: 1,
};

/// One region with one view over a regional table.
struct One {
    view: View,
    slots: Vec<SlotSet>,
    types: Vec<DataType>,
    epoch: u64,
}

impl One {
    /// A view whose one fragment is `root` with `boundary`, and whose result are the merged rows.
    fn new(types: &[DataType], root: Node<Scan>, boundary: Boundary) -> Self {
        Self::with_global(types, root, boundary, Node::Leaf(GlobalLeaf::Merge(0)))
    }

    fn with_global(
        types: &[DataType],
        root: Node<Scan>,
        boundary: Boundary,
        global: Node<GlobalLeaf>,
    ) -> Self {
        let fragment = LocalFragment { root, boundary };
        let merged = fragment.merged_types();
        let columns = global.types(&|_| merged.clone()).into_iter().enumerate();
        let columns = columns
            .map(|(i, data_type)| Column {
                name: format!("r{i}"),
                data_type,
            })
            .collect();
        let plan = Arc::new(ViewPlan {
            fragments: vec![fragment],
            global,
            columns,
        });
        let view = View::new(
            ObjectId(7),
            plan.clone(),
            Scope::Cluster,
            Arc::new(Inline::new(1)),
        )
        .expect("supported");
        let slots = vec![SlotSet::new(View::slot_layout(&plan, 0))];
        Self {
            view,
            slots,
            types: types.to_vec(),
            epoch: 0,
        }
    }

    fn step(&mut self, columns: Vec<ArrayRef>, weights: &[i64]) -> (Option<SlotChanges>, Vec<(String, i64)>) {
        self.epoch += 1;
        let rows = batch_of(schema_of(&self.types), columns, weights.len());
        let delta = Delta::new(rows, Some(weights.to_vec().into()));
        let inputs = Inputs::from([(TABLE, delta)]);
        let changes = self.view.step_local(&inputs).remove(0);
        let slots = changes
            .as_ref()
            .map(|c| self.slots[0].write_own(US, Epoch(self.epoch), c));
        let delta = self.view.step_global(&inputs, &[slots]);
        (changes, texts(&delta.consolidated()))
    }
}

fn texts(delta: &Delta) -> Vec<(String, i64)> {
    let text = |row: usize| {
        let values = delta
            .rows()
            .columns()
            .iter()
            .map(|column| match column.is_null(row) {
                true => "null".to_string(),
                false => arrow::util::display::array_value_to_string(column, row).expect("printable"),
            });
        values.collect::<Vec<_>>().join(" ")
    };
    (0..delta.len())
        .map(|row| (text(row), delta.weight(row)))
        .collect()
}

fn change(text: &str, weight: i64) -> (String, i64) {
    (text.to_string(), weight)
}

fn scan(types: &[DataType]) -> Node<Scan> {
    Node::Leaf(Scan {
        object: TABLE,
        name: "t".to_string(),
        locality: Locality::Regional,
        columns: (0..types.len()).collect(),
        types: types.to_vec(),
        append_only: false,
    })
}

fn call(function: AggregateFunction, argument: usize, input: DataType, output: DataType) -> AggregateCall {
    AggregateCall {
        function,
        argument: Some(argument),
        filter: None,
        input_type: input,
        output_type: output,
    }
}

fn ints(values: &[i64]) -> ArrayRef {
    Arc::new(Int64Array::from(values.to_vec()))
}

const INT: DataType = DataType::Int64;

#[test]
fn an_aggregate_without_keys_always_has_its_row() {
    let calls = vec![
        call(AggregateFunction::Count, 0, INT, INT),
        call(AggregateFunction::Max, 0, INT, INT),
    ];
    let boundary = Boundary::MergePartials {
        keys: vec![],
        aggregates: calls,
    };
    let mut one = One::new(&[INT], scan(&[INT]), boundary);
    assert_eq!(texts(&one.view.initialize()), vec![change("0 null", 1)]);
    let (_, result) = one.step(vec![ints(&[4, 9])], &[1, 1]);
    assert_eq!(result, vec![change("0 null", -1), change("2 9", 1)]);
    let (changes, result) = one.step(vec![ints(&[4, 9])], &[-1, -1]);
    assert!(changes.expect("the slot goes").deleted.value(0));
    assert_eq!(result, vec![change("0 null", 1), change("2 9", -1)]);
}

#[test]
fn a_group_is_absent_while_its_result_is_out_of_range() {
    let types = [DataType::Int64, DataType::Int32];
    let calls = vec![call(AggregateFunction::Sum, 1, DataType::Int32, INT)];
    let boundary = Boundary::MergePartials {
        keys: vec![0],
        aggregates: calls,
    };
    let mut one = One::new(&types, scan(&types), boundary);
    let half: ArrayRef = Arc::new(Int32Array::from(vec![i32::MAX]));
    let weight = 1 << 32;
    let (_, result) = one.step(vec![ints(&[5]), half.clone()], &[weight]);
    assert_eq!(
        result,
        vec![change(&format!("5 {}", i64::from(i32::MAX) * weight), 1)]
    );
    let (_, result) = one.step(vec![ints(&[5]), half.clone()], &[weight]);
    assert_eq!(result.len(), 1);
    assert_eq!(result[0].1, -1);
    let errors = one.view.errors();
    assert_eq!(
        (errors.len(), errors[0].message.as_str(), errors[0].row.as_str()),
        (1, "bigint out of range", "(5)")
    );
    let (_, result) = one.step(vec![ints(&[5]), half], &[-weight]);
    assert_eq!((result.len(), result[0].1), (1, 1));
    assert!(one.view.errors().is_empty());
}

#[test]
fn a_bad_row_is_an_error_until_it_is_retracted() {
    let quotient = Expr::Binary {
        op: BinaryOp::Divide,
        left: Box::new(Expr::Literal(Literal::int64(10))),
        right: Box::new(Expr::Column(0)),
    };
    let root = Node::Project {
        input: Box::new(scan(&[INT])),
        expressions: vec![quotient],
        types: vec![INT],
    };
    let mut one = One::new(&[INT], root, Boundary::MergeRows);
    let (_, result) = one.step(vec![ints(&[5, 0, 2])], &[1, 2, 3]);
    assert_eq!(result, vec![change("2", 1), change("5", 3)]);
    let expected = RowError {
        operator: "local0.1.project".to_string(),
        message: "division by zero".to_string(),
        row: "(0)".to_string(),
        count: 2,
    };
    assert_eq!(one.view.errors(), vec![expected]);
    one.step(vec![ints(&[0])], &[-2]);
    assert!(one.view.errors().is_empty());
}

#[test]
fn groups_with_too_few_rows_have_no_slot_and_lose_it_when_they_shrink() {
    const ROWS_MIN: i64 = 3;
    let types = [INT, INT];
    let boundary = Boundary::MergePartials {
        keys: vec![0],
        aggregates: vec![call(AggregateFunction::Sum, 1, INT, DataType::Decimal128(38, 0))],
    };
    let mut one = One::new(&types, scan(&types), boundary);
    one.view.hold_back_groups(&[3]);
    assert_eq!(one.view.group_rows_min(0), 3);
    let (changes, result) = one.step(vec![ints(&[1, 1]), ints(&[10, 20])], &[1, 1]);
    assert!(changes.is_none() && result.is_empty(), "two rows");
    assert_eq!(one.view.groups_held_back(), 1);
    let (changes, result) = one.step(vec![ints(&[1, 1]), ints(&[20, 5])], &[-1, 1]);
    assert!(changes.is_none() && result.is_empty(), "two others");
    let (_, result) = one.step(vec![ints(&[1]), ints(&[7])], &[1]);
    assert_eq!(
        (result, one.view.groups_held_back()),
        (vec![change("1 22", 1)], 0)
    );
    let (changes, result) = one.step(vec![ints(&[1]), ints(&[7])], &[-1]);
    assert!(changes.expect("the slot goes").deleted.value(0));
    assert_eq!(
        (result, one.view.groups_held_back()),
        (vec![change("1 22", -1)], 1)
    );

    // Whatever comes and goes: what is shown are the groups that have so many rows.
    let mut rows = BTreeMap::from([(1, vec![5, 10])]);
    let mut shown: BTreeMap<String, i64> = BTreeMap::new();
    let mut random = 0x2545_F491_4F6C_DD1D_u64;
    for _ in 0..500 {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let key = (random % 7) as i64;
        let group: &mut Vec<i64> = rows.entry(key).or_default();
        let (value, weight) = match group.pop() {
            Some(value) if random & 0x100 == 0 => (value, -1),
            kept => {
                group.extend(kept);
                group.push((random >> 40) as i64 % 100);
                (group[group.len() - 1], 1)
            }
        };
        let (_, result) = one.step(vec![ints(&[key]), ints(&[value])], &[weight]);
        for (row, weight) in result {
            *shown.entry(row).or_insert(0) += weight;
        }
        shown.retain(|_, weight| *weight != 0);
        let large = rows.iter().filter(|(_, group)| group.len() as i64 >= ROWS_MIN);
        let expected = large.map(|(key, group)| (format!("{key} {}", group.iter().sum::<i64>()), 1));
        assert_eq!(shown, expected.collect());
        let small = rows
            .values()
            .filter(|group| (1..3).contains(&group.len()))
            .count();
        assert_eq!(one.view.groups_held_back(), small);
    }
}

#[test]
fn unchanged_partials_are_not_shipped() {
    let types = [INT, INT];
    let calls = vec![call(AggregateFunction::Min, 1, INT, INT)];
    let boundary = Boundary::MergePartials {
        keys: vec![0],
        aggregates: calls,
    };
    let mut one = One::new(&types, scan(&types), boundary);
    one.step(vec![ints(&[1, 2]), ints(&[3, 3])], &[1, 1]);
    let (changes, result) = one.step(vec![ints(&[1, 2]), ints(&[7, 2])], &[1, 1]);
    let changes = changes.expect("group 2 changed");
    assert_eq!(
        (changes.rows, downcast::<Int64Array>(&changes.keys[0]).value(0)),
        (1, 2)
    );
    assert_eq!(result, vec![change("2 2", 1), change("2 3", -1)]);
    let (changes, result) = one.step(vec![ints(&[1]), ints(&[3])], &[-1]);
    assert_eq!(changes.expect("the minimum was retracted").rows, 1);
    assert_eq!(result, vec![change("1 3", -1), change("1 7", 1)]);
    let (changes, _) = one.step(vec![ints(&[9, 9]), ints(&[1, 1])], &[1, -1]);
    assert!(
        changes.is_none(),
        "a group that comes and goes within a step was never there"
    );
}

#[test]
fn zeros_of_both_signs_are_one_group() {
    let types = [DataType::Float64];
    let count = call(AggregateFunction::Count, 0, DataType::Float64, INT);
    let boundary = Boundary::MergePartials {
        keys: vec![0],
        aggregates: vec![count],
    };
    let mut one = One::new(&types, scan(&types), boundary);
    let (_, result) = one.step(vec![Arc::new(Float64Array::from(vec![-0.0, 0.0]))], &[1, 1]);
    assert_eq!(result, vec![change("0.0 2", 1)]);
}

#[test]
fn float_sums_come_back_to_the_last_bit() {
    let types = [DataType::Float64];
    let sum = call(AggregateFunction::Sum, 0, DataType::Float64, DataType::Float64);
    let boundary = Boundary::MergePartials {
        keys: vec![],
        aggregates: vec![sum],
    };
    let mut one = One::new(&types, scan(&types), boundary);
    one.view.initialize();
    let floats = |values: &[f64]| -> Vec<ArrayRef> { vec![Arc::new(Float64Array::from(values.to_vec()))] };
    one.step(floats(&[0.1, 0.2]), &[1, 1]);
    let (_, result) = one.step(floats(&[1e300]), &[1]);
    assert_eq!(result.len(), 2);
    let (_, result) = one.step(floats(&[1e300]), &[-1]);
    assert!(result.contains(&change("0.30000000000000004", 1)), "{result:?}");
}

#[test]
fn top_k_shows_what_moves_up() {
    let key = SortKey {
        column: 0,
        descending: true,
        nulls_first: false,
    };
    let merged = Box::new(Node::Leaf(GlobalLeaf::Merge(0)));
    let global = Node::TopK {
        input: merged,
        partition: Vec::new(),
        keys: vec![key],
        skip: 1,
        fetch: 2,
        rank: false,
    };
    let mut one = One::with_global(&[INT], scan(&[INT]), Boundary::MergeRows, global);
    let (_, result) = one.step(vec![ints(&[1, 2, 3, 4])], &[1, 1, 1, 1]);
    assert_eq!(result, vec![change("2", 1), change("3", 1)]);
    let (_, result) = one.step(vec![ints(&[4, 3])], &[-1, 1]);
    assert_eq!(
        result,
        Vec::new(),
        "of 3 3 2 1 the second and third are 3 and 2 again"
    );
    let (_, result) = one.step(vec![ints(&[3])], &[-2]);
    assert_eq!(result, vec![change("1", 1), change("2", -1), change("3", -1)]);
}

#[test]
fn state_comes_back_whole_or_not_at_all() {
    let boundary = Boundary::MergePartials {
        keys: vec![0],
        aggregates: vec![],
    };
    let mut one = One::new(&[INT], scan(&[INT]), boundary);
    one.step(vec![ints(&[1])], &[1]);
    one.view.seal(1);
    let saved = one.view.save();
    let plan = one.view.plan().clone();
    let names: Vec<&str> = saved.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        vec!["errors", "local0.1.partial-aggregate.groups", "result"]
    );
    let restore = |without: &str| {
        let mut kept = saved.clone();
        kept.remove(without);
        View::restore(
            ObjectId(7),
            plan.clone(),
            Scope::Cluster,
            Arc::new(Inline::new(1)),
            &mut InMemory(kept),
        )
    };
    assert!(matches!(restore("result"), Err(ExecutorError::MissingState { name }) if name == "result"));
    assert_eq!(restore("").expect("whole").result().row_count(), 1);
    assert!(matches!(restore("errors"), Err(ExecutorError::MissingState { name }) if name == "errors"));
}

/// What was saved, without a disk.
struct InMemory(BTreeMap<String, Saved>);

impl SavedState for InMemory {
    fn trace(&mut self, name: &str, layout: Layout) -> std::result::Result<Option<RunTrace>, StorageError> {
        let Some(Saved::Trace(trace)) = self.0.get(name) else {
            return Ok(None);
        };
        Ok(Some(RunTrace::from_runs(layout, trace.runs().to_vec())))
    }

    fn rows(&mut self, name: &str, _: SchemaRef) -> std::result::Result<Option<RowStore>, StorageError> {
        let Some(Saved::Rows(rows)) = self.0.get(name) else {
            return Ok(None);
        };
        Ok(Some(rows.to_store()))
    }
}

#[test]
fn plans_that_contradict_themselves_are_refused() {
    let bad = |global: Node<GlobalLeaf>, columns: Vec<Column>| {
        View::new(
            ObjectId(7),
            Arc::new(ViewPlan {
                fragments: vec![],
                global,
                columns,
            }),
            Scope::Cluster,
            Arc::new(Inline::new(1)),
        )
        .err()
    };
    assert!(matches!(
        bad(Node::Leaf(GlobalLeaf::Merge(0)), vec![]),
        Some(ExecutorError::Plan(_))
    ));
    let column = Column {
        name: "a".to_string(),
        data_type: DataType::Utf8,
    };
    let Node::Leaf(leaf) = scan(&[INT]) else {
        panic!("a scan is a leaf")
    };
    let global = Node::Leaf(GlobalLeaf::Scan(leaf));
    assert!(matches!(bad(global, vec![column]), Some(ExecutorError::Plan(_))));
}
