//! What clients send, decoded without trust: length first, capped; then fields, each checked against what is left.
//!
//! The decoder is our own and not pgwire's, because that one reads a body from the whole buffer: a field that
//! lies about its length would reach into the next message or panic. Here a body is cut off before it is read, so a
//! damaged message costs an error and nothing else.
//!
//! Left out: GSSAPI, SASL and password messages (authentication is not part of the protocol yet), FunctionCall.

use bytes::{Bytes, BytesMut};

use super::error::{SqlError, SqlResult};
use super::types::input::utf8;

/// The largest message; a statement or a COPY chunk beyond it ends the connection.
pub const MESSAGE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// The largest message of a kind that carries only a name.
const SHORT_MESSAGE_BYTES_MAX: usize = 10_000;

/// A statement or a portal, as named by Describe and Close.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A prepared statement.
    Statement(String),
    /// A portal.
    Portal(String),
}

/// The fields of a Bind message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bind {
    /// The portal to make.
    pub portal: String,
    /// The statement it runs.
    pub statement: String,
    /// Formats of the parameters: none, one for all, or one each.
    pub parameter_formats: Vec<i16>,
    /// The parameters; `None` is null.
    pub parameters: Vec<Option<Bytes>>,
    /// Formats of the result columns: none, one for all, or one each.
    pub result_formats: Vec<i16>,
}

/// A message of a client after startup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frontend {
    /// Simple query.
    Query(String),
    /// Make a prepared statement.
    Parse {
        /// Its name; empty for the unnamed one.
        name: String,
        /// The text.
        sql: String,
        /// Declared parameter types; 0 leaves one to be inferred.
        types: Vec<u32>,
    },
    /// Make a portal.
    Bind(Bind),
    /// Ask for types.
    Describe(Target),
    /// Run a portal.
    Execute {
        /// Its name.
        portal: String,
        /// The most rows to send; 0 for all.
        rows_max: usize,
    },
    /// Forget a statement or portal.
    Close(Target),
    /// Send what is buffered.
    Flush,
    /// End of an extended query.
    Sync,
    /// A chunk of COPY data.
    CopyData(Bytes),
    /// End of COPY data.
    CopyDone,
    /// The client gives COPY up.
    CopyFail(String),
    /// Goodbye.
    Terminate,
}

/// Takes the next complete message off the buffer; `None` when there is none yet.
///
/// # Errors
/// Fatal ones for lengths that cannot be (the stream has lost its frames), others for bad fields.
pub fn decode(buffer: &mut BytesMut) -> SqlResult<Option<Frontend>> {
    let Some(header) = buffer.first_chunk::<5>() else {
        return Ok(None);
    };
    let kind = header[0];
    let length = u32::from_be_bytes([header[1], header[2], header[3], header[4]]) as usize;
    let length_max = match kind {
        b'Q' | b'P' | b'B' | b'd' => MESSAGE_BYTES_MAX,
        b'D' | b'E' | b'C' | b'H' | b'S' | b'c' | b'f' | b'X' | b'p' => SHORT_MESSAGE_BYTES_MAX,
        _ => return Err(SqlError::protocol(format!("invalid message type 0x{kind:02x}")).fatal()),
    };
    if !(4..=length_max).contains(&length) {
        return Err(SqlError::protocol(format!(
            "invalid length {length} of message '{}'",
            char::from(kind)
        ))
        .hint(format!("a message has at most {length_max} bytes"))
        .fatal());
    }
    if buffer.len() < 1 + length {
        buffer.reserve((1 + length - buffer.len()).min(1 << 20));
        return Ok(None);
    }
    let mut frame = buffer.split_to(1 + length).freeze();
    let mut body = Body {
        bytes: frame.split_off(5),
    };
    body.message(kind).map(Some)
}

struct Body {
    bytes: Bytes,
}

impl Body {
    fn message(&mut self, kind: u8) -> SqlResult<Frontend> {
        let message = match kind {
            b'Q' => Frontend::Query(self.string()?),
            b'P' => {
                let (name, sql) = (self.string()?, self.string()?);
                let types = (0..self.count()?).map(|_| self.u32()).collect::<SqlResult<_>>()?;
                Frontend::Parse { name, sql, types }
            }
            b'B' => Frontend::Bind(self.bind()?),
            b'D' => Frontend::Describe(self.target()?),
            b'C' => Frontend::Close(self.target()?),
            b'E' => {
                let portal = self.string()?;
                // Negative means no limit, like zero.
                let rows_max = usize::try_from(self.u32()? as i32).unwrap_or(0);
                Frontend::Execute { portal, rows_max }
            }
            b'H' => Frontend::Flush,
            b'S' => Frontend::Sync,
            b'd' => Frontend::CopyData(std::mem::take(&mut self.bytes)),
            b'c' => Frontend::CopyDone,
            b'f' => Frontend::CopyFail(self.string()?),
            b'X' => Frontend::Terminate,
            _ => return Err(SqlError::protocol("unexpected authentication message").fatal()),
        };
        match self.bytes.is_empty() {
            true => Ok(message),
            false => Err(SqlError::protocol(format!(
                "invalid message format of '{}'",
                char::from(kind)
            ))),
        }
    }

