//! Prepared statements: parsed once, parameters typed, columns described without running anything.

use std::sync::Arc;

use bytes::Bytes;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::sql::sqlparser::ast;
use tributary_planner::catalog::Catalog;
use tributary_planner::dml::{BoundDml, bind_dml};
use tributary_planner::parse::{Parsed, Statement, parse};
use tributary_planner::types::SqlType;

use super::parameters::{self, constant, declared, null_of, query_of, substitute};
use super::plain_insert::PlainInsert;
use super::statement::conflicts;
use super::{Outcome, Scope, Session};
use crate::pgwire::error::{SqlError, SqlResult};
use crate::pgwire::sqlstate;
use crate::pgwire::types::datetime::Zone;
use crate::query::dml::table_of;
use crate::query::readable::check_readable;
use crate::query::reader::PlanOptions;
use crate::query::stack::on_large_stack;

/// A prepared statement.
#[derive(Debug)]
pub struct PreparedStatement {
    /// The statement; `None` for an empty string.
    pub parsed: Option<Parsed>,
    /// The text it came from, for positions of errors.
    pub text: String,
    /// The types of its parameters.
    pub types: Vec<SqlType>,
    /// What the client was told about them.
    pub oids: Vec<u32>,
    /// The statement as an INSERT of its parameters, if it is one.
    pub plain: Option<PlainInsert>,
}

impl PreparedStatement {
    /// Whether there are as many values as parameters, and a format for each.
    pub fn check(&self, values: &[Option<Bytes>], formats: &[i16]) -> SqlResult<()> {
        if values.len() != self.types.len() {
            return Err(SqlError::protocol(format!(
                "bind message supplies {} parameters, but prepared statement requires {}",
                values.len(),
                self.types.len()
            )));
        }
        if formats.len() > 1 && formats.len() != values.len() {
            return Err(SqlError::protocol(
                "bind message has a wrong number of parameter formats",
            ));
        }
        Ok(())
    }

    /// The statement with these values in the place of its parameters.
    pub fn bind(&self, values: &[Option<Bytes>], formats: &[i16], zone: Zone) -> SqlResult<Option<Parsed>> {
        self.check(values, formats)?;
        let Some(parsed) = &self.parsed else {
            return Ok(None);
        };
        if values.is_empty() {
            return Ok(Some(parsed.clone()));
        }
        let format = |index: usize| {
            formats
                .get(if formats.len() == 1 { 0 } else { index })
                .copied()
                .unwrap_or(0)
        };
        let constants = values
            .iter()
            .enumerate()
            .map(|(index, value)| {
                constant(value.as_ref(), format(index) == 1, self.types[index], zone)
                    .map_err(|error| error.context(format!("parameter ${}", index + 1)))
            })
            .collect::<SqlResult<Vec<_>>>()?;
        let mut bound = parsed.clone();
        substitute(&mut bound.statement, &constants)?;
        bound.parameters = constants;
        Ok(Some(bound))
    }
}

impl Session {
    /// Parses a statement and types its parameters; `types` holds declared OIDs.
    pub async fn prepare(&self, sql: String, types: &[u32]) -> SqlResult<PreparedStatement> {
        let text = sql.clone();
        let mut statements = on_large_stack(async move { Ok(parse(&sql)?) }).await?;
        if statements.len() > 1 {
            return Err(SqlError::new(
                sqlstate::SYNTAX_ERROR,
                "cannot insert multiple commands into a prepared statement",
            ));
        }
        let Some(parsed) = statements.pop() else {
            return Ok(PreparedStatement {
                parsed: None,
                text,
                types: Vec::new(),
                oids: Vec::new(),
                plain: None,
            });
        };
        let (count, _) = parameters::find(&parsed.statement)?;
        let count = count.max(types.len());
        let mut known = types
            .iter()
            .map(|oid| declared(*oid))
            .collect::<SqlResult<Vec<_>>>()?;
        known.resize(count, None);
        if known.iter().any(Option::is_none) && !self.is_failed {
            self.infer(&parsed.statement, &mut known).await?;
        }
        let resolved: Vec<SqlType> = known
            .into_iter()
            .map(|sql_type| sql_type.unwrap_or(SqlType::Text))
            .collect();
        let oids = resolved
            .iter()
            .enumerate()
            .map(|(index, sql_type)| match types.get(index) {
                Some(&oid) if oid != 0 && oid != 705 => oid,
                _ => sql_type.oid(),
            })
            .collect();
        Ok(PreparedStatement {
            plain: PlainInsert::of(&parsed.statement, resolved.len()),
            parsed: Some(parsed),
            text,
            types: resolved,
            oids,
        })
    }

