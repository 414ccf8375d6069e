//! `current_setting(name [, missing_ok])`.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use datafusion::arrow::array::{Array, AsArray, StringArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::DataType;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature, Volatility,
};

use crate::session::settings::Settings;

/// The function over these settings.
pub fn function(settings: Settings) -> Arc<ScalarUDF> {
    let forms = vec![
        TypeSignature::Exact(vec![DataType::Utf8]),
        TypeSignature::Exact(vec![DataType::Utf8, DataType::Boolean]),
    ];
    Arc::new(ScalarUDF::from(CurrentSetting {
        settings,
        signature: Signature::one_of(forms, Volatility::Stable),
    }))
}

#[derive(Debug)]
struct CurrentSetting {
    settings: Settings,
    signature: Signature,
}

impl PartialEq for CurrentSetting {
    fn eq(&self, other: &Self) -> bool {
        self.signature == other.signature
    }
}

impl Eq for CurrentSetting {}

impl Hash for CurrentSetting {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.signature.hash(state);
    }
}

impl ScalarUDFImpl for CurrentSetting {
    fn name(&self) -> &str {
        "current_setting"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let names = cast(&arrays[0], &DataType::Utf8)?;
        let names = names.as_string::<i32>();
        let missing_ok = arrays.get(1).map(|flags| flags.as_boolean());
        let values: Result<StringArray> = (0..names.len())
            .map(|row| {
                if names.is_null(row) {
                    return Ok(None);
                }
                let is_optional = missing_ok.is_some_and(|flags| !flags.is_null(row) && flags.value(row));
                match self.settings.get(names.value(row)) {
                    Ok(value) => Ok(Some(value)),
                    Err(_) if is_optional => Ok(None),
                    Err(error) => Err(DataFusionError::External(Box::new(error))),
                }
            })
            .collect();
        Ok(ColumnarValue::Array(Arc::new(values?)))
    }
}
