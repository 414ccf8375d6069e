//! Dividing a view into stages.
//!
//! Every operator with state says by which columns its input must be divided; a projection may compute such a column,
//! and two operators may want different ones. There a stage ends: its rows are *exchanged*, that is divided anew, and
//! the next stage reads them. As few exchanges as the plan allows: an operator is content with any columns among its
//! keys, and prefers those by which its input is divided anyway.
//!
//! ```text
//!   scan ─▶ filter ─▶ join by a ─▶ aggregate by (a, b)  ║  aggregate by b ─▶ …
//!   └────────── divided by a ─────────────────────────┘ ║ └─ divided by b
//! ```

use arrow::datatypes::DataType;
use tributary_planner::plan::{Boundary, GlobalLeaf, Node, Scan, ViewPlan};

use super::in_advance::InAdvance;
use crate::operators::pre_aggregate::{KeyPart, Partials};
use crate::placement::Placement;

/// One stage: a tree over inputs by number.
#[derive(Debug)]
pub(crate) struct StagePlan {
    pub(crate) root: Node<usize>,
    pub(crate) inputs: Vec<StageInput>,
    /// What its rows are turned into at its end.
    pub(crate) end: Option<Partials>,
    /// Where its rows are.
    pub(crate) placement: Placement,
}

/// What a stage reads, and how it wants it divided.
#[derive(Clone, Debug)]
pub(crate) struct StageInput {
    pub(crate) source: Source,
    pub(crate) placement: Placement,
    /// Set where the rows are partials.
    pub(crate) stands_for: Option<StandsFor>,
}

/// The rows for which partial rows stand.
#[derive(Clone, Debug)]
pub(crate) struct StandsFor {
    pub(crate) partials: Partials,
    pub(crate) types: Vec<DataType>,
    pub(crate) append_only: bool,
    /// How partial rows are divided, said in columns of these rows.
    pub(crate) placement: Placement,
}

#[derive(Clone, Debug)]
pub(crate) enum Source {
    Scan(Scan),
    /// The rows of an earlier stage.
    Stage(usize),
}

/// The stages of a view in a region that is alone, each after those it reads; the last gives the view's rows.
///
/// With one origin, merging is finalising: a merge of partials is the aggregate of the region's own rows, and a merge
/// of rows is those rows. A top-k of a region's rows below the same top-k of all rows is left out.
///
/// With several `partitions` rows are aggregated before they are exchanged, where that can pay.
pub(crate) fn stages(view: &ViewPlan, partitions: usize) -> Vec<StagePlan> {
    let mut planner = Planner {
        stages: Vec::new(),
        divided: partitions > 1,
    };
    let mut roots: Vec<(&Node<Scan>, usize)> = Vec::new();
    for number in 0..view.fragments.len() {
        let root = merged_root(view, number);
        match roots.iter_mut().find(|(other, _)| *other == root) {
            Some((_, uses)) => *uses += 1,
            None => roots.push((root, 1)),
        }
    }
    let shared: Vec<Option<usize>> = roots
        .iter()
        .map(|(root, uses)| (*uses > 1).then(|| planner.stage(&scanning(root), &Placement::Any)))
        .collect();
    let merged: Vec<Node<Source>> = (0..view.fragments.len())
        .map(|number| {
            let root = merged_root(view, number);
            let place = roots.iter().position(|(other, _)| *other == root);
            let input = match shared[place.expect("collected above")] {
                Some(stage) => Node::Leaf(Source::Stage(stage)),
                None => scanning(root),
            };
            let merged = match &view.fragments[number].boundary {
                Boundary::MergePartials { keys, aggregates } => Node::Aggregate {
                    input: Box::new(input),
                    keys: keys.clone(),
                    aggregates: aggregates.clone(),
                },
                Boundary::MergeRows | Boundary::AppendRows => input,
            };
            match uses(view, number) {
                0 | 1 => merged,
                _ => Node::Leaf(Source::Stage(planner.stage(&merged, &Placement::Any))),
            }
        })
        .collect();
    let root = view.global.replace_leaves(&mut |leaf: &GlobalLeaf| match leaf {
        GlobalLeaf::Scan(scan) => Node::Leaf(Source::Scan(scan.clone())),
        GlobalLeaf::Merge(number) => merged[*number].clone(),
    });
    planner.root(&root, view.columns.len());
    planner.stages
}

fn scanning(root: &Node<Scan>) -> Node<Source> {
    root.replace_leaves(&mut |scan: &Scan| Node::Leaf(Source::Scan(scan.clone())))
}

