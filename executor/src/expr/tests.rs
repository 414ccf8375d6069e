//! Expressions over batches, and what becomes of rows on which they fail.

use arrow::array::{Array, Decimal128Array, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray};
use proptest::prelude::*;

use super::*;
use crate::columns::{batch_of, types_of};

fn column(index: usize) -> Expr {
    Expr::Column(index)
}

fn int(value: i64) -> Expr {
    Expr::Literal(Literal::int64(value))
}

fn binary(op: BinaryOp, left: Expr, right: Expr) -> Expr {
    Expr::Binary {
        op,
        left: Box::new(left),
        right: Box::new(right),
    }
}

fn rows(columns: Vec<ArrayRef>) -> RecordBatch {
    let types: Vec<DataType> = columns.iter().map(|c| c.data_type().clone()).collect();
    let rows = columns[0].len();
    batch_of(schema_of(&types), columns, rows)
}

fn run(expression: Expr, columns: Vec<ArrayRef>) -> Evaluated {
    evaluate(&expression, &rows(columns)).expect("compiles")
}

fn ints(values: &[Option<i64>]) -> ArrayRef {
    Arc::new(Int64Array::from(values.to_vec()))
}

fn int_values(array: &ArrayRef) -> Vec<Option<i64>> {
    downcast::<Int64Array>(array).iter().collect()
}

#[test]
fn only_rows_that_fail_alone_fail() {
    let a = ints(&[Some(10), Some(1), None, Some(7), Some(i64::MAX), Some(4)]);
    let b = ints(&[Some(2), Some(0), Some(0), Some(7), Some(1), None]);
    let result = run(
        binary(BinaryOp::Divide, column(0), column(1)),
        vec![a.clone(), b.clone()],
    );
    assert_eq!(
        int_values(&result.columns[0]),
        vec![Some(5), None, Some(1), Some(i64::MAX), None]
    );
    assert_eq!(result.failed, vec![(1, "division by zero".to_string())]);
    let result = run(binary(BinaryOp::Add, column(0), column(1)), vec![a, b]);
    assert_eq!(result.failed.len(), 1);
    assert_eq!(result.failed[0].0, 4);
    assert!(result.failed[0].1.contains("out of range"), "{:?}", result.failed);
}

#[test]
fn integer_overflow_is_an_error() {
    for (op, left, right) in [
        (BinaryOp::Add, i64::MAX, 1),
        (BinaryOp::Subtract, i64::MIN, 1),
        (BinaryOp::Multiply, i64::MAX, 2),
        (BinaryOp::Divide, i64::MIN, -1),
    ] {
        let result = run(
            binary(op, column(0), column(1)),
            vec![ints(&[Some(left)]), ints(&[Some(right)])],
        );
        assert_eq!(result.failed.len(), 1, "{op:?}");
    }
    let narrow: ArrayRef = Arc::new(Int32Array::from(vec![i32::MAX]));
    assert_eq!(
        run(binary(BinaryOp::Add, column(0), column(0)), vec![narrow])
            .failed
            .len(),
        1
    );
    let negated = run(
        Expr::Negate(Box::new(column(0))),
        vec![ints(&[Some(i64::MIN), Some(3)])],
    );
    assert_eq!(
        (negated.failed.len(), int_values(&negated.columns[0])),
        (1, vec![Some(-3)])
    );
    let modulo = run(
        binary(BinaryOp::Modulo, column(0), column(1)),
        vec![
            ints(&[Some(i64::MIN), Some(5), Some(-7)]),
            ints(&[Some(-1), Some(0), Some(3)]),
        ],
    );
    assert_eq!(
        (modulo.failed[0].0, int_values(&modulo.columns[0])),
        (1, vec![Some(0), Some(-1)])
    );
}

#[test]
fn float_arithmetic_fails_as_in_postgres() {
    let a: ArrayRef = Arc::new(Float64Array::from(vec![1.0, 1e308, 1e-300, f64::INFINITY, 6.0]));
    let b: ArrayRef = Arc::new(Float64Array::from(vec![0.0, 1e-10, 1e300, 2.0, 2.0]));
    let result = run(binary(BinaryOp::Divide, column(0), column(1)), vec![a, b]);
    let failed: Vec<u32> = result.failed.iter().map(|(row, _)| *row).collect();
    assert_eq!(failed, vec![0, 1, 2]);
    let computed = downcast::<Float64Array>(&result.columns[0]);
    assert_eq!(computed.values().to_vec(), vec![f64::INFINITY, 3.0]);
}

#[test]
fn decimal_quotients_round_half_away() {
    let decimals = |values: &[i128], scale| -> ArrayRef {
        let array = Decimal128Array::from(values.to_vec());
        Arc::new(array.with_precision_and_scale(10, scale).expect("fits"))
    };
    let (a, b) = (decimals(&[100, -200, 500], 2), decimals(&[30, 30, 0], 1));
    let result = run(binary(BinaryOp::Divide, column(0), column(1)), vec![a, b]);
    let quotients = downcast::<Decimal128Array>(&result.columns[0]);
    let unit = 10i128.pow(u32::try_from(quotients.scale()).expect("positive"));
    let rounded = |n: i128, d: i128| (2 * n * unit + d) / (2 * d);
    assert_eq!(quotients.values().to_vec(), vec![rounded(1, 3), -rounded(2, 3)]);
    assert_eq!(result.failed, vec![(2, "division by zero".to_string())]);
}

