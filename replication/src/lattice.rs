//! Values that only grow: merging is associative, commutative and idempotent, so the order and the number of
//! times in which regions hear of each other does not matter.

/// A join-semilattice.
pub trait Lattice {
    /// Takes in everything `other` knows. True means "I changed, pass it on".
    fn merge(&mut self, other: Self) -> bool;
}

/// The smaller of two optional things is "nothing known yet".
impl<L: Lattice> Lattice for Option<L> {
    fn merge(&mut self, other: Self) -> bool {
        match (self.as_mut(), other) {
            (_, None) => false,
            (Some(mine), Some(theirs)) => mine.merge(theirs),
            (None, theirs) => {
                *self = theirs;
                true
            }
        }
    }
}

/// Checks the laws of a lattice on every combination of `values`. For tests of implementations.
///
/// # Panics
/// When a law does not hold, with the values that break it.
pub fn assert_laws<L: Lattice + Clone + PartialEq + std::fmt::Debug>(values: &[L]) {
    let merged = |a: &L, b: &L| {
        let mut merged = a.clone();
        let changed = merged.merge(b.clone());
        assert_eq!(
            changed,
            merged != *a,
            "merge tells whether it changed: {a:?} with {b:?}"
        );
        merged
    };
    for a in values {
        assert_eq!(merged(a, a), *a, "merging is idempotent: {a:?}");
        for b in values {
            let ab = merged(a, b);
            assert_eq!(ab, merged(b, a), "merging is commutative: {a:?}, {b:?}");
            assert_eq!(merged(&ab, b), ab, "what was merged is known: {a:?}, {b:?}");
            for c in values {
                assert_eq!(
                    merged(&ab, c),
                    merged(a, &merged(b, c)),
                    "merging is associative: {a:?}, {b:?}, {c:?}"
                );
            }
        }
    }
}
