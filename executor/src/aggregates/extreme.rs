//! min and max: the partial is the extreme value of one region, null without values. Extremes of extremes are
//! extremes; what a retraction uncovers is found in the ordered multiset of [`crate::operators::groups`].

use arrow::array::{Array, ArrayRef, UInt32Array, new_null_array};
use arrow::compute::interleave;
use arrow::datatypes::DataType;
use tributary_storage::KeyEncoder;

/// The extremes of several groups.
#[derive(Clone, Debug)]
pub(crate) struct Extremes {
    values: ArrayRef,
    largest: bool,
}

impl Extremes {
    pub(crate) fn new(groups: usize, data_type: &DataType, largest: bool) -> Self {
        Self {
            values: new_null_array(data_type, groups),
            largest,
        }
    }

    /// Takes the values as they are, one per group.
    pub(crate) fn replace(&mut self, values: ArrayRef) {
        self.values = values;
    }

    /// Keeps, per group, the most extreme of what is there and what is added.
    pub(crate) fn add_partials(&mut self, groups: &[u32], column: &ArrayRef) {
        let encoder = KeyEncoder::new(&[column.data_type().clone()]);
        let own = encoder.encode(std::slice::from_ref(&self.values));
        let added = encoder.encode(std::slice::from_ref(column));
        // Per group, where the best value so far is: (0, group) is the own one, (1, row) an added one.
        let mut best: Vec<(usize, usize)> = (0..self.values.len()).map(|group| (0, group)).collect();
        for (row, group) in groups.iter().enumerate() {
            if column.is_null(row) {
                continue;
            }
            let place = &mut best[*group as usize];
            let (is_null, bytes) = match *place {
                (0, group) => (self.values.is_null(group), own.get(group)),
                (_, row) => (false, added.get(row)),
            };
            let candidate = added.get(row);
            if is_null
                || (if self.largest {
                    candidate > bytes
                } else {
                    candidate < bytes
                })
            {
                *place = (1, row);
            }
        }
        self.values =
            interleave(&[self.values.as_ref(), column.as_ref()], &best).expect("values of one type");
    }

    pub(crate) fn column(&self) -> ArrayRef {
        self.values.clone()
    }
}

/// Per group the value found for it, null where none was; `probe` ascends and names each group at most once.
pub(crate) fn scatter(found: &ArrayRef, probe: &UInt32Array, groups: usize) -> ArrayRef {
    let mut source: Vec<Option<u32>> = vec![None; groups];
    probe
        .values()
        .iter()
        .enumerate()
        .for_each(|(row, group)| source[*group as usize] = Some(row as u32));
    arrow::compute::take(found, &UInt32Array::from(source), None).expect("rows lie within what was found")
}
