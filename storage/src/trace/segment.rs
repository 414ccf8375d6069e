//! Sorted, consolidated rows: what both pending state and runs are made of.
//!
//! Invariants: rows ascend strictly by their bytes, every weight differs from zero. A segment never changes.

use super::layout::RowCodec;
use super::merge::Merge;
use crate::Delta;
use crate::key::{Keys, KeysBuilder, sum_equal_rows};

/// Encoded rows in order, each once, with its weight.
#[derive(Debug)]
pub(crate) struct Segment {
    rows: Keys,
    weights: Vec<i64>,
}

impl Segment {
    /// The delta in canonical form under the codec's column order.
    pub(crate) fn from_delta(codec: &RowCodec, delta: &Delta) -> Self {
        let encoded = codec.encode(delta.rows());
        let bytes = |i: usize| encoded.as_ref().map_or(&b""[..], |rows| rows.row(i).data());
        let summed = sum_equal_rows(delta.len(), bytes, |i| delta.weight(i));
        let size = summed.iter().map(|(row, _)| bytes(*row as usize).len()).sum();
        let mut rows = KeysBuilder::with_capacity(summed.len(), size);
        summed.iter().for_each(|(row, _)| rows.push(bytes(*row as usize)));
        Self {
            rows: rows.finish(),
            weights: summed.into_iter().map(|(_, weight)| weight).collect(),
        }
    }

    /// The sum of several segments.
    pub(crate) fn merged<'a>(segments: impl ExactSizeIterator<Item = &'a Segment> + Clone) -> Self {
        // Segments of keys that count up follow one another.
        if Self::follow_one_another(segments.clone()) {
            return Self::appended(segments);
        }
        let (mut rows_max, mut bytes_max) = (0, 0);
        let mut merge = Merge::forwards();
        for (source, segment) in segments.enumerate() {
            rows_max += segment.len();
            bytes_max += segment.rows.data_bytes();
            merge.add(source, segment, 0, segment.len());
        }
        let mut rows = KeysBuilder::with_capacity(rows_max, bytes_max);
        let mut weights = Vec::with_capacity(rows_max);
        while let Some((row, weight)) = merge.next() {
            rows.push(row);
            weights.push(weight);
        }
        weights.shrink_to_fit();
        Self {
            rows: rows.finish(),
            weights,
        }
    }

    /// The sum of segments that usually follow one another.
    pub(crate) fn joined(segments: Vec<Segment>) -> Self {
        let segments: Vec<Segment> = segments.into_iter().filter(|segment| segment.len() > 0).collect();
        Self::merged(segments.iter())
    }

    fn follow_one_another<'a>(segments: impl Iterator<Item = &'a Segment>) -> bool {
        let mut last: Option<&[u8]> = None;
        for segment in segments.filter(|segment| segment.len() > 0) {
            if last.is_some_and(|last| last >= segment.row(0)) {
                return false;
            }
            last = Some(segment.row(segment.len() - 1));
        }
        true
    }

    /// Segments that follow one another, as one.
    fn appended<'a>(segments: impl Iterator<Item = &'a Segment> + Clone) -> Self {
        let sizes = segments
            .clone()
            .map(|segment| (segment.len(), segment.rows.data_bytes()));
        let (rows_max, bytes_max) = sizes.fold((0, 0), |sum, size| (sum.0 + size.0, sum.1 + size.1));
        let mut rows = KeysBuilder::with_capacity(rows_max, bytes_max);
        let mut weights = Vec::with_capacity(rows_max);
        for segment in segments {
            rows.extend(&segment.rows);
            weights.extend_from_slice(&segment.weights);
        }
        Self {
            rows: rows.finish(),
            weights,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.weights.len()
    }

    pub(crate) fn row(&self, i: usize) -> &[u8] {
        self.rows.get(i)
    }

    pub(crate) fn weight(&self, i: usize) -> i64 {
        self.weights[i]
    }

    pub(crate) fn rows(&self) -> &Keys {
        &self.rows
    }

    pub(crate) fn weights(&self) -> &[i64] {
        &self.weights
    }

    pub(crate) fn bytes(&self) -> usize {
        self.rows.bytes() + self.weights.capacity() * size_of::<i64>()
    }

    /// The range of rows that start with `key`, searched from `from` on. Steps double before they halve, so
    /// that a batch of sorted keys walks the segment instead of searching it anew for every key.
    pub(crate) fn range_of(&self, key: &[u8], from: usize) -> (usize, usize) {
        let start = self.gallop(from, |row| row < key);
        let end = self.gallop(start, |row| row.starts_with(key));
        (start, end)
    }

    /// The range of rows that neither come before those starting with `lower` nor after those starting with `upper`.
    pub(crate) fn range_between(&self, lower: Option<&[u8]>, upper: Option<&[u8]>) -> (usize, usize) {
        let start = lower.map_or(0, |lower| self.gallop(0, |row| row < lower));
        let within = |row: &[u8], upper: &[u8]| row < upper || row.starts_with(upper);
        let end = upper.map_or(self.len(), |upper| self.gallop(start, |row| within(row, upper)));
        (start, end)
    }

    /// The first index at or after `from` where `before` no longer holds; it holds for a prefix of the rows.
    fn gallop(&self, from: usize, before: impl Fn(&[u8]) -> bool) -> usize {
        let (mut low, mut step) = (from, 1);
        let mut high = self.len();
        while low < high {
            let next = low + step - 1;
            if next >= high {
                break;
            }
            if before(self.row(next)) {
                low = next + 1;
                step *= 2;
            } else {
                high = next;
                break;
            }
        }
        while low < high {
            let middle = low + (high - low) / 2;
            if before(self.row(middle)) {
                low = middle + 1
            } else {
                high = middle
            }
        }
        low
    }
}

/// Merges the newest segments of a spine (oldest first) that are of similar size into one, and says from
/// which index on. After a merge every segment has at least twice as many rows as the next, so there are at
/// most log2(rows) of them.
pub(crate) fn similar_suffix(lengths: impl DoubleEndedIterator<Item = usize> + ExactSizeIterator) -> usize {
    let count = lengths.len();
    let (mut total, mut first) = (0, count);
    for (i, length) in lengths.enumerate().rev() {
        if first != count && length >= 2 * total {
            break;
        }
        total += length;
        first = i;
    }
    first
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn similar_segments_are_merged_and_large_ones_left_alone() {
        assert_eq!(similar_suffix([100, 10, 1].into_iter()), 2);
        assert_eq!(similar_suffix([100, 3, 2].into_iter()), 1);
        assert_eq!(similar_suffix([9, 3, 2].into_iter()), 0);
        assert_eq!(similar_suffix([5].into_iter()), 0);
        assert_eq!(similar_suffix([0usize; 0].into_iter()), 0);
    }

    #[test]
    fn galloping_finds_what_a_linear_search_finds() {
        let rows: Keys = ["a", "ab", "ab1", "ab2", "b", "c", "c1"].into_iter().collect();
        let segment = Segment {
            weights: vec![1; rows.len()],
            rows,
        };
        for key in ["", "a", "ab", "ab3", "b", "bb", "c1", "d"] {
            for from in 0..=segment.len() {
                let matches: Vec<usize> = (from..segment.len())
                    .filter(|i| segment.row(*i).starts_with(key.as_bytes()))
                    .collect();
                let (start, end) = segment.range_of(key.as_bytes(), from);
                assert_eq!((start..end).collect::<Vec<_>>(), matches, "{key} from {from}");
            }
        }
    }
}
