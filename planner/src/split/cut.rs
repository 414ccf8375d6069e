//! The cut: regional trees become local fragments with a merge boundary, the rest becomes the global tree.

use super::hidden_views::{HiddenViews, compact};
use super::sides::{Input, Side, Sides};
use super::{Split, named, regions};
use crate::error::PlanError;
use crate::locality::{self, JoinPlace, Place};
use crate::plan::{
    Boundary, Column, Expr, GlobalLeaf, JoinKind, LocalFragment, Locality, Node, Scan, SortKey, ViewPlan,
};

/// Cuts a tree whose columns are `columns`; `sides` says which side of a join is merged alone, `hidden` takes it.
///
/// # Errors
/// `Unsupported` for the region in other places than a join of rows of one region; those of [`Sides`].
pub fn cut(
    tree: Node<Scan>,
    columns: Vec<Column>,
    sides: Sides<'_>,
    hidden: HiddenViews<'_>,
) -> Result<Split, PlanError> {
    let mut cutter = Cutter {
        fragments: Vec::new(),
        sides,
        hidden,
    };
    let placed = cutter.place(tree)?;
    let global = cutter.merged(placed)?;
    cutter.sides.finish()?;
    let (fragments, global) = compact(cutter.fragments, global);
    let plan = ViewPlan {
        fragments,
        global: named::unmarked_global(global),
        columns,
    };
    Ok(Split {
        plan,
        hidden: cutter.hidden.into_created(),
    })
}

/// A tree where its rows are.
enum Placed {
    Regional(Node<Scan>),
    Shared(Node<Scan>),
    Merged(Node<GlobalLeaf>),
}

impl Placed {
    fn place(&self) -> Place {
        match self {
            Placed::Regional(_) => Place::Regional,
            Placed::Shared(_) => Place::Shared,
            Placed::Merged(_) => Place::Merged,
        }
    }

    /// The tree of rows that have not met a boundary.
    fn unmerged(self) -> Node<Scan> {
        match self {
            Placed::Regional(node) | Placed::Shared(node) => node,
            Placed::Merged(_) => unreachable!("the rules let merged rows stand only in merged trees"),
        }
    }
}

/// Wraps a tree of either kind in an operator that keeps its place.
macro_rules! keep_place {
    ($placed:expr, $input:ident => $node:expr) => {
        match $placed {
            Placed::Regional($input) => Placed::Regional($node),
            Placed::Shared($input) => Placed::Shared($node),
            Placed::Merged($input) => Placed::Merged($node),
        }
    };
}

struct Cutter<'a> {
    fragments: Vec<LocalFragment>,
    sides: Sides<'a>,
    hidden: HiddenViews<'a>,
}