/// The readers of a fragment.
fn uses(view: &ViewPlan, fragment: usize) -> usize {
    let mut uses = 0;
    view.global.for_each_leaf(&mut |leaf: &GlobalLeaf| {
        uses += usize::from(*leaf == GlobalLeaf::Merge(fragment));
    });
    uses
}

/// What stands below a fragment's boundary, without a top-k that its readers repeat.
fn merged_root(view: &ViewPlan, fragment: usize) -> &Node<Scan> {
    match (&view.fragments[fragment].boundary, &view.fragments[fragment].root) {
        (Boundary::MergeRows, Node::TopK { input, .. }) if repeats_top_k(view, fragment) => input,
        (_, root) => root,
    }
}

/// Whether every reader of a fragment, whose root is a top-k, asks for no more than the first of its rows again.
fn repeats_top_k(plan: &ViewPlan, fragment: usize) -> bool {
    let Node::TopK {
        partition: own_partition,
        keys: own_keys,
        fetch: own_fetch,
        skip: 0,
        rank: false,
        ..
    } = &plan.fragments[fragment].root
    else {
        return false;
    };
    let mut repeats = 0;
    let mut nodes = vec![&plan.global];
    while let Some(node) = nodes.pop() {
        if let Node::TopK {
            input,
            partition,
            keys,
            skip,
            fetch,
            ..
        } = node
        {
            let is_same = partition == own_partition && keys == own_keys && skip + fetch <= *own_fetch;
            let reads = **input == Node::Leaf(GlobalLeaf::Merge(fragment));
            repeats += usize::from(is_same && reads);
        }
        nodes.extend(node.inputs());
    }
    uses(plan, fragment) == repeats
}

pub(super) struct Planner {
    pub(super) stages: Vec<StagePlan>,
    divided: bool,
}

type Placed = (Node<usize>, Placement);

impl Planner {
    /// The stage of the view's rows: where rows may go, each must find its partition again.
    fn root(&mut self, node: &Node<Source>, columns: usize) {
        let stage = self.stage(node, &Placement::Any);
        if self.stages[stage].placement == Placement::Any && !self.is_append_only(node) {
            let input = StageInput {
                source: Source::Stage(stage),
                placement: Placement::Keys((0..columns).collect()),
                stands_for: None,
            };
            self.stages.push(StagePlan {
                root: Node::Leaf(0),
                end: None,
                placement: input.placement.clone(),
                inputs: vec![input],
            });
        }
    }

    fn stage(&mut self, node: &Node<Source>, want: &Placement) -> usize {
        let mut inputs = Vec::new();
        let (root, placement) = self.place(node, want, &mut inputs);
        self.stages.push(StagePlan {
            root,
            inputs,
            end: None,
            placement,
        });
        self.stages.len() - 1
    }

    /// The rows of a stage of their own, divided as wanted.
    fn exchange(&mut self, node: &Node<Source>, want: &Placement, inputs: &mut Vec<StageInput>) -> Placed {
        let stage = self.stage(node, &Placement::Any);
        read(Source::Stage(stage), want, inputs)
    }

