//! Live slots, as places in what holds them, and bringing them together.

use std::collections::BTreeMap;

use arrow::array::{Array, ArrayRef, Int64Array, UInt32Array};
use arrow::compute::{interleave, take};
use tributary_storage::OriginId;

use super::LiveSlots;
use super::of_origin::OfOrigin;

/// Slots to bring together, ascending by key and then by origin.
pub(super) struct Picks {
    probe: Vec<u32>,
    /// For each its source and where it stands among the rows taken from there. The arriving rows are the source
    /// after the last origin.
    places: Vec<(usize, usize)>,
    /// Per origin the rows to take.
    rows: Vec<Vec<u32>>,
    origins: Vec<OriginId>,
    arriving: usize,
}

impl Picks {
    pub(super) fn new(origins: &BTreeMap<OriginId, OfOrigin>) -> Self {
        Self {
            probe: Vec::new(),
            places: Vec::new(),
            rows: vec![Vec::new(); origins.len()],
            origins: origins.keys().copied().collect(),
            arriving: origins.len(),
        }
    }

    /// The slot of the key `probe` that the origin of this number holds in `row`.
    pub(super) fn push(&mut self, probe: usize, number: usize, row: u32) {
        self.probe.push(probe as u32);
        self.places.push((number, self.rows[number].len()));
        self.rows[number].push(row);
    }

    /// The arriving slot of the key `probe`.
    pub(super) fn push_arriving(&mut self, probe: usize) {
        self.probe.push(probe as u32);
        self.places.push((self.arriving, probe));
    }

    /// Brings them together; in stores the partials start at column `first`. `writer` wrote what arrives.
    pub(super) fn take(
        self,
        origins: &BTreeMap<OriginId, OfOrigin>,
        first: usize,
        writer: OriginId,
        arriving: &[ArrayRef],
    ) -> LiveSlots {
        let origin_of = |(source, _): &(usize, usize)| self.origins.get(*source).unwrap_or(&writer).as_i64();
        let origins_column: Int64Array = self.places.iter().map(origin_of).collect();
        let used: Vec<usize> = (0..self.arriving).filter(|n| !self.rows[*n].is_empty()).collect();
        let arrived = self.places.iter().any(|(source, _)| *source == self.arriving);
        let partials = match (used.as_slice(), arrived) {
            ([only], false) => {
                let slots = &origins[&self.origins[*only]];
                slots.take_from(first, &self.rows[*only])
            }
            ([], _) => {
                let rows: UInt32Array = self.places.iter().map(|(_, row)| *row as u32).collect();
                let all = |column: &ArrayRef| rows.len() == column.len();
                let taken = |column: &ArrayRef| match all(column) {
                    true => column.clone(),
                    false => take(column, &rows, None).expect("rows of this batch"),
                };
                arriving.iter().map(taken).collect()
            }
            _ => self.interleaved(origins, first, arriving),
        };
        LiveSlots {
            probe: self.probe.into(),
            origins: origins_column,
            partials,
        }
    }

    fn interleaved(
        &self,
        origins: &BTreeMap<OriginId, OfOrigin>,
        first: usize,
        arriving: &[ArrayRef],
    ) -> Vec<ArrayRef> {
        let of_origin =
            |(number, rows): (usize, &Vec<u32>)| origins[&self.origins[number]].take_from(first, rows);
        let mut sources: Vec<Vec<ArrayRef>> = self.rows.iter().enumerate().map(of_origin).collect();
        sources.push(arriving.to_vec());
        (0..arriving.len())
            .map(|column| {
                let arrays: Vec<&dyn Array> = sources.iter().map(|source| source[column].as_ref()).collect();
                interleave(&arrays, &self.places).expect("the sources have one type per column")
            })
            .collect()
    }
}
