//! DataFusion's relational plan into [`Node`]s over table scans: default-deny over every variant.
//!
//! Plain views are expanded here: their query is planned and put in place of the scan. An ORDER BY without LIMIT
//! means nothing in a view and is dropped, as PostgreSQL's materialized views may.

mod aggregate;
mod join;
mod row_number;
mod top_k;

use arrow_schema::{DataType, TimeUnit};
use datafusion_common::DFSchema;
use datafusion_expr::Expr as DfExpr;
use datafusion_expr::logical_plan::{
    Distinct, Extension, Filter, LogicalPlan, Projection, SubqueryAlias, TableScan, Union,
};

use super::context;
use super::hidden;
use super::scalar::Scope;
use super::typed::{Typed, cast, common_type, comparison, type_name};
use super::windows::{WindowKind, Windows};
use crate::catalog::{Catalog, ObjectKind, PlanSettings};
use crate::error::{PlanError, PlanErrorKind};
use crate::plan::{Expr, Node, Scan};
use crate::split::named;

/// A tree with the types of its output columns.
pub struct Relation {
    /// The tree; joins may still lack their keys, which pushing filters down may find.
    pub node: Node<Scan>,
    /// The types of its columns. [`DataType::Null`] is a constant whose type is not settled.
    pub types: Vec<DataType>,
}

/// Converts plans against one catalog.
pub struct Converter<'a> {
    /// Where relations are looked up.
    pub catalog: &'a Catalog,
    /// The frozen settings.
    pub settings: &'a PlanSettings,
    /// Relations whose scans are marked, as the query calls them.
    pub names: &'a [String],
}

