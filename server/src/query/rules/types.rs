//! Type names as they stand in casts: those of the catalog's type table, and the aliases of `oid` that clients use.

use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::Result;
use datafusion::logical_expr::planner::TypePlanner;
use datafusion::sql::sqlparser::ast::{DataType as AstType, ObjectNamePart};
use tributary_planner::types::SqlType;

/// Plans type names.
#[derive(Debug)]
pub struct PostgresTypes;

impl TypePlanner for PostgresTypes {
    fn plan_type_field(&self, written: &AstType) -> Result<Option<FieldRef>> {
        let data_type = match SqlType::from_ast(written) {
            Ok(sql_type) => Some(sql_type.arrow()),
            Err(_) => catalog_type(written),
        };
        Ok(data_type.map(|data_type| Arc::new(Field::new("", data_type, true))))
    }
}

/// Types that only catalogs use, and builtin types with their schema.
fn catalog_type(written: &AstType) -> Option<DataType> {
    let AstType::Custom(name, arguments) = written else {
        return match written {
            AstType::Regclass => Some(DataType::Int32),
            AstType::Char(_) | AstType::Character(_) => Some(DataType::Utf8),
            _ => None,
        };
    };
    if !arguments.is_empty() {
        return None;
    }
    let Some(ObjectNamePart::Identifier(last)) = name.0.last() else {
        return None;
    };
    Some(match last.value.to_ascii_lowercase().as_str() {
        "oid" | "regclass" | "regproc" | "regprocedure" | "regoper" | "regoperator" | "regtype"
        | "regnamespace" | "regrole" | "regconfig" | "regdictionary" | "regcollation" | "xid" | "cid" => {
            DataType::Int32
        }
        "name" | "text" | "varchar" | "bpchar" | "char" | "unknown" | "json" | "jsonb" | "aclitem"
        | "pg_node_tree" => DataType::Utf8,
        "bool" => DataType::Boolean,
        "int2" => DataType::Int16,
        "int4" => DataType::Int32,
        "int8" => DataType::Int64,
        "float4" => DataType::Float32,
        "float8" => DataType::Float64,
        "bytea" => DataType::Binary,
        "uuid" => DataType::FixedSizeBinary(16),
        "date" => SqlType::Date.arrow(),
        "timestamp" => SqlType::Timestamp.arrow(),
        "timestamptz" => SqlType::TimestampTz.arrow(),
        "interval" => SqlType::Interval.arrow(),
        "numeric" => SqlType::NUMERIC.arrow(),
        _ => return None,
    })
}
