//! Relational operators, one per file, and the tree that they form.
//!
//! A [`Tree`] is evaluated bottom up, once per step: each operator takes the deltas of its inputs and returns its
//! own. The same operators serve local fragments and the global one; only the leaves differ.

pub(crate) mod aggregate;
pub(crate) mod distinct;
pub(crate) mod filter;
pub(crate) mod groups;
pub(crate) mod hop;
pub(crate) mod join;
pub(crate) mod pre_aggregate;
pub(crate) mod project;
pub(crate) mod session;
pub(crate) mod top_k;
pub(crate) mod union;
pub(crate) mod unique_join;

use std::collections::BTreeMap;

use arrow::datatypes::{DataType, SchemaRef};
use tributary_planner::plan::{Expr, JoinKind, Node, Scan};
use tributary_storage::{Delta, ObjectId};

use crate::columns::{batch_of, schema_of};
use crate::error::{ExecutorError, Result};
use crate::placement::Placement;
use crate::row_errors::ErrorSink;
use crate::state::{Builder, Sessionizing, StateId, States};
use aggregate::Aggregate;
use distinct::Distinct;
use filter::Filter;
use hop::Hop;
use join::Join;
use pre_aggregate::Partials;
use project::Project;
use session::Session;
use top_k::{Asked, TopK};
use union::Union;
use unique_join::UniqueJoin;

/// What one evaluation of a tree reads and writes.
pub(crate) struct Step<'a> {
    pub(crate) states: &'a mut States,
    pub(crate) errors: &'a mut ErrorSink,
    /// Changes of tables and views.
    pub(crate) inputs: &'a BTreeMap<ObjectId, Delta>,
    /// Changes of rows that were computed before, by number; none in a local tree.
    pub(crate) merged: &'a [Delta],
    /// The first evaluation, which yields the rows that exist over no input.
    pub(crate) initial: bool,
}

/// A leaf of either kind of tree.
#[derive(Clone, Copy, Debug)]
pub(crate) enum LeafSource<'a> {
    /// Columns of a table or view.
    Scan(&'a Scan),
    /// Rows that were computed before, by number.
    Merged(usize, Relation<'a>),
    /// Partial rows, by number, and what is known of the rows they stand for. Only an aggregate reads them.
    Partials(usize, Relation<'a>, &'a Partials),
}

/// What an operator knows of its input.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Relation<'a> {
    pub(crate) types: &'a [DataType],
    /// Whether rows only come.
    pub(crate) append_only: bool,
    /// How rows are divided among partitions.
    pub(crate) placement: &'a Placement,
    /// Columns of which no two rows have equal values.
    pub(crate) unique: Option<&'a [usize]>,
}

impl Relation<'_> {
    /// Whether no two rows have equal values of these columns.
    fn is_unique_by(&self, columns: &[usize]) -> bool {
        self.unique
            .is_some_and(|unique| unique.iter().all(|column| columns.contains(column)))
    }
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
    Hop(Hop, Box<Operator>),
    Join(Join, Box<Operator>, Box<Operator>),
    UniqueJoin(UniqueJoin, Box<Operator>, Box<Operator>),
    Union(Union, Vec<Operator>),
    Aggregate(Aggregate, Box<Operator>),
    Distinct(Distinct, Box<Operator>),
    TopK(TopK, Box<Operator>),
    Session(Session, Box<Operator>),
}

/// A tree of operators.
#[derive(Debug)]
pub(crate) struct Tree {
    root: Operator,
    types: Vec<DataType>,
    append_only: bool,
    placement: Placement,
    unique: Option<Vec<usize>>,
}

/// An operator with its inputs, what its rows are, and whether they only come.
struct Built {
    operator: Operator,
    types: Vec<DataType>,
    append_only: bool,
    placement: Placement,
    unique: Option<Vec<usize>>,
}

impl Built {
    fn relation(&self) -> Relation<'_> {
        Relation {
            types: &self.types,
            append_only: self.append_only,
            placement: &self.placement,
            unique: self.unique.as_deref(),
        }
    }

    /// An operator over this input that keeps its rows' types and their permanence.
    fn keeping(self, wrap: impl FnOnce(Box<Operator>) -> Operator) -> Self {
        Self {
            operator: wrap(Box::new(self.operator)),
            ..self
        }
    }
}

