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

use tributary_planner::plan::{Boundary, GlobalLeaf, JoinKind, Node, Scan, ViewPlan};

use crate::placement::Placement;

/// One stage: a tree over inputs by number.
#[derive(Debug)]
pub(crate) struct StagePlan {
    pub(crate) root: Node<usize>,
    pub(crate) inputs: Vec<StageInput>,
    /// Where its rows are.
    pub(crate) placement: Placement,
}

/// What a stage reads, and how it wants it divided.
#[derive(Clone, Debug)]
pub(crate) struct StageInput {
    pub(crate) source: Source,
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
pub(crate) fn stages(view: &ViewPlan) -> Vec<StagePlan> {
    let mut planner = Planner { stages: Vec::new() };
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

struct Planner {
    stages: Vec<StagePlan>,
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
            };
            self.stages.push(StagePlan {
                root: Node::Leaf(0),
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
                let Some(below) = want.before_projection(expressions) else {
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
            Node::Join { .. } | Node::Aggregate { .. } | Node::Distinct { .. } | Node::TopK { .. } => {
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

    /// The output columns by which an operator with state is divided: its keys, or those of them by which its input
    /// is divided anyway. `None`: it cannot be divided, or does not say.
    fn natural(&self, node: &Node<Source>) -> Option<Vec<usize>> {
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
            Node::TopK { input, partition, .. } => {
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

    fn width(&self, node: &Node<Source>) -> usize {
        match node {
            Node::Leaf(Source::Scan(scan)) => scan.types.len(),
            Node::Leaf(Source::Stage(stage)) => self.stage_width(*stage, &self.stages[*stage].root),
            Node::Filter { input, .. } | Node::Distinct { input } => self.width(input),
            Node::Project { expressions, .. } => expressions.len(),
            Node::Hop { input, .. } => self.width(input) + 2,
            Node::Union { inputs } => self.width(&inputs[0]),
            Node::Join { left, right, .. } => self.width(left) + self.width(right),
            Node::Aggregate { keys, aggregates, .. } => keys.len() + aggregates.len(),
            Node::TopK { input, rank, .. } => self.width(input) + usize::from(*rank),
        }
    }

    fn stage_width(&self, stage: usize, node: &Node<usize>) -> usize {
        let sources = node.replace_leaves(&mut |input: &usize| {
            Node::Leaf(self.stages[stage].inputs[*input].source.clone())
        });
        self.width(&sources)
    }

    /// Whether rows of a node only come; the operators derive the same when they are built.
    fn is_append_only(&self, node: &Node<Source>) -> bool {
        match node {
            Node::Leaf(Source::Scan(scan)) => scan.append_only,
            Node::Leaf(Source::Stage(stage)) => {
                let inputs = &self.stages[*stage].inputs;
                let root = &self.stages[*stage].root;
                let sources =
                    root.replace_leaves(&mut |input: &usize| Node::Leaf(inputs[*input].source.clone()));
                self.is_append_only(&sources)
            }
            Node::Filter { input, .. }
            | Node::Project { input, .. }
            | Node::Hop { input, .. }
            | Node::Distinct { input } => self.is_append_only(input),
            Node::Join {
                kind, left, right, ..
            } => *kind == JoinKind::Inner && self.is_append_only(left) && self.is_append_only(right),
            Node::Union { inputs } => inputs.iter().all(|input| self.is_append_only(input)),
            Node::Aggregate {
                input, aggregates, ..
            } => aggregates.is_empty() && self.is_append_only(input),
            Node::TopK { .. } => false,
        }
    }
}

/// A new input of a stage.
fn read(source: Source, want: &Placement, inputs: &mut Vec<StageInput>) -> Placed {
    inputs.push(StageInput {
        source,
        placement: want.clone(),
    });
    (Node::Leaf(inputs.len() - 1), want.clone())
}