    /// Fills in the types of parameters that were not declared: from casts, from the columns they are assigned to, and
    /// from what they are compared with.
    async fn infer(&self, statement: &Statement, known: &mut [Option<SqlType>]) -> SqlResult<()> {
        let reader = self.planning_reader().await?;
        let mut learn = |number: usize, sql_type: SqlType| {
            if let Some(slot) = number.checked_sub(1).and_then(|index| known.get_mut(index)) {
                slot.get_or_insert(sql_type);
            }
        };
        for (number, sql_type) in parameters::find(statement)?.1 {
            learn(number, sql_type);
        }
        let mut queries: Vec<(ast::Query, PlanOptions)> = Vec::new();
        if let Some(query) = query_of(statement) {
            queries.push((query.clone(), PlanOptions::default()));
        }
        if statement.is_dml() && conflicts::of(statement).is_none() {
            let bound = bind_dml(statement, &reader.snapshot.catalog)?;
            for query in bound_queries(&bound) {
                for (number, sql_type) in parameters::find(&as_statement(query))?.1 {
                    learn(number, sql_type);
                }
                let is_insert = matches!(bound, BoundDml::Insert(_));
                let versions = (!is_insert).then(|| table_of(&bound));
                queries.push((
                    query.clone(),
                    PlanOptions {
                        versions,
                        ..PlanOptions::default()
                    },
                ));
            }
            if let Some((query, columns)) = plain_targets(&bound, &reader.snapshot.catalog) {
                for (number, sql_type) in columns_of_parameters(query, &columns) {
                    learn(number, sql_type);
                }
            }
        }
        for (query, options) in queries {
            // A query that cannot be planned before its parameters are known is planned when they are.
            let Ok(types) = reader.parameter_types(query, options).await else {
                continue;
            };
            for (number, data_type) in types {
                if let Some(sql_type) = SqlType::from_arrow(&data_type) {
                    learn(number, sql_type);
                }
            }
        }
        Ok(())
    }

    /// The columns a statement returns; `None` when it returns no rows. Parameters stand as nulls of their types.
    pub async fn describe(&mut self, prepared: &PreparedStatement) -> SqlResult<Option<SchemaRef>> {
        let Some(parsed) = &prepared.parsed else {
            return Ok(None);
        };
        let nulls: Vec<ast::Expr> = prepared.types.iter().map(|sql_type| null_of(*sql_type)).collect();
        let mut parsed = parsed.clone();
        substitute(&mut parsed.statement, &nulls)?;
        parsed.parameters = nulls;
        self.columns(&parsed).await
    }

    /// The columns of a statement without parameters.
    pub async fn columns(&mut self, parsed: &Parsed) -> SqlResult<Option<SchemaRef>> {
        if let Some(query) = query_of(&parsed.statement) {
            if self.is_failed {
                return Err(super::failed_transaction());
            }
            if let Some((lookup, relation, snapshot)) = self.lookup(query).await? {
                check_readable(&snapshot, &lookup.object)?;
                return Ok(Some(lookup.schema(&relation)));
            }
            let planned = self
                .reader()
                .await?
                .plan(
                    query.clone(),
                    PlanOptions {
                        text: Some(parsed.bound_text()?.into_owned()),
                        ..PlanOptions::default()
                    },
                )
                .await?;
            return Ok(Some(planned.schema()));
        }
        match &parsed.statement {
            statement if statement.is_dml() => self.returned_columns(statement).await,
            Statement::ShowRegions
            | Statement::ShowTables
            | Statement::ExplainMaterializedView(_)
            | Statement::ExplainCreateMaterializedView(_) => self.columns_by_running(parsed).await,
            Statement::Sql(sql) => match sql.as_ref() {
                ast::Statement::ShowVariable { .. } | ast::Statement::Explain { .. } => {
                    self.columns_by_running(parsed).await
                }
                _ => Ok(None),
            },
            _ => Ok(None),
        }
    }

