//! Union all: `Δ(R ⊎ S) = ΔR ⊎ ΔS`. Linear, without state.

use arrow::datatypes::SchemaRef;
use tributary_storage::Delta;

#[derive(Debug)]
pub(crate) struct Union {
    pub(crate) schema: SchemaRef,
}

impl Union {
    pub(crate) fn eval(&self, deltas: &[Delta]) -> Delta {
        Delta::concat(self.schema.clone(), deltas)
    }
}
