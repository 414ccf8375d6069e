//! Analysis of a view's query: the only room of this crate that names DataFusion.
//!
//! ```text
//!   query ─▶ syntax: refuse, name columns ─▶ DataFusion: scopes, grouping, aliases ─▶ LogicalPlan
//!         ─▶ relation, scalar: default-deny conversion, typed by `typed` ─▶ Node<Scan>
//!         ─▶ split: push filters down, prune columns, place, cut at boundaries ─▶ ViewPlan
//! ```
//!
//! DataFusion's front end says what names refer to; what expressions mean and which types they have is decided in
//! [`typed`], by PostgreSQL's rules. DataFusion's type coercion is not used, since it has rules of its own (an
//! integer literal is an int8, `avg` of integers a float), nor are its optimizer's rules, since they act on
//! coerced plans: the few that a view needs act on typed nodes, in [`crate::split`].

mod aggregates;
mod context;
mod errors;
mod hidden;
mod relation;
mod scalar;
mod stubs;
mod syntax;
mod typed;
mod windows;

use std::collections::BTreeSet;

use datafusion_sql::planner::{NullOrdering, ParserOptions, SqlToRel};
use sqlparser::ast::{Query, Statement};

pub use crate::catalog::PlanSettings;
use crate::catalog::{Catalog, Object, ViewColumn};
use crate::error::{PlanError, PlanErrorKind};
use crate::plan::{Column, ViewPlan};
use crate::split::sides::{Merge, RowCounts};
use crate::split::{self, Split};
use crate::types::SqlType;
pub use windows::{WindowFunctions, WindowKind, Windows};

/// A planned view.
#[derive(Clone, Debug, PartialEq)]
pub struct PlannedView {
    /// What is executed.
    pub plan: ViewPlan,
    /// The result's columns.
    pub columns: Vec<ViewColumn>,
    /// The hidden views that the plan reads and that do not exist yet; their ids begin with the catalog's next.
    pub hidden: Vec<Object>,
}

/// Plans the query of a materialized view, both sides merged where rows of different regions join.
///
/// # Errors
/// As [`plan_view_merging`].
pub fn plan_view(
    query: &Query,
    catalog: &Catalog,
    settings: &PlanSettings,
) -> Result<PlannedView, PlanError> {
    plan_view_merging(query, catalog, settings, &Merge::Both, &RowCounts::default())
}

/// Plans the query of a materialized view; `merge` and `rows` say which sides are merged where rows of different regions
/// join.
///
/// # Errors
/// `Unsupported` for constructs that views do not have, with the construct's name; the errors of analysis and of
/// [`crate::split::sides`].
pub fn plan_view_merging(
    query: &Query,
    catalog: &Catalog,
    settings: &PlanSettings,
    merge: &Merge,
    rows: &RowCounts,
) -> Result<PlannedView, PlanError> {
    let names: &[String] = match merge {
        Merge::Named(names) => names,
        Merge::Both | Merge::Smaller => &[],
    };
    let (relation, column_names) = relation_marking(query, catalog, settings, names)?;
    let columns = view_columns(&relation, column_names)?;
    let plan_columns = columns.iter().zip(&relation.types);
    let plan_columns = plan_columns
        .map(|(column, data_type)| Column {
            name: column.name.clone(),
            data_type: data_type.clone(),
        })
        .collect();
    let Split { plan, hidden } = split::split(relation.node, plan_columns, catalog, merge, rows)?;
    Ok(PlannedView {
        plan,
        columns,
        hidden,
    })
}

/// The columns of a query, without planning its execution: for a plain view.
///
/// # Errors
/// As [`plan_view`], except for those of the split.
pub fn query_columns(
    query: &Query,
    catalog: &Catalog,
    settings: &PlanSettings,
) -> Result<Vec<ViewColumn>, PlanError> {
    let (relation, names) = relation(query, catalog, settings)?;
    view_columns(&relation, names)
}

/// The typed tree of a query and the names of its columns.
fn relation(
    query: &Query,
    catalog: &Catalog,
    settings: &PlanSettings,
) -> Result<(relation::Relation, Vec<String>), PlanError> {
    relation_marking(query, catalog, settings, &[])
}

/// As [`relation`], with the scans of relations that the query calls by one of the `names` marked.
fn relation_marking(
    query: &Query,
    catalog: &Catalog,
    settings: &PlanSettings,
    names: &[String],
) -> Result<(relation::Relation, Vec<String>), PlanError> {
    typed::instants::check_zone(&settings.time_zone)?;
    let mut query = syntax::prepare(query)?;
    hidden::mark(&mut query, catalog)?;
    let context = context::Context::new(catalog);
    let front_end = SqlToRel::new_with_options(&context, options());
    let plan = front_end
        .sql_statement_to_plan(Statement::Query(Box::new(query)))
        .map_err(|error| errors::plan_error(&error))?;
    let converter = relation::Converter {
        catalog,
        settings,
        names,
    };
    let relation = converter.convert(&plan)?;
    let names = plan
        .schema()
        .fields()
        .iter()
        .map(|field| syntax::plain_name(field.name()).to_owned());
    Ok((relation, names.collect()))
}

fn options() -> ParserOptions {
    ParserOptions::new()
        .with_parse_float_as_decimal(true)
        .with_enable_ident_normalization(true)
        .with_map_string_types_to_utf8view(false)
        .with_default_null_ordering(NullOrdering::NullsMax)
}

fn view_columns(relation: &relation::Relation, names: Vec<String>) -> Result<Vec<ViewColumn>, PlanError> {
    let mut taken = BTreeSet::new();
    let mut columns = Vec::with_capacity(names.len());
    for (name, data_type) in names.into_iter().zip(&relation.types) {
        if !taken.insert(name.clone()) {
            let message = format!("column \"{name}\" specified more than once");
            return Err(PlanError::new(PlanErrorKind::DuplicateColumn, message).with_hint("Name it with AS."));
        }
        let sql_type = SqlType::from_arrow(data_type)
            .ok_or_else(|| PlanError::internal(format!("a column of type {data_type}")))?;
        columns.push(ViewColumn { name, sql_type });
    }
    Ok(columns)
}

#[cfg(test)]
mod tests;
