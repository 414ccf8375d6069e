//! Functions that psql and drivers call about things that do not exist here: comments, triggers, tablespaces,
//! replication. Each gives the answer of a database that has none of them.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use datafusion::arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature, Volatility,
};

/// All of them.
pub fn functions() -> Vec<Arc<ScalarUDF>> {
    let no_text = [
        "obj_description",
        "col_description",
        "shobj_description",
        "pg_get_triggerdef",
        "pg_get_ruledef",
        "pg_get_function_result",
        "pg_get_function_arguments",
        "pg_get_function_identity_arguments",
        "pg_get_functiondef",
        "pg_tablespace_location",
        "pg_get_partition_constraintdef",
        "pg_get_serial_sequence",
        "pg_get_statisticsobjdef",
        "inet_server_addr",
        "inet_client_addr",
        "json_build_object",
        "pg_size_pretty",
    ];
    let is_true = [
        "pg_type_is_visible",
        "pg_function_is_visible",
        "pg_operator_is_visible",
        "pg_collation_is_visible",
        "pg_opclass_is_visible",
        "pg_conversion_is_visible",
        "pg_statistics_obj_is_visible",
        "pg_opfamily_is_visible",
        "has_column_privilege",
        "has_function_privilege",
        "has_sequence_privilege",
        "has_tablespace_privilege",
        "has_type_privilege",
        "has_language_privilege",
        "pg_has_role",
    ];
    let is_false = [
        "pg_is_in_recovery",
        "pg_is_wal_replay_paused",
        "pg_advisory_unlock",
    ];
    let zero = [
        "pg_database_size",
        "pg_table_size",
        "pg_indexes_size",
        "pg_tablespace_size",
    ];
    let no_integer = ["inet_server_port", "pg_char_to_encoding", "to_regtype"];
    let stub = |name: &str, value: ScalarValue| Arc::new(ScalarUDF::from(Stub::new(name, value)));
    let mut all = Vec::new();
    all.extend(no_text.map(|name| stub(name, ScalarValue::Utf8(None))));
    all.extend(is_true.map(|name| stub(name, ScalarValue::from(true))));
    all.extend(is_false.map(|name| stub(name, ScalarValue::from(false))));
    all.extend(zero.map(|name| stub(name, ScalarValue::from(0i64))));
    all.extend(no_integer.map(|name| stub(name, ScalarValue::Int32(None))));
    all.push(stub(
        "pg_advisory_unlock_all",
        ScalarValue::Utf8(Some(String::new())),
    ));
    all.push(stub("getdatabaseencoding", ScalarValue::from("UTF8")));
    all.push(stub("pg_client_encoding", ScalarValue::from("UTF8")));
    all
}

/// A function of any arguments with one answer.
#[derive(Debug)]
struct Stub {
    name: String,
    value: ScalarValue,
    signature: Signature,
}

impl Stub {
    fn new(name: &str, value: ScalarValue) -> Self {
        let forms = vec![TypeSignature::Nullary, TypeSignature::VariadicAny];
        Self {
            name: name.into(),
            value,
            signature: Signature::one_of(forms, Volatility::Stable),
        }
    }
}

impl PartialEq for Stub {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Stub {}

impl Hash for Stub {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl ScalarUDFImpl for Stub {
    fn name(&self) -> &str {
        &self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(self.value.data_type())
    }

    fn invoke_with_args(&self, _args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        Ok(ColumnarValue::Scalar(self.value.clone()))
    }
}