impl Converter<'_> {
    fn scope<'s>(&'s self, schema: &'s DFSchema, types: &'s [DataType]) -> Scope<'s> {
        Scope {
            schema,
            types,
            zone: &self.settings.time_zone,
        }
    }

    /// The tree of a plan.
    ///
    /// # Errors
    /// `Unsupported` for constructs that views do not have, and the errors of typing.
    pub fn convert(&self, plan: &LogicalPlan) -> Result<Relation, PlanError> {
        let relation = self.unsettled(plan)?;
        self.settle(relation)
    }

    /// The tree of a plan whose constants may still be of unknown type: a UNION settles them by its other inputs.
    fn unsettled(&self, plan: &LogicalPlan) -> Result<Relation, PlanError> {
        match plan {
            LogicalPlan::TableScan(scan) => self.scan(scan),
            LogicalPlan::SubqueryAlias(SubqueryAlias { input, alias, .. }) => {
                Ok(self.marked(self.convert(input)?, alias.table()))
            }
            LogicalPlan::Projection(Projection { expr, input, .. }) => {
                let relation = self.convert(input)?;
                self.project(relation, input.schema(), expr)
            }
            LogicalPlan::Filter(Filter { predicate, input, .. }) => {
                let relation = self.convert(input)?;
                let place = if matches!(**input, LogicalPlan::Aggregate(_)) {
                    "HAVING"
                } else {
                    "WHERE"
                };
                let predicate = self
                    .scope(input.schema(), &relation.types)
                    .condition(predicate, place)?;
                Ok(Relation {
                    node: filter(relation.node, predicate),
                    types: relation.types,
                })
            }
            LogicalPlan::Aggregate(aggregate) => self.aggregate(aggregate),
            LogicalPlan::Join(join) => self.join(join),
            LogicalPlan::Union(union) => self.union(union),
            LogicalPlan::Distinct(Distinct::All(input)) => self.distinct(self.convert(input)?),
            LogicalPlan::Limit(limit) => self.limit(limit),
            LogicalPlan::Sort(sort) => self.convert(&sort.input),
            LogicalPlan::Window(window) => self.row_number(window),
            LogicalPlan::Extension(Extension { node }) => match node.as_any().downcast_ref::<Windows>() {
                Some(windows) => self.windows(windows),
                None => Err(refused(plan)),
            },
            other => Err(refused(other)),
        }
    }

    /// Marks the scans of a relation that is called by one of the names.
    fn marked(&self, relation: Relation, name: &str) -> Relation {
        let (name, _) = hidden::unmarked(name);
        let Some(number) = self.names.iter().position(|named| named == name) else {
            return relation;
        };
        Relation {
            node: named::mark(relation.node, number),
            types: relation.types,
        }
    }

    fn scan(&self, scan: &TableScan) -> Result<Relation, PlanError> {
        if !scan.filters.is_empty() || scan.fetch.is_some() || scan.projection.is_some() {
            return Err(PlanError::internal("the front end pushed something into a scan"));
        }
        let object = context::relation(self.catalog, &scan.table_name)?;
        let (_, all) = hidden::unmarked(scan.table_name.table());
        let (columns, types): (Vec<usize>, Vec<DataType>) = hidden::columns(object, all)
            .into_iter()
            .map(|(column, field)| (column, field.data_type().clone()))
            .unzip();
        if let ObjectKind::View(view) = &object.kind {
            let query = crate::parse::parse_query(&view.sql)?;
            let expanded = super::relation(&query, self.catalog, self.settings)?.0;
            if expanded.types != types {
                let message = format!("the columns of view \"{}\" have changed", object.name);
                return Err(PlanError::internal(message));
            }
            return Ok(self.marked(expanded, &object.name));
        }
        let scan = Scan {
            object: object.id,
            name: object.name.clone(),
            locality: object.locality(),
            columns,
            types: types.clone(),
            append_only: object.is_append_only(),
        };
        let relation = Relation {
            node: Node::Leaf(scan),
            types,
        };
        Ok(self.marked(relation, &object.name))
    }

    fn windows(&self, windows: &Windows) -> Result<Relation, PlanError> {
        let Relation { node, mut types } = self.convert(&windows.input)?;
        let time = types[windows.column].clone();
        if !matches!(time, DataType::Timestamp(TimeUnit::Microsecond, _)) {
            let message = format!("windows of time by a column of type {}", type_name(&time));
            return Err(PlanError::new(PlanErrorKind::DatatypeMismatch, message)
                .with_hint("The column has to be a timestamp."));
        }
        if let WindowKind::Session { partition, .. } = &windows.kind {
            for key in partition {
                comparison::check_comparable(&types[*key], "a key of SESSION")?;
            }
        }
        types.extend([time.clone(), time]);
        let (input, column) = (Box::new(node), windows.column);
        let node = match &windows.kind {
            WindowKind::Sliding { slide_us, size_us } => Node::Hop {
                input,
                column,
                slide_us: *slide_us,
                size_us: *size_us,
            },
            WindowKind::Session { partition, gap_us } => Node::Session {
                input,
                partition: partition.clone(),
                column,
                gap_us: *gap_us,
            },
        };
        Ok(Relation { node, types })
    }

    fn project(&self, input: Relation, schema: &DFSchema, exprs: &[DfExpr]) -> Result<Relation, PlanError> {
        let scope = self.scope(schema, &input.types);
        let typed = exprs
            .iter()
            .map(|expr| scope.convert(expr))
            .collect::<Result<Vec<_>, _>>()?;
        let (expressions, types) = typed
            .into_iter()
            .map(|typed| (typed.expr, typed.data_type))
            .unzip();
        Ok(projected(input.node, expressions, types))
    }

    /// Settles constants of unknown type as text.
    fn settle(&self, relation: Relation) -> Result<Relation, PlanError> {
        let types = relation.types.iter().map(|data_type| match data_type {
            DataType::Null => DataType::Utf8,
            other => other.clone(),
        });
        let types = types.collect();
        self.cast_columns(relation, types)
    }

    /// Casts columns to the given types where they differ.
    fn cast_columns(&self, relation: Relation, to: Vec<DataType>) -> Result<Relation, PlanError> {
        if relation.types == to {
            return Ok(relation);
        }
        let zone = &self.settings.time_zone;
        // The constants themselves are cast, since a column of unknown type cannot be.
        let (node, columns) = match relation.node {
            Node::Project {
                input, expressions, ..
            } => (*input, expressions),
            other => (other, (0..to.len()).map(Expr::Column).collect()),
        };
        let typed = columns
            .into_iter()
            .zip(relation.types)
            .map(|(expr, data_type)| Typed::new(expr, data_type));
        let cast = typed
            .zip(&to)
            .map(|(typed, to)| Ok(cast::implicit(typed, to, zone)?.expr));
        let expressions = cast.collect::<Result<Vec<_>, PlanError>>()?;
        Ok(projected(node, expressions, to))
    }

    fn distinct(&self, relation: Relation) -> Result<Relation, PlanError> {
        for data_type in &relation.types {
            comparison::check_comparable(data_type, "a DISTINCT column")?;
        }
        Ok(Relation {
            node: Node::Distinct {
                input: Box::new(relation.node),
            },
            types: relation.types,
        })
    }

    fn union(&self, union: &Union) -> Result<Relation, PlanError> {
        let mut inputs = Vec::new();
        flatten(union, &mut inputs);
        let inputs = inputs
            .into_iter()
            .map(|input| self.unsettled(input))
            .collect::<Result<Vec<_>, _>>()?;
        let width = inputs[0].types.len();
        let mut types = Vec::with_capacity(width);
        for column in 0..width {
            let alternatives: Vec<DataType> =
                inputs.iter().map(|input| input.types[column].clone()).collect();
            let Some(common) = common_type(&alternatives) else {
                let names: Vec<String> = alternatives.iter().map(type_name).collect();
                let message = format!("UNION types {} cannot be matched", names.join(" and "));
                return Err(PlanError::new(PlanErrorKind::DatatypeMismatch, message)
                    .with_hint("Cast the columns to one type explicitly."));
            };
            types.push(if common == DataType::Null {
                DataType::Utf8
            } else {
                common
            });
        }
        let nodes = inputs
            .into_iter()
            .map(|input| Ok(self.cast_columns(input, types.clone())?.node));
        Ok(Relation {
            node: Node::Union {
                inputs: nodes.collect::<Result<_, PlanError>>()?,
            },
            types,
        })
    }
}

