//! The naive evaluator, against results worked out by hand.

use arrow::datatypes::DataType;
use tributary_planner::plan::{AggregateFunction, BinaryOp, Literal};

use super::*;

fn int(value: i64) -> Value {
    Value::Int(value)
}

fn table(rows: &[&[Value]]) -> Relation {
    Relation {
        width: rows[0].len(),
        rows: rows.iter().map(|row| row.to_vec()).collect(),
    }
}

fn leaves(tables: &[Relation]) -> impl FnMut(&usize) -> Result<Relation> + '_ {
    |leaf| Ok(tables[*leaf].clone())
}

fn call(function: AggregateFunction, argument: Option<usize>, filter: Option<usize>) -> AggregateCall {
    let output_type = match function {
        AggregateFunction::Avg => DataType::Decimal128(38, 16),
        _ => DataType::Int64,
    };
    AggregateCall {
        function,
        argument,
        filter,
        input_type: DataType::Int32,
        output_type,
    }
}

#[test]
fn a_left_join_keeps_what_matches_nothing() {
    let left = table(&[&[int(1), int(10)], &[int(2), int(20)], &[Value::Null, int(30)]]);
    let right = table(&[&[int(1), int(5)], &[int(1), int(6)], &[Value::Null, int(7)]]);
    let node = Node::Join {
        kind: JoinKind::Left,
        left: Box::new(Node::Leaf(0)),
        right: Box::new(Node::Leaf(1)),
        on: vec![(0, 0)],
        filter: None,
        null_safe: false,
    };
    let joined = relation(&node, &mut leaves(&[left, right])).expect("known");
    let expected = table(&[
        &[int(1), int(10), int(1), int(5)],
        &[int(1), int(10), int(1), int(6)],
        &[int(2), int(20), Value::Null, Value::Null],
        &[Value::Null, int(30), Value::Null, Value::Null],
    ]);
    assert_eq!(joined, expected);
}

#[test]
fn groups_have_filters_nulls_and_exact_averages() {
    let yes = Value::Bool(true);
    let input = table(&[
        &[int(1), int(1), yes.clone()],
        &[int(1), int(2), Value::Null],
        &[int(1), Value::Null, yes.clone()],
        &[Value::Null, int(4), yes],
    ]);
    let aggregates = vec![
        call(AggregateFunction::Count, None, None),
        call(AggregateFunction::Sum, Some(1), Some(2)),
        call(AggregateFunction::Avg, Some(1), None),
        call(AggregateFunction::Max, Some(1), None),
    ];
    let node = Node::Aggregate {
        input: Box::new(Node::Leaf(0)),
        keys: vec![0],
        aggregates: aggregates.clone(),
    };
    let avg = |unscaled| Value::Decimal { scale: 16, unscaled };
    let grouped = relation(&node, &mut leaves(&[input])).expect("known");
    assert_eq!(
        grouped,
        table(&[
            &[Value::Null, int(1), int(4), avg(40_000_000_000_000_000), int(4)],
            &[int(1), int(3), int(1), avg(15_000_000_000_000_000), int(2)],
        ])
    );
    let node = Node::Aggregate {
        input: Box::new(Node::Leaf(0)),
        keys: vec![],
        aggregates,
    };
    let nothing = Relation {
        width: 3,
        rows: Vec::new(),
    };
    let one = relation(&node, &mut leaves(&[nothing])).expect("known");
    assert_eq!(one, table(&[&[int(0), Value::Null, Value::Null, Value::Null]]));
}

#[test]
fn top_k_orders_skips_and_breaks_ties_by_the_row() {
    let input = table(&[
        &[int(2), int(1)],
        &[Value::Null, int(0)],
        &[int(2), int(0)],
        &[int(3), int(9)],
    ]);
    let keys = vec![SortKey {
        column: 0,
        descending: true,
        nulls_first: true,
    }];
    let node = Node::TopK {
        input: Box::new(Node::Leaf(0)),
        partition: Vec::new(),
        keys,
        skip: 1,
        fetch: 2,
        rank: false,
    };
    let top = relation(&node, &mut leaves(&[input])).expect("known");
    assert_eq!(top, table(&[&[int(3), int(9)], &[int(2), int(0)]]));
}

#[test]
fn a_row_that_fails_is_left_out() {
    let input = table(&[&[int(0)], &[int(5)]]);
    let one = Box::new(Expr::Literal(Literal::int64(10)));
    let quotient = Expr::Binary {
        op: BinaryOp::Divide,
        left: one,
        right: Box::new(Expr::Column(0)),
    };
    let node = Node::Project {
        input: Box::new(Node::Leaf(0)),
        expressions: vec![quotient],
        types: vec![DataType::Int64],
    };
    assert_eq!(relation(&node, &mut leaves(&[input])), Ok(table(&[&[int(2)]])));
}
