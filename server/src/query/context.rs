//! DataFusion's state for one statement: the snapshot's relations, the session's functions, bounded memory.
//!
//! What is the same for all statements (functions, rules of the optimizer, the tables of `pg_catalog` that never change)
//! is made once and shared.

use std::num::NonZeroUsize;
use std::sync::{Arc, LazyLock};

use chrono::DateTime;
use datafusion::catalog::{
    CatalogProvider, CatalogProviderList, MemoryCatalogProvider, MemoryCatalogProviderList,
};
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::{GreedyMemoryPool, MemoryPool, TrackConsumersPool};
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::execution::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::{SendableRecordBatchStream, execute_stream};
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion::sql::parser::Statement as DfStatement;
use datafusion::sql::sqlparser::ast;
use datafusion_pg_catalog::pg_catalog::context::EmptyContextProvider;

use super::facts::{DATABASE, Facts};
use super::functions;
use super::rules::{analyzer_rules, operators::UnknownLiterals, types::PostgresTypes};
use super::schema::PublicSchema;
use super::windows::{QueryWindows, name_relations};
use crate::far::push::{self, Pushing};
use crate::pg_catalog::PgCatalog;
use crate::pgwire::error::{SqlError, SqlResult};
use crate::system::SystemSchema;

/// What all statements share.
static BASE: LazyLock<Result<SessionState, String>> =
    LazyLock::new(|| make_base().map_err(|error| error.to_string()));

fn make_base() -> Result<SessionState, datafusion::error::DataFusionError> {
    let mut config = SessionConfig::new()
        .with_default_catalog_and_schema(DATABASE, "public")
        .with_information_schema(true)
        .with_target_partitions(1)
        .with_batch_size(8192);
    let options = config.options_mut();
    options.sql_parser.parse_float_as_decimal = true;
    options.sql_parser.map_string_types_to_utf8view = false;
    options.sql_parser.collect_spans = true;
    options.sql_parser.support_varchar_with_length = true;
    options.sql_parser.dialect = datafusion::common::config::Dialect::PostgreSQL;
    let state = SessionStateBuilder::new()
        .with_config(config)
        .with_default_features()
        .build();
    let context = SessionContext::new_with_state(state);
    datafusion_pg_catalog::setup_pg_catalog(&context, DATABASE, EmptyContextProvider)
        .map_err(|error| *error)?;
    for function in functions::of_server() {
        context.register_udf(function.as_ref().clone());
    }
    // Their formats are another language than PostgreSQL's: no answer is better than a wrong one.
    for name in [
        "to_char",
        "date_format",
        "to_date",
        "to_unixtime",
        "make_time",
        "to_time",
    ] {
        context.deregister_udf(name);
    }
    let mut state = context.state();
    let mut planners = state.expr_planners().to_vec();
    planners.insert(0, Arc::new(UnknownLiterals));
    let physical_rules = push::with_rule(state.physical_optimizers(), Pushing::Joins);
    state = SessionStateBuilder::new_from_existing(state)
        .with_expr_planners(planners)
        .with_type_planner(Arc::new(PostgresTypes))
        .with_relation_planners(vec![Arc::new(QueryWindows)])
        .with_physical_optimizer_rules(physical_rules)
        .build();
    Ok(state)
}

/// A statement's state.
pub struct QueryContext {
    state: SessionState,
}

impl QueryContext {
    /// The state of a statement over these relations.
    pub fn new(
        facts: &Facts,
        public: Arc<PublicSchema>,
        system: Arc<SystemSchema>,
        pg_catalog: Arc<PgCatalog>,
        memory_bytes_max: usize,
    ) -> SqlResult<Self> {
        let base = BASE.as_ref().map_err(|error| SqlError::internal(error.clone()))?;
        let catalog = MemoryCatalogProvider::new();
        catalog.register_schema("public", public)?;
        catalog.register_schema("tributary", system)?;
        catalog.register_schema("pg_catalog", Arc::clone(&pg_catalog) as _)?;
        let list = MemoryCatalogProviderList::new();
        list.register_catalog(DATABASE.into(), Arc::new(catalog));
        let style = facts.settings().output_style();
        let mut props = base.execution_props().clone();
        props.query_execution_start_time = Some(DateTime::from_timestamp_nanos(facts.started_ns));
        let mut state = SessionStateBuilder::new_from_existing(base.clone())
            .with_catalog_list(Arc::new(list))
            .with_analyzer_rules(analyzer_rules(style))
            .with_execution_props(props)
            .with_runtime_env(runtime(memory_bytes_max)?)
            .build();
        use datafusion::execution::FunctionRegistry;
        for function in functions::of_session(facts)
            .into_iter()
            .chain(pg_catalog.functions())
        {
            state.register_udf(function)?;
        }
        let zone = facts.settings().get("TimeZone")?;
        state.config_mut().options_mut().execution.time_zone = Some(zone);
        Ok(Self { state })
    }