/// Columns of a projection, each expression once.
#[derive(Default)]
struct Columns(Vec<Typed>);

impl Columns {
    fn position(&mut self, typed: Typed) -> usize {
        if let Some(position) = self.0.iter().position(|column| *column == typed) {
            return position;
        }
        self.0.push(typed);
        self.0.len() - 1
    }
}

fn flatten<'p>(union: &'p Union, inputs: &mut Vec<&'p LogicalPlan>) {
    for input in &union.inputs {
        match &**input {
            LogicalPlan::Union(inner) => flatten(inner, inputs),
            other => inputs.push(other),
        }
    }
}

fn projected(input: Node<Scan>, expressions: Vec<Expr>, types: Vec<DataType>) -> Relation {
    let node = Node::Project {
        input: Box::new(input),
        expressions,
        types: types.clone(),
    };
    Relation { node, types }
}

fn filter(input: Node<Scan>, predicate: Expr) -> Node<Scan> {
    Node::Filter {
        input: Box::new(input),
        predicate,
    }
}

/// The refusal of a plan that views do not have.
fn refused(plan: &LogicalPlan) -> PlanError {
    let (what, alternative) = match plan {
        LogicalPlan::Distinct(Distinct::On(_)) => {
            ("SELECT DISTINCT ON in a view", "Use GROUP BY with min or max.")
        }
        LogicalPlan::EmptyRelation(_) => ("a SELECT without FROM in a view", "Read a table."),
        LogicalPlan::Values(_) => (
            "VALUES in a view",
            "Keep the rows in a table with LOCALITY GLOBAL.",
        ),
        LogicalPlan::RecursiveQuery(_) => ("WITH RECURSIVE in a view", "Use WITH without RECURSIVE."),
        LogicalPlan::Unnest(_) => ("unnest in a view", "Use a table with a row per element."),
        LogicalPlan::Subquery(_) => ("LATERAL in a view", "Write a join."),
        _ => (
            "this query in a view",
            "Apply it in the query that reads the view.",
        ),
    };
    PlanError::unsupported(what, alternative)
}
