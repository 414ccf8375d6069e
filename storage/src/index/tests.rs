//! The index against an ordered map, for every form of key.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Decimal128Array, Int16Array, Int32Array, Int64Array, StringArray,
    TimestampMicrosecondArray,
};
use arrow::datatypes::DataType;
use proptest::prelude::*;

use super::*;

fn columns_of(rows: &[(Option<i64>, Option<u8>)], form: usize) -> Vec<ArrayRef> {
    let numbers = || rows.iter().map(|(n, _)| *n);
    let small = || rows.iter().map(|(_, s)| *s);
    let long: ArrayRef = Arc::new(numbers().collect::<Int64Array>());
    let text: ArrayRef = Arc::new(
        small()
            .map(|s| s.map(|s| format!("{s:>3}")))
            .collect::<StringArray>(),
    );
    match form {
        0 => vec![long],
        1 => vec![Arc::new(
            small().map(|s| s.map(i16::from)).collect::<Int16Array>(),
        )],
        2 => vec![Arc::new(
            small().map(|s| s.map(|s| s % 2 == 0)).collect::<BooleanArray>(),
        )],
        3 => vec![
            Arc::new(small().map(|s| s.map(i32::from)).collect::<Int32Array>()),
            Arc::new(numbers().collect::<TimestampMicrosecondArray>()),
            Arc::new(small().map(|s| s.map(|s| s > 7)).collect::<BooleanArray>()),
        ],
        4 => vec![Arc::new(
            numbers()
                .map(|n| n.map(|n| i128::from(n) << 70))
                .collect::<Decimal128Array>(),
        )],
        5 => vec![text],
        6 => vec![text, long],
        7 => vec![long.clone(), text.clone(), text, long],
        8 => vec![
            long.clone(),
            Arc::new(numbers().collect::<TimestampMicrosecondArray>()),
            Arc::new(numbers().map(|n| n.map(|n| n / 2)).collect::<Int64Array>()),
        ],
        9 => vec![
            long,
            Arc::new(
                numbers()
                    .map(|n| n.map(|n| i128::from(n) << 70))
                    .collect::<Decimal128Array>(),
            ),
        ],
        _ => {
            let bytes = small().map(|s| s.map(|s| vec![s; 2]));
            vec![text, Arc::new(bytes.collect::<arrow::array::BinaryArray>())]
        }
    }
}

fn check(batches: &[Vec<(Option<i64>, Option<u8>)>], form: usize) {
    let types: Vec<DataType> = columns_of(&[], form)
        .iter()
        .map(|c| c.data_type().clone())
        .collect();
    let mut index = KeyIndex::new(&types);
    let encoder = KeyEncoder::new(&types);
    let mut known: BTreeMap<Vec<u8>, u32> = BTreeMap::new();
    for batch in batches {
        let columns = columns_of(batch, form);
        let keys = encoder.encode_rows(&columns, batch.len());
        let before: Vec<u32> = keys
            .iter()
            .map(|k| known.get(k).copied().unwrap_or(ABSENT))
            .collect();
        assert_eq!(index.find(&columns, batch.len()), before);
        let ids = index.insert(&columns, batch.len());
        for (key, id) in keys.iter().zip(&ids) {
            let next = known.len() as u32;
            assert_eq!(*known.entry(key.to_vec()).or_insert(next), *id);
        }
        assert_eq!(index.find(&columns, batch.len()), ids);
        let back = index.columns(&ids);
        assert_eq!(encoder.encode_rows(&back, ids.len()), keys);
        assert!(back.iter().zip(&types).all(|(column, t)| column.data_type() == t));
    }
    assert_eq!(index.len(), known.len());
}

proptest! {
    #[test]
    fn ids_go_by_first_appearance_and_keys_come_back(
        batches in prop::collection::vec(
            prop::collection::vec((prop::option::of(-3i64..60), prop::option::of(0u8..12)), 0..200), 0..5),
        form in 0usize..11,
    ) {
        check(&batches, form);
    }
}

#[test]
fn many_keys_survive_growth() {
    for form in [0, 3, 4, 6, 7, 8, 9, 10] {
        let rows: Vec<_> = (0..20_000)
            .map(|n| (Some(n * 7919), Some((n % 100) as u8)))
            .collect();
        check(&[rows.clone(), rows[..5].to_vec()], form);
    }
}

#[test]
fn without_columns_there_is_one_key() {
    let mut index = KeyIndex::new(&[]);
    assert_eq!(index.find(&[], 2), vec![ABSENT; 2]);
    assert_eq!(index.insert(&[], 0), Vec::<u32>::new());
    assert_eq!(index.len(), 0);
    assert_eq!(index.insert(&[], 2), vec![0, 0]);
    assert_eq!((index.len(), index.find(&[], 1)), (1, vec![0]));
    assert!(index.columns(&[0]).is_empty());
}
