//! The values of one argument in each group, in order: what uncovers the next extreme when one goes.
//!
//! Few values are a sorted list, which is what nearly every group has; many are an ordered map.
//!
//! A checkpoint gathers the values of one moment in portions, while they change. Multisets are sums, so a change of a
//! value whose turn has not come is undone by an entry of the opposite weight: `then = now - (now - then)`. What is
//! gathered may so hold a value several times, and sums up to what was there.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry as MapEntry;
use std::ops::Bound;

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
    /// A checkpoint in the making.
    cut: Option<Cut>,
}

/// The values of the groups before `end` as they were when the cut began.
#[derive(Debug)]
struct Cut {
    end: usize,
    /// The values of groups before this one are gathered.
    next: usize,
    /// Of the group at `next` the values up to this one, too.
    after: Option<Key>,
    /// What undoes the changes of values before their turn.
    undoing: BTreeMap<(u32, Key), i64>,
}

/// Some values of a cut.
pub(crate) struct Portion {
    /// For each value its group.
    pub(crate) groups: Vec<u32>,
    pub(crate) values: ArrayRef,
    /// How often each counts.
    pub(crate) weights: Vec<i64>,
    /// What gathering them cost.
    pub(crate) cost: usize,
}

/// A value of a group, and how often.
type Entry = (u32, Key, i64);

impl Cut {
    /// Remembers what takes back a change.
    fn undo(&mut self, group: u32, key: Key, weight: i64) {
        match self.undoing.entry((group, key)) {
            MapEntry::Vacant(entry) => drop(entry.insert(-weight)),
            MapEntry::Occupied(mut entry) => {
                *entry.get_mut() -= weight;
                if *entry.get() == 0 {
                    entry.remove();
                }
            }
        }
    }

    fn wants(&self, group: u32, key: &Key) -> bool {
        let group = group as usize;
        group < self.end
            && (group > self.next
                || (group == self.next && self.after.as_ref().is_none_or(|after| key > after)))
    }
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
            cut: None,
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
            let weight = weights.map_or(1, |weights| weights[row]);
            if let Some(cut) = self.cut.as_mut().filter(|cut| cut.wants(*group, &key)) {
                cut.undo(*group, key.clone(), weight);
            }
            self.groups[*group as usize].add(key, weight);
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

    /// From here on [`Multiset::gather_cut`] gathers what is here now of the groups before `end`.
    pub(crate) fn begin_cut(&mut self, end: usize) {
        self.cut = Some(Cut {
            end,
            next: 0,
            after: None,
            undoing: BTreeMap::new(),
        });
    }

    /// Whether there is more to gather.
    pub(crate) fn has_cut(&self) -> bool {
        self.cut.is_some()
    }

    /// Gathers values of the cut, at a cost of at most `cost_max`: one for each value and each group passed. `None`
    /// when all are gathered; there is no cut then.
    pub(crate) fn gather_cut(&mut self, cost_max: usize) -> Option<Portion> {
        let mut cut = self.cut.take()?;
        let mut entries: Vec<Entry> = Vec::new();
        let mut cost = 0;
        while cut.next < cut.end && cost < cost_max {
            let (more, group) = (cost_max - cost, cut.next as u32);
            let values = self.groups[cut.next].iter_after(cut.after.as_ref());
            let before = entries.len();
            entries.extend(values.take(more).map(|(key, count)| (group, key.clone(), count)));
            let found = entries.len() - before;
            if found < more {
                (cut.next, cut.after) = (cut.next + 1, None);
                cost += found + 1;
            } else {
                cut.after = entries.last().map(|(_, key, _)| key.clone());
                cost += found;
            }
        }
        while cost < cost_max
            && let Some(((group, key), weight)) = cut.undoing.pop_last()
        {
            entries.push((group, key, weight));
            cost += 1;
        }
        if cost == 0 {
            return None;
        }
        self.cut = Some(cut);
        let keys: Vec<&Key> = entries.iter().map(|(_, key, _)| key).collect();
        Some(Portion {
            values: self.decoded(&keys),
            groups: entries.iter().map(|(group, ..)| *group).collect(),
            weights: entries.iter().map(|(.., weight)| *weight).collect(),
            cost,
        })
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
                MapEntry::Vacant(entry) if weight != 0 => drop(entry.insert(weight)),
                MapEntry::Vacant(_) => {}
                MapEntry::Occupied(mut entry) => {
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

    /// The values after one, or all.
    fn iter_after<'a>(&'a self, after: Option<&'a Key>) -> Box<dyn Iterator<Item = (&'a Key, i64)> + 'a> {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        match self {
            Self::Few(list) => {
                let skipped = after.map_or(0, |after| list.partition_point(|(key, _)| key <= after));
                Box::new(list[skipped..].iter().map(|(key, count)| (key, *count)))
            }
            Self::Many(map) => {
                let range = map.range::<Key, _>((start, Bound::Unbounded));
                Box::new(range.map(|(key, count)| (key, *count)))
            }
        }
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
        values.begin_cut(1);
        let told = values.gather_cut(10).expect("there are values");
        assert_eq!((told.groups, told.weights), (vec![0, 0, 0], vec![1, 1, 2]));
        assert_eq!(told.values.as_string::<i32>().value(1), "a longer one");
        assert!(values.gather_cut(10).is_none() && !values.has_cut());
    }
}