#[test]
fn three_valued_logic_and_lazy_branches() {
    // CASE WHEN b <> 0 THEN a / b ELSE -1 END never divides by zero.
    let guarded = Expr::Case {
        branches: vec![(
            binary(BinaryOp::NotEqual, column(1), int(0)),
            binary(BinaryOp::Divide, column(0), column(1)),
        )],
        otherwise: Some(Box::new(int(-1))),
    };
    let a = ints(&[Some(8), Some(8), None, Some(9)]);
    let b = ints(&[Some(2), Some(0), Some(3), None]);
    let result = run(guarded, vec![a.clone(), b.clone()]);
    assert!(result.failed.is_empty());
    assert_eq!(
        int_values(&result.columns[0]),
        vec![Some(4), Some(-1), None, Some(-1)]
    );
    let in_list = Expr::InList {
        input: Box::new(column(0)),
        list: vec![int(9), int(1)],
        negated: true,
    };
    let result = run(in_list, vec![a, b]);
    let verdicts: Vec<Option<bool>> = downcast::<BooleanArray>(&result.columns[0]).iter().collect();
    assert_eq!(verdicts, vec![Some(true), Some(true), None, Some(false)]);
}

#[test]
fn functions_by_name_and_what_is_unknown() {
    let names: ArrayRef = Arc::new(StringArray::from(vec![Some("Ab"), None]));
    let call = |function: &str, returns| Expr::Call {
        function: function.to_string(),
        arguments: vec![column(0)],
        returns,
    };
    let result = run(call("upper", DataType::Utf8), vec![names.clone()]);
    assert_eq!(downcast::<StringArray>(&result.columns[0]).value(0), "AB");
    assert!(matches!(
        Evaluator::compile(&[call("no_such_thing", DataType::Utf8)], &[DataType::Utf8]),
        Err(ExecutorError::Unsupported(_))
    ));
    assert!(Evaluator::compile(&[call("upper", DataType::Int64)], &[DataType::Utf8]).is_err());
    assert!(Evaluator::compile(&[column(3)], &[DataType::Utf8]).is_err());
    let like = Expr::Like {
        input: Box::new(column(0)),
        pattern: Box::new(Expr::Literal(Literal::text("a%"))),
        negated: false,
        case_insensitive: true,
    };
    let result = run(like, vec![names]);
    assert_eq!(
        downcast::<BooleanArray>(&result.columns[0])
            .iter()
            .collect::<Vec<_>>(),
        vec![Some(true), None]
    );
}

#[test]
fn zeros_are_equal_in_comparisons_and_lists() {
    let zeros: ArrayRef = Arc::new(Float64Array::from(vec![-0.0]));
    let zero = Expr::Literal(Literal {
        data_type: DataType::Float64,
        value: Some(LiteralValue::Float(0)),
    });
    let equal = run(
        binary(BinaryOp::Equal, column(0), zero.clone()),
        vec![zeros.clone()],
    );
    assert!(downcast::<BooleanArray>(&equal.columns[0]).value(0));
    let listed = Expr::InList {
        input: Box::new(column(0)),
        list: vec![zero],
        negated: false,
    };
    assert!(downcast::<BooleanArray>(&run(listed, vec![zeros]).columns[0]).value(0));
}

#[test]
fn constants_without_columns() {
    let none = batch_of(schema_of(&[]), Vec::new(), 3);
    assert!(types_of(&none.schema()).is_empty());
    let result = evaluate(&binary(BinaryOp::Add, int(1), int(2)), &none).expect("compiles");
    assert_eq!(int_values(&result.columns[0]), vec![Some(3); 3]);
    let failing = evaluate(&binary(BinaryOp::Divide, int(1), int(0)), &none).expect("compiles");
    assert_eq!(failing.failed.len(), 3);
}

proptest! {
    /// `a <> 0 AND 12 / a > b`: what fails does not depend on neighbours, however the batch is cut.
    #[test]
    fn failures_do_not_depend_on_the_batch(
        values in prop::collection::vec((prop::option::of(-3i64..4), prop::option::of(-2i64..3)), 1..40),
    ) {
        let guard = binary(BinaryOp::NotEqual, column(0), int(0));
        let quotient = binary(BinaryOp::Divide, int(12), column(0));
        let condition = binary(BinaryOp::And, guard, binary(BinaryOp::Greater, quotient, column(1)));
        let evaluator = Evaluator::compile(&[condition], &[DataType::Int64, DataType::Int64]).expect("compiles");
        let (a, b): (Vec<_>, Vec<_>) = values.iter().copied().unzip();
        let batch = rows(vec![ints(&a), ints(&b)]);
        let (whole, whole_failed) = evaluator.holds(&batch);
        let mut failed = Vec::new();
        for row in 0..values.len() {
            let (alone, alone_failed) = evaluator.holds(&batch.slice(row, 1));
            prop_assert_eq!(alone.value(0), whole.value(row));
            failed.extend(alone_failed.into_iter().map(|(_, message)| (row as u32, message)));
        }
        prop_assert_eq!(whole_failed, failed);
    }
}
