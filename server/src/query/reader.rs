//! Plans queries over one snapshot: resolves relations, expands views, and says what the reader should know.

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::{DataType, SchemaRef};
use datafusion::catalog::view::ViewTable;
use datafusion::catalog::{MemTable, TableProvider};
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder};
use datafusion::sql::sqlparser::ast;
use futures::TryStreamExt;
use futures::future::BoxFuture;
use tributary_planner::catalog::{Object, ObjectKind, ROW_ID, ViewDef};
use tributary_planner::parse::{Statement, parse, relation_names};
use tributary_region::Snapshot;
use tributary_storage::ObjectId;

use super::context::{Prepared, QueryContext};
use super::facts::Facts;
use super::readable::check_readable;
use super::relation::{Exposed, REGION_COLUMN};
use super::schema::{FarSource, PublicSchema};
use super::stack::on_large_stack;
use super::wildcard;
use crate::far::push::Pushing;
use crate::far::scan::FarScans;
use crate::far::{FarError, FarReads};
use crate::pg_catalog::PgCatalog;
use crate::pgwire::error::{SqlError, SqlResult};
use crate::pgwire::sqlstate;
use crate::session::pending::PendingTable;
use crate::system::SystemSchema;

/// Views within views; deeper ones are refused.
const VIEW_DEPTH_MAX: usize = 32;

/// What a transaction wrote, by table.
pub type Writes = BTreeMap<ObjectId, Arc<PendingTable>>;

/// Everything a statement reads from.
#[derive(Clone)]
pub struct Reader {
    /// The snapshot.
    pub snapshot: Arc<Snapshot>,
    /// The transaction's own writes.
    pub writes: Writes,
    /// The session.
    pub facts: Facts,
    /// Memory a statement may use, in bytes.
    pub memory_bytes_max: usize,
    /// The road to other regions, if their rows are to be read.
    pub far: Option<Arc<dyn FarReads>>,
    /// Whether sides of joins may go along to other regions. They take their time on a slow link, and owners keep versions
    /// for a short while: what has to be read again is read without.
    pub sends_sides: bool,
}

/// A planned query.
pub struct Planned {
    /// The analyzed plan.
    pub plan: LogicalPlan,
    pub(crate) context: Arc<QueryContext>,
    pub(crate) far: Arc<FarScans>,
    /// What the client should know.
    pub notices: Vec<SqlError>,
}

impl Planned {
    /// The columns of the result.
    pub fn schema(&self) -> SchemaRef {
        Arc::clone(self.plan.schema().inner())
    }

    /// Makes the plan ready to run.
    pub async fn prepare(self) -> SqlResult<(Prepared, Vec<SqlError>)> {
        let Planned {
            mut plan,
            context,
            far,
            notices,
        } = self;
        let mut pushing = Pushing::Joins;
        loop {
            let (planning, scans) = (Arc::clone(&context), Arc::clone(&far));
            let planned = on_large_stack(async move {
                let prepared = planning.prepare(&plan, pushing).await?;
                // What is to be pushed may have to stay here after all: then everything is planned again.
                Ok((prepared, scans.has_pushed().then_some(plan)))
            });
            let (prepared, pushed) = planned.await?;
            let opened = far.open_all(|| context.state().task_ctx()).await;
            (plan, pushing) = match (opened, pushed) {
                (Err(FarError::SideStays), Some(plan)) => (plan, Pushing::Scans),
                (Err(FarError::NotUnderstood { .. }), Some(plan)) => (plan, Pushing::Nothing),
                (opened, _) => {
                    opened?;
                    return Ok((prepared, notices));
                }
            };
        }
    }

    /// Runs the plan and collects its rows into one batch.
    pub async fn collect(self) -> SqlResult<RecordBatch> {
        let (prepared, _) = self.prepare().await?;
        let schema = prepared.schema();
        let batches: Vec<RecordBatch> = prepared.start()?.try_collect().await?;
        Ok(datafusion::arrow::compute::concat_batches(&schema, &batches)?)
    }
}

/// Whether a query names a hidden column: then relations show theirs.
fn names_hidden(query: &ast::Query) -> bool {
    let text = query.to_string().to_lowercase();
    text.contains(REGION_COLUMN) || text.contains(ROW_ID)
}

/// How a query is to be planned.
#[derive(Clone, Default)]
pub struct PlanOptions {
    /// The table that is written (UPDATE, DELETE), which the query knows as its target; without notices.
    pub versions: Option<ObjectId>,
    /// Relations that stand in for others of the same name.
    pub replaced: Vec<(String, RecordBatch)>,
    /// Types its columns are cast to, by position.
    pub casts: Option<Vec<DataType>>,
    /// The text it was parsed from: clients' queries over catalogs are known by their text.
    pub text: Option<String>,
}

impl Reader {
    /// Plans a query.
    pub async fn plan(&self, query: ast::Query, options: PlanOptions) -> SqlResult<Planned> {
        let reader = self.clone();
        on_large_stack(async move { reader.plan_here(query, options).await }).await
    }