    /// For statements without effects whose columns are known only by running them.
    async fn columns_by_running(&mut self, parsed: &Parsed) -> SqlResult<Option<SchemaRef>> {
        match self.execute(parsed, Scope::Alone).await? {
            Outcome::Rows { schema, .. } => Ok(Some(schema)),
            _ => Ok(None),
        }
    }

    async fn returned_columns(&self, statement: &Statement) -> SqlResult<Option<SchemaRef>> {
        if conflicts::of(statement).is_some() {
            return Ok(None);
        }
        let reader = self.planning_reader().await?;
        let bound = bind_dml(statement, &reader.snapshot.catalog)?;
        let (table, returning) = match &bound {
            BoundDml::Insert(bound) => (bound.table, &bound.returning),
            BoundDml::Update(bound) => (bound.table, &bound.returning),
            BoundDml::Delete(bound) => (bound.table, &bound.returning),
        };
        let (Some(query), Some(object)) = (returning, reader.snapshot.catalog.by_id(table)) else {
            return Ok(None);
        };
        let nothing = RecordBatch::new_empty(object.columns_arrow());
        let replaced = vec![(object.name.clone(), nothing)];
        let planned = reader
            .plan(
                query.as_ref().clone(),
                PlanOptions {
                    replaced,
                    ..PlanOptions::default()
                },
            )
            .await?;
        Ok(Some(planned.schema()))
    }
}

fn bound_queries(bound: &BoundDml) -> Vec<&ast::Query> {
    use tributary_planner::dml::InsertSource;
    match bound {
        BoundDml::Insert(insert) => match &insert.source {
            InsertSource::Query(query) => vec![query],
            InsertSource::DefaultValues => Vec::new(),
        },
        BoundDml::Update(update) => vec![&update.query],
        BoundDml::Delete(delete) => vec![&delete.query],
    }
}

fn as_statement(query: &ast::Query) -> Statement {
    Statement::Sql(Box::new(ast::Statement::Query(Box::new(query.clone()))))
}

/// The source of INSERT … SELECT and the types of its target columns.
fn plain_targets<'a>(bound: &'a BoundDml, catalog: &Catalog) -> Option<(&'a ast::Query, Vec<SqlType>)> {
    let BoundDml::Insert(insert) = bound else {
        return None;
    };
    let query = bound_queries(bound).into_iter().next()?;
    let object = Arc::clone(catalog.by_id(insert.table)?);
    let table = object.as_table()?;
    Some((
        query,
        insert
            .columns
            .iter()
            .map(|&column| table.columns[column].sql_type)
            .collect(),
    ))
}

/// Parameters that stand alone as columns of a SELECT take the types of the columns they go to.
fn columns_of_parameters(query: &ast::Query, columns: &[SqlType]) -> Vec<(usize, SqlType)> {
    let ast::SetExpr::Select(select) = query.body.as_ref() else {
        return Vec::new();
    };
    let number = |item: &ast::SelectItem| match item {
        ast::SelectItem::UnnamedExpr(ast::Expr::Value(value))
        | ast::SelectItem::ExprWithAlias {
            expr: ast::Expr::Value(value),
            ..
        } => match &value.value {
            ast::Value::Placeholder(name) => name.strip_prefix('$').and_then(|digits| digits.parse().ok()),
            _ => None,
        },
        _ => None,
    };
    let items = select.projection.iter().zip(columns);
    items
        .filter_map(|(item, sql_type)| Some((number(item)?, *sql_type)))
        .collect()
}
