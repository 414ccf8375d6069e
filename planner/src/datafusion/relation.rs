//! DataFusion's relational plan into [`Node`]s over table scans: default-deny over every variant.
//!
//! Plain views are expanded here: their query is planned and put in place of the scan. An ORDER BY without LIMIT
//! means nothing in a view and is dropped, as PostgreSQL's materialized views may. A right join becomes a left
//! join of the other side.

use arrow_schema::DataType;
use datafusion_common::{DFSchema, JoinConstraint, JoinType, NullEquality};
use datafusion_expr::logical_plan::{
    Aggregate, Distinct, FetchType, Filter, Join, Limit, LogicalPlan, Projection, SkipType, Sort, SubqueryAlias,
    TableScan, Union,
};
use datafusion_expr::{Expr as DfExpr, SortExpr};

use super::aggregates;
use super::context;
use super::errors::plan_error;
use super::scalar::Scope;
use super::typed::{Typed, cast, comparison, common_type, type_name};
use crate::catalog::{Catalog, ObjectKind, PlanSettings};
use crate::error::{PlanError, PlanErrorKind};
use crate::plan::{AggregateCall, AggregateFunction, Expr, JoinKind, Literal, Node, Scan, SortKey};

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
}

impl Converter<'_> {
    fn scope<'s>(&'s self, schema: &'s DFSchema, types: &'s [DataType]) -> Scope<'s> {
        Scope { schema, types, zone: &self.settings.time_zone }
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
            LogicalPlan::SubqueryAlias(SubqueryAlias { input, .. }) => self.convert(input),
            LogicalPlan::Projection(Projection { expr, input, .. }) => {
                let relation = self.convert(input)?;
                self.project(relation, input.schema(), expr)
            }
            LogicalPlan::Filter(Filter { predicate, input, .. }) => {
                let relation = self.convert(input)?;
                let place = if matches!(**input, LogicalPlan::Aggregate(_)) { "HAVING" } else { "WHERE" };
                let predicate = self.scope(input.schema(), &relation.types).condition(predicate, place)?;
                Ok(Relation { node: filter(relation.node, predicate), types: relation.types })
            }
            LogicalPlan::Aggregate(aggregate) => self.aggregate(aggregate),
            LogicalPlan::Join(join) => self.join(join),
            LogicalPlan::Union(union) => self.union(union),
            LogicalPlan::Distinct(Distinct::All(input)) => {
                self.distinct(self.convert(input)?)
            }
            LogicalPlan::Limit(limit) => self.limit(limit),
            LogicalPlan::Sort(sort) => self.convert(&sort.input),
            other => Err(refused(other)),
        }
    }

    fn scan(&self, scan: &TableScan) -> Result<Relation, PlanError> {
        if !scan.filters.is_empty() || scan.fetch.is_some() || scan.projection.is_some() {
            return Err(PlanError::internal("the front end pushed something into a scan"));
        }
        let object = context::relation(self.catalog, &scan.table_name)?;
        let schema = context::visible_columns(object);
        let types: Vec<DataType> = schema.fields().iter().map(|field| field.data_type().clone()).collect();
        if let ObjectKind::View(view) = &object.kind {
            let query = super::parse_query(&view.sql)?;
            let expanded = super::relation(&query, self.catalog, self.settings)?.0;
            if expanded.types != types {
                let message = format!("the columns of view \"{}\" have changed", object.name);
                return Err(PlanError::internal(message));
            }
            return Ok(expanded);
        }
        let columns = match object.as_table() {
            Some(table) => table.visible().collect(),
            None => (0..types.len()).collect(),
        };
        let scan = Scan {
            object: object.id,
            name: object.name.clone(),
            locality: object.locality(),
            columns,
            types: types.clone(),
        };
        Ok(Relation { node: Node::Leaf(scan), types })
    }

    fn project(&self, input: Relation, schema: &DFSchema, exprs: &[DfExpr]) -> Result<Relation, PlanError> {
        let scope = self.scope(schema, &input.types);
        let typed = exprs.iter().map(|expr| scope.convert(expr)).collect::<Result<Vec<_>, _>>()?;
        let (expressions, types) = typed.into_iter().map(|typed| (typed.expr, typed.data_type)).unzip();
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
            Node::Project { input, expressions, .. } => (*input, expressions),
            other => (other, (0..to.len()).map(Expr::Column).collect()),
        };
        let typed = columns.into_iter().zip(relation.types).map(|(expr, data_type)| Typed::new(expr, data_type));
        let cast = typed.zip(&to).map(|(typed, to)| Ok(cast::implicit(typed, to, zone)?.expr));
        let expressions = cast.collect::<Result<Vec<_>, PlanError>>()?;
        Ok(projected(node, expressions, to))
    }

    fn distinct(&self, relation: Relation) -> Result<Relation, PlanError> {
        for data_type in &relation.types {
            comparison::check_comparable(data_type, "a DISTINCT column")?;
        }
        Ok(Relation { node: Node::Distinct { input: Box::new(relation.node) }, types: relation.types })
    }

    fn union(&self, union: &Union) -> Result<Relation, PlanError> {
        let mut inputs = Vec::new();
        flatten(union, &mut inputs);
        let inputs = inputs.into_iter().map(|input| self.unsettled(input)).collect::<Result<Vec<_>, _>>()?;
        let width = inputs[0].types.len();
        let mut types = Vec::with_capacity(width);
        for column in 0..width {
            let alternatives: Vec<DataType> = inputs.iter().map(|input| input.types[column].clone()).collect();
            let Some(common) = common_type(&alternatives) else {
                let names: Vec<String> = alternatives.iter().map(type_name).collect();
                let message = format!("UNION types {} cannot be matched", names.join(" and "));
                return Err(PlanError::new(PlanErrorKind::DatatypeMismatch, message)
                    .with_hint("Cast the columns to one type explicitly."));
            };
            types.push(if common == DataType::Null { DataType::Utf8 } else { common });
        }
        let nodes = inputs.into_iter().map(|input| Ok(self.cast_columns(input, types.clone())?.node));
        Ok(Relation { node: Node::Union { inputs: nodes.collect::<Result<_, PlanError>>()? }, types })
    }

    /// Groups: keys, arguments and filters become columns of a projection below.
    fn aggregate(&self, aggregate: &Aggregate) -> Result<Relation, PlanError> {
        let input = self.convert(&aggregate.input)?;
        let scope = self.scope(aggregate.input.schema(), &input.types);
        let mut columns = Columns::default();
        let mut keys = Vec::new();
        for expr in &aggregate.group_expr {
            if matches!(expr, DfExpr::GroupingSet(_)) {
                let what = "GROUPING SETS, ROLLUP or CUBE in a view";
                return Err(PlanError::unsupported(what, "Write one view per grouping."));
            }
            let key = scope.convert(expr)?.settled(scope.zone)?;
            comparison::check_comparable(&key.data_type, "a GROUP BY column")?;
            keys.push(columns.position(key));
        }
        let mut calls = Vec::new();
        for expr in &aggregate.aggr_expr {
            calls.push(call(&scope, expr, &mut columns)?);
        }
        let distinct = distinct_argument(&aggregate.aggr_expr, &calls)?;
        let mut types: Vec<DataType> = keys.iter().map(|&key| columns.0[key].data_type.clone()).collect();
        types.extend(calls.iter().map(|call| call.output_type.clone()));
        if columns.0.is_empty() {
            // Rows without columns are awkward to count; a constant stands for them.
            columns.0.push(Typed::new(Expr::Literal(Literal::boolean(true)), DataType::Boolean));
        }
        let (expressions, column_types) =
            columns.0.into_iter().map(|column| (column.expr, column.data_type)).unzip();
        let mut node = projected(input.node, expressions, column_types).node;
        if distinct {
            // Each value counts once per key: the columns are the key and the value, and nothing else.
            node = Node::Distinct { input: Box::new(node) };
        }
        Ok(Relation { node: Node::Aggregate { input: Box::new(node), keys, aggregates: calls }, types })
    }

    fn join(&self, join: &Join) -> Result<Relation, PlanError> {
        let (kind, swapped) = match join.join_type {
            JoinType::Inner => (JoinKind::Inner, false),
            JoinType::Left => (JoinKind::Left, false),
            JoinType::Right => (JoinKind::Left, true),
            JoinType::Full => {
                let alternative = "Use the union of a LEFT JOIN and of the unmatched rows of the other side.";
                return Err(PlanError::unsupported("FULL JOIN in a view", alternative));
            }
            _ => return Err(PlanError::unsupported("a semi or anti join in a view", "Use an inner or left join.")),
        };
        if join.null_equality != NullEquality::NullEqualsNothing || join.null_aware {
            return Err(PlanError::unsupported("a join in which nulls are equal", "Use =."));
        }
        if swapped && join.join_constraint == JoinConstraint::Using {
            let alternative = "Write the join as a LEFT JOIN, or with ON.";
            return Err(PlanError::unsupported("RIGHT JOIN with USING or NATURAL in a view", alternative));
        }
        let left = self.convert(&join.left)?;
        let right = self.convert(&join.right)?;
        let types: Vec<DataType> = left.types.iter().chain(&right.types).cloned().collect();
        let both = join.left.schema().join(join.right.schema()).map_err(|error| plan_error(&error))?;
        let scope = self.scope(&both, &types);
        let mut condition: Option<Expr> = None;
        for (left, right) in &join.on {
            let (left, right) = (scope.convert(left)?, scope.convert(right)?);
            let equal = comparison::compare(crate::plan::BinaryOp::Equal, left, right, scope.zone)?;
            condition = Some(and(condition, equal.expr));
        }
        if let Some(filter) = &join.filter {
            condition = Some(and(condition, scope.condition(filter, "JOIN/ON")?));
        }
        let widths = (left.types.len(), right.types.len());
        let node = if swapped {
            let condition = condition.map(|condition| {
                condition.map_columns(&|column| if column < widths.0 { column + widths.1 } else { column - widths.0 })
            });
            let node = join_node(kind, right.node, left.node, condition);
            let order = (widths.1..widths.1 + widths.0).chain(0..widths.1).map(Expr::Column).collect();
            projected(node, order, types.clone()).node
        } else {
            join_node(kind, left.node, right.node, condition)
        };
        Ok(Relation { node, types })
    }

    /// ORDER BY … LIMIT. Projections between the two keep rows, so they are made afterwards.
    fn limit(&self, limit: &Limit) -> Result<Relation, PlanError> {
        let literal = "LIMIT and OFFSET in a view have to be constants";
        let constant = || PlanError::new(PlanErrorKind::Unsupported, literal).with_hint("Write the number.");
        let skip = match limit.get_skip_type().map_err(|error| plan_error(&error))? {
            SkipType::Literal(skip) => skip,
            SkipType::UnsupportedExpr => return Err(constant()),
        };
        let fetch = match limit.get_fetch_type().map_err(|error| plan_error(&error))? {
            FetchType::Literal(Some(fetch)) => fetch,
            FetchType::Literal(None) => {
                return Err(PlanError::unsupported("OFFSET without LIMIT in a view", "Add a LIMIT."));
            }
            FetchType::UnsupportedExpr => return Err(constant()),
        };
        if skip.checked_add(fetch).is_none() {
            return Err(PlanError::new(PlanErrorKind::InvalidDefinition, "LIMIT and OFFSET are too large"));
        }
        self.top_k(&limit.input, skip, fetch)
    }

    fn top_k(&self, plan: &LogicalPlan, skip: usize, fetch: usize) -> Result<Relation, PlanError> {
        match plan {
            LogicalPlan::Projection(Projection { expr, input, .. }) => {
                let relation = self.top_k(input, skip, fetch)?;
                let relation = self.project(relation, input.schema(), expr)?;
                self.settle(relation)
            }
            LogicalPlan::SubqueryAlias(SubqueryAlias { input, .. }) => self.top_k(input, skip, fetch),
            LogicalPlan::Sort(Sort { expr, input, .. }) => {
                self.sorted(self.convert(input)?, input.schema(), expr, skip, fetch)
            }
            _ => Err(PlanError::unsupported("LIMIT without ORDER BY in a view", "Add an ORDER BY.")),
        }
    }

    fn sorted(
        &self,
        input: Relation,
        schema: &DFSchema,
        order: &[SortExpr],
        skip: usize,
        fetch: usize,
    ) -> Result<Relation, PlanError> {
        let width = input.types.len();
        let scope = self.scope(schema, &input.types);
        let own = input.types.iter().enumerate().map(|(index, data_type)| Typed::column(index, data_type.clone()));
        let mut columns = Columns(own.collect());
        let mut keys = Vec::with_capacity(order.len());
        for SortExpr { expr, asc, nulls_first } in order {
            let key = scope.convert(expr)?.settled(scope.zone)?;
            comparison::check_comparable(&key.data_type, "an ORDER BY expression")?;
            let column = columns.position(key);
            keys.push(SortKey { column, descending: !asc, nulls_first: *nulls_first });
        }
        let extended = columns.0.len() > width;
        let (expressions, types) = columns.0.into_iter().map(|column| (column.expr, column.data_type)).unzip();
        let below = if extended { projected(input.node, expressions, types).node } else { input.node };
        let top = Node::TopK { input: Box::new(below), keys, skip, fetch };
        let own = (0..width).map(Expr::Column).collect();
        Ok(if extended { projected(top, own, input.types) } else { Relation { node: top, types: input.types } })
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

/// One aggregate, with its argument and filter among the columns.
fn call(scope: &Scope<'_>, expr: &DfExpr, columns: &mut Columns) -> Result<AggregateCall, PlanError> {
    let function = match expr {
        DfExpr::Alias(alias) => return call(scope, &alias.expr, columns),
        DfExpr::AggregateFunction(function) => function,
        _ => return Err(PlanError::internal("something else stands where an aggregate should")),
    };
    let name = function.func.name();
    let params = &function.params;
    if !params.order_by.is_empty() {
        return Err(PlanError::unsupported(
            format_args!("ORDER BY inside {name}()"),
            "The order does not matter to the aggregates of views; leave it out.",
        ));
    }
    if params.null_treatment.is_some() {
        return Err(PlanError::unsupported("IGNORE NULLS or RESPECT NULLS", "Use FILTER (WHERE … IS NOT NULL)."));
    }
    let [argument] = params.args.as_slice() else {
        return Err(super::typed::functions::wrong_arguments(name));
    };
    let argument = scope.convert(argument)?;
    // count(*), and count of a constant, count rows.
    let counts_rows = name == "count" && argument.as_literal().is_some_and(|literal| literal.value.is_some());
    let argument = argument.settled(scope.zone)?;
    let (function, input_type, output_type) = aggregates::resolve(name, &argument)?;
    let filter = match &params.filter {
        None => None,
        Some(filter) => {
            let condition = scope.condition(filter, "FILTER")?;
            Some(columns.position(Typed::new(condition, DataType::Boolean)))
        }
    };
    if counts_rows {
        return Ok(AggregateCall { function, argument: None, filter, input_type: DataType::Null, output_type });
    }
    let argument = Some(columns.position(argument));
    Ok(AggregateCall { function, argument, filter, input_type, output_type })
}

/// Whether the aggregates are over distinct values. Then all of them have to be, of one argument: two lists of
/// distinct values cannot be kept by one operator. DISTINCT changes nothing for min, max and the boolean ones.
fn distinct_argument(exprs: &[DfExpr], calls: &[AggregateCall]) -> Result<bool, PlanError> {
    let sensitive = |call: &AggregateCall| {
        matches!(call.function, AggregateFunction::Count | AggregateFunction::Sum | AggregateFunction::Avg)
    };
    let distinct = |expr: &DfExpr| matches!(expr.clone().unalias(), DfExpr::AggregateFunction(f) if f.params.distinct);
    let mut over = exprs.iter().zip(calls).filter(|(_, call)| sensitive(call)).map(|(expr, _)| distinct(expr));
    if !over.any(|distinct| distinct) {
        return Ok(false);
    }
    let all = exprs.iter().zip(calls).all(|(expr, call)| distinct(expr) || !sensitive(call));
    let same = calls.iter().all(|call| call.argument == calls[0].argument && call.filter.is_none());
    if all && same && calls[0].argument.is_some() {
        return Ok(true);
    }
    Err(PlanError::unsupported(
        "an aggregate of DISTINCT values beside others, or with FILTER, in a view",
        "Write one view per distinct column, or join subqueries that are grouped alike.",
    ))
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
    let node = Node::Project { input: Box::new(input), expressions, types: types.clone() };
    Relation { node, types }
}

fn filter(input: Node<Scan>, predicate: Expr) -> Node<Scan> {
    Node::Filter { input: Box::new(input), predicate }
}

fn join_node(kind: JoinKind, left: Node<Scan>, right: Node<Scan>, filter: Option<Expr>) -> Node<Scan> {
    Node::Join { kind, left: Box::new(left), right: Box::new(right), on: Vec::new(), filter }
}

fn and(left: Option<Expr>, right: Expr) -> Expr {
    match left {
        None => right,
        Some(left) => super::typed::binary(crate::plan::BinaryOp::And, left, right),
    }
}

/// The refusal of a plan that views do not have.
fn refused(plan: &LogicalPlan) -> PlanError {
    let (what, alternative) = match plan {
        LogicalPlan::Window(_) => {
            ("a window function in a view", "Use ORDER BY … LIMIT, or rank in the query that reads the view.")
        }
        LogicalPlan::Distinct(Distinct::On(_)) => ("SELECT DISTINCT ON in a view", "Use GROUP BY with min or max."),
        LogicalPlan::EmptyRelation(_) => ("a SELECT without FROM in a view", "Read a table."),
        LogicalPlan::Values(_) => ("VALUES in a view", "Keep the rows in a table with LOCALITY GLOBAL."),
        LogicalPlan::RecursiveQuery(_) => ("WITH RECURSIVE in a view", "Use WITH without RECURSIVE."),
        LogicalPlan::Unnest(_) => ("unnest in a view", "Use a table with a row per element."),
        LogicalPlan::Subquery(_) => ("LATERAL in a view", "Write a join."),
        _ => ("this query in a view", "Apply it in the query that reads the view."),
    };
    PlanError::unsupported(what, alternative)
}