impl Tree {
    /// Builds the operators of a plan; `leaf` says what each leaf reads.
    pub(crate) fn build<'p, Leaf>(
        builder: &mut Builder,
        node: &'p Node<Leaf>,
        leaf: &impl Fn(&'p Leaf) -> Result<LeafSource<'p>>,
    ) -> Result<Self> {
        let built = build(builder, node, leaf)?;
        Ok(Self {
            root: built.operator,
            types: built.types,
            append_only: built.append_only,
            placement: built.placement,
            unique: built.unique,
        })
    }

    /// The types of the rows.
    pub(crate) fn types(&self) -> &[DataType] {
        &self.types
    }

    /// Whether rows only come.
    pub(crate) fn append_only(&self) -> bool {
        self.append_only
    }

    /// What is known of the rows.
    pub(crate) fn relation(&self) -> Relation<'_> {
        Relation {
            types: &self.types,
            append_only: self.append_only,
            placement: &self.placement,
            unique: self.unique.as_deref(),
        }
    }

    /// The state of a top-k at the root, if there is one.
    pub(crate) fn root_top_k(&self) -> Option<StateId> {
        match &self.root {
            Operator::TopK(top_k, _) => Some(top_k.state()),
            _ => None,
        }
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
) -> Result<Built> {
    Ok(match node {
        Node::Leaf(source) => build_leaf(leaf(source)?),
        Node::Filter { input, predicate } => {
            let input = build(builder, input, leaf)?;
            let filter = Filter::build(builder.next_operator("filter"), predicate, &input.types)?;
            input.keeping(|input| Operator::Filter(filter, input))
        }
        Node::Project {
            input,
            expressions,
            types,
        } => {
            let input = build(builder, input, leaf)?;
            let name = builder.next_operator("project");
            let project = Project::build(name, expressions, types, &input.types)?;
            Built {
                types: types.clone(),
                placement: input.placement.after_projection(expressions),
                unique: input
                    .unique
                    .as_ref()
                    .and_then(|unique| projected(unique, expressions)),
                ..input.keeping(|input| Operator::Project(project, input))
            }
        }
        Node::Hop {
            input,
            column,
            slide_us,
            size_us,
        } => {
            let input = build(builder, input, leaf)?;
            let hop = Hop::build(
                builder.next_operator("hop"),
                &input.types,
                *column,
                *slide_us,
                *size_us,
            )?;
            Built {
                types: hop.types(),
                unique: None,
                ..input.keeping(|input| Operator::Hop(hop, input))
            }
        }
        Node::Join { .. } => build_join(builder, node, leaf)?,
        Node::Union { inputs } => build_union(builder, inputs, leaf)?,
        Node::Aggregate {
            input,
            keys,
            aggregates,
        } => {
            let partials = match &**input {
                Node::Leaf(source) => match leaf(source)? {
                    LeafSource::Partials(.., partials) => Some(partials),
                    _ => None,
                },
                _ => None,
            };
            let input = build(builder, input, leaf)?;
            let name = builder.next_operator("aggregate");
            let aggregate = Aggregate::build(builder, name, input.relation(), keys, aggregates, partials)?;
            Built {
                types: aggregate.types(),
                placement: input.placement.among(keys)?,
                unique: (!keys.is_empty()).then(|| (0..keys.len()).collect()),
                // Without aggregates a group that is there stays there.
                append_only: input.append_only && aggregates.is_empty(),
                operator: Operator::Aggregate(aggregate, Box::new(input.operator)),
            }
        }
        Node::Distinct { input } => {
            let input = build(builder, input, leaf)?;
            let name = builder.next_operator("distinct");
            let distinct = Distinct::build(builder, name, input.relation())?;
            input.keeping(|input| Operator::Distinct(distinct, input))
        }
        Node::TopK {
            input,
            partition,
            keys,
            skip,
            fetch,
            rank,
        } => {
            let input = build(builder, input, leaf)?;
            let name = builder.next_operator("top-k");
            let asked = Asked {
                partition,
                keys,
                skip: *skip,
                fetch: *fetch,
                rank: *rank,
            };
            let top_k = TopK::build(builder, &name, input.relation(), asked)?;
            input.placement.among(partition)?;
            let placement = input.placement.clone();
            let mut types = input.types;
            types.extend(rank.then_some(DataType::Int64));
            Built {
                operator: Operator::TopK(top_k, Box::new(input.operator)),
                types,
                append_only: false,
                placement,
                unique: None,
            }
        }
        Node::Session {
            input,
            partition,
            column,
            gap_us,
        } => {
            let input = build(builder, input, leaf)?;
            let name = builder.next_operator("session");
            let by = Sessionizing {
                partition: partition.clone(),
                column: *column,
                gap_us: *gap_us,
            };
            let session = Session::build(builder, name, input.relation(), by)?;
            input.placement.among(partition)?;
            Built {
                types: session.types(),
                append_only: false,
                unique: None,
                ..input.keeping(|input| Operator::Session(session, input))
            }
        }
    })
}

