//! Residency, looked at on the wire: no bundle holds a value of a table whose residency is enforced.
//!
//! Texts that are written into such tables begin with a mark and occur nowhere else. Every column of every section that
//! is sent is searched for it, whatever the catalog, the planner and the region's own door say of the section.

use arrow::array::{Array, AsArray};
use arrow::datatypes::DataType;
use tributary_replication::{Bundle, Message};

use crate::failure::{Checked, Violation};

/// What texts of enforced tables begin with.
pub const MARK: &str = "resident:";

/// Refuses a message that carries marked values.
pub fn check(sender: &str, peer: &str, message: &Message) -> Checked {
    let Message::Bundle(bytes) = message else {
        return Ok(());
    };
    let bundle = Bundle::decode(bytes)
        .map_err(|error| Violation::new("what is sent can be read", format!("{sender}: {error}")))?;
    for section in &bundle.sections {
        for (number, column) in section.rows.columns().iter().enumerate() {
            if column.data_type() != &DataType::Utf8 {
                continue;
            }
            let found = column
                .as_string::<i32>()
                .iter()
                .flatten()
                .find(|text| text.starts_with(MARK));
            if let Some(found) = found {
                return Err(Violation::new(
                    "values of enforced tables stay in their region",
                    format!(
                        "{sender} sends {peer} {found:?} in column {number} of {:?} of {}",
                        section.object, section.origin
                    ),
                ));
            }
        }
    }
    Ok(())
}
