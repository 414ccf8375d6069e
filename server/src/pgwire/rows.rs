//! Rows of a result as messages, batch by batch, with the socket's pace.

use std::sync::Arc;

use bytes::BufMut;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::execution::SendableRecordBatchStream;
use futures::StreamExt;
use pgwire::messages::data::FieldDescription;
use tokio::io::AsyncWrite;

use super::error::{SqlError, SqlResult};
use super::output::Output;
use super::types::output::{ColumnEncoder, OutputStyle};
use super::types::wire_type;

/// The most columns of a result, as in PostgreSQL.
const COLUMNS_MAX: usize = 1664;

/// A result being sent; it can stop between two rows.
pub(super) struct RowStream {
    schema: SchemaRef,
    rows: SendableRecordBatchStream,
    formats: Vec<i16>,
    style: OutputStyle,
    /// A batch that was begun, and its next row.
    begun: Option<(RecordBatch, usize)>,
    /// Rows sent so far.
    pub(super) sent: usize,
}

/// How far a result was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    /// All of it.
    Complete,
    /// As many rows as were asked for; there may be more.
    Suspended,
}

impl RowStream {
    /// A result whose columns are sent in these formats (none: text; one: for all).
    pub(super) fn new(
        schema: SchemaRef,
        rows: SendableRecordBatchStream,
        formats: &[i16],
        style: OutputStyle,
    ) -> SqlResult<Self> {
        let formats = expand_formats(formats, schema.fields().len())?;
        Ok(Self {
            schema,
            rows,
            formats,
            style,
            begun: None,
            sent: 0,
        })
    }

    /// Sends at most `rows_max` rows; 0 for all.
    pub(super) async fn send<W: AsyncWrite + Unpin>(
        &mut self,
        out: &mut Output<W>,
        rows_max: usize,
    ) -> SqlResult<Sent> {
        let mut left = if rows_max == 0 { usize::MAX } else { rows_max };
        loop {
            let (batch, start) = match self.begun.take() {
                Some(begun) => begun,
                None => match self.rows.next().await {
                    Some(batch) => (batch?, 0),
                    None => return Ok(Sent::Complete),
                },
            };
            let end = batch.num_rows().min(start.saturating_add(left));
            send_batch(
                out,
                &self.schema,
                &self.formats,
                self.style,
                batch.slice(start, end - start),
            )
            .await?;
            self.sent += end - start;
            left -= end - start;
            if end < batch.num_rows() {
                self.begun = Some((batch, end));
            }
            if left == 0 {
                return Ok(Sent::Suspended);
            }
        }
    }
}

/// Sends the rows of a batch.
async fn send_batch<W: AsyncWrite + Unpin>(
    out: &mut Output<W>,
    schema: &SchemaRef,
    formats: &[i16],
    style: OutputStyle,
    batch: RecordBatch,
) -> SqlResult<()> {
    let encoders = batch
        .columns()
        .iter()
        .zip(schema.fields())
        .map(|(column, field)| ColumnEncoder::new(column, style, wire_type(field).oid == 18))
        .collect::<SqlResult<Vec<_>>>()?;
    let mut scratch = String::new();
    for row in 0..batch.num_rows() {
        let buffer = out.buffer();
        let begin = buffer.len();
        buffer.put_u8(b'D');
        buffer.put_i32(0);
        buffer.put_i16(encoders.len() as i16);
        for (encoder, format) in encoders.iter().zip(formats) {
            if let Err(error) = encoder.write_field(row, *format == 1, &mut scratch, buffer) {
                // Half a row must not stay before the error.
                buffer.truncate(begin);
                return Err(error);
            }
        }
        let length = i32::try_from(buffer.len() - begin - 1)
            .map_err(|_| SqlError::new(super::sqlstate::PROGRAM_LIMIT, "a row is too large"))?;
        buffer[begin + 1..begin + 5].copy_from_slice(&length.to_be_bytes());
        out.flush_if_full().await.map_err(closed)?;
    }
    Ok(())
}

/// The connection is gone.
pub(super) fn closed(error: std::io::Error) -> SqlError {
    SqlError::new("08006", format!("the connection was lost: {error}")).fatal()
}

/// One format per column.
fn expand_formats(formats: &[i16], columns: usize) -> SqlResult<Vec<i16>> {
    match formats {
        [] => Ok(vec![0; columns]),
        [format] => Ok(vec![*format; columns]),
        each if each.len() == columns => Ok(each.to_vec()),
        each => Err(SqlError::protocol(format!(
            "bind message has {} result formats but query has {columns} columns",
            each.len()
        ))),
    }
}

/// The description of a result's columns.
pub(super) fn describe(schema: &SchemaRef, formats: &[i16]) -> SqlResult<Vec<FieldDescription>> {
    let schema = Arc::clone(schema);
    if schema.fields().len() > COLUMNS_MAX {
        return Err(SqlError::new(
            "54011",
            format!("a result has at most {COLUMNS_MAX} columns"),
        ));
    }
    let formats = expand_formats(formats, schema.fields().len())?;
    let describe = |(field, format): (&Arc<datafusion::arrow::datatypes::Field>, i16)| {
        let wire = wire_type(field);
        let name = column_name(field.name());
        FieldDescription::new(name, 0, 0, wire.oid, wire.size, wire.modifier, format)
    };
    Ok(schema.fields().iter().zip(formats).map(describe).collect())
}

/// What names of DataFusion's columns contain that are expressions without parentheses.
const EXPRESSIONS: &[&str] = &[
    " + ", " - ", " * ", " / ", " || ", " = ", " != ", " < ", " > ", " <= ", " >= ", " IS ", " AND ", " OR ",
    " LIKE ", "NOT ",
];

/// A column's name for the client: that of a call is the function's, other expressions have none, as in PostgreSQL.
fn column_name(name: &str) -> String {
    let is_plain = |text: &str| {
        !text.is_empty()
            && text.chars().all(|c| c.is_alphanumeric() || c == '_')
            && !text.starts_with(|c: char| c.is_ascii_digit())
    };
    let name = crate::query::columns::shown_name(name).replace('\0', "");
    match name.split_once('(') {
        Some((function, _)) if is_plain(function) && name.ends_with(')') => match function {
            // DataFusion shows constants under the names of their types.
            _ if function.starts_with(char::is_uppercase) => "?column?".to_string(),
            _ => function.to_string(),
        },
        Some(_) if name.starts_with("CASE ") => "case".to_string(),
        Some(_) => "?column?".to_string(),
        None if name == "NULL" => "?column?".to_string(),
        None if name.starts_with("CASE ") => "case".to_string(),
        None if EXPRESSIONS.iter().any(|part| name.contains(part)) => "?column?".to_string(),
        None => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_have_the_names_clients_expect() {
        for (name, expected) in [
            ("a", "a"),
            ("My Column", "My Column"),
            ("count(*)", "count"),
            ("sum(t.a)", "sum"),
            ("Int64(1)", "?column?"),
            ("t.a + Int64(1)", "?column?"),
        ] {
            assert_eq!(column_name(name), expected);
        }
    }

    #[test]
    fn formats_are_expanded() {
        assert_eq!(expand_formats(&[], 2).expect("text"), vec![0, 0]);
        assert_eq!(expand_formats(&[1], 2).expect("binary"), vec![1, 1]);
        assert_eq!(
            expand_formats(&[0, 1, 1], 2).expect_err("too many").state,
            "08P01"
        );
    }
}
