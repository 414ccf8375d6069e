//! Relational operators, one per file, and the tree that they form.
//!
//! A [`Tree`] is evaluated bottom up, once per step: each operator takes the deltas of its inputs and returns its
//! own. The same operators serve local fragments and the global one; only the leaves differ.

pub(crate) mod aggregate;
pub(crate) mod distinct;
pub(crate) mod filter;
pub(crate) mod groups;
pub(crate) mod join;
pub(crate) mod project;
pub(crate) mod top_k;
pub(crate) mod union;

use std::collections::BTreeMap;

use arrow::datatypes::{DataType, SchemaRef};
use tributary_planner::plan::{Node, Scan};
use tributary_storage::{Delta, ObjectId};

use crate::columns::{batch_of, schema_of};
use crate::error::{ExecutorError, Result};
use crate::row_errors::ErrorSink;
use crate::state::{Builder, States};
use aggregate::Aggregate;
use distinct::Distinct;
use filter::Filter;
use join::Join;
use project::Project;
use top_k::TopK;
use union::Union;

/// What one evaluation of a tree reads and writes.
pub(crate) struct Step<'a> {
    pub(crate) states: &'a mut States,
    pub(crate) errors: &'a mut ErrorSink,
    /// Changes of tables and views.
    pub(crate) inputs: &'a BTreeMap<ObjectId, Delta>,
    /// Changes of merged rows, by fragment; none in a local tree.
    pub(crate) merged: &'a [Delta],
    /// The first evaluation, which yields the rows that exist over no input.
    pub(crate) initial: bool,
}

