//! The first exchange of a connection: encryption refused, a startup or a cancel request read.
//!
//! ```text
//!   client                         server
//!   SSLRequest / GSSENCRequest ──▶
//!                              ◀── 'N'
//!   StartupMessage             ──▶               (or CancelRequest, and the end)
//!                              ◀── AuthenticationOk, ParameterStatus…, BackendKeyData, ReadyForQuery
//! ```
//!
//! Bytes that follow a request for encryption before it was answered are refused: a server that took them for part
//! of the encrypted stream would trust what anybody on the way had put there. Size is capped here, time by the caller.

use std::collections::BTreeMap;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};

use super::error::{SqlError, SqlResult};
use super::output::Output;
use super::types::input::utf8;

/// The largest startup message.
const STARTUP_BYTES_MAX: usize = 10_000;
const CANCEL_REQUEST: u32 = 80_877_102;
const SSL_REQUEST: u32 = 80_877_103;
const GSS_ENCRYPTION_REQUEST: u32 = 80_877_104;

/// What the client wants.
#[derive(Debug, PartialEq, Eq)]
pub enum Startup {
    /// A session with these parameters.
    Session {
        /// `user`, `database`, and settings.
        parameters: BTreeMap<String, String>,
        /// Whether a newer minor version, or an option not known, was asked for.
        negotiate: Option<Vec<String>>,
    },
    /// To cancel what runs under a key.
    Cancel {
        /// The process number.
        process: i32,
        /// The secret.
        secret: i32,
    },
    /// Nothing: the connection was closed.
    Closed,
}

/// Reads until a session or a cancel request is asked for.
pub async fn negotiate<R, W>(input: &mut R, buffer: &mut BytesMut, out: &mut Output<W>) -> SqlResult<Startup>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut encryption_asked = 0;
    loop {
        let Some(mut packet) = read_packet(input, buffer).await? else {
            return Ok(Startup::Closed);
        };
        let code = packet.get_u32();
        match code {
            SSL_REQUEST | GSS_ENCRYPTION_REQUEST => {
                encryption_asked += 1;
                if !buffer.is_empty() || encryption_asked > 2 {
                    return Err(SqlError::protocol(
                        "received unencrypted data after a request for encryption",
                    )
                    .fatal());
                }
                out.refuse_encryption();
                out.flush()
                    .await
                    .map_err(|_| SqlError::protocol("the connection was closed").fatal())?;
            }
            CANCEL_REQUEST => {
                if packet.len() != 8 {
                    return Err(SqlError::protocol("invalid length of a cancel request").fatal());
                }
                return Ok(Startup::Cancel {
                    process: packet.get_i32(),
                    secret: packet.get_i32(),
                });
            }
            _ if code >> 16 == 3 => return parameters(packet, code & 0xffff),
            _ => {
                let (major, minor) = (code >> 16, code & 0xffff);
                return Err(
                    SqlError::unsupported(format!("unsupported frontend protocol {major}.{minor}"))
                        .hint("this server speaks protocol 3.0")
                        .fatal(),
                );
            }
        }
    }
}

/// The body of one packet (with its code), or `None` at the end of the stream.
async fn read_packet<R: AsyncRead + Unpin>(
    input: &mut R,
    buffer: &mut BytesMut,
) -> SqlResult<Option<BytesMut>> {
    loop {
        if let Some(head) = buffer.first_chunk::<4>() {
            let length = u32::from_be_bytes(*head) as usize;
            if !(8..=STARTUP_BYTES_MAX).contains(&length) {
                return Err(SqlError::protocol("invalid length of startup packet").fatal());
            }
            if buffer.len() >= length {
                let mut packet = buffer.split_to(length);
                packet.advance(4);
                return Ok(Some(packet));
            }
        }
        let room = (STARTUP_BYTES_MAX + 1).saturating_sub(buffer.len()).max(1);
        let read = input.take(room as u64).read_buf(buffer).await;
        if !matches!(read, Ok(1..)) {
            return Ok(None);
        }
    }
}

