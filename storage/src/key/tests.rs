//! The two properties of the encoding that traces stand on, for every column type the product supports.

use std::sync::Arc;

use arrow::array::*;
use arrow::datatypes::{Int64Type, IntervalMonthDayNano};

use super::*;

/// One column per supported type: distinct values in ascending order, null first.
fn ascending_columns() -> Vec<ArrayRef> {
    let interval = |months, days, nanoseconds| {
        Some(IntervalMonthDayNano {
            months,
            days,
            nanoseconds,
        })
    };
    let mut structs = StructArray::from(vec![(
        Arc::new(arrow::datatypes::Field::new("a", DataType::Int32, true)),
        Arc::new(Int32Array::from(vec![None, Some(1), Some(2), Some(3)])) as ArrayRef,
    )]);
    let (fields, arrays, _) = structs.clone().into_parts();
    structs = StructArray::new(fields, arrays, Some(vec![false, true, true, true].into()));
    vec![
        Arc::new(BooleanArray::from(vec![None, Some(false), Some(true)])),
        Arc::new(Int8Array::from(vec![
            None,
            Some(i8::MIN),
            Some(-1),
            Some(0),
            Some(i8::MAX),
        ])),
        Arc::new(Int16Array::from(vec![
            None,
            Some(i16::MIN),
            Some(-1),
            Some(0),
            Some(i16::MAX),
        ])),
        Arc::new(Int32Array::from(vec![
            None,
            Some(i32::MIN),
            Some(-1),
            Some(0),
            Some(i32::MAX),
        ])),
        Arc::new(Int64Array::from(vec![
            None,
            Some(i64::MIN),
            Some(-1),
            Some(0),
            Some(i64::MAX),
        ])),
        Arc::new(UInt32Array::from(vec![
            None,
            Some(0),
            Some(255),
            Some(256),
            Some(u32::MAX),
        ])),
        Arc::new(UInt64Array::from(vec![
            None,
            Some(0),
            Some(255),
            Some(256),
            Some(u64::MAX),
        ])),
        Arc::new(Float32Array::from(vec![
            None,
            Some(f32::NEG_INFINITY),
            Some(-1.5),
            Some(0.0),
            Some(f32::NAN),
        ])),
        Arc::new(Float64Array::from(vec![
            None,
            Some(f64::NEG_INFINITY),
            Some(-0.0),
            Some(0.0),
            Some(f64::NAN),
        ])),
        Arc::new(
            Decimal128Array::from(vec![
                None,
                Some(-(10i128.pow(37))),
                Some(-1),
                Some(0),
                Some(10i128.pow(37)),
            ])
            .with_precision_and_scale(38, 10)
            .expect("valid"),
        ),
        Arc::new(StringArray::from(vec![
            None,
            Some(""),
            Some("\0"),
            Some("a"),
            Some("a\0"),
            Some("ab"),
            Some("é"),
        ])),
        Arc::new(StringArray::from(vec![
            Some("x".repeat(31)),
            Some("x".repeat(32)),
            Some("x".repeat(33)),
            Some("x".repeat(64)),
            Some("x".repeat(65)),
        ])),
        Arc::new(BinaryArray::from_opt_vec(vec![
            None,
            Some(b""),
            Some(b"\0"),
            Some(b"\0\0"),
            Some(b"\xff"),
            Some(b"\xff\xff"),
        ])),
        Arc::new(LargeBinaryArray::from_opt_vec(vec![
            None,
            Some(b""),
            Some(b"\0"),
            Some(b"\xff"),
        ])),
        Arc::new(
            FixedSizeBinaryArray::try_from_sparse_iter_with_size(
                [None, Some([0u8; 16]), Some([1; 16]), Some([0xff; 16])].into_iter(),
                16,
            )
            .expect("valid"),
        ),
        Arc::new(Date32Array::from(vec![
            None,
            Some(i32::MIN),
            Some(-1),
            Some(0),
            Some(19_000),
        ])),
        Arc::new(TimestampMicrosecondArray::from(vec![
            None,
            Some(-1),
            Some(0),
            Some(1),
        ])),
        Arc::new(
            TimestampMicrosecondArray::from(vec![None, Some(-1), Some(0), Some(1)]).with_timezone("UTC"),
        ),
        Arc::new(IntervalMonthDayNanoArray::from(vec![
            None,
            interval(-1, 5, 5),
            interval(0, 0, 1),
            interval(0, 1, 0),
        ])),
        Arc::new(NullArray::new(1)),
        Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>(vec![
            None,
            Some(vec![]),
            Some(vec![Some(1)]),
            Some(vec![Some(1), None]),
            Some(vec![Some(2)]),
        ])),
        Arc::new(structs),
    ]
}