    /// The node within the stage that has these inputs so far, its rows divided as wanted.
    fn place(&mut self, node: &Node<Source>, want: &Placement, inputs: &mut Vec<StageInput>) -> Placed {
        match node {
            Node::Leaf(source) => read(source.clone(), want, inputs),
            Node::Filter { input, predicate } => {
                let (input, placement) = self.place(input, want, inputs);
                let predicate = predicate.clone();
                (
                    Node::Filter {
                        input: Box::new(input),
                        predicate,
                    },
                    placement,
                )
            }
            Node::Project {
                input,
                expressions,
                types,
            } => {
                // A column that is picked twice is one column below, and the way back finds its first place only.
                let below = want.before_projection(expressions);
                let below = below.filter(|below| below.after_projection(expressions) == *want);
                let Some(below) = below else {
                    return self.exchange(node, want, inputs);
                };
                let (input, placement) = self.place(input, &below, inputs);
                let placement = placement.after_projection(expressions);
                let (expressions, types) = (expressions.clone(), types.clone());
                let input = Box::new(input);
                (
                    Node::Project {
                        input,
                        expressions,
                        types,
                    },
                    placement,
                )
            }
            Node::Hop {
                input,
                column,
                slide_us,
                size_us,
            } => {
                if let Placement::Keys(keys) = want
                    && keys.iter().any(|key| *key >= self.width(input))
                {
                    return self.exchange(node, want, inputs);
                }
                let (input, placement) = self.place(input, want, inputs);
                let (column, slide_us, size_us) = (*column, *slide_us, *size_us);
                (
                    Node::Hop {
                        input: Box::new(input),
                        column,
                        slide_us,
                        size_us,
                    },
                    placement,
                )
            }
            Node::Union { inputs: parts } => {
                let mut placed = Vec::with_capacity(parts.len());
                for part in parts {
                    let (node, placement) = match self.needs_one(part) && *want != Placement::One {
                        true => self.exchange(part, want, inputs),
                        false => self.place(part, want, inputs),
                    };
                    placed.push((node, placement));
                }
                // Parts that are divided by keys are not divided by the same ones, unless that was wanted.
                let (parts, _): (Vec<_>, Vec<_>) = placed.into_iter().unzip();
                (Node::Union { inputs: parts }, want.clone())
            }
            Node::Join { .. }
            | Node::Aggregate { .. }
            | Node::Distinct { .. }
            | Node::TopK { .. }
            | Node::Session { .. } => {
                let own = self.natural(node).map_or(Placement::One, Placement::Keys);
                if *want != Placement::Any && *want != own {
                    return self.exchange(node, want, inputs);
                }
                (self.place_keyed(node, &own, inputs), own)
            }
        }
    }

    /// An operator with state within the stage; `own` is how its rows are then divided.
    fn place_keyed(
        &mut self,
        node: &Node<Source>,
        own: &Placement,
        inputs: &mut Vec<StageInput>,
    ) -> Node<usize> {
        let mut below = |planner: &mut Self, input: &Node<Source>, want: Placement| {
            let placed = match (&want, input) {
                (Placement::One, Node::Leaf(_)) | (Placement::Keys(_) | Placement::Any, _) => {
                    planner.place(input, &want, inputs)
                }
                // What is below is done everywhere before it comes together.
                (Placement::One, _) => planner.exchange(input, &want, inputs),
            };
            Box::new(placed.0)
        };
        let mapped = |map: &dyn Fn(usize) -> usize| match own {
            Placement::Keys(columns) => Placement::Keys(columns.iter().map(|column| map(*column)).collect()),
            other => other.clone(),
        };
        match node {
            Node::Aggregate { keys, aggregates, .. } if self.in_advance(node).is_some() => Node::Aggregate {
                input: Box::new(self.partial_rows(node, own, inputs)),
                keys: keys.clone(),
                aggregates: aggregates.clone(),
            },
            Node::Aggregate {
                input,
                keys,
                aggregates,
            } => Node::Aggregate {
                input: below(self, input, mapped(&|place| keys[place])),
                keys: keys.clone(),
                aggregates: aggregates.clone(),
            },
            Node::Distinct { input } => Node::Distinct {
                input: below(self, input, own.clone()),
            },
            Node::TopK {
                input,
                partition,
                keys,
                skip,
                fetch,
                rank,
            } => Node::TopK {
                input: below(self, input, own.clone()),
                partition: partition.clone(),
                keys: keys.clone(),
                skip: *skip,
                fetch: *fetch,
                rank: *rank,
            },
            Node::Session {
                input,
                partition,
                column,
                gap_us,
            } => Node::Session {
                input: below(self, input, own.clone()),
                partition: partition.clone(),
                column: *column,
                gap_us: *gap_us,
            },
            Node::Join {
                kind,
                left,
                right,
                on,
                filter,
                null_safe,
            } => {
                let partner = |column: usize| {
                    let pair = on.iter().find(|(left, _)| *left == column);
                    pair.expect("a join is divided by columns of its key").1
                };
                let left = below(self, left, own.clone());
                let right = below(self, right, mapped(&partner));
                Node::Join {
                    kind: *kind,
                    left,
                    right,
                    on: on.clone(),
                    filter: filter.clone(),
                    null_safe: *null_safe,
                }
            }
            _ => unreachable!("the caller has looked"),
        }
    }

