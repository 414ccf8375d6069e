//! COPY … FROM STDIN: the data of a client to rows of a table, all of them or none.
//!
//! ```text
//!   chunks ─▶ input (bounded) ─▶ lines and fields (text.rs, csv.rs) ─▶ column builders ─▶ insert at the end
//! ```
//!
//! The input is kept until its end, so its size is capped: a COPY is one commit, and a commit must fit into one log
//! record. Errors name the line and the column (`CONTEXT: COPY t, line 3, column a`).

mod csv;
mod load;
mod text;

use bytes::Bytes;
use tributary_planner::parse::{CopyFormat, CopyOptions};

pub use load::{CopyTarget, rows};

use crate::pgwire::error::{SqlError, SqlResult};
use crate::pgwire::sqlstate;

/// The largest input of one COPY, in bytes.
pub const COPY_BYTES_MAX: usize = 64 * 1024 * 1024;

/// The fields of one line; `None` is null.
pub type Fields = Vec<Option<String>>;

/// Collects the input of a COPY.
#[derive(Default)]
pub struct CopyInput {
    bytes: Vec<u8>,
    overflow: bool,
}

impl CopyInput {
    /// Takes a chunk. Beyond the limit chunks are dropped: the client goes on sending until it is told at the end.
    pub fn push(&mut self, chunk: &Bytes) {
        if self.overflow || self.bytes.len() + chunk.len() > COPY_BYTES_MAX {
            self.overflow = true;
            self.bytes = Vec::new();
            return;
        }
        self.bytes.extend_from_slice(chunk);
    }

    /// The whole input.
    ///
    /// # Errors
    /// 54000 when it was too large.
    pub fn finish(self) -> SqlResult<Vec<u8>> {
        match self.overflow {
            false => Ok(self.bytes),
            true => Err(SqlError::new(
                sqlstate::PROGRAM_LIMIT,
                format!("COPY input exceeds {} MiB", COPY_BYTES_MAX >> 20),
            )
            .hint("split the file, for example with: split -C 48m --filter='psql -c \"COPY t FROM STDIN\"' file")),
        }
    }
}

/// One data line of the input.
pub struct Line {
    /// Its number, from 1, counting the header.
    pub number: usize,
    /// Its fields.
    pub fields: Fields,
}

/// Splits the input into lines of fields and gives each to `take`.
pub fn parse(
    input: &[u8],
    options: &CopyOptions,
    mut take: impl FnMut(Line) -> SqlResult<()>,
) -> SqlResult<()> {
    let text = crate::pgwire::types::input::utf8(input).map_err(|error| {
        let valid = std::str::from_utf8(input)
            .err()
            .map_or(input.len(), |error| error.valid_up_to());
        let line = 1 + input[..valid].iter().filter(|byte| **byte == b'\n').count();
        error.context(format!("line {line}"))
    })?;
    match options.format {
        CopyFormat::Text => text::parse(text, options, &mut take),
        CopyFormat::Csv => csv::parse(text, options, &mut take),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_input_too_large_is_refused_at_its_end() {
        let mut input = CopyInput::default();
        let chunk = Bytes::from(vec![b'x'; COPY_BYTES_MAX / 2 + 1]);
        input.push(&chunk);
        input.push(&chunk);
        input.push(&Bytes::from_static(b"y"));
        let error = input.finish().expect_err("too large");
        assert_eq!(error.state, "54000");
        assert!(error.hint.is_some_and(|hint| hint.contains("split")));
    }
}
