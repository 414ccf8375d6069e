//! The values of one argument in each group, in order: what uncovers the next extreme when one goes.
//!
//! Few values are a sorted list, which is what nearly every group has; many are an ordered map.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use arrow::array::{ArrayRef, UInt32Array, new_null_array};
use arrow::compute::take;
use arrow::datatypes::DataType;
use tributary_storage::KeyEncoder;

/// A list with more values than this becomes a map.
const LISTED_MAX: usize = 64;

/// See the module's documentation. No value is null.
#[derive(Debug)]
pub(crate) struct Multiset {
    encoder: KeyEncoder,
    /// The length of an encoded value, where all have the same and it is short.
    short: Option<usize>,
    groups: Vec<Values>,
}

/// An encoded value; short ones, which are nearly all, are compared as one number.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Short([u8; 16]),
    Long(Box<[u8]>),
}

/// Values and how often each occurs; none occurs zero times.
#[derive(Clone, Debug)]
enum Values {
    Few(Vec<(Key, i64)>),
    Many(BTreeMap<Key, i64>),
}

impl Multiset {
    pub(crate) fn new(data_type: &DataType) -> Self {
        let encoder = KeyEncoder::new(std::slice::from_ref(data_type));
        let null = encoder.encode(&[new_null_array(data_type, 1)]);
        let fixed = data_type.primitive_width().is_some() || *data_type == DataType::Boolean;
        let short = Some(null.get(0).len()).filter(|len| fixed && *len <= size_of::<[u8; 16]>());
        Self {
            encoder,
            short,
            groups: Vec::new(),
        }
    }

    /// Makes room for `groups` groups.
    pub(crate) fn grow(&mut self, groups: usize) {
        self.groups.resize(groups, Values::none());
    }

    /// Keeps the groups at `live`, in that order.
    pub(crate) fn retain(&mut self, live: &[u32]) {
        let kept = live
            .iter()
            .map(|group| std::mem::replace(&mut self.groups[*group as usize], Values::none()));
        self.groups = kept.collect();
    }

    /// Adds values, each as often as its weight says, to their groups.
    pub(crate) fn add(&mut self, groups: &[u32], values: &ArrayRef, weights: Option<&[i64]>) {
        let keys = self
            .encoder
            .encode_rows(std::slice::from_ref(values), groups.len());
        for (row, group) in groups.iter().enumerate() {
            let key = match self.short {
                Some(len) => {
                    let mut padded = [0; 16];
                    padded[..len].copy_from_slice(keys.get(row));
                    Key::Short(padded)
                }
                None => Key::Long(keys.get(row).into()),
            };
            self.groups[*group as usize].add(key, weights.map_or(1, |weights| weights[row]));
        }
    }

    /// The first or the last value of some groups, null for those that have none.
    pub(crate) fn extremes(&self, groups: &[u32], last: bool) -> ArrayRef {
        let mut found = Vec::with_capacity(groups.len());
        let places: UInt32Array = groups
            .iter()
            .map(|group| {
                found.push(self.groups[*group as usize].extreme(last)?);
                Some(found.len() as u32 - 1)
            })
            .collect();
        take(&self.decoded(&found), &places, None).expect("places lie among the values found")
    }

    /// All values of some groups: for each its place in `groups`, the value, and how often it occurs.
    pub(crate) fn all(&self, groups: &[u32]) -> (Vec<u32>, ArrayRef, Vec<i64>) {
        let (mut places, mut keys, mut counts) = (Vec::new(), Vec::new(), Vec::new());
        for (place, group) in groups.iter().enumerate() {
            for (key, count) in self.groups[*group as usize].iter() {
                places.push(place as u32);
                keys.push(key);
                counts.push(count);
            }
        }
        (places, self.decoded(&keys), counts)
    }

    fn decoded(&self, keys: &[&Key]) -> ArrayRef {
        let bytes = keys.iter().map(|key| match key {
            Key::Short(padded) => &padded[..self.short.expect("keys of this multiset are short")],
            Key::Long(bytes) => bytes,
        });
        self.encoder.decode_all(bytes).remove(0)
    }