fn encoder(columns: &[ArrayRef]) -> KeyEncoder {
    let types: Vec<DataType> = columns.iter().map(|column| column.data_type().clone()).collect();
    KeyEncoder::new(&types)
}

#[test]
fn bytes_order_as_rows_do() {
    for column in ascending_columns() {
        let keys = encoder(std::slice::from_ref(&column)).encode(std::slice::from_ref(&column));
        for i in 1..keys.len() {
            assert!(
                keys.get(i - 1) < keys.get(i),
                "{}: value {i} is not above the one before",
                column.data_type()
            );
        }
        let descending = SortOptions {
            descending: true,
            nulls_first: false,
        };
        let reversed = KeyEncoder::with_order(&[(column.data_type().clone(), descending)])
            .encode(std::slice::from_ref(&column));
        for i in 1..reversed.len() {
            assert!(
                reversed.get(i - 1) > reversed.get(i),
                "{} descending",
                column.data_type()
            );
        }
    }
}

#[test]
fn keys_decode_to_the_columns_they_were_made_from() {
    for column in ascending_columns() {
        let encoder = encoder(std::slice::from_ref(&column));
        let decoded = encoder.decode(&encoder.encode(std::slice::from_ref(&column)));
        assert_eq!(decoded.len(), 1);
        // NaN differs from itself, so columns are compared as bytes.
        assert_eq!(decoded[0].to_data(), column.to_data(), "{}", column.data_type());
    }
}

/// The key is a prefix of exactly those rows that have it: with every type as the key, before every type in
/// either order, each pair of values.
#[test]
fn the_key_is_a_prefix_of_exactly_its_own_rows() {
    let columns = ascending_columns();
    for key in &columns {
        let key_encoder = encoder(std::slice::from_ref(key));
        let keys = key_encoder.encode(std::slice::from_ref(key));
        for rest in &columns {
            for order in [
                KEY_ORDER,
                SortOptions {
                    descending: true,
                    nulls_first: true,
                },
            ] {
                let pairs: Vec<(u32, u32)> = (0..key.len() as u32)
                    .flat_map(|k| (0..rest.len() as u32).map(move |r| (k, r)))
                    .collect();
                let key_of_row = UInt32Array::from_iter_values(pairs.iter().map(|pair| pair.0));
                let rest_of_row = UInt32Array::from_iter_values(pairs.iter().map(|pair| pair.1));
                let full = [
                    arrow::compute::take(key, &key_of_row, None).expect("in bounds"),
                    arrow::compute::take(rest, &rest_of_row, None).expect("in bounds"),
                ];
                let types = [
                    (key.data_type().clone(), KEY_ORDER),
                    (rest.data_type().clone(), order),
                ];
                let rows = KeyEncoder::with_order(&types).encode(&full);
                for (row, (key_index, _)) in pairs.iter().enumerate() {
                    for candidate in 0..keys.len() {
                        let is_prefix = rows.get(row).starts_with(keys.get(candidate));
                        let context = (key.data_type(), rest.data_type(), row, candidate);
                        assert_eq!(is_prefix, candidate == *key_index as usize, "{context:?}");
                    }
                }
            }
        }
    }
}

#[test]
fn keys_without_columns_are_empty_and_counted() {
    let encoder = KeyEncoder::new(&[]);
    let keys = encoder.encode_rows(&[], 3);
    assert_eq!((keys.len(), keys.get(2)), (3, &b""[..]));
    assert!(encoder.decode(&keys).is_empty());
}

#[test]
fn types_that_would_come_back_changed_are_refused() {
    let dictionary = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
    assert!(!KeyEncoder::supports(&dictionary));
    assert!(std::panic::catch_unwind(|| KeyEncoder::new(&[dictionary])).is_err());
}

#[test]
fn equal_rows_are_summed_in_byte_order() {
    let keys = Keys::from_iter(["b", "a", "b", "c", "c"]);
    let weights = [2, 1, -1, 1, -1];
    assert_eq!(
        sum_equal_rows(5, |i| keys.get(i), |i| weights[i])
            .iter()
            .map(|s| s.1)
            .collect::<Vec<_>>(),
        [1, 1]
    );
}
