//! Which aggregates are aggregated in advance, and what is known of nodes while stages are planned.

use arrow::datatypes::DataType;
use tributary_planner::plan::{AggregateCall, Expr, JoinKind, Node};

use super::plan::{Planner, Source, StagePlan};
use crate::operators::pre_aggregate::{KeyPart, Panes, Partials, is_worthwhile};

/// An aggregate whose rows are aggregated in advance.
pub(super) struct InAdvance<'n> {
    /// The rows that are read: those below the windows, where there are windows.
    pub(super) below: &'n Node<Source>,
    pub(super) partials: Partials,
}

impl Planner {
    /// How the rows of an aggregate are aggregated in advance, if they are: over windows always, otherwise before an
    /// exchange.
    pub(super) fn in_advance<'n>(&self, node: &'n Node<Source>) -> Option<InAdvance<'n>> {
        let Node::Aggregate {
            input,
            keys,
            aggregates,
        } = node
        else {
            return None;
        };
        let append_only = self.is_append_only(input);
        if !aggregates.iter().all(|call| is_worthwhile(call, append_only)) {
            return None;
        }
        if let Some(paned) = self.over_panes(input, keys, aggregates) {
            return Some(paned);
        }
        let stays = self
            .natural(input)
            .is_some_and(|columns| columns.iter().all(|column| keys.contains(column)));
        // Without an aggregate there is nothing to compute, and with all columns as keys hardly anything to gain.
        (!stays && !aggregates.is_empty()).then(|| InAdvance {
            below: input,
            partials: Partials {
                keys: keys.clone(),
                calls: aggregates.clone(),
                panes: None,
                shape: (0..keys.len()).map(KeyPart::Key).collect(),
            },
        })
    }

    /// An aggregate by windows that slide in whole parts of their length, over projections that only pick columns.
    fn over_panes<'n>(
        &self,
        input: &'n Node<Source>,
        keys: &[usize],
        aggregates: &[AggregateCall],
    ) -> Option<InAdvance<'n>> {
        let picks = |column: usize, expressions: &[Expr]| match expressions[column] {
            Expr::Column(below) => Some(below),
            _ => None,
        };
        let (mut keys, mut calls) = (keys.to_vec(), aggregates.to_vec());
        let mut below = input;
        while let Node::Project {
            input, expressions, ..
        } = below
        {
            keys = keys
                .iter()
                .map(|key| picks(*key, expressions))
                .collect::<Option<_>>()?;
            for column in calls
                .iter_mut()
                .flat_map(|call| call.argument.iter_mut().chain(&mut call.filter))
            {
                *column = picks(*column, expressions)?;
            }
            below = input;
        }
        let Node::Hop {
            input,
            column,
            slide_us,
            size_us,
        } = below
        else {
            return None;
        };
        let width = self.width(input);
        let mut columns = calls
            .iter()
            .flat_map(|call| call.argument.iter().chain(&call.filter));
        if size_us % slide_us != 0 || size_us == slide_us || columns.any(|column| *column >= width) {
            return None;
        }
        let mut own: Vec<usize> = Vec::new();
        let shape = keys.iter().map(|key| match key.checked_sub(width) {
            Some(0) => KeyPart::Start,
            Some(_) => KeyPart::End,
            None => {
                let place = own.iter().position(|other| other == key);
                KeyPart::Key(place.unwrap_or_else(|| {
                    own.push(*key);
                    own.len() - 1
                }))
            }
        });
        let shape: Vec<KeyPart> = shape.collect();
        let windowed = shape.iter().any(|part| !matches!(part, KeyPart::Key(_)));
        windowed.then_some(InAdvance {
            below: input,
            partials: Partials {
                keys: own,
                calls,
                panes: Some(Panes {
                    column: *column,
                    slide_us: *slide_us,
                    size_us: *size_us,
                }),
                shape,
            },
        })
    }

    pub(super) fn width(&self, node: &Node<Source>) -> usize {
        match node {
            Node::Leaf(Source::Scan(scan)) => scan.types.len(),
            Node::Leaf(Source::Stage(stage)) => self.stage_width(*stage, &self.stages[*stage].root),
            Node::Filter { input, .. } | Node::Distinct { input } => self.width(input),
            Node::Project { expressions, .. } => expressions.len(),
            Node::Hop { input, .. } | Node::Session { input, .. } => self.width(input) + 2,
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

    pub(super) fn types(&self, node: &Node<Source>) -> Vec<DataType> {
        node.types(&|source: &Source| match source {
            Source::Scan(scan) => scan.types.clone(),
            Source::Stage(stage) => {
                let StagePlan { root, inputs, .. } = &self.stages[*stage];
                root.types(&|input: &usize| match &inputs[*input].stands_for {
                    Some(rows) => rows.types.clone(),
                    None => self.types(&Node::Leaf(inputs[*input].source.clone())),
                })
            }
        })
    }

    /// Whether rows of a node only come; the operators derive the same when they are built.
    pub(super) fn is_append_only(&self, node: &Node<Source>) -> bool {
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
            Node::TopK { .. } | Node::Session { .. } => false,
        }
    }
}
