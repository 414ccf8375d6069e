//! The sum of several sorted segments, as an iterator over rows.
//!
//! One segment usually dominates, so after a row was found smaller than all others its segment is followed
//! without looking at the others until it reaches the smallest of them (its *bound*): about one comparison
//! per row instead of one per segment.
//!
//! Invariants: rows come out strictly ascending (descending when backwards), each once, never with weight 0.

use std::cmp::Ordering;

use super::segment::Segment;
use crate::key::add_weights;

/// The part of a segment that is still to come: `start..end`, taken from the front, or from the back.
#[derive(Clone, Copy)]
struct Cursor<'a> {
    /// The caller's name for the segment.
    source: usize,
    segment: &'a Segment,
    start: usize,
    end: usize,
}

/// Merges ranges of segments. See the module's description.
pub(crate) struct Merge<'a> {
    cursors: Vec<Cursor<'a>>,
    backwards: bool,
    /// Cursor 0 may be followed alone up to, but not including, this row.
    bound: Option<&'a [u8]>,
}

impl<'a> Merge<'a> {
    pub(crate) fn forwards() -> Self {
        Self {
            cursors: Vec::new(),
            backwards: false,
            bound: None,
        }
    }

    pub(crate) fn backwards() -> Self {
        Self {
            backwards: true,
            ..Self::forwards()
        }
    }

    /// Adds rows `start..end` of a segment that the caller calls `source`. All are added before the first
    /// row is taken.
    pub(crate) fn add(&mut self, source: usize, segment: &'a Segment, start: usize, end: usize) {
        if start < end {
            self.cursors.push(Cursor {
                source,
                segment,
                start,
                end,
            });
        }
    }

    /// What is still to come, as (source, start, end): enough to go on later with another `Merge`.
    pub(crate) fn rest(&self) -> Vec<(usize, usize, usize)> {
        let mut rest: Vec<_> = self.cursors.iter().map(|c| (c.source, c.start, c.end)).collect();
        rest.sort_unstable();
        rest
    }

    /// Forgets what is left, and keeps the allocation.
    pub(crate) fn clear(&mut self) {
        self.cursors.clear();
        self.bound = None;
    }

    /// The next row and its weight.
    pub(crate) fn next(&mut self) -> Option<(&'a [u8], i64)> {
        loop {
            if self.cursors.len() <= 1 {
                let (row, weight) = (self.cursors.first()?.row(self.backwards), self.pop(0));
                return Some((row, weight));
            }
            if let Some(bound) = self.bound {
                let row = self.cursors[0].row(self.backwards);
                if self.order(row, bound).is_lt() {
                    return Some((row, self.pop(0)));
                }
            }
            let (row, weight) = self.sum_least();
            if weight != 0 {
                return Some((row, weight));
            }
        }
    }

    /// Takes the least row from every cursor that stands on it, and sums the weights.
    fn sum_least(&mut self) -> (&'a [u8], i64) {
        self.bound = None;
        let mut leader = 0;
        let mut least = self.cursors[0].row(self.backwards);
        for (i, cursor) in self.cursors.iter().enumerate().skip(1) {
            let row = cursor.row(self.backwards);
            if self.order(row, least).is_lt() {
                (leader, least) = (i, row);
            }
        }
        self.cursors.swap(0, leader);
        let (mut sum, mut bound) = (0, None);
        // From the back, so that a cursor that ends can be removed by a swap with one already seen.
        for i in (0..self.cursors.len()).rev() {
            let row = self.cursors[i].row(self.backwards);
            if row == least {
                let single = self.cursors[i].len() == 1;
                sum = add_weights(sum, self.pop(i));
                if single {
                    continue;
                }
            }
            if i > 0 {
                let row = self.cursors[i].row(self.backwards);
                bound = match bound {
                    Some(other) if self.order(other, row).is_le() => Some(other),
                    _ => Some(row),
                };
            }
        }
        // When the leader ended, another cursor stands at 0 and the bound may be its own row: the next call
        // then compares all, which is correct, only slower.
        self.bound = bound;
        (least, sum)
    }

    /// Takes one row from cursor `i` and returns its weight; an exhausted cursor is removed.
    fn pop(&mut self, i: usize) -> i64 {
        let cursor = &mut self.cursors[i];
        let weight = cursor.segment.weight(cursor.at(self.backwards));
        if self.backwards {
            cursor.end -= 1;
        } else {
            cursor.start += 1;
        }
        if cursor.len() == 0 {
            self.cursors.swap_remove(i);
            if i == 0 {
                self.bound = None;
            }
        }
        weight
    }

    fn order(&self, a: &[u8], b: &[u8]) -> Ordering {
        if self.backwards { b.cmp(a) } else { a.cmp(b) }
    }
}

impl<'a> Cursor<'a> {
    fn len(&self) -> usize {
        self.end - self.start
    }

    fn at(&self, backwards: bool) -> usize {
        if backwards { self.end - 1 } else { self.start }
    }

    fn row(&self, backwards: bool) -> &'a [u8] {
        self.segment.row(self.at(backwards))
    }
}
