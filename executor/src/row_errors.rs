//! Rows and groups that could not be computed, as a Z-set.
//!
//! A row whose expression fails leaves the view and enters this set with its weight; when the same row is
//! retracted, evaluation fails in the same way, enters with the opposite weight, and the error disappears.
//! The same holds for a group whose result is out of range. So the set is always a function of the inputs.
//!
//! Invariant: the text of an entry depends on the row and the operator only, never on its batch.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::DataType;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use tributary_storage::{Delta, Layout, Trace};

use crate::columns::{batch_of, downcast, schema_of};
use crate::state::{StateId, States};

/// The most entries that [`ErrorLog::live`] returns.
pub const ERRORS_LISTED_MAX: usize = 1000;

/// A row's text is cut at this many characters.
const ROW_CHARACTERS_MAX: usize = 400;

/// A row or group that is left out of a view while it cannot be computed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowError {
    /// Where in the view, for example `fragment 0, project 2`.
    pub operator: String,
    /// Why.
    pub message: String,
    /// The input row, or the key of the group.
    pub row: String,
    /// How many such rows there are.
    pub count: i64,
}

/// Errors met in a step, before they enter the view's error set.
#[derive(Debug, Default)]
pub(crate) struct ErrorSink {
    operators: Vec<String>,
    messages: Vec<String>,
    rows: Vec<String>,
    weights: Vec<i64>,
}

impl ErrorSink {
    /// Adds one failed row.
    pub(crate) fn push(
        &mut self,
        operator: &str,
        message: &str,
        rows: &RecordBatch,
        row: usize,
        weight: i64,
    ) {
        self.operators.push(operator.to_string());
        self.messages.push(message.to_string());
        self.rows.push(row_text(rows.columns(), row));
        self.weights.push(weight);
    }

    /// Adds the errors of another partition.
    pub(crate) fn append(&mut self, mut other: Self) {
        self.operators.append(&mut other.operators);
        self.messages.append(&mut other.messages);
        self.rows.append(&mut other.rows);
        self.weights.append(&mut other.weights);
    }

    fn into_delta(self) -> Delta {
        let rows = self.weights.len();
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from(self.operators)),
            Arc::new(StringArray::from(self.messages)),
            Arc::new(StringArray::from(self.rows)),
        ];
        Delta::new(
            batch_of(schema_of(&error_types()), columns, rows),
            Some(Int64Array::from(self.weights)),
        )
    }
}

/// The live errors of a view: a trace among its others, so that a checkpoint keeps them too.
#[derive(Debug)]
pub(crate) struct ErrorLog {
    state: StateId,
}

impl ErrorLog {
    pub(crate) fn layout() -> Layout {
        Layout::keyed(schema_of(&error_types()), Vec::new())
    }

    pub(crate) fn new(state: StateId) -> Self {
        Self { state }
    }

    pub(crate) fn record(&self, states: &mut States, errors: ErrorSink) {
        if !errors.weights.is_empty() {
            states.trace_mut(self.state).apply(&errors.into_delta());
        }
    }

    /// The first [`ERRORS_LISTED_MAX`] live errors, in the order of their text.
    pub(crate) fn live(&self, states: &States) -> Vec<RowError> {
        let found = states
            .trace(self.state)
            .lookup_n(&[], 1, ERRORS_LISTED_MAX, false);
        let text = |column: usize, row: usize| {
            downcast::<StringArray>(found.rows.column(column))
                .value(row)
                .to_string()
        };
        (0..found.rows.num_rows())
            .map(|i| RowError {
                operator: text(0, i),
                message: text(1, i),
                row: text(2, i),
                count: found.weights.value(i),
            })
            .collect()
    }
}

fn error_types() -> [DataType; 3] {
    [DataType::Utf8, DataType::Utf8, DataType::Utf8]
}

/// A row in parentheses, nulls as `NULL`, cut when it is long.
fn row_text(columns: &[ArrayRef], row: usize) -> String {
    let options = FormatOptions::default().with_null("NULL");
    let values: Vec<String> = columns
        .iter()
        .map(
            |column| match ArrayFormatter::try_new(column.as_ref(), &options) {
                Ok(formatter) => formatter.value(row).to_string(),
                Err(_) => format!("<{}>", column.data_type()),
            },
        )
        .collect();
    let text = format!("({})", values.join(", "));
    match text.char_indices().nth(ROW_CHARACTERS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
