//! What DataFusion's front end asks for: tables, functions, types.
//!
//! Tables and views are sources with a schema and nothing else; their rows and, for plain views, their queries
//! are looked up again when the plan is converted. Keys are never declared: the key of a REGIONAL table is
//! unique within a region only.

use std::sync::Arc;

use arrow_schema::{DataType, Field, FieldRef, Schema, SchemaRef};
use datafusion_common::config::ConfigOptions;
use datafusion_common::{DFSchema, DataFusionError, Result, TableReference, not_impl_err};
use datafusion_expr::expr::AggregateFunction;
use datafusion_expr::planner::{
    ContextProvider, ExprPlanner, PlannerResult, RawAggregateExpr, RawBinaryExpr, RelationPlanner,
    TypePlanner,
};
use datafusion_expr::utils::COUNT_STAR_EXPANSION;
use datafusion_expr::{
    AggregateUDF, Cast, Expr, ExprSchemable, HigherOrderUDF, ScalarUDF, TableSource, WindowUDF,
};
use sqlparser::ast::BinaryOperator;

use super::windows::WindowFunctions;
use super::{hidden, stubs};
use crate::catalog::{Catalog, Object, ObjectKind};
use crate::error::{PlanError, PlanErrorKind};
use crate::types::SqlType;

/// The catalog as DataFusion's front end sees it.
pub struct Context<'a> {
    catalog: &'a Catalog,
    options: ConfigOptions,
    planners: Vec<Arc<dyn ExprPlanner>>,
    relation_planners: Vec<Arc<dyn RelationPlanner>>,
}

impl<'a> Context<'a> {
    /// A view of the catalog.
    pub fn new(catalog: &'a Catalog) -> Self {
        Self {
            catalog,
            options: ConfigOptions::default(),
            planners: vec![Arc::new(Operators)],
            relation_planners: vec![Arc::new(WindowFunctions)],
        }
    }
}

/// The relation that a name refers to.
///
/// # Errors
/// `UndefinedTable`, and `WrongObjectType` for a source that fills tables.
pub fn relation<'a>(
    catalog: &'a Catalog,
    name: &TableReference,
) -> std::result::Result<&'a Arc<Object>, PlanError> {
    let (table, _) = hidden::unmarked(name.table());
    let found = match name.schema() {
        None | Some("public") => catalog.object(table),
        Some(_) => None,
    };
    let object = found.ok_or_else(|| PlanError::undefined_table(&name.to_string()))?;
    if matches!(&object.kind, ObjectKind::Sink(_)) {
        let message = format!("\"{}\" is a sink", object.name);
        return Err(PlanError::new(PlanErrorKind::WrongObjectType, message)
            .with_hint("Read the materialized view whose changes it writes."));
    }
    if matches!(&object.kind, ObjectKind::Source(source) if source.columns.is_empty()) {
        let message = format!("\"{}\" is a source", object.name);
        return Err(PlanError::new(PlanErrorKind::WrongObjectType, message)
            .with_hint("Read the tables that it fills."));
    }
    Ok(object)
}

struct Relation(SchemaRef);

impl TableSource for Relation {
    fn schema(&self) -> SchemaRef {
        self.0.clone()
    }
}

impl ContextProvider for Context<'_> {
    fn get_table_source(&self, name: TableReference) -> Result<Arc<dyn TableSource>> {
        let object =
            relation(self.catalog, &name).map_err(|error| DataFusionError::External(Box::new(error)))?;
        let (_, all) = hidden::unmarked(name.table());
        let columns = hidden::columns(object, all).into_iter();
        let fields: Vec<FieldRef> = columns.map(|(_, field)| field).collect();
        Ok(Arc::new(Relation(Arc::new(Schema::new(fields)))))
    }

    fn get_expr_planners(&self) -> &[Arc<dyn ExprPlanner>] {
        &self.planners
    }

    fn get_relation_planners(&self) -> &[Arc<dyn RelationPlanner>] {
        &self.relation_planners
    }

    fn get_type_planner(&self) -> Option<Arc<dyn TypePlanner>> {
        Some(Arc::new(Types))
    }

    fn get_function_meta(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        stubs::scalar(name)
    }

    fn get_higher_order_meta(&self, _: &str) -> Option<Arc<HigherOrderUDF>> {
        None
    }

    fn get_aggregate_meta(&self, name: &str) -> Option<Arc<AggregateUDF>> {
        stubs::aggregate(name)
    }

    fn get_window_meta(&self, name: &str) -> Option<Arc<WindowUDF>> {
        stubs::window(name)
    }

    fn get_variable_type(&self, _: &[String]) -> Option<DataType> {
        None
    }

    fn options(&self) -> &ConfigOptions {
        &self.options
    }

    fn udf_names(&self) -> Vec<String> {
        super::typed::functions::NAMES
            .iter()
            .map(|name| (*name).to_owned())
            .collect()
    }

    fn higher_order_function_names(&self) -> Vec<String> {
        Vec::new()
    }

    fn udaf_names(&self) -> Vec<String> {
        super::aggregates::NAMES
            .iter()
            .map(|name| (*name).to_owned())
            .collect()
    }

    fn udwf_names(&self) -> Vec<String> {
        vec![stubs::ROW_NUMBER.to_owned()]
    }
}