    /// The number of values, each counted once.
    pub(crate) fn len(&self) -> usize {
        self.groups.iter().map(Values::len).sum()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.groups.capacity() * size_of::<Values>() + self.len() * size_of::<(Key, i64)>() * 3 / 2
    }
}

impl Values {
    fn none() -> Self {
        Self::Few(Vec::new())
    }

    fn len(&self) -> usize {
        match self {
            Self::Few(list) => list.len(),
            Self::Many(map) => map.len(),
        }
    }

    fn add(&mut self, key: Key, weight: i64) {
        match self {
            Self::Few(list) => {
                match list.binary_search_by(|(other, _)| other.cmp(&key)) {
                    Ok(place) => {
                        list[place].1 += weight;
                        if list[place].1 == 0 {
                            list.remove(place);
                        }
                    }
                    Err(place) if weight != 0 => list.insert(place, (key, weight)),
                    Err(_) => {}
                }
                if list.len() > LISTED_MAX {
                    *self = Self::Many(std::mem::take(list).into_iter().collect());
                }
            }
            Self::Many(map) => match map.entry(key) {
                Entry::Vacant(entry) if weight != 0 => drop(entry.insert(weight)),
                Entry::Vacant(_) => {}
                Entry::Occupied(mut entry) => {
                    *entry.get_mut() += weight;
                    if *entry.get() == 0 {
                        entry.remove();
                    }
                }
            },
        }
    }

    /// The first or last value that is there: within a batch a value may be owed before it comes.
    fn extreme(&self, last: bool) -> Option<&Key> {
        let is_there = |(_, count): &(&Key, i64)| *count > 0;
        let found = match last {
            true => self.iter().rev().find(is_there),
            false => self.iter().find(is_there),
        };
        found.map(|(key, _)| key)
    }

    fn iter(&self) -> Box<dyn DoubleEndedIterator<Item = (&Key, i64)> + '_> {
        match self {
            Self::Few(list) => Box::new(list.iter().map(|(key, count)| (key, *count))),
            Self::Many(map) => Box::new(map.iter().map(|(key, count)| (key, *count))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Array, AsArray, Int64Array, StringArray};
    use arrow::datatypes::Int64Type;

    use super::*;

    #[test]
    fn extremes_come_back_when_what_hid_them_goes() {
        for many in [false, true] {
            let mut values = Multiset::new(&DataType::Int64);
            values.grow(2);
            let count = if many { 3 * LISTED_MAX as i64 } else { 3 };
            let column: ArrayRef = Arc::new(Int64Array::from_iter_values(-count..=count));
            let groups = vec![1; column.len()];
            values.add(&groups, &column, None);
            let ends = |values: &Multiset| {
                let end = |last| values.extremes(&[0, 1], last).as_primitive::<Int64Type>().clone();
                assert!(end(false).is_null(0) && end(true).is_null(0));
                let at = |end: Int64Array| end.is_valid(1).then(|| end.value(1));
                (at(end(false)), at(end(true)))
            };
            assert_eq!(ends(&values), (Some(-count), Some(count)));
            let gone: ArrayRef = Arc::new(Int64Array::from(vec![count, -count]));
            values.add(&[1, 1], &gone, Some(&[-1, -1]));
            assert_eq!(ends(&values), (Some(1 - count), Some(count - 1)));
            values.add(&groups, &column, Some(&vec![-1; groups.len()]));
            values.add(&[1, 1], &gone, None);
            assert_eq!((ends(&values), values.len()), ((None, None), 0));
        }
    }

    #[test]
    fn texts_are_ordered_and_told_again() {
        let mut values = Multiset::new(&DataType::Utf8);
        values.grow(1);
        let column: ArrayRef = Arc::new(StringArray::from(vec!["b", "a longer one", "b", ""]));
        values.add(&[0; 4], &column, None);
        assert_eq!(values.extremes(&[0], true).as_string::<i32>().value(0), "b");
        let (places, told, counts) = values.all(&[0]);
        assert_eq!((places, counts), (vec![0, 0, 0], vec![1, 1, 2]));
        assert_eq!(told.as_string::<i32>().value(1), "a longer one");
    }
}