fn parameters(packet: BytesMut, minor: u32) -> SqlResult<Startup> {
    let malformed =
        || SqlError::protocol("invalid startup packet layout: expected terminator as last byte").fatal();
    let bytes: &[u8] = &packet;
    let mut fields = bytes
        .split(|byte| *byte == 0)
        .map(|field| utf8(field).map_err(SqlError::fatal));
    let (mut parameters, mut unknown) = (BTreeMap::new(), Vec::new());
    if packet.last() != Some(&0) {
        return Err(malformed());
    }
    loop {
        let name = fields.next().ok_or_else(malformed)??;
        if name.is_empty() {
            break;
        }
        let value = fields.next().ok_or_else(malformed)??;
        match name.starts_with("_pq_.") {
            true => unknown.push(name.to_string()),
            false => drop(parameters.insert(name.to_string(), value.to_string())),
        }
    }
    if parameters.get("user").is_none_or(String::is_empty) {
        return Err(SqlError::new("28000", "no user name specified in startup packet").fatal());
    }
    let negotiate = (minor > 0 || !unknown.is_empty()).then_some(unknown);
    Ok(Startup::Session {
        parameters,
        negotiate,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    async fn run(bytes: &[u8]) -> (SqlResult<Startup>, Vec<u8>) {
        let mut sent = Vec::new();
        let result = {
            let mut out = Output::new(&mut sent);
            negotiate(&mut &bytes[..], &mut BytesMut::new(), &mut out).await
        };
        (result, sent)
    }

    fn packet(code: u32, body: &[u8]) -> Vec<u8> {
        let mut bytes = (body.len() as u32 + 8).to_be_bytes().to_vec();
        bytes.extend_from_slice(&code.to_be_bytes());
        bytes.extend_from_slice(body);
        bytes
    }

    #[tokio::test]
    async fn a_session_is_asked_for() {
        let (result, _) = run(&packet(0x0003_0000, b"user\0me\0database\0d\0\0")).await;
        let Ok(Startup::Session {
            parameters,
            negotiate: None,
        }) = result
        else {
            panic!("{result:?}")
        };
        assert_eq!(parameters.get("database").map(String::as_str), Some("d"));
    }

    #[tokio::test]
    async fn bytes_after_a_request_for_encryption_are_refused() {
        let mut bytes = packet(SSL_REQUEST, b"");
        bytes.extend_from_slice(&packet(0x0003_0000, b"user\0me\0\0"));
        let (result, sent) = run(&bytes).await;
        assert_eq!(result.expect_err("stuffed").state, "08P01");
        assert!(sent.is_empty(), "nothing is answered");
        assert_eq!(
            run(&packet(SSL_REQUEST, b"")).await,
            (Ok(Startup::Closed), b"N".to_vec())
        );
    }

    #[tokio::test]
    async fn a_cancel_request_carries_its_key() {
        let (result, _) = run(&packet(CANCEL_REQUEST, &[0, 0, 0, 7, 0, 0, 0, 9])).await;
        assert_eq!(
            result,
            Ok(Startup::Cancel {
                process: 7,
                secret: 9
            })
        );
        assert!(run(&packet(CANCEL_REQUEST, &[0; 7])).await.0.is_err());
    }

    #[tokio::test]
    async fn other_protocols_and_sizes_are_refused() {
        assert_eq!(
            run(&packet(0x0002_0000, b"user\0me\0\0"))
                .await
                .0
                .expect_err("old")
                .state,
            "0A000"
        );
        assert_eq!(
            run(b"GET / HTTP/1.1\r\n\r\n")
                .await
                .0
                .expect_err("not ours")
                .state,
            "08P01"
        );
        assert_eq!(
            run(&packet(0x0003_0000, b"user\0me"))
                .await
                .0
                .expect_err("unterminated")
                .state,
            "08P01"
        );
        assert_eq!(
            run(&packet(0x0003_0000, b"\0"))
                .await
                .0
                .expect_err("nobody")
                .state,
            "28000"
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
            let _ = runtime.block_on(run(&bytes));
            let _ = runtime.block_on(run(&packet(0x0003_0000, &bytes)));
        }
    }
}
