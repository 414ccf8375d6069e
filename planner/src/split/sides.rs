//! Which side of a join is merged alone, where rows of different regions meet (RFC 0011).
//!
//! Both sides are, unless the statement says otherwise: a view whose local fragment reads another view is exact at settled
//! frontiers, one that merges both sides at every frontier. A side can be merged alone if the join is then local
//! ([`locality::join`]): either side of an inner join, and of an outer join the one that is not preserved.

use std::collections::BTreeMap;

use arrow_schema::DataType;
use tributary_storage::ObjectId;

use super::named;
use crate::error::{PlanError, PlanErrorKind};
use crate::locality::{self, JoinPlace, Place};
use crate::plan::{JoinKind, Locality, Node, Scan};

/// What a row takes on a link beside its columns, in bytes, roughly.
const ROW_BYTES: u64 = 16;
/// What a value of a type without a fixed width takes, in bytes, roughly.
const VALUE_BYTES: u64 = 32;

/// Which sides of joins are merged where rows of different regions meet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Merge {
    /// Both.
    #[default]
    Both,
    /// The side that seems smaller to the region that plans.
    Smaller,
    /// The relations that the query calls so; of joins without one of them both sides.
    Named(Vec<String>),
}

/// How many rows relations have, as far as the planning region holds them; of others nothing is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RowCounts(pub BTreeMap<ObjectId, u64>);

/// A side of a join.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The left one.
    Left,
    /// The right one.
    Right,
}

/// What is to be known of an input of a join.
pub struct Input {
    /// Where its rows are.
    pub place: Place,
    /// The regional scans below it, also below merge boundaries.
    pub scans: Vec<Scan>,
    /// The types of its columns.
    pub types: Vec<DataType>,
}

/// The choice for each join of a tree, and what became of the names in the option.
pub struct Sides<'a> {
    merge: &'a Merge,
    rows: &'a RowCounts,
    /// Per name why it was not merged alone; `None` once it was.
    unmerged: Vec<Option<String>>,
    /// Whether any side was.
    merged_any: bool,
}

impl<'a> Sides<'a> {
    /// Before the joins of a tree are looked at.
    ///
    /// # Errors
    /// `InvalidParameter` for a name that the tree does not have.
    pub fn new(merge: &'a Merge, rows: &'a RowCounts, tree: &Node<Scan>) -> Result<Self, PlanError> {
        let names: &[String] = match merge {
            Merge::Named(names) => names,
            Merge::Both | Merge::Smaller => &[],
        };
        let mut unmerged = Vec::with_capacity(names.len());
        for (number, name) in names.iter().enumerate() {
            let (mut found, mut regional) = (false, false);
            tree.for_each_leaf(&mut |scan: &Scan| {
                let part = named::is_part_of(scan, number);
                found |= part;
                regional |= part && scan.locality == Locality::Regional;
            });
            if !found {
                return Err(no_relation(name));
            }
            unmerged.push(Some(match regional {
                true => "it is not joined with rows of other regions".to_owned(),
                false => "every region has its rows already".to_owned(),
            }));
        }
        Ok(Self {
            merge,
            rows,
            unmerged,
            merged_any: false,
        })
    }

    /// Notes a join that needs no merging: `why` names that are a side of it are not merged here.
    pub fn stays(&mut self, left: &Input, right: &Input, why: &str) {
        for number in 0..self.unmerged.len() {
            if left.is(number) || right.is(number) {
                self.note(number, why);
            }
        }
    }

    /// The side that is merged alone in a join in which rows of different regions meet; `None`: both are merged.
    ///
    /// # Errors
    /// `PrerequisiteState` if the smaller side is asked for and the sizes are not known.
    pub fn choose(&mut self, kind: JoinKind, left: &Input, right: &Input) -> Result<Option<Side>, PlanError> {
        let is_local = |left, right| locality::join(kind, left, right, false) == JoinPlace::Local;
        let may_left = is_local(Place::Shared, right.place);
        let may_right = is_local(left.place, Place::Shared);
        let chosen = match self.merge {
            Merge::Both => None,
            Merge::Smaller => match (may_left, may_right) {
                (true, true) => Some(self.smaller(left, right)?),
                (true, false) => Some(Side::Left),
                (false, true) => Some(Side::Right),
                (false, false) => None,
            },
            Merge::Named(_) => self.named(left, right, may_left, may_right),
        };
        self.merged_any |= chosen.is_some();
        Ok(chosen)
    }