    /// Plans EXPLAIN of a query.
    pub async fn plan_explain(&self, statement: ast::Statement) -> SqlResult<Planned> {
        let reader = self.clone();
        on_large_stack(async move {
            let ast::Statement::Explain {
                statement: inner,
                analyze,
                ..
            } = &statement
            else {
                return Err(SqlError::internal("not an EXPLAIN"));
            };
            let ast::Statement::Query(query) = inner.as_ref() else {
                return Err(
                    SqlError::unsupported("EXPLAIN of anything but a query is not supported")
                        .hint("EXPLAIN SELECT …, or EXPLAIN MATERIALIZED VIEW v"),
                );
            };
            let exposed = Exposed {
                hidden: names_hidden(query),
                versions: false,
            };
            let (context, public, far) = reader.context(exposed, None)?;
            let mut notices = Vec::new();
            reader.resolve(query, &context, &public, &mut notices, 0).await?;
            // What is only shown reads nothing of other regions.
            let far = if *analyze { far } else { Arc::default() };
            let plan = context.plan_statement(statement).await?;
            Ok(Planned {
                plan,
                context,
                far,
                notices,
            })
        })
        .await
    }

    /// The types of a statement's parameters as far as its query tells, by number from 1.
    pub async fn parameter_types(
        &self,
        query: ast::Query,
        options: PlanOptions,
    ) -> SqlResult<BTreeMap<usize, DataType>> {
        let reader = self.clone();
        on_large_stack(async move {
            let planned = reader.plan_unanalyzed(query, &options).await?;
            let types = planned.plan.get_parameter_types()?;
            let number = |name: &str| name.trim_start_matches('$').parse::<usize>().ok();
            Ok(types
                .into_iter()
                .filter_map(|(name, data_type)| Some((number(&name)?, data_type?)))
                .collect())
        })
        .await
    }

    async fn plan_here(&self, query: ast::Query, options: PlanOptions) -> SqlResult<Planned> {
        let mut planned = self.plan_unanalyzed(query, &options).await?;
        if let Some(types) = &options.casts {
            planned.plan = cast_columns(planned.plan, types)?;
        }
        planned.plan = planned.context.analyze(planned.plan)?;
        Ok(planned)
    }

    async fn plan_unanalyzed(&self, mut query: ast::Query, options: &PlanOptions) -> SqlResult<Planned> {
        let is_hidden_named = names_hidden(&query);
        if is_hidden_named {
            wildcard::expand(&mut query, &self.snapshot.catalog)?;
        }
        let exposed = Exposed {
            hidden: is_hidden_named,
            versions: false,
        };
        let (context, public, far) = self.context(exposed, options.versions)?;
        for (name, rows) in &options.replaced {
            let table = MemTable::try_new(rows.schema(), vec![vec![rows.clone()]])?;
            public.replace(name, Arc::new(table));
        }
        let mut notices = Vec::new();
        let mut query = match reads_catalog(&query) {
            true => crate::pg_catalog::rewrite::compatible(query, options.text.as_deref())?,
            false => crate::pg_catalog::rewrite::plain(query)?,
        };
        super::columns::name_apart(&mut query);
        self.resolve(&query, &context, &public, &mut notices, 0).await?;
        if options.versions.is_some() {
            notices.clear();
        }
        let plan = context.plan(query).await?;
        Ok(Planned {
            plan,
            context,
            far,
            notices,
        })
    }

    /// What statements over these relations are planned with.
    pub(crate) fn context(
        &self,
        exposed: Exposed,
        target: Option<ObjectId>,
    ) -> SqlResult<(Arc<QueryContext>, Arc<PublicSchema>, Arc<FarScans>)> {
        let scans = Arc::<FarScans>::default();
        if !self.sends_sides {
            scans.keep_sides();
        }
        let far = self.far.clone().map(|reads| FarSource {
            reads,
            scans: Arc::clone(&scans),
        });
        let public = PublicSchema::new(
            Arc::clone(&self.snapshot),
            self.writes.clone(),
            exposed,
            self.facts.region.clone(),
        );
        let public = Arc::new(public.with_far(far, target));
        let system = Arc::new(SystemSchema::new(
            Arc::clone(&self.snapshot),
            self.facts.region.clone(),
            Arc::clone(&self.facts.source_tasks),
            Arc::clone(&self.facts.sink_tasks),
            self.facts.secure_links,
            Arc::clone(&scans),
        ));
        let pg_catalog = Arc::new(PgCatalog::new(Arc::clone(&self.snapshot), &self.facts)?);
        let context = QueryContext::new(
            &self.facts,
            Arc::clone(&public),
            system,
            pg_catalog,
            self.memory_bytes_max,
        )?;
        Ok((Arc::new(context), public, scans))
    }

