//! Functions that give definitions by OID: of indexes, constraints and views; and the owner's name.

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use datafusion::arrow::array::{Array, AsArray, BooleanArray, StringArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Int64Type};
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility, create_udf,
};
use tributary_planner::catalog::{Object, ObjectKind};

use super::build::Cell;
use super::{Source, oids};

/// The visible columns of a table's key; none for a hidden key and for views.
pub(super) fn key_columns(object: &Object) -> Vec<&str> {
    let Some(table) = object.as_table() else {
        return Vec::new();
    };
    let columns = table.primary_key.iter().map(|&column| &table.columns[column]);
    columns
        .filter(|column| !column.hidden)
        .map(|column| column.name.as_str())
        .collect()
}

/// Their numbers.
pub(super) fn key_numbers(object: &Object) -> Cell {
    let columns = object.as_table().map_or(&[][..], |table| &table.primary_key);
    Cell::Ints(columns.iter().map(|column| *column as i16 + 1).collect())
}

/// The functions over this catalog.
pub(super) fn functions(source: &Source) -> Vec<Arc<ScalarUDF>> {
    let (mut indexes, mut constraints, mut views) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    for object in source.relations() {
        let key = key_columns(object).join(", ");
        if !key.is_empty() {
            let name = &object.name;
            let index = format!("CREATE UNIQUE INDEX {name}_pkey ON public.{name} USING btree ({key})");
            indexes.insert(i64::from(oids::key(object.id)), index);
            constraints.insert(i64::from(oids::key(object.id)), format!("PRIMARY KEY ({key})"));
        }
        match &object.kind {
            ObjectKind::View(view) => {
                drop(views.insert(i64::from(oids::relation(object.id)), format!(" {};", view.sql)))
            }
            ObjectKind::MaterializedView(view) => {
                drop(views.insert(i64::from(oids::relation(object.id)), format!(" {};", view.sql)))
            }
            _ => {}
        }
    }
    let owner = BTreeMap::from([(i64::from(oids::ROLE), source.user.clone())]);
    let function = |name: &str, texts| Arc::new(ScalarUDF::from(ByOid::new(name, texts)));
    vec![
        function("pg_get_indexdef", indexes),
        function("pg_get_constraintdef", constraints),
        function("pg_get_viewdef", views),
        function("pg_get_userbyid", owner),
        visible(),
    ]
}

/// `pg_table_is_visible`: relations of schema `tributary` are not on the search path.
fn visible() -> Arc<ScalarUDF> {
    let evaluate = Arc::new(|values: &[ColumnarValue]| {
        let arrays = ColumnarValue::values_to_arrays(values)?;
        let oids = cast(&arrays[0], &DataType::Int64)?;
        let is_visible = |oid: Option<i64>| oid.map(|oid| !oids::is_system(oid));
        let flags: BooleanArray = oids.as_primitive::<Int64Type>().iter().map(is_visible).collect();
        Ok(ColumnarValue::Array(Arc::new(flags)))
    });
    let function = create_udf(
        "pg_table_is_visible",
        vec![DataType::Int32],
        DataType::Boolean,
        Volatility::Stable,
        evaluate,
    );
    Arc::new(function)
}

/// A function of an OID (and arguments that do not matter) with a text for some.
#[derive(Debug)]
struct ByOid {
    name: String,
    texts: BTreeMap<i64, String>,
    signature: Signature,
}

impl ByOid {
    fn new(name: &str, texts: BTreeMap<i64, String>) -> Self {
        Self {
            name: name.into(),
            texts,
            signature: Signature::variadic_any(Volatility::Stable),
        }
    }
}

impl PartialEq for ByOid {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name && self.texts == other.texts
    }
}

impl Eq for ByOid {}

impl Hash for ByOid {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl ScalarUDFImpl for ByOid {
    fn name(&self) -> &str {
        &self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args[..1])?;
        let oids = cast(&arrays[0], &DataType::Int64)?;
        let oids = oids.as_primitive::<Int64Type>();
        let text = |oid: Option<i64>| oid.and_then(|oid| self.texts.get(&oid).cloned());
        let texts: StringArray = oids.iter().map(text).collect();
        debug_assert_eq!(texts.len(), oids.len());
        Ok(ColumnarValue::Array(Arc::new(texts)))
    }
}