    /// The partial rows of an aggregate, as an input of the stage; `own` is how the aggregate's rows are divided.
    fn partial_rows(
        &mut self,
        node: &Node<Source>,
        own: &Placement,
        inputs: &mut Vec<StageInput>,
    ) -> Node<usize> {
        let Node::Aggregate { input, keys, .. } = node else {
            unreachable!("the caller has looked");
        };
        let InAdvance { below, partials } = self.in_advance(node).expect("the caller has looked");
        let stage = self.stage(below, &Placement::Any);
        let columns = |column: &dyn Fn(usize) -> usize| match own {
            Placement::Keys(places) => Placement::Keys(places.iter().map(|place| column(*place)).collect()),
            other => other.clone(),
        };
        if !self.divided && partials.panes.is_none() {
            // The same stages whatever the number of partitions: they give states their names.
            return read(Source::Stage(stage), &columns(&|place| keys[place]), inputs).0;
        }
        self.stages[stage].end = Some(partials.clone());
        let partial_column = |place: usize| match partials.shape[place] {
            KeyPart::Key(column) => column,
            KeyPart::Start | KeyPart::End => unreachable!("windows do not decide where rows are"),
        };
        inputs.push(StageInput {
            source: Source::Stage(stage),
            placement: columns(&partial_column),
            stands_for: Some(StandsFor {
                types: self.types(input),
                append_only: self.is_append_only(input),
                placement: columns(&|place| keys[place]),
                partials,
            }),
        });
        Node::Leaf(inputs.len() - 1)
    }

    /// The output columns by which an operator with state is divided: its keys, or those of them by which its input
    /// is divided anyway. `None`: it cannot be divided, or does not say.
    pub(super) fn natural(&self, node: &Node<Source>) -> Option<Vec<usize>> {
        match node {
            Node::Leaf(_) | Node::Union { .. } => None,
            Node::Filter { input, .. } | Node::Hop { input, .. } => self.natural(input),
            Node::Project {
                input, expressions, ..
            } => {
                let columns = self.natural(input)?;
                match Placement::Keys(columns).after_projection(expressions) {
                    Placement::Keys(columns) => Some(columns),
                    _ => None,
                }
            }
            Node::Join { left, right, on, .. } => {
                let left_key = |column: &usize| on.iter().any(|(left, _)| left == column);
                if let Some(columns) = self.natural(left).filter(|columns| columns.iter().all(left_key)) {
                    return Some(columns);
                }
                let partner = |column: &usize| Some(on.iter().find(|(_, right)| right == column)?.0);
                let by_right = self
                    .natural(right)
                    .and_then(|columns| columns.iter().map(partner).collect());
                by_right.or_else(|| Some(on.iter().map(|(left, _)| *left).collect()))
            }
            Node::Aggregate { input, keys, .. } => {
                if let Some(InAdvance { partials, .. }) =
                    self.in_advance(node).filter(|a| a.partials.panes.is_some())
                {
                    // The bounds of windows are not known before the exchange.
                    let is_key = |place: &usize| matches!(partials.shape[*place], KeyPart::Key(_));
                    let places: Vec<usize> = (0..keys.len()).filter(is_key).collect();
                    return (!places.is_empty()).then_some(places);
                }
                let place = |column: &usize| keys.iter().position(|key| key == column);
                let natural = self.natural(input);
                let natural =
                    natural.and_then(|columns| columns.iter().map(place).collect::<Option<Vec<_>>>());
                natural.or_else(|| (!keys.is_empty()).then(|| (0..keys.len()).collect()))
            }
            Node::Distinct { input } => {
                let width = self.width(input);
                self.natural(input)
                    .or_else(|| (width > 0).then(|| (0..width).collect()))
            }
            Node::TopK { input, partition, .. } | Node::Session { input, partition, .. } => {
                let natural = self.natural(input);
                let natural =
                    natural.filter(|columns| columns.iter().all(|column| partition.contains(column)));
                natural.or_else(|| (!partition.is_empty()).then(|| partition.clone()))
            }
        }
    }

    /// Whether a node's rows come from one partition.
    fn needs_one(&self, node: &Node<Source>) -> bool {
        match node {
            Node::Leaf(Source::Stage(stage)) => self.stages[*stage].placement == Placement::One,
            Node::Leaf(Source::Scan(_)) => false,
            Node::Filter { input, .. } | Node::Project { input, .. } | Node::Hop { input, .. } => {
                self.needs_one(input)
            }
            Node::Union { .. } => false,
            _ => self.natural(node).is_none(),
        }
    }
}

/// A new input of a stage.
fn read(source: Source, want: &Placement, inputs: &mut Vec<StageInput>) -> Placed {
    inputs.push(StageInput {
        source,
        placement: want.clone(),
        stands_for: None,
    });
    (Node::Leaf(inputs.len() - 1), want.clone())
}
