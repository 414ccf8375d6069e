//! The type of an expression, given those of its columns: one rule for the planner, which types, and for the
//! executor, which computes.

use arrow_schema::DataType;

use super::expr::{BinaryOp, Expr};

impl Expr {
    /// The type of the expression's values over columns of the given types.
    pub fn data_type(&self, columns: &[DataType]) -> DataType {
        match self {
            Expr::Column(column) => columns[*column].clone(),
            Expr::Literal(literal) => literal.data_type.clone(),
            Expr::Binary { op, left, right } => {
                binary_type(*op, &left.data_type(columns), &right.data_type(columns))
            }
            Expr::Not(_) | Expr::IsNull(_) | Expr::Like { .. } | Expr::InList { .. } => DataType::Boolean,
            Expr::Negate(input) => input.data_type(columns),
            Expr::Case { branches, otherwise } => match (branches.first(), otherwise) {
                (Some((_, result)), _) => result.data_type(columns),
                (None, Some(otherwise)) => otherwise.data_type(columns),
                (None, None) => DataType::Null,
            },
            Expr::Cast { to, .. } => to.clone(),
            Expr::Call { returns, .. } => returns.clone(),
        }
    }
}

fn binary_type(op: BinaryOp, left: &DataType, right: &DataType) -> DataType {
    match op {
        BinaryOp::Add | BinaryOp::Subtract | BinaryOp::Multiply | BinaryOp::Divide | BinaryOp::Modulo => {
            match decimal_result(op, left, right) {
                Some(data_type) => data_type,
                // Instants with intervals: the instant's type, on whichever side it stands.
                None if matches!(left, DataType::Interval(_)) => right.clone(),
                None => left.clone(),
            }
        }
        BinaryOp::Concat => DataType::Utf8,
        _ => DataType::Boolean,
    }
}

/// The type of an arithmetic operation on two numerics, `None` if they are none or the result has more than 38
/// digits after the point.
///
/// | operation | digits after the point | digits before |
/// |---|---|---|
/// | `+ -` | the larger | the larger, and one |
/// | `*` | the sum | the sum, and one |
/// | `/` | the left one's, and four | the left one's, and the right one's digits after the point |
/// | `%` | the larger | the smaller |
///
/// There are never more than 38 digits in all; a value that needs more is an error. A quotient is rounded half
/// away from zero; the planner gives the left side enough digits for 16 after the point.
pub fn decimal_result(op: BinaryOp, left: &DataType, right: &DataType) -> Option<DataType> {
    let (DataType::Decimal128(p1, s1), DataType::Decimal128(p2, s2)) = (left, right) else {
        return None;
    };
    let (s1, s2) = (i16::from(*s1), i16::from(*s2));
    let (whole1, whole2) = (i16::from(*p1) - s1, i16::from(*p2) - s2);
    let (whole, scale) = match op {
        BinaryOp::Multiply => (whole1 + whole2 + 1, s1 + s2),
        BinaryOp::Divide => (whole1 + s2, (s1 + 4).min(38)),
        BinaryOp::Modulo => (whole1.min(whole2), s1.max(s2)),
        _ => (whole1.max(whole2) + 1, s1.max(s2)),
    };
    if scale > 38 {
        return None;
    }
    let precision = (whole + scale).clamp(1, 38);
    Some(DataType::Decimal128(
        u8::try_from(precision).ok()?,
        i8::try_from(scale).ok()?,
    ))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Array, ArrayRef, Decimal128Array};
    use arrow::compute::kernels::numeric;

    use super::*;

    /// Arrow's kernels compute these, or say the type in which the executor does; their types have to be ours.
    #[test]
    fn decimal_types_are_those_of_arrows_kernels() {
        let shapes = [
            (5, 2),
            (10, 0),
            (19, 0),
            (38, 10),
            (38, 0),
            (18, 18),
            (1, 0),
            (38, 16),
        ];
        let array = |(precision, scale): (u8, i8)| {
            let array = Decimal128Array::from(vec![1]).with_precision_and_scale(precision, scale);
            Arc::new(array.expect("a valid shape")) as ArrayRef
        };
        for left in shapes {
            for right in shapes {
                let (l, r) = (array(left), array(right));
                for (op, computed) in [
                    (BinaryOp::Add, numeric::add(&l, &r)),
                    (BinaryOp::Subtract, numeric::sub(&l, &r)),
                    (BinaryOp::Multiply, numeric::mul(&l, &r)),
                    (BinaryOp::Divide, numeric::div(&l, &r)),
                    (BinaryOp::Modulo, numeric::rem(&l, &r)),
                ] {
                    let Ok(computed) = computed else { continue };
                    let expected = decimal_result(op, l.data_type(), r.data_type());
                    assert_eq!(
                        expected.as_ref(),
                        Some(computed.data_type()),
                        "{op:?} {left:?} {right:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn there_are_at_most_38_digits_after_the_point() {
        let fine = DataType::Decimal128(38, 20);
        assert_eq!(decimal_result(BinaryOp::Multiply, &fine, &fine), None);
        assert_eq!(decimal_result(BinaryOp::Add, &fine, &DataType::Int32), None);
    }
}