fn build_leaf(source: LeafSource) -> Built {
    match source {
        LeafSource::Scan(scan) => Built {
            operator: Operator::Scan {
                object: scan.object,
                columns: scan.columns.clone(),
                schema: schema_of(&scan.types),
            },
            types: scan.types.clone(),
            append_only: scan.append_only,
            placement: Placement::One,
            unique: None,
        },
        LeafSource::Merged(number, relation) | LeafSource::Partials(number, relation, _) => Built {
            operator: Operator::Merged(number),
            types: relation.types.to_vec(),
            append_only: relation.append_only,
            placement: relation.placement.clone(),
            unique: relation.unique.map(<[usize]>::to_vec),
        },
    }
}

fn build_join<'p, Leaf>(
    builder: &mut Builder,
    node: &'p Node<Leaf>,
    leaf: &impl Fn(&'p Leaf) -> Result<LeafSource<'p>>,
) -> Result<Built> {
    let Node::Join {
        kind,
        left,
        right,
        on,
        filter,
        null_safe,
    } = node
    else {
        unreachable!("the caller has looked");
    };
    let left = build(builder, left, leaf)?;
    let right = build(builder, right, leaf)?;
    let name = builder.next_operator("join");
    let inputs = (left.relation(), right.relation());
    let (left_key, right_key): (Vec<usize>, Vec<usize>) = on.iter().copied().unzip();
    let unique = inputs.0.is_unique_by(&left_key) && inputs.1.is_unique_by(&right_key);
    if unique && *kind == JoinKind::Inner && *null_safe && filter.is_none() {
        let join = UniqueJoin::build(builder, &name, inputs, on)?;
        return Ok(Built {
            placement: left.placement,
            unique: left.unique,
            types: [left.types, right.types].concat(),
            // Of rows that only come each key has one for ever, so a pair is complete for ever.
            append_only: left.append_only && right.append_only,
            operator: Operator::UniqueJoin(join, Box::new(left.operator), Box::new(right.operator)),
        });
    }
    let join = Join::build(builder, name, (*kind, *null_safe), inputs, on, filter.as_ref())?;
    Ok(Built {
        placement: left.placement,
        unique: None,
        types: [left.types, right.types].concat(),
        append_only: left.append_only && right.append_only && *kind == JoinKind::Inner,
        operator: Operator::Join(join, Box::new(left.operator), Box::new(right.operator)),
    })
}

fn build_union<'p, Leaf>(
    builder: &mut Builder,
    inputs: &'p [Node<Leaf>],
    leaf: &impl Fn(&'p Leaf) -> Result<LeafSource<'p>>,
) -> Result<Built> {
    let built = inputs
        .iter()
        .map(|input| build(builder, input, leaf))
        .collect::<Result<Vec<_>>>()?;
    let types = match built.first() {
        Some(first) => first.types.clone(),
        None => return Err(ExecutorError::Plan("a union of nothing".to_string())),
    };
    if built.iter().any(|other| other.types != types) {
        return Err(ExecutorError::Plan(
            "the inputs of a union have different types".to_string(),
        ));
    }
    let union = Union {
        schema: schema_of(&types),
    };
    Ok(Built {
        placement: match built.iter().all(|input| input.placement == built[0].placement) {
            true => built[0].placement.clone(),
            false => Placement::Any,
        },
        unique: None,
        append_only: built.iter().all(|input| input.append_only),
        operator: Operator::Union(union, built.into_iter().map(|input| input.operator).collect()),
        types,
    })
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
            Self::Hop(hop, input) => {
                let delta = input.eval(step);
                hop.eval(step, &delta)
            }
            Self::Join(join, left, right) => {
                let (left, right) = (left.eval(step), right.eval(step));
                join.eval(step, &left, &right)
            }
            Self::UniqueJoin(join, left, right) => {
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
            Self::Session(session, input) => {
                let delta = input.eval(step);
                session.eval(step, &delta)
            }
        }
    }
}

/// Where a projection has some columns; `None` when it lacks one.
pub(crate) fn projected(columns: &[usize], expressions: &[Expr]) -> Option<Vec<usize>> {
    let place = |column: &usize| expressions.iter().position(|e| *e == Expr::Column(*column));
    columns.iter().map(place).collect()
}

/// The columns that a scan reads of an input's change.
pub(crate) fn scan(
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