    /// Checks the relations a query reads and plans the views among them, inner ones first.
    fn resolve<'a>(
        &'a self,
        query: &'a ast::Query,
        context: &'a QueryContext,
        public: &'a PublicSchema,
        notices: &'a mut Vec<SqlError>,
        depth: usize,
    ) -> BoxFuture<'a, SqlResult<()>> {
        Box::pin(async move {
            if depth > VIEW_DEPTH_MAX {
                return Err(SqlError::new(
                    sqlstate::TOO_COMPLEX,
                    "views are nested too deeply",
                ));
            }
            for name in relation_names(query) {
                let Some(object) = self.snapshot.catalog.object(&name).cloned() else {
                    continue;
                };
                check_readable(&self.snapshot, &object)?;
                match &object.kind {
                    ObjectKind::View(view) => {
                        let provider = self
                            .plan_view(&object, view, context, public, notices, depth)
                            .await?;
                        public.replace(&name, provider);
                    }
                    ObjectKind::Source(source) if source.is_relation() => {
                        return Err(SqlError::unsupported(format!(
                            "reading the rows of source \"{name}\" in a query is not supported"
                        ))
                        .hint(format!(
                            "its rows are not stored: CREATE MATERIALIZED VIEW … AS SELECT … FROM {name}"
                        )));
                    }
                    ObjectKind::Source(_) => {
                        return Err(SqlError::new(
                            sqlstate::WRONG_OBJECT_TYPE,
                            format!("\"{name}\" is a source and cannot be read"),
                        )
                        .hint("read the tables it fills; tributary.sources lists them"));
                    }
                    ObjectKind::Sink(_) => {
                        return Err(SqlError::new(
                            sqlstate::WRONG_OBJECT_TYPE,
                            format!("\"{name}\" is a sink and cannot be read"),
                        )
                        .hint("read the materialized view whose changes it writes; tributary.sinks says how far it is"));
                    }
                    _ => {}
                }
            }
            Ok(())
        })
    }

    async fn plan_view(
        &self,
        object: &Object,
        view: &ViewDef,
        context: &QueryContext,
        public: &PublicSchema,
        notices: &mut Vec<SqlError>,
        depth: usize,
    ) -> SqlResult<Arc<dyn TableProvider>> {
        let broken = || SqlError::internal(format!("view \"{}\" does not hold a query", object.name));
        let parsed = parse(&view.sql)?.into_iter().next().ok_or_else(broken)?;
        let Statement::Sql(statement) = parsed.statement else {
            return Err(broken());
        };
        let ast::Statement::Query(query) = *statement else {
            return Err(broken());
        };
        self.resolve(&query, context, public, notices, depth + 1).await?;
        let plan = context.plan(*query).await?;
        let columns: Vec<Expr> = plan
            .schema()
            .iter()
            .zip(&view.columns)
            .map(|((relation, field), column)| {
                let from = datafusion::common::Column::new(relation.cloned(), field.name());
                let cast = datafusion::logical_expr::cast(Expr::Column(from), column.sql_type.arrow());
                cast.alias(&column.name)
            })
            .collect();
        let plan = LogicalPlanBuilder::from(plan).project(columns)?.build()?;
        let plan = context.analyze(plan)?;
        Ok(Arc::new(ViewTable::new(plan, Some(view.sql.clone()))))
    }

    /// Whether the cluster has more than this region.
    pub fn is_multi_region(&self) -> bool {
        self.snapshot.catalog.regions.len() > 1
    }
}

/// Casts the first columns of a plan to these types.
fn cast_columns(plan: LogicalPlan, types: &[DataType]) -> SqlResult<LogicalPlan> {
    let columns: Vec<Expr> = plan
        .schema()
        .iter()
        .enumerate()
        .map(|(index, (relation, field))| {
            let column = Expr::Column(datafusion::common::Column::new(relation.cloned(), field.name()));
            match types.get(index) {
                // Two columns may have one name; as what is written, position counts.
                Some(data_type) => {
                    datafusion::logical_expr::cast(column, data_type.clone()).alias(format!("c{index}"))
                }
                None => column,
            }
        })
        .collect();
    Ok(LogicalPlanBuilder::from(plan).project(columns)?.build()?)
}

/// Whether a query reads the catalogs that only clients' own queries read.
fn reads_catalog(query: &ast::Query) -> bool {
    let mut found = false;
    let _: std::ops::ControlFlow<()> = ast::visit_relations(query, |name| {
        let parts: Vec<String> = name
            .0
            .iter()
            .filter_map(|part| part.as_ident())
            .map(|ident| ident.value.to_lowercase())
            .collect();
        found |= parts
            .iter()
            .any(|part| part == "pg_catalog" || part == "information_schema")
            || parts.last().is_some_and(|last| last.starts_with("pg_"));
        std::ops::ControlFlow::Continue(())
    });
    let _: std::ops::ControlFlow<()> = ast::visit_expressions(query, |expr| {
        if let ast::Expr::Cast { data_type, .. } = expr {
            found |= data_type
                .to_string()
                .to_lowercase()
                .trim_start_matches("pg_catalog.")
                .starts_with("reg");
        }
        std::ops::ControlFlow::Continue(())
    });
    found
}