impl Cutter<'_> {
    fn place(&mut self, tree: Node<Scan>) -> Result<Placed, PlanError> {
        Ok(match tree {
            Node::Leaf(scan) if scan.locality == Locality::Regional => Placed::Regional(Node::Leaf(scan)),
            Node::Leaf(scan) => Placed::Shared(Node::Leaf(scan)),
            Node::Filter { input, predicate } => {
                keep_place!(self.place(*input)?, input => Node::Filter { input: Box::new(input), predicate })
            }
            Node::Project {
                input,
                expressions,
                types,
            } => {
                keep_place!(self.place(*input)?, input => Node::Project { input: Box::new(input), expressions, types })
            }
            Node::Aggregate {
                input,
                keys,
                aggregates,
            } => match self.place(*input)? {
                Placed::Regional(root) => self.boundary(LocalFragment {
                    root,
                    boundary: Boundary::MergePartials { keys, aggregates },
                })?,
                Placed::Shared(input) => Placed::Shared(Node::Aggregate {
                    input: Box::new(input),
                    keys,
                    aggregates,
                }),
                Placed::Merged(input) => Placed::Merged(Node::Aggregate {
                    input: Box::new(input),
                    keys,
                    aggregates,
                }),
            },
            Node::Distinct { input } => match self.place(*input)? {
                Placed::Regional(root) => {
                    let keys = (0..root.width(&|scan: &Scan| scan.columns.len())).collect();
                    let boundary = Boundary::MergePartials {
                        keys,
                        aggregates: Vec::new(),
                    };
                    self.boundary(LocalFragment { root, boundary })?
                }
                Placed::Shared(input) => Placed::Shared(Node::Distinct {
                    input: Box::new(input),
                }),
                Placed::Merged(input) => Placed::Merged(Node::Distinct {
                    input: Box::new(input),
                }),
            },
            Node::TopK {
                input,
                partition,
                keys,
                skip,
                fetch,
                rank,
            } => {
                let placed = self.place(*input)?;
                self.top_k(placed, partition, keys, (skip, fetch), rank)?
            }
            Node::Hop {
                input,
                column,
                slide_us,
                size_us,
            } => {
                keep_place!(self.place(*input)?, input => Node::Hop { input: Box::new(input), column, slide_us, size_us })
            }
            Node::Session {
                input,
                partition,
                column,
                gap_us,
            } => {
                // Rows of several regions may form one session.
                let placed = match self.place(*input)? {
                    Placed::Regional(root) => self.boundary(rows(root))?,
                    other => other,
                };
                keep_place!(placed, input => Node::Session { input: Box::new(input), partition, column, gap_us })
            }
            Node::Union { inputs } => self.union(inputs)?,
            Node::Join {
                kind,
                left,
                right,
                on,
                filter,
                null_safe,
            } => {
                let (left, right) = (self.place(*left)?, self.place(*right)?);
                self.join(kind, left, right, on, filter, null_safe)?
            }
        })
    }

    /// Local top-k, merged rows, global top-k. The rows that any region skips may be kept by another.
    fn top_k(
        &mut self,
        placed: Placed,
        partition: Vec<usize>,
        keys: Vec<SortKey>,
        (skip, fetch): (usize, usize),
        rank: bool,
    ) -> Result<Placed, PlanError> {
        let placed = match placed {
            Placed::Regional(root) => {
                let kept = skip + fetch;
                let root = Node::TopK {
                    input: Box::new(root),
                    partition: partition.clone(),
                    keys: keys.clone(),
                    skip: 0,
                    fetch: kept,
                    rank: false,
                };
                self.boundary(rows(root))?
            }
            other => other,
        };
        Ok(
            keep_place!(placed, input => Node::TopK { input: Box::new(input), partition, keys, skip, fetch, rank }),
        )
    }

    fn union(&mut self, inputs: Vec<Node<Scan>>) -> Result<Placed, PlanError> {
        let (mut regional, mut shared, mut merged) = (Vec::new(), Vec::new(), Vec::new());
        for input in inputs {
            match self.place(input)? {
                Placed::Regional(node) => regional.push(node),
                Placed::Shared(node) => shared.push(node),
                Placed::Merged(node) => merged.push(node),
            }
        }
        if merged.is_empty() && shared.is_empty() {
            return Ok(Placed::Regional(union_of(regional)));
        }
        if merged.is_empty() && regional.is_empty() {
            return Ok(Placed::Shared(union_of(shared)));
        }
        if !regional.is_empty() {
            let rows = self.merged(Placed::Regional(union_of(regional)))?;
            merged.insert(0, rows);
        }
        for node in shared {
            merged.push(self.merged(Placed::Shared(node))?);
        }
        Ok(Placed::Merged(union_of(merged)))
    }

    fn join(
        &mut self,
        kind: JoinKind,
        mut left: Placed,
        mut right: Placed,
        on: Vec<(usize, usize)>,
        filter: Option<Expr>,
        null_safe: bool,
    ) -> Result<Placed, PlanError> {
        let same_region = match (&left, &right) {
            (Placed::Regional(left), Placed::Regional(right)) => regions::same_region(left, right, &on),
            _ => false,
        };
        let mut place = locality::join(kind, left.place(), right.place(), same_region);
        if let Some(side) = self.side_merged_alone(kind, place, &left, &right)? {
            match side {
                Side::Left => left = self.hide(left)?,
                Side::Right => right = self.hide(right)?,
            }
            place = locality::join(kind, left.place(), right.place(), same_region);
        }
        Ok(match place {
            JoinPlace::Local | JoinPlace::Shared => {
                let (left, right) = (Box::new(left.unmerged()), Box::new(right.unmerged()));
                let node = Node::Join {
                    kind,
                    left,
                    right,
                    on,
                    filter,
                    null_safe,
                };
                if place == JoinPlace::Local {
                    Placed::Regional(node)
                } else {
                    Placed::Shared(node)
                }
            }
            JoinPlace::Merged => {
                let (left, right) = (Box::new(self.merged(left)?), Box::new(self.merged(right)?));
                Placed::Merged(Node::Join {
                    kind,
                    left,
                    right,
                    on,
                    filter,
                    null_safe,
                })
            }
        })
    }

    fn side_merged_alone(
        &mut self,
        kind: JoinKind,
        place: JoinPlace,
        left: &Placed,
        right: &Placed,
    ) -> Result<Option<Side>, PlanError> {
        let both_regional = (left.place(), right.place()) == (Place::Regional, Place::Regional);
        let (left, right) = (self.input(left), self.input(right));
        match place {
            JoinPlace::Merged => return self.sides.choose(kind, &left, &right),
            JoinPlace::Local if both_regional => {
                let why = "it meets rows of its own region only";
                self.sides.stays(&left, &right, why);
            }
            JoinPlace::Local | JoinPlace::Shared => {
                let why = "what it is joined with is the same in all regions";
                self.sides.stays(&left, &right, why);
            }
        }
        Ok(None)
    }

    fn input(&self, placed: &Placed) -> Input {
        let mut scans = Vec::new();
        let mut regional = |scan: &Scan| {
            if scan.locality == Locality::Regional {
                scans.push(scan.clone());
            }
        };
        let types = match placed {
            Placed::Regional(node) | Placed::Shared(node) => {
                node.for_each_leaf(&mut regional);
                node.types(&|scan: &Scan| scan.types.clone())
            }
            Placed::Merged(node) => {
                node.for_each_leaf(&mut |leaf: &GlobalLeaf| {
                    if let GlobalLeaf::Merge(number) = leaf {
                        self.fragments[*number].root.for_each_leaf(&mut regional);
                    }
                });
                node.types(&|leaf: &GlobalLeaf| match leaf {
                    GlobalLeaf::Scan(scan) => scan.types.clone(),
                    GlobalLeaf::Merge(number) => self.fragments[*number].merged_types(),
                })
            }
        };
        Input {
            place: placed.place(),
            scans,
            types,
        }
    }

    /// The rows of a tree as those of a hidden view.
    fn hide(&mut self, placed: Placed) -> Result<Placed, PlanError> {
        let (fragments, global) = match placed {
            Placed::Regional(root) => {
                let fragment = regions::without(rows(root))?;
                (vec![fragment], Node::Leaf(GlobalLeaf::Merge(0)))
            }
            Placed::Merged(global) => (self.fragments.clone(), global),
            Placed::Shared(_) => return Ok(placed),
        };
        let scan = self.hidden.scan(fragments, named::unmarked_global(global))?;
        Ok(Placed::Shared(Node::Leaf(scan)))
    }

    /// A tree of rows that are the same everywhere; regional rows are merged as they are.
    fn merged(&mut self, placed: Placed) -> Result<Node<GlobalLeaf>, PlanError> {
        Ok(match placed {
            Placed::Merged(node) => node,
            Placed::Shared(node) => node.map_leaves(&mut GlobalLeaf::Scan),
            Placed::Regional(root) => self.leaf(rows(root))?,
        })
    }

    fn boundary(&mut self, fragment: LocalFragment) -> Result<Placed, PlanError> {
        Ok(Placed::Merged(self.leaf(fragment)?))
    }

    /// The merged rows of a fragment. Those that differ only in which relation of the query they are of become one when it
    /// is decided which of them are merged alone ([`compact`]).
    fn leaf(&mut self, fragment: LocalFragment) -> Result<Node<GlobalLeaf>, PlanError> {
        self.fragments.push(regions::without(fragment)?);
        Ok(Node::Leaf(GlobalLeaf::Merge(self.fragments.len() - 1)))
    }
}

/// The fragment that ships the rows of a tree as they are.
fn rows(root: Node<Scan>) -> LocalFragment {
    let boundary = if root.appends_in_order() {
        Boundary::AppendRows
    } else {
        Boundary::MergeRows
    };
    LocalFragment { root, boundary }
}

fn union_of<Leaf>(mut inputs: Vec<Node<Leaf>>) -> Node<Leaf> {
    if inputs.len() == 1 {
        inputs.remove(0)
    } else {
        Node::Union { inputs }
    }
}
