//! COPY … FROM STDIN: the data of a client to rows of a table, all of them or none.
//!
//! ```text
//!   chunks ─▶ input (bounded) ─▶ columns (tributary_wire::copy) ─▶ insert at the end
//! ```
//!
//! The input is kept until its end, so its size is capped: a COPY is one commit, and a commit must fit into one log
//! record.

mod rows;

use bytes::Bytes;

pub use rows::{CopyRows, CopyTarget};

use crate::pgwire::error::{SqlError, SqlResult};
use crate::pgwire::sqlstate;

/// The largest input of one COPY, in bytes.
pub const COPY_BYTES_MAX: usize = 64 * 1024 * 1024;

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
