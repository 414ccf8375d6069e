//! Where the rows of an operator are, by the localities of its inputs: the table of the architecture, as code.
//!
//! | operator | rule |
//! |---|---|
//! | filter, project | keep |
//! | union all | regional inputs stay regional together; with global inputs they are merged first |
//! | join | [`join`] |
//! | aggregate, distinct, top-k | over regional rows: a local part, a merge boundary, a global part |
//!
//! There are three localities here and two in the plan: what is [`Place::Shared`] is global and has no merge
//! boundary below it, so that it can still stand in a local fragment.

use crate::plan::JoinKind;

/// Where the rows of a tree are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Each row is in exactly one region.
    Regional,
    /// The same rows are everywhere, read from GLOBAL tables and views only.
    Shared,
    /// The same rows are everywhere, once merged.
    Merged,
}

/// Where a join is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JoinPlace {
    /// In each region, on its own rows.
    Local,
    /// Everywhere, from rows that are the same everywhere.
    Shared,
    /// Everywhere, after merging regional inputs.
    Merged,
}

/// The rule for joins.
///
/// A join of regional with shared rows is local only if each result row comes from one regional row: always in an
/// inner join, and in a left join if the regional side is the preserved one. A preserved shared side would appear
/// unmatched in every region that lacks a partner. Regional rows join where they are if the join's keys say that both
/// are of the `same_region`; otherwise both sides are merged, since rows of different regions have to meet.
pub fn join(kind: JoinKind, left: Place, right: Place, same_region: bool) -> JoinPlace {
    match (left, right) {
        (Place::Regional, Place::Regional) if same_region => JoinPlace::Local,
        (Place::Shared, Place::Shared) => JoinPlace::Shared,
        (Place::Regional, Place::Shared) => JoinPlace::Local,
        (Place::Shared, Place::Regional) if kind == JoinKind::Inner => JoinPlace::Local,
        _ => JoinPlace::Merged,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_join_is_local_when_each_result_comes_from_one_regional_row() {
        use Place::{Merged, Regional, Shared};
        for (kind, left, right, expected) in [
            (JoinKind::Inner, Regional, Shared, JoinPlace::Local),
            (JoinKind::Inner, Shared, Regional, JoinPlace::Local),
            (JoinKind::Left, Regional, Shared, JoinPlace::Local),
            (JoinKind::Left, Shared, Regional, JoinPlace::Merged),
            (JoinKind::Inner, Regional, Regional, JoinPlace::Merged),
            (JoinKind::Left, Shared, Shared, JoinPlace::Shared),
            (JoinKind::Inner, Merged, Shared, JoinPlace::Merged),
            (JoinKind::Inner, Regional, Merged, JoinPlace::Merged),
        ] {
            assert_eq!(
                join(kind, left, right, false),
                expected,
                "{kind:?} {left:?} {right:?}"
            );
        }
        for kind in [JoinKind::Inner, JoinKind::Left] {
            assert_eq!(join(kind, Regional, Regional, true), JoinPlace::Local);
        }
    }
}
