//! Looking up a batch of keys in a set of segments.
//!
//! Keys are visited in byte order, so every segment is walked once from front to back; the ranges found are
//! then summed per key in the caller's order, and all rows are decoded in one go. Nothing is allocated per
//! key or row beyond growing the output.

use arrow::array::{ArrayRef, Int64Array, UInt32Array};

use super::Found;
use super::layout::RowCodec;
use super::merge::Merge;
use super::segment::Segment;

/// Which of a key's rows are wanted.
#[derive(Clone, Copy)]
pub(crate) enum Wanted {
    /// All of non-zero weight.
    All,
    /// At most so many of positive weight, from the first in trace order.
    First(usize),
    /// At most so many of positive weight, the last in trace order.
    Last(usize),
}

impl Wanted {
    pub(crate) fn up_to(n: usize, from_end: bool) -> Self {
        if from_end { Self::Last(n) } else { Self::First(n) }
    }
}

/// Rows that were found, not yet decoded.
#[derive(Default)]
struct Gathered<'a> {
    rows: Vec<&'a [u8]>,
    weights: Vec<i64>,
    probe: Vec<u32>,
}

/// The rows of each of `rows` keys in the sum of all segments.
pub(crate) fn lookup(
    codec: &RowCodec,
    segments: &[&Segment],
    keys: &[ArrayRef],
    rows: usize,
    wanted: Wanted,
) -> Found {
    let probes = u32::try_from(rows).expect("a lookup has fewer than 2^32 keys");
    let encoded = codec.encode_keys(keys);
    if let Some(encoded) = &encoded {
        assert_eq!(encoded.num_rows(), rows, "key columns have one value per probe");
    }
    let key = |probe: u32| {
        encoded
            .as_ref()
            .map_or(&b""[..], |keys| keys.row(probe as usize).data())
    };
    let ranges = find_ranges(segments, probes, key);
    let mut gathered = Gathered::default();
    let mut merge = match wanted {
        Wanted::Last(_) => Merge::backwards(),
        Wanted::All | Wanted::First(_) => Merge::forwards(),
    };
    for probe in 0..probes {
        merge.clear();
        for (source, segment) in segments.iter().enumerate() {
            let (start, end) = ranges[probe as usize * segments.len() + source];
            merge.add(source, segment, start, end);
        }
        gather(&mut merge, probe, wanted, &mut gathered);
    }
    Found {
        rows: codec.decode(gathered.rows.iter().copied()),
        weights: Int64Array::from(gathered.weights),
        probe: UInt32Array::from(gathered.probe),
    }
}

/// The range of each key in each segment, at index `probe * segments + segment`.
fn find_ranges<'k>(segments: &[&Segment], probes: u32, key: impl Fn(u32) -> &'k [u8]) -> Vec<(usize, usize)> {
    let mut order: Vec<u32> = (0..probes).collect();
    if !order.is_sorted_by(|a, b| key(*a) <= key(*b)) {
        order.sort_unstable_by(|a, b| key(*a).cmp(key(*b)));
    }
    let mut ranges = vec![(0, 0); segments.len() * order.len()];
    for (i, segment) in segments.iter().enumerate() {
        let mut from = 0;
        for probe in &order {
            let (start, end) = segment.range_of(key(*probe), from);
            ranges[*probe as usize * segments.len() + i] = (start, end);
            // Not `end`: the next probe may be the same key again.
            from = start;
        }
    }
    ranges
}

fn gather<'a>(merge: &mut Merge<'a>, probe: u32, wanted: Wanted, found: &mut Gathered<'a>) {
    let first = found.rows.len();
    let rows_max = match wanted {
        Wanted::All => usize::MAX,
        Wanted::First(n) | Wanted::Last(n) => n,
    };
    while found.rows.len() - first < rows_max {
        let Some((row, weight)) = merge.next() else { break };
        if weight > 0 || matches!(wanted, Wanted::All) {
            found.rows.push(row);
            found.weights.push(weight);
            found.probe.push(probe);
        }
    }
    if let Wanted::Last(_) = wanted {
        found.rows[first..].reverse();
        found.weights[first..].reverse();
    }
}
