//! EXPLAIN of queries (DataFusion's plan) and of materialized views (our own).

use datafusion::sql::sqlparser::ast;
use tributary_planner::catalog::ObjectKind;
use tributary_planner::ddl;
use tributary_planner::error::PlanError;
use tributary_planner::explain::explain_with_hidden;
use tributary_planner::parse::CreateMaterializedView;

use super::super::{Outcome, Session};
use super::texts;
use crate::pgwire::error::{SqlError, SqlResult};
use crate::pgwire::sqlstate;
use crate::query::stack::on_large_stack;

pub(crate) async fn query(session: &mut Session, statement: &ast::Statement) -> SqlResult<Outcome> {
    let reader = session.reader().await?;
    let planned = reader.plan_explain(statement.clone()).await?;
    let batch = planned.collect().await?;
    let mut lines = Vec::new();
    let [kinds, plans] = [0, 1].map(|column| batch.column(column).clone());
    let (kinds, plans) = (as_texts(&kinds)?, as_texts(&plans)?);
    for (kind, plan) in kinds.iter().zip(plans) {
        lines.push(vec![format!("{}:", kind.replace('_', " "))]);
        lines.extend(plan.lines().map(|line| vec![format!("  {line}")]));
    }
    texts(&["QUERY PLAN"], lines, "EXPLAIN")
}

fn as_texts(array: &datafusion::arrow::array::ArrayRef) -> SqlResult<Vec<String>> {
    use datafusion::arrow::array::AsArray;
    let texts = datafusion::arrow::compute::cast(array, &datafusion::arrow::datatypes::DataType::Utf8)?;
    Ok(texts
        .as_string::<i32>()
        .iter()
        .map(|text| text.unwrap_or_default().to_string())
        .collect())
}

pub(crate) async fn create_view(
    session: &mut Session,
    create: &CreateMaterializedView,
) -> SqlResult<Outcome> {
    let reader = session.reader().await?;
    let settings = session.plan_settings();
    let create = create.clone();
    let lines = on_large_stack(async move {
        let rows = reader.snapshot.row_counts();
        Ok(ddl::explain(&create, &reader.snapshot.catalog, &settings, &rows)?)
    })
    .await?;
    texts(
        &["QUERY PLAN"],
        lines.into_iter().map(|line| vec![line]).collect(),
        "EXPLAIN",
    )
}

pub(crate) async fn view(session: &mut Session, name: &str) -> SqlResult<Outcome> {
    let reader = session.reader().await?;
    let object = reader
        .snapshot
        .catalog
        .object(name)
        .ok_or_else(|| PlanError::undefined_table(name))?;
    let ObjectKind::MaterializedView(view) = &object.kind else {
        return Err(SqlError::new(
            sqlstate::WRONG_OBJECT_TYPE,
            format!("\"{name}\" is not a materialized view"),
        ));
    };
    let lines = explain_with_hidden(&reader.snapshot.catalog, name, &view.plan);
    texts(
        &["QUERY PLAN"],
        lines.into_iter().map(|line| vec![line]).collect(),
        "EXPLAIN",
    )
}