/// Types as written, by the project's own table.
#[derive(Debug)]
struct Types;

impl TypePlanner for Types {
    fn plan_type_field(&self, written: &sqlparser::ast::DataType) -> Result<Option<FieldRef>> {
        let sql_type =
            SqlType::from_ast(written).map_err(|error| DataFusionError::External(Box::new(error)))?;
        if let SqlType::Varchar(Some(length)) = sql_type {
            let error = PlanError::unsupported(
                format_args!("a cast to varchar({length})"),
                format!("Use left(…, {length})."),
            );
            return Err(DataFusionError::External(Box::new(error)));
        }
        Ok(Some(Arc::new(Field::new("", sql_type.arrow(), true))))
    }
}

/// Special syntax as calls of functions, and constants where DataFusion's own type check would refuse them.
#[derive(Debug)]
struct Operators;

impl Operators {
    fn call(name: &str, arguments: Vec<Expr>) -> Result<PlannerResult<Vec<Expr>>> {
        match stubs::scalar(name) {
            Some(function) => Ok(PlannerResult::Planned(function.call(arguments))),
            None => not_impl_err!("{name}"),
        }
    }
}

impl ExprPlanner for Operators {
    /// Types a string constant by the other side of a comparison.
    fn plan_binary_op(
        &self,
        mut expr: RawBinaryExpr,
        schema: &DFSchema,
    ) -> Result<PlannerResult<RawBinaryExpr>> {
        let comparison = matches!(
            expr.op,
            BinaryOperator::Eq
                | BinaryOperator::NotEq
                | BinaryOperator::Lt
                | BinaryOperator::LtEq
                | BinaryOperator::Gt
                | BinaryOperator::GtEq
        );
        if comparison {
            settle(&mut expr.left, &expr.right, schema)?;
            settle(&mut expr.right, &expr.left, schema)?;
        }
        Ok(PlannerResult::Original(expr))
    }

    fn plan_extract(&self, arguments: Vec<Expr>) -> Result<PlannerResult<Vec<Expr>>> {
        Self::call("extract", arguments)
    }

    fn plan_substring(&self, arguments: Vec<Expr>) -> Result<PlannerResult<Vec<Expr>>> {
        Self::call("substr", arguments)
    }

    /// `position(part in whole)`; the whole comes first.
    fn plan_position(&self, arguments: Vec<Expr>) -> Result<PlannerResult<Vec<Expr>>> {
        Self::call("strpos", arguments)
    }

    fn plan_overlay(&self, _: Vec<Expr>) -> Result<PlannerResult<Vec<Expr>>> {
        not_impl_err!("overlay in a view")
    }

    /// `count(*)` and `count()` count rows.
    fn plan_aggregate(&self, raw: RawAggregateExpr) -> Result<PlannerResult<RawAggregateExpr>> {
        #[expect(deprecated, reason = "the front end still passes the star as this variant")]
        let star = raw.args.is_empty() || matches!(raw.args.as_slice(), [Expr::Wildcard { .. }]);
        if raw.func.name() != "count" || !star {
            return Ok(PlannerResult::Original(raw));
        }
        let RawAggregateExpr {
            func,
            distinct,
            filter,
            order_by,
            null_treatment,
            ..
        } = raw;
        let star = vec![Expr::Literal(COUNT_STAR_EXPANSION, None)];
        let call = AggregateFunction::new_udf(func, star, distinct, filter, order_by, null_treatment);
        Ok(PlannerResult::Planned(Expr::AggregateFunction(call)))
    }
}

/// Casts a string constant to the type of the other side where DataFusion would refuse the comparison. Numbers are
/// left alone: DataFusion accepts them, and its scale of a numeric may not be ours.
fn settle(constant: &mut Expr, other: &Expr, schema: &DFSchema) -> Result<()> {
    let Expr::Literal(value, _) = &*constant else {
        return Ok(());
    };
    if !value.data_type().is_string() || matches!(other, Expr::Literal(..)) {
        return Ok(());
    }
    let data_type = other.get_type(schema)?;
    if !data_type.is_string() && !data_type.is_null() && !data_type.is_numeric() {
        *constant = Expr::Cast(Cast::new(Box::new(constant.clone()), data_type));
    }
    Ok(())
}