    /// The logical plan of a query, analyzed: its schema has the types that clients see.
    pub async fn plan(&self, query: ast::Query) -> SqlResult<LogicalPlan> {
        self.plan_statement(ast::Statement::Query(Box::new(query))).await
    }

    /// The logical plan of a query or EXPLAIN.
    pub async fn plan_statement(&self, mut statement: ast::Statement) -> SqlResult<LogicalPlan> {
        let read = match &mut statement {
            ast::Statement::Explain { statement, .. } => statement.as_mut(),
            other => other,
        };
        if let ast::Statement::Query(query) = read {
            name_relations(query)?;
        }
        let plan = self
            .state
            .statement_to_plan(DfStatement::Statement(Box::new(statement)))
            .await?;
        Ok(plan)
    }

    /// The plan after analysis, without optimization: its schema is that of the result.
    pub fn analyze(&self, plan: LogicalPlan) -> SqlResult<LogicalPlan> {
        let options = Arc::clone(self.state.config_options());
        Ok(self
            .state
            .analyzer()
            .execute_and_check(plan, &options, |_, _| {})?)
    }

    /// Optimizes a plan and makes it ready to run, with parts of it in other regions.
    pub async fn prepare(&self, plan: &LogicalPlan, pushing: Pushing) -> SqlResult<Prepared> {
        let physical = match pushing {
            Pushing::Joins => self.state.create_physical_plan(plan).await?,
            less => {
                let rules = push::with_rule(self.state.physical_optimizers(), less);
                let state = SessionStateBuilder::new_from_existing(self.state.clone())
                    .with_physical_optimizer_rules(rules)
                    .build();
                state.create_physical_plan(plan).await?
            }
        };
        Ok(Prepared {
            physical,
            task: self.state.task_ctx(),
        })
    }

    /// The state, for what plans by itself.
    pub fn state(&self) -> &SessionState {
        &self.state
    }
}

/// A plan that is ready to run.
pub struct Prepared {
    physical: Arc<dyn datafusion::physical_plan::ExecutionPlan>,
    task: Arc<datafusion::execution::TaskContext>,
}

impl Prepared {
    /// The columns of the result.
    pub fn schema(&self) -> datafusion::arrow::datatypes::SchemaRef {
        self.physical.schema()
    }

    /// Starts the plan; rows are computed as the stream is read.
    pub fn start(self) -> SqlResult<SendableRecordBatchStream> {
        Ok(execute_stream(self.physical, self.task)?)
    }
}

/// What is the same for all statements: functions and options.
pub(crate) fn shared() -> Option<&'static SessionState> {
    BASE.as_ref().ok()
}

/// Bounded memory and no spilling: a statement that needs more fails with 53200.
pub(crate) fn runtime(memory_bytes_max: usize) -> SqlResult<Arc<RuntimeEnv>> {
    let named = NonZeroUsize::new(3).expect("three is not zero");
    runtime_over(TrackConsumersPool::new(
        GreedyMemoryPool::new(memory_bytes_max),
        named,
    ))
}

/// The same with memory of another kind.
pub(crate) fn runtime_over(pool: impl MemoryPool) -> SqlResult<Arc<RuntimeEnv>> {
    let disk = DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled);
    let runtime = RuntimeEnvBuilder::new()
        .with_memory_pool(Arc::new(pool))
        .with_disk_manager_builder(disk)
        .build_arc()?;
    Ok(runtime)
}
