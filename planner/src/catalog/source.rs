//! Sources that are relations: files whose rows materialized views read.
//!
//! Their rows are in no table. They are REGIONAL and are only ever added to; the last column is hidden and says
//! when a row entered the log of its region.

use std::sync::Arc;

use arrow_schema::{Field, Schema, SchemaRef};
use tributary_storage::ObjectId;

use super::{Catalog, ColumnDef, ObjectKind, SourceDef};
use crate::types::SqlType;

/// The hidden column of a source that is a relation: the time of the log record that carried the row.
pub const SOURCE_TIME: &str = "tributary_time";
/// The connector of sources that are relations.
pub const FILE_CONNECTOR: &str = "file";
/// What stands for the name of the region in the path of a file source.
pub const REGION_PLACEHOLDER: &str = "{region}";

impl SourceDef {
    /// Whether the source is a relation itself, and fills no tables.
    pub fn is_relation(&self) -> bool {
        !self.columns.is_empty()
    }

    /// The columns that users see.
    pub fn visible(&self) -> impl Iterator<Item = &ColumnDef> {
        self.columns.iter().filter(|column| !column.hidden)
    }

    /// All columns, hidden ones included, as an Arrow schema.
    pub fn schema(&self) -> SchemaRef {
        let field = |column: &ColumnDef| Field::new(&column.name, column.sql_type.arrow(), column.nullable);
        Arc::new(Schema::new(self.columns.iter().map(field).collect::<Vec<_>>()))
    }

    /// An option's text.
    pub fn option(&self, name: &str) -> Option<&str> {
        self.options.get(name).map(String::as_str)
    }

    /// Whether an option is switched on.
    pub fn is_on(&self, name: &str) -> bool {
        self.option(name) == Some("true")
    }

    /// Whether it rests until ALTER SOURCE … RESUME.
    pub fn is_paused(&self) -> bool {
        self.is_on("paused")
    }

    /// Whether the region of this name has rows of it.
    pub fn is_read_in(&self, region: &str) -> bool {
        self.option("region").is_none_or(|only| only == region)
    }
}

/// The hidden column that ends the columns of a source.
pub(crate) fn source_time() -> ColumnDef {
    ColumnDef {
        name: SOURCE_TIME.to_owned(),
        sql_type: SqlType::TimestampTz,
        nullable: false,
        default: None,
        hidden: true,
    }
}

impl Catalog {
    /// The source with this id that is a relation.
    pub fn source(&self, id: ObjectId) -> Option<&SourceDef> {
        match &self.by_id(id)?.kind {
            ObjectKind::Source(def) if def.is_relation() => Some(def),
            _ => None,
        }
    }

    /// Whether any materialized view has this object among its inputs.
    pub fn is_read_by_views(&self, id: ObjectId) -> bool {
        self.objects.values().any(|object| match &object.kind {
            ObjectKind::MaterializedView(view) => view.plan.inputs().contains(&id),
            _ => false,
        })
    }

    pub(super) fn pause_source(&mut self, id: ObjectId, paused: bool) {
        let Some(object) = self.objects.get_mut(&id) else {
            return;
        };
        if let ObjectKind::Source(source) = &mut Arc::make_mut(object).kind {
            source.options.insert("paused".to_owned(), paused.to_string());
        }
    }
}