    fn bind(&mut self) -> SqlResult<Bind> {
        let (portal, statement) = (self.string()?, self.string()?);
        let parameter_formats = self.formats()?;
        let parameters = (0..self.count()?)
            .map(|_| self.value())
            .collect::<SqlResult<_>>()?;
        let result_formats = self.formats()?;
        Ok(Bind {
            portal,
            statement,
            parameter_formats,
            parameters,
            result_formats,
        })
    }

    fn formats(&mut self) -> SqlResult<Vec<i16>> {
        (0..self.count()?)
            .map(|_| match self.u16()? {
                format @ (0 | 1) => Ok(format as i16),
                format => Err(SqlError::protocol(format!("unsupported format code: {format}"))),
            })
            .collect()
    }

    fn value(&mut self) -> SqlResult<Option<Bytes>> {
        match self.u32()? {
            u32::MAX => Ok(None),
            length => self.take(length as usize).map(Some),
        }
    }

    fn target(&mut self) -> SqlResult<Target> {
        let kind = self.take(1)?[0];
        let name = self.string()?;
        match kind {
            b'S' => Ok(Target::Statement(name)),
            b'P' => Ok(Target::Portal(name)),
            _ => Err(SqlError::protocol(format!("invalid subtype 0x{kind:02x}"))),
        }
    }

    fn take(&mut self, length: usize) -> SqlResult<Bytes> {
        if length > self.bytes.len() {
            return Err(SqlError::protocol("insufficient data left in message"));
        }
        Ok(self.bytes.split_to(length))
    }

    fn string(&mut self) -> SqlResult<String> {
        let end = self.bytes.iter().position(|byte| *byte == 0);
        let end = end.ok_or_else(|| SqlError::protocol("invalid string in message"))?;
        let text = self.take(end)?;
        self.take(1)?;
        utf8(&text).map(str::to_string)
    }

    fn count(&mut self) -> SqlResult<usize> {
        self.u16().map(usize::from)
    }

    fn u16(&mut self) -> SqlResult<u16> {
        let bytes = self.take(2)?;
        Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    fn u32(&mut self) -> SqlResult<u32> {
        let bytes = self.take(4)?;
        Ok(u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(kind: u8, body: &[u8]) -> BytesMut {
        let mut bytes = BytesMut::from(&[kind][..]);
        bytes.extend_from_slice(&(body.len() as u32 + 4).to_be_bytes());
        bytes.extend_from_slice(body);
        bytes
    }

    #[test]
    fn a_message_is_taken_when_it_is_whole() {
        let whole = frame(b'Q', b"select 1\0");
        let mut partial = BytesMut::from(&whole[..whole.len() - 1]);
        assert_eq!(decode(&mut partial), Ok(None));
        partial.extend_from_slice(b"\0S");
        assert_eq!(decode(&mut partial), Ok(Some(Frontend::Query("select 1".into()))));
        assert_eq!(&partial[..], b"S");
    }

    #[test]
    fn lies_about_lengths_end_the_connection() {
        for length in [0u32, 3, u32::MAX] {
            let mut bytes = BytesMut::from(&b"Q"[..]);
            bytes.extend_from_slice(&length.to_be_bytes());
            assert!(decode(&mut bytes).expect_err("no such length").fatal);
        }
        assert!(
            decode(&mut BytesMut::from(&b"@\0\0\0\x04"[..]))
                .expect_err("no such message")
                .fatal
        );
    }

    #[test]
    fn a_field_cannot_reach_into_the_next_message() {
        let mut bytes = frame(b'B', b"\0\0\0\0\0\x01\0\0\xff\xff");
        bytes.extend_from_slice(&frame(b'S', b""));
        let error = decode(&mut bytes).expect_err("the parameter is too long");
        assert_eq!((error.state, error.fatal), ("08P01", false));
        assert_eq!(decode(&mut bytes), Ok(Some(Frontend::Sync)));
    }

    #[test]
    fn text_must_be_utf8() {
        assert_eq!(
            decode(&mut frame(b'Q', b"\xff\0")).expect_err("not text").state,
            "22021"
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let mut buffer = BytesMut::from(&bytes[..]);
            while let Ok(Some(_)) = decode(&mut buffer) {}
        }

        #[test]
        fn any_body_is_survived(kind in proptest::sample::select(b"QPBDECHSdcfX".to_vec()), body in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = decode(&mut frame(kind, &body));
        }
    }
}
