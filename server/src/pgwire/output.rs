//! What the server sends: messages are collected in one buffer and handed to the socket when there is enough of
//! them, or when the client waits.
//!
//! The buffer is bounded: [`Output::flush_if_full`] waits for the socket, so a slow reader slows its own statement
//! down and nothing else. A client that takes nothing at all for [`WRITE_TIMEOUT`] is given up.

use std::time::Duration;

use bytes::{BufMut, BytesMut};
use pgwire::messages::PgWireBackendMessage as Backend;
use pgwire::messages::copy::CopyInResponse;
use pgwire::messages::data::{FieldDescription, NoData, ParameterDescription, RowDescription};
use pgwire::messages::extendedquery::{BindComplete, CloseComplete, ParseComplete, PortalSuspended};
use pgwire::messages::response::{
    CommandComplete, EmptyQueryResponse, ErrorResponse, NoticeResponse, ReadyForQuery, TransactionStatus,
};
use pgwire::messages::startup::{Authentication, BackendKeyData, ParameterStatus, SecretKey};
use tokio::io::{AsyncWrite, AsyncWriteExt};

use super::error::SqlError;

/// Bytes collected before the socket is written to.
const FLUSH_BYTES: usize = 32 * 1024;
/// How long a client may take nothing before its connection is dropped.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(120);

/// The sending half of a connection.
pub struct Output<W> {
    writer: W,
    buffer: BytesMut,
}

impl<W: AsyncWrite + Unpin> Output<W> {
    /// An empty buffer before a socket.
    pub fn new(writer: W) -> Self {
        Self {
            writer,
            buffer: BytesMut::with_capacity(8 * 1024),
        }
    }

    /// The buffer, for rows that are encoded in place.
    pub fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// Writes the buffer when it has grown beyond its bound.
    pub async fn flush_if_full(&mut self) -> std::io::Result<()> {
        if self.buffer.len() >= FLUSH_BYTES {
            self.flush().await
        } else {
            Ok(())
        }
    }

    /// Writes everything collected.
    pub async fn flush(&mut self) -> std::io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let write = async {
            self.writer.write_all(&self.buffer).await?;
            self.writer.flush().await
        };
        let written = tokio::time::timeout(WRITE_TIMEOUT, write).await;
        self.buffer.clear();
        if self.buffer.capacity() > 16 * FLUSH_BYTES {
            self.buffer = BytesMut::with_capacity(FLUSH_BYTES);
        }
        written.map_err(|_| std::io::Error::new(std::io::ErrorKind::TimedOut, "the client takes no data"))?
    }

    fn put(&mut self, message: Backend) {
        let start = self.buffer.len();
        if let Err(error) = message.encode(&mut self.buffer) {
            // Only a message beyond its own limit cannot be encoded; half of it must not stay.
            self.buffer.truncate(start);
            tracing::error!(%error, "a message to a client could not be encoded");
        }
    }

    /// An error; the connection ends after a fatal one.
    pub fn error(&mut self, error: &SqlError) {
        let severity = if error.fatal { "FATAL" } else { "ERROR" };
        self.put(Backend::ErrorResponse(ErrorResponse::new(error.fields(severity))));
    }

    /// A notice.
    pub fn notice(&mut self, notice: &SqlError) {
        let severity = if notice.state.starts_with("01") {
            "WARNING"
        } else {
            "NOTICE"
        };
        self.put(Backend::NoticeResponse(NoticeResponse::new(
            notice.fields(severity),
        )));
    }

    /// The transaction's state; the client may send its next query.
    pub fn ready(&mut self, status: TransactionStatus) {
        self.put(Backend::ReadyForQuery(ReadyForQuery::new(status)));
    }

    /// A command is complete.
    pub fn complete(&mut self, tag: &str) {
        self.put(Backend::CommandComplete(CommandComplete::new(tag.to_string())));
    }

    /// The query string held no statement.
    pub fn empty_query(&mut self) {
        self.put(Backend::EmptyQueryResponse(EmptyQueryResponse::new()));
    }

    /// The columns of the rows that follow.
    pub fn row_description(&mut self, fields: Vec<FieldDescription>) {
        self.put(Backend::RowDescription(RowDescription::new(fields)));
    }

    /// The statement has parameters of these types.
    pub fn parameter_description(&mut self, types: Vec<u32>) {
        self.put(Backend::ParameterDescription(ParameterDescription::new(types)));
    }

    /// The statement returns no rows.
    pub fn no_data(&mut self) {
        self.put(Backend::NoData(NoData::new()));
    }

    /// Answer to Parse.
    pub fn parse_complete(&mut self) {
        self.put(Backend::ParseComplete(ParseComplete::new()));
    }

    /// Answer to Bind.
    pub fn bind_complete(&mut self) {
        self.put(Backend::BindComplete(BindComplete::new()));
    }

    /// Answer to Close.
    pub fn close_complete(&mut self) {
        self.put(Backend::CloseComplete(CloseComplete::new()));
    }

    /// The portal has more rows.
    pub fn portal_suspended(&mut self) {
        self.put(Backend::PortalSuspended(PortalSuspended::new()));
    }

    /// The server expects COPY data of this many columns, as text or in the binary format.
    pub fn copy_in(&mut self, columns: usize, is_binary: bool) {
        let columns = columns.min(i16::MAX as usize);
        let format = i8::from(is_binary);
        self.put(Backend::CopyInResponse(CopyInResponse::new(
            format,
            columns as i16,
            vec![i16::from(format); columns],
        )));
    }

    /// The client is let in.
    pub fn authenticated(&mut self) {
        self.put(Backend::Authentication(Authentication::Ok));
    }

    /// A setting the client follows.
    pub fn parameter_status(&mut self, name: &str, value: &str) {
        self.put(Backend::ParameterStatus(ParameterStatus::new(
            name.to_string(),
            value.to_string(),
        )));
    }

    /// The key with which the client may cancel.
    pub fn key_data(&mut self, process: i32, secret: i32) {
        self.put(Backend::BackendKeyData(BackendKeyData::new(
            process,
            SecretKey::I32(secret),
        )));
    }

    /// The newest protocol version spoken here, when the client asked for a newer one.
    pub fn negotiate(&mut self, options: &[String]) {
        // Written by hand: minor version 0, and the startup options not known here.
        let length = 4 + 4 + 4 + options.iter().map(|option| option.len() + 1).sum::<usize>();
        self.buffer.put_u8(b'v');
        self.buffer.put_i32(length as i32);
        self.buffer.put_i32(0x0003_0000);
        self.buffer.put_i32(options.len() as i32);
        for option in options {
            self.buffer.put_slice(option.as_bytes());
            self.buffer.put_u8(0);
        }
    }

    /// The one-byte answer to a request for encryption: not here.
    pub fn refuse_encryption(&mut self) {
        self.buffer.put_u8(b'N');
    }
}
