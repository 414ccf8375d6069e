//! What can stand in the catalog: tables, views, materialized views, sources, sinks.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_schema::{Field, Schema, SchemaRef};
use serde::{Deserialize, Serialize};
use tributary_storage::{Fingerprint, ObjectId, RegionId};

use crate::plan::{Literal, Locality, ViewPlan};
use crate::types::{SqlType, literal_text};

/// Begins the name of every hidden view; no new object of a user has such a name.
pub const HIDDEN_PREFIX: &str = "tributary_merged_";

/// A named object of schema `public`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Object {
    /// Its identity, never reused.
    pub id: ObjectId,
    /// Its name, folded.
    pub name: String,
    /// What it is.
    pub kind: ObjectKind,
}

/// The kinds of objects.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ObjectKind {
    /// A table.
    Table(TableDef),
    /// A view: a query under a name.
    View(ViewDef),
    /// A maintained view.
    MaterializedView(MaterializedViewDef),
    /// A generator that fills tables, or files that are a relation.
    Source(SourceDef),
    /// What carries a maintained view's changes out.
    Sink(SinkDef),
}

/// A table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TableDef {
    /// All columns, hidden ones last.
    pub columns: Vec<ColumnDef>,
    /// Indices of the key's columns, in key order; never empty. A table without a key of its own has the
    /// hidden column [`super::ROW_ID`] as its last column and key.
    pub primary_key: Vec<usize>,
    /// Where its rows are.
    pub locality: TableLocality,
}

/// A column of a table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ColumnDef {
    /// Its name, folded.
    pub name: String,
    /// Its type.
    pub sql_type: SqlType,
    /// Whether it may be null; key columns may not.
    pub nullable: bool,
    /// What stands in it when an INSERT does not name it; absent: null.
    pub default: Option<ColumnDefault>,
    /// Not in `*`, and not for users to write.
    pub hidden: bool,
}

/// The default of a column. Volatile ones are evaluated before the log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ColumnDefault {
    /// A constant of the column's Arrow type.
    Literal(Literal),
    /// The time at the start of the transaction, cast to the column's type.
    Now,
    /// A random uuid, another one for each row.
    GenRandomUuid,
}

/// Where a table's rows are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TableLocality {
    /// Every region holds the same rows and may write each.
    Global,
    /// Each row belongs to the region that inserted it.
    RegionalByRow,
    /// All rows belong to one region.
    RegionalByTable(RegionId),
}

/// A column of a view's result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ViewColumn {
    /// Its name.
    pub name: String,
    /// Its type.
    pub sql_type: SqlType,
}

/// A view.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ViewDef {
    /// Its query.
    pub sql: String,
    /// Its columns, under the names given to them.
    pub columns: Vec<ViewColumn>,
}

/// A maintained view. The plan was made once, by the primary region; no region plans the text again.
///
/// A hidden one (see [`Object::is_hidden`]) is a part of other views and has no text of its own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MaterializedViewDef {
    /// Its query, for people.
    pub sql: String,
    /// Its columns.
    pub columns: Vec<ViewColumn>,
    /// Its plan.
    pub plan: Arc<ViewPlan>,
    /// The digest of the plan.
    pub fingerprint: Fingerprint,
    /// The time zone of the session that created it, frozen.
    pub time_zone: String,
}

/// A source.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SourceDef {
    /// The connector's name.
    pub connector: String,
    /// Its options, checked.
    pub options: BTreeMap<String, String>,
    /// The tables it fills, in the connector's order.
    pub tables: Vec<ObjectId>,
    /// The time of its first event, in milliseconds since 1970.
    pub base_time_ms: u64,
    /// The columns of its records, hidden ones last, for a source that views read; none for a source that
    /// fills tables.
    #[serde(default)]
    pub columns: Vec<ColumnDef>,
}

/// A sink.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SinkDef {
    /// The connector's name.
    pub connector: String,
    /// Its options, checked.
    pub options: BTreeMap<String, String>,
    /// The view whose changes it writes.
    pub view: ObjectId,
}

impl TableDef {
    /// All columns, hidden ones included, as an Arrow schema.
    pub fn schema(&self) -> SchemaRef {
        schema_of(&self.columns)
    }

    /// Whether every region holds the same rows.
    pub fn is_global(&self) -> bool {
        matches!(self.locality, TableLocality::Global)
    }

    /// The index of the column with this (folded) name, hidden ones included.
    pub fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name == name)
    }

    /// The indices of the columns that users see.
    pub fn visible(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.columns.len()).filter(|&index| !self.columns[index].hidden)
    }
}

impl ColumnDefault {
    /// The default as SQL text, as `\d` shows it.
    pub fn to_sql(&self, sql_type: SqlType) -> String {
        match self {
            ColumnDefault::Literal(literal) => match literal_text(literal) {
                Some(text) => format!("'{}'::{sql_type}", text.replace('\'', "''")),
                None => format!("NULL::{sql_type}"),
            },
            ColumnDefault::Now => "now()".to_owned(),
            ColumnDefault::GenRandomUuid => "gen_random_uuid()".to_owned(),
        }
    }
}

fn schema_of(columns: &[ColumnDef]) -> SchemaRef {
    let field = |column: &ColumnDef| Field::new(&column.name, column.sql_type.arrow(), column.nullable);
    Arc::new(Schema::new(columns.iter().map(field).collect::<Vec<_>>()))
}

impl Object {
    /// The columns of a table or source (hidden ones included) or view; none for a source that fills tables
    /// and for a sink.
    pub fn columns_arrow(&self) -> SchemaRef {
        match &self.kind {
            ObjectKind::Table(table) => table.schema(),
            ObjectKind::View(ViewDef { columns, .. })
            | ObjectKind::MaterializedView(MaterializedViewDef { columns, .. }) => {
                let field = |column: &ViewColumn| Field::new(&column.name, column.sql_type.arrow(), true);
                Arc::new(Schema::new(columns.iter().map(field).collect::<Vec<_>>()))
            }
            ObjectKind::Source(source) => schema_of(&source.columns),
            ObjectKind::Sink(_) => Arc::new(Schema::empty()),
        }
    }

    /// Where the object's rows are: those of a view are, eventually, everywhere; a source's records stay in
    /// the region that reads them.
    pub fn locality(&self) -> Locality {
        match &self.kind {
            ObjectKind::Table(table) if !table.is_global() => Locality::Regional,
            ObjectKind::Source(source) if !source.columns.is_empty() => Locality::Regional,
            _ => Locality::Global,
        }
    }

    /// The table, if it is one.
    pub fn as_table(&self) -> Option<&TableDef> {
        match &self.kind {
            ObjectKind::Table(table) => Some(table),
            _ => None,
        }
    }

    /// Whether this is the merged side of a join in other views (RFC 0011): made and dropped with the views that read
    /// it, and never found by name.
    pub fn is_hidden(&self) -> bool {
        match &self.kind {
            ObjectKind::MaterializedView(view) => view.sql.is_empty() && self.name.starts_with(HIDDEN_PREFIX),
            _ => false,
        }
    }

    /// Whether the object's rows are only ever added to.
    pub fn is_append_only(&self) -> bool {
        matches!(self.kind, ObjectKind::Source(_))
    }

    /// The word for the object's kind in messages.
    pub fn kind_name(&self) -> &'static str {
        match &self.kind {
            ObjectKind::Table(_) => "table",
            ObjectKind::View(_) => "view",
            ObjectKind::MaterializedView(_) => "materialized view",
            ObjectKind::Source(_) => "source",
            ObjectKind::Sink(_) => "sink",
        }
    }
}
