//! A REGIONAL table over all regions, as DataFusion reads it at the gateway: one partition per region ([`super::scan`]).

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::ScalarValue;
use datafusion::datasource::TableType;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::{Expr, Operator, TableProviderFilterPushDown};
use datafusion::physical_plan::ExecutionPlan;
use tributary_replication::bundle::encode_rows;
use tributary_storage::ObjectId;

use super::condition::Writer;
use super::request::Request;
use super::scan::{FarExec, FarPartition, FarParts, FarScans};
use super::{FarError, FarReads, Owner, ScanRequest};
use crate::pgwire::error::SqlError;
use crate::query::relation::{REGION_COLUMN, Relation};

/// See the module's documentation.
pub struct FarRelation {
    local: Relation,
    /// Whether the gateway's own part is read.
    reads_own: bool,
    own_region: String,
    table: ObjectId,
    hidden: bool,
    resident: bool,
    owners: Vec<Owner>,
    reads: Arc<dyn FarReads>,
    scans: Arc<FarScans>,
}

/// What a [`FarRelation`] is made of, beside the gateway's own rows.
pub(crate) struct Far {
    pub table: ObjectId,
    pub reads_own: bool,
    pub own_region: String,
    pub hidden: bool,
    /// Whether the gateway knows that the table's residency is enforced: then nobody is asked.
    pub resident: bool,
    pub owners: Vec<Owner>,
    pub reads: Arc<dyn FarReads>,
    pub scans: Arc<FarScans>,
}

impl FarRelation {
    pub(crate) fn new(local: Relation, far: Far) -> Self {
        Self {
            local,
            reads_own: far.reads_own,
            own_region: far.own_region,
            table: far.table,
            hidden: far.hidden,
            resident: far.resident,
            owners: far.owners,
            reads: far.reads,
            scans: far.scans,
        }
    }
}

impl fmt::Debug for FarRelation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FarRelation")
            .field("table", &self.table)
            .field("owners", &self.owners)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl TableProvider for FarRelation {
    fn schema(&self) -> SchemaRef {
        self.local.schema()
    }

    fn table_type(&self) -> TableType {
        self.local.table_type()
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        self.local.supports_filters_pushdown(filters)
    }

    async fn scan(
        &self,
        _state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let schema = self.local.schema();
        let columns: Vec<usize> =
            projection.map_or_else(|| (0..schema.fields().len()).collect(), Clone::clone);
        let shown = Arc::new(schema.project(&columns)?);
        let regions = regions_named(filters);
        let is_wanted = |region: &str| {
            regions
                .as_ref()
                .is_none_or(|regions| regions.iter().any(|named| named == region))
        };
        let is_own_read = self.reads_own && is_wanted(&self.own_region);
        let own = is_own_read.then(|| self.local.partition(filters, columns.clone(), Arc::clone(&shown)));
        let mut writer = Writer::new(&schema);
        let condition = writer.all(filters);
        let values = writer
            .values()
            .map(|values| encode_rows(&values))
            .unwrap_or_default();
        let mut far = Vec::new();
        for owner in self.owners.iter().filter(|owner| is_wanted(&owner.region)) {
            if self.resident {
                let region = owner.region.clone();
                let error = SqlError::from(FarError::Resident { region });
                return Err(DataFusionError::External(Box::new(error)));
            }
            let request = ScanRequest {
                from: self.own_region.clone(),
                table: self.table,
                origin: owner.origin,
                epoch: owner.epoch,
                columns: columns.iter().map(|column| *column as u32).collect(),
                hidden: self.hidden,
                condition: condition.clone(),
                values: values.clone(),
                rows_max: limit.map(|limit| limit as u64),
            };
            let (region, schema, reads) = (owner.region.clone(), Arc::clone(&shown), Arc::clone(&self.reads));
            let partition = FarPartition::new(region, schema, reads, Request::Rows(request));
            far.push(Arc::new(partition));
        }
        for partition in &far {
            self.scans.add(Arc::clone(partition));
        }
        let names: Vec<&str> = shown.fields().iter().map(|field| field.name().as_str()).collect();
        let parts = FarParts {
            text: format!("columns=[{}]", names.join(", ")),
            schema: shown,
            own,
            far,
            scans: Arc::downgrade(&self.scans),
            is_lookup: self.local.is_lookup(filters),
        };
        Ok(Arc::new(FarExec::new(parts, limit)))
    }
}

/// The regions that a filter on the region's name leaves; `None` when none does.
fn regions_named(filters: &[Expr]) -> Option<Vec<String>> {
    let is_region = |expr: &Expr| matches!(expr, Expr::Column(column) if column.name == REGION_COLUMN);
    let text = |expr: &Expr| match expr {
        Expr::Literal(ScalarValue::Utf8(Some(text)), _) => Some(text.clone()),
        _ => None,
    };
    filters.iter().find_map(|filter| named(filter, &is_region, &text))
}

fn named(
    filter: &Expr,
    is_region: &impl Fn(&Expr) -> bool,
    text: &impl Fn(&Expr) -> Option<String>,
) -> Option<Vec<String>> {
    match filter {
        Expr::BinaryExpr(binary) if binary.op == Operator::Eq => {
            let sides = [(&*binary.left, &*binary.right), (&*binary.right, &*binary.left)];
            let mut named = sides.into_iter().filter(|(column, _)| is_region(column));
            named.find_map(|(_, value)| text(value)).map(|one| vec![one])
        }
        Expr::BinaryExpr(binary) if binary.op == Operator::And => {
            named(&binary.left, is_region, text).or_else(|| named(&binary.right, is_region, text))
        }
        Expr::BinaryExpr(binary) if binary.op == Operator::Or => {
            let (left, right) = (
                named(&binary.left, is_region, text)?,
                named(&binary.right, is_region, text)?,
            );
            Some([left, right].concat())
        }
        Expr::InList(list) if !list.negated && is_region(&list.expr) => list.list.iter().map(text).collect(),
        _ => None,
    }
}