/// A leaf of either kind of tree.
#[derive(Clone, Copy, Debug)]
pub(crate) enum LeafSource<'a> {
    /// Columns of a table or view.
    Scan(&'a Scan),
    /// The merged rows of a fragment: its number and types.
    Merged(usize, &'a [DataType]),
}

/// An operator with its inputs.
#[derive(Debug)]
enum Operator {
    Scan {
        object: ObjectId,
        columns: Vec<usize>,
        schema: SchemaRef,
    },
    Merged(usize),
    Filter(Filter, Box<Operator>),
    Project(Project, Box<Operator>),
    Join(Join, Box<Operator>, Box<Operator>),
    Union(Union, Vec<Operator>),
    Aggregate(Aggregate, Box<Operator>),
    Distinct(Distinct, Box<Operator>),
    TopK(TopK, Box<Operator>),
}

/// A tree of operators.
#[derive(Debug)]
pub(crate) struct Tree {
    root: Operator,
    types: Vec<DataType>,
}

impl Tree {
    /// Builds the operators of a plan; `leaf` says what each leaf reads.
    pub(crate) fn build<'p, Leaf>(
        builder: &mut Builder,
        node: &'p Node<Leaf>,
        leaf: &impl Fn(&'p Leaf) -> Result<LeafSource<'p>>,
    ) -> Result<Self> {
        let (root, types) = build(builder, node, leaf)?;
        Ok(Self { root, types })
    }

    /// The types of the rows.
    pub(crate) fn types(&self) -> &[DataType] {
        &self.types
    }

    /// The change of the rows.
    pub(crate) fn eval(&self, step: &mut Step) -> Delta {
        self.root.eval(step)
    }
}

fn build<'p, Leaf>(
    builder: &mut Builder,
    node: &'p Node<Leaf>,
    leaf: &impl Fn(&'p Leaf) -> Result<LeafSource<'p>>,
) -> Result<(Operator, Vec<DataType>)> {
    let operator = match node {
        Node::Leaf(source) => return Ok(build_leaf(leaf(source)?)),
        Node::Filter { input, predicate } => {
            let (input, types) = build(builder, input, leaf)?;
            let filter = Filter::build(builder.next_operator("filter"), predicate, &types)?;
            (Operator::Filter(filter, Box::new(input)), types)
        }
        Node::Project {
            input,
            expressions,
            types,
        } => {
            let (input, input_types) = build(builder, input, leaf)?;
            let name = builder.next_operator("project");
            let project = Project::build(name, expressions, types, &input_types)?;
            (Operator::Project(project, Box::new(input)), types.clone())
        }
        Node::Join {
            kind,
            left,
            right,
            on,
            filter,
            null_safe,
        } => {
            if *null_safe {
                return Err(unsupported("a join in which nulls are equal"));
            }
            let (left, left_types) = build(builder, left, leaf)?;
            let (right, right_types) = build(builder, right, leaf)?;
            let name = builder.next_operator("join");
            let inputs = (left_types.as_slice(), right_types.as_slice());
            let join = Join::build(builder, name, *kind, inputs, on, filter.as_ref())?;
            (
                Operator::Join(join, Box::new(left), Box::new(right)),
                [left_types, right_types].concat(),
            )
        }
        Node::Union { inputs } => build_union(builder, inputs, leaf)?,
        Node::Aggregate {
            input,
            keys,
            aggregates,
        } => {
            let (input, types) = build(builder, input, leaf)?;
            let name = builder.next_operator("aggregate");
            let aggregate = Aggregate::build(builder, name, &types, keys, aggregates)?;
            let keys = keys.iter().map(|key| types[*key].clone());
            let types = keys
                .chain(aggregates.iter().map(|call| call.output_type.clone()))
                .collect();
            (Operator::Aggregate(aggregate, Box::new(input)), types)
        }
        Node::Distinct { input } => {
            let (input, types) = build(builder, input, leaf)?;
            let name = builder.next_operator("distinct");
            let distinct = Distinct::build(builder, name, &types)?;
            (Operator::Distinct(distinct, Box::new(input)), types)
        }
        Node::TopK {
            input,
            partition,
            keys,
            skip,
            fetch,
            rank,
        } => {
            if !partition.is_empty() || *rank {
                return Err(unsupported("the first rows of each partition"));
            }
            let (input, types) = build(builder, input, leaf)?;
            let name = builder.next_operator("top-k");
            let top_k = TopK::build(builder, &name, &types, keys, *skip, *fetch)?;
            (Operator::TopK(top_k, Box::new(input)), types)
        }
        Node::Hop { .. } => return Err(unsupported("windows of time")),
    };
    Ok(operator)
}

fn unsupported(what: &str) -> ExecutorError {
    ExecutorError::Unsupported(what.to_string())
}

fn build_leaf(source: LeafSource) -> (Operator, Vec<DataType>) {
    match source {
        LeafSource::Scan(scan) => {
            let schema = schema_of(&scan.types);
            let operator = Operator::Scan {
                object: scan.object,
                columns: scan.columns.clone(),
                schema,
            };
            (operator, scan.types.clone())
        }
        LeafSource::Merged(fragment, types) => (Operator::Merged(fragment), types.to_vec()),
    }
}

fn build_union<'p, Leaf>(
    builder: &mut Builder,
    inputs: &'p [Node<Leaf>],
    leaf: &impl Fn(&'p Leaf) -> Result<LeafSource<'p>>,
) -> Result<(Operator, Vec<DataType>)> {
    let built = inputs
        .iter()
        .map(|input| build(builder, input, leaf))
        .collect::<Result<Vec<_>>>()?;
    let (operators, types): (Vec<Operator>, Vec<Vec<DataType>>) = built.into_iter().unzip();
    let first = types
        .first()
        .cloned()
        .ok_or_else(|| ExecutorError::Plan("a union of nothing".to_string()))?;
    if types.iter().any(|other| *other != first) {
        return Err(ExecutorError::Plan(
            "the inputs of a union have different types".to_string(),
        ));
    }
    Ok((
        Operator::Union(
            Union {
                schema: schema_of(&first),
            },
            operators,
        ),
        first,
    ))
}

impl Operator {
    fn eval(&self, step: &mut Step) -> Delta {
        match self {
            Self::Scan {
                object,
                columns,
                schema,
            } => scan(step.inputs, *object, columns, schema),
            Self::Merged(fragment) => step.merged[*fragment].clone(),
            Self::Filter(filter, input) => {
                let delta = input.eval(step);
                filter.eval(step, &delta)
            }
            Self::Project(project, input) => {
                let delta = input.eval(step);
                project.eval(step, &delta)
            }
            Self::Join(join, left, right) => {
                let (left, right) = (left.eval(step), right.eval(step));
                join.eval(step, &left, &right)
            }
            Self::Union(union, inputs) => {
                let deltas: Vec<Delta> = inputs.iter().map(|input| input.eval(step)).collect();
                union.eval(&deltas)
            }
            Self::Aggregate(aggregate, input) => {
                let delta = input.eval(step);
                aggregate.eval(step, &delta)
            }
            Self::Distinct(distinct, input) => {
                let delta = input.eval(step);
                distinct.eval(step, &delta)
            }
            Self::TopK(top_k, input) => {
                let delta = input.eval(step);
                top_k.eval(step, &delta)
            }
        }
    }
}

/// The columns that a scan reads of an input's change.
fn scan(
    inputs: &BTreeMap<ObjectId, Delta>,
    object: ObjectId,
    columns: &[usize],
    schema: &SchemaRef,
) -> Delta {
    let Some(delta) = inputs.get(&object).filter(|delta| !delta.is_empty()) else {
        return Delta::empty(schema.clone());
    };
    let read = columns
        .iter()
        .map(|column| delta.rows().column(*column).clone())
        .collect();
    delta.with_rows(batch_of(schema.clone(), read, delta.len()))
}