    fn named(&mut self, left: &Input, right: &Input, may_left: bool, may_right: bool) -> Option<Side> {
        let mut chosen = None;
        for number in 0..self.unmerged.len() {
            let (side, may, other) = match (left.is(number), right.is(number)) {
                (false, false) => continue,
                (true, true) => {
                    self.note(
                        number,
                        "it is both sides of a join; give the sides names of their own",
                    );
                    continue;
                }
                (true, false) => (Side::Left, may_left, right),
                (false, true) => (Side::Right, may_right, left),
            };
            if may && chosen.is_none_or(|chosen| chosen == side) {
                chosen = Some(side);
                self.unmerged[number] = None;
            } else if may {
                self.note(number, "the other side of its join is to be merged as well");
            } else if other.place == Place::Regional {
                self.note(
                    number,
                    "it is the preserved side of an outer join: a row without a match would come from every region",
                );
            } else {
                self.note(number, "what it is joined with is the same in all regions");
            }
        }
        chosen
    }

    fn note(&mut self, number: usize, why: &str) {
        if let Some(reason) = &mut self.unmerged[number] {
            why.clone_into(reason);
        }
    }

    fn smaller(&self, left: &Input, right: &Input) -> Result<Side, PlanError> {
        match (left.bytes(self.rows), right.bytes(self.rows)) {
            (Some(left), Some(right)) if left + right > 0 => Ok(match left < right {
                true => Side::Left,
                false => Side::Right,
            }),
            _ => {
                let message = format!(
                    "which side of the join of {} with {} is smaller is not known: the primary region holds no rows of them",
                    left.names(),
                    right.names()
                );
                Err(PlanError::new(PlanErrorKind::PrerequisiteState, message)
                    .with_hint("Name the side: WITH (merge = 'relation')."))
            }
        }
    }

    /// After all joins.
    ///
    /// # Errors
    /// `InvalidParameter` for a name that was not merged alone, with the reason, and if there was no smaller side to merge.
    pub fn finish(self) -> Result<(), PlanError> {
        let refused = |message: String, hint: &str| {
            Err(PlanError::new(PlanErrorKind::InvalidParameter, message).with_hint(hint))
        };
        match self.merge {
            Merge::Both => Ok(()),
            Merge::Smaller if self.merged_any => Ok(()),
            Merge::Smaller => refused(
                "there is no side to merge alone: no join of the view can be computed where the rows of one side are".into(),
                "Leave merge = 'smaller' out.",
            ),
            Merge::Named(names) => {
                let mut left = names.iter().zip(&self.unmerged);
                match left.find_map(|(name, why)| Some((name, why.as_ref()?))) {
                    None => Ok(()),
                    Some((name, why)) => refused(
                        format!("rows of \"{name}\" cannot be merged alone: {why}"),
                        "Name one side of a join of relations whose rows are in several regions, or leave merge out.",
                    ),
                }
            }
        }
    }
}

impl Input {
    /// Whether all its regional rows are of the relation with this number.
    fn is(&self, number: usize) -> bool {
        let mut scans = self.scans.iter();
        !self.scans.is_empty() && scans.all(|scan| named::is_part_of(scan, number))
    }

    /// What merging it takes, roughly: the rows of its largest relation, as wide as its own are.
    fn bytes(&self, rows: &RowCounts) -> Option<u64> {
        let counts = self.scans.iter().map(|scan| rows.0.get(&scan.object).copied());
        let counts: Option<Vec<u64>> = counts.collect();
        let largest = counts?.into_iter().max()?;
        let width = |data_type: &DataType| {
            let fixed = data_type.primitive_width();
            fixed.map_or(VALUE_BYTES, |bytes| bytes as u64)
        };
        let row_bytes = ROW_BYTES + self.types.iter().map(width).sum::<u64>();
        Some(largest.saturating_mul(row_bytes))
    }

    fn names(&self) -> String {
        let mut names: Vec<String> = Vec::new();
        for scan in &self.scans {
            let name = named::unmarked(scan.clone()).name;
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names.join(", ")
    }
}

fn no_relation(name: &str) -> PlanError {
    let message = format!("merge names \"{name}\", which is no relation of the view's query");
    PlanError::new(PlanErrorKind::InvalidParameter, message)
        .with_hint("Use 'both', 'smaller', or a relation by the name that it has in the query.")
}
