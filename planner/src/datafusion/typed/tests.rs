//! The typing rules, against tables taken from PostgreSQL's documentation and behaviour.

use super::*;

fn value(data_type: DataType) -> Typed {
    Typed::column(0, data_type)
}

const REAL: DataType = DataType::Float32;
const DOUBLE: DataType = DataType::Float64;

#[test]
fn arithmetic_has_postgres_types() {
    let numeric = DataType::Decimal128(10, 2);
    for (left, right, expected) in [
        (DataType::Int16, DataType::Int16, DataType::Int16),
        (DataType::Int16, DataType::Int32, DataType::Int32),
        (DataType::Int32, DataType::Int64, DataType::Int64),
        (DataType::Int32, numeric.clone(), DataType::Decimal128(13, 2)),
        (DataType::Int32, REAL, DOUBLE),
        (REAL, REAL, REAL),
        (REAL, numeric.clone(), DOUBLE),
        (DOUBLE, numeric, DOUBLE),
    ] {
        let (l, r) = (Typed::column(0, left.clone()), Typed::column(1, right.clone()));
        let sum = arithmetic::arithmetic(BinaryOp::Add, l, r, "UTC").expect("numbers can be added");
        assert_eq!(sum.data_type, expected, "{left} + {right}");
        assert_eq!(
            sum.expr.data_type(&[left, right]),
            sum.data_type,
            "the executor sees the same type"
        );
    }
}

#[test]
fn a_case_of_a_real_and_an_integer_is_real() {
    let (_, data_type) = unify("CASE", vec![value(DataType::Int32), value(REAL)], "UTC").expect("numbers");
    assert_eq!(data_type, REAL);
}

#[test]
fn unknown_constants_take_the_type_of_the_other_side() {
    let day = comparison::compare(
        BinaryOp::Less,
        value(DataType::Date32),
        Typed::unknown("1970-01-11".to_owned()),
        "UTC",
    )
    .expect("a date");
    let Expr::Binary { right, .. } = day.expr else {
        panic!("no comparison")
    };
    assert_eq!(
        *right,
        Typed::literal(DataType::Date32, LiteralValue::Integer(10)).expr
    );
    let error = comparison::compare(
        BinaryOp::Less,
        value(DataType::Int32),
        Typed::unknown("ten".to_owned()),
        "UTC",
    );
    assert_eq!(
        error.expect_err("no integer").kind,
        PlanErrorKind::DatatypeMismatch
    );
}

#[test]
fn types_without_common_ground_are_refused() {
    let error = comparison::compare(
        BinaryOp::Equal,
        value(DataType::Int32),
        value(DataType::Utf8),
        "UTC",
    );
    assert_eq!(
        error.expect_err("refused").message,
        "operator does not exist: integer = text"
    );
    let error = arithmetic::arithmetic(BinaryOp::Modulo, value(DOUBLE), value(DOUBLE), "UTC");
    assert_eq!(error.expect_err("refused").kind, PlanErrorKind::UndefinedFunction);
    let interval = value(crate::plan::expr::INTERVAL);
    let error = comparison::compare(BinaryOp::Equal, interval.clone(), interval, "UTC");
    assert_eq!(error.expect_err("refused").kind, PlanErrorKind::Unsupported);
}

#[test]
fn every_function_has_a_stub_and_an_answer() {
    for name in functions::NAMES {
        assert!(
            functions::refusal(name).is_none(),
            "{name} is both allowed and refused"
        );
        let error = functions::call(name, Vec::new(), "UTC").expect_err("no function takes nothing");
        assert_eq!(error.kind, PlanErrorKind::UndefinedFunction, "{name}");
    }
}
