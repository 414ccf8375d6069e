//! Partials: mergeable aggregate state of one key in one region, opaque to replication.
//!
//! Replication only needs to ship partials, to tell whether two are the same, and to know how large they
//! are. Merging them is the executor's business, above the boundary.

use arrow::array::{Array, ArrayRef};
use arrow::datatypes::DataType;
use tributary_storage::{KeyEncoder, Keys};

use crate::error::{ReplicationError, Result};

/// What replication does with partials. Columns hold one partial per row and are nullable: the partial of a
/// tombstone is null in every column.
pub trait PartialOps: Send + Sync {
    /// The types of the columns that are shipped.
    fn shipped_types(&self) -> Vec<DataType>;
    /// The columns as they are shipped.
    fn encode(&self, partials: &[ArrayRef]) -> Vec<ArrayRef>;
    /// The inverse of [`PartialOps::encode`], for columns from a peer.
    fn decode(&self, shipped: &[ArrayRef]) -> Result<Vec<ArrayRef>>;
    /// Row by row, bytes that are equal exactly when the partials are equal. `rows` counts the rows, since
    /// there may be no column.
    fn identity(&self, partials: &[ArrayRef], rows: usize) -> Keys;
    /// The memory the columns take, in bytes.
    fn size_bytes(&self, partials: &[ArrayRef]) -> usize;
}

/// Partials that are plain Arrow columns: they are shipped as they are and compared bit by bit.
#[derive(Debug)]
pub struct ArrowPartials {
    types: Vec<DataType>,
    encoder: KeyEncoder,
}

impl ArrowPartials {
    /// Partials with these columns.
    ///
    /// # Panics
    /// When a type cannot be encoded, see [`KeyEncoder::supports`].
    pub fn new(types: Vec<DataType>) -> Self {
        let encoder = KeyEncoder::new(&types);
        Self { types, encoder }
    }
}

impl PartialOps for ArrowPartials {
    fn shipped_types(&self) -> Vec<DataType> {
        self.types.clone()
    }

    fn encode(&self, partials: &[ArrayRef]) -> Vec<ArrayRef> {
        partials.to_vec()
    }

    fn decode(&self, shipped: &[ArrayRef]) -> Result<Vec<ArrayRef>> {
        let fits = shipped.len() == self.types.len()
            && shipped
                .iter()
                .zip(&self.types)
                .all(|(column, data_type)| column.data_type() == data_type);
        if !fits {
            let found: Vec<&DataType> = shipped.iter().map(|column| column.data_type()).collect();
            return Err(ReplicationError::corrupt(
                "a partial",
                format!("columns of types {found:?}, expected {:?}", self.types),
            ));
        }
        Ok(shipped.to_vec())
    }

    fn identity(&self, partials: &[ArrayRef], rows: usize) -> Keys {
        self.encoder.encode_rows(partials, rows)
    }

    fn size_bytes(&self, partials: &[ArrayRef]) -> usize {
        partials.iter().map(|column| column.get_array_memory_size()).sum()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Float64Array, Int64Array};

    use super::*;

    #[test]
    fn identity_is_bit_by_bit() {
        let partials = ArrowPartials::new(vec![DataType::Float64]);
        let columns: Vec<ArrayRef> = vec![Arc::new(Float64Array::from(vec![
            Some(0.0),
            Some(-0.0),
            Some(f64::NAN),
            Some(f64::NAN),
            None,
        ]))];
        let identity = partials.identity(&columns, 5);
        assert_ne!(identity.get(0), identity.get(1));
        assert_eq!(identity.get(2), identity.get(3));
        assert_ne!(identity.get(3), identity.get(4));
        assert!(partials.size_bytes(&columns) >= 40);
    }

    #[test]
    fn columns_of_another_type_are_refused() {
        let partials = ArrowPartials::new(vec![DataType::Float64]);
        let columns: Vec<ArrayRef> = vec![Arc::new(Int64Array::from(vec![1]))];
        assert!(partials.decode(&columns).is_err());
        assert!(partials.decode(&[]).is_err());
        assert_eq!(partials.encode(&columns).len(), 1);
    }
}
