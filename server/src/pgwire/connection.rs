//! One connection: startup, then messages until the end.
//!
//! While a statement runs, the connection watches for a cancel request, the statement's time limit and the client's
//! going away. A panic inside of a statement is an error of that statement (XX000): the last door, which should never
//! be needed.

use std::collections::VecDeque;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use futures::FutureExt;
use pgwire::messages::response::TransactionStatus;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::watch;
use tokio::time::Instant;

use super::cancel::{CancelHandle, CancelSignal, RunningStatement};
use super::error::{SqlError, SqlResult};
use super::extended::Extended;
use super::frame::{self, Frontend};
use super::output::Output;
use super::startup::{self, Startup};
use super::{Shared, sqlstate, too_many};
use crate::query::stack::of_panic;
use crate::session::settings::Settings;
use crate::session::{Interruption, Session, Status};

/// Room for one read of a client that sends little.
const READ_BYTES_MIN: usize = 4 * 1024;
/// Room for one read of a client that sends a lot.
const READ_BYTES_MAX: usize = 128 * 1024;
/// Bytes read ahead while a statement runs.
const READ_AHEAD_BYTES: usize = 64 * 1024;
/// The message Sync.
const SYNC: &[u8] = b"S\0\0\0\x04";

/// The receiving half.
pub(super) struct Input {
    reader: OwnedReadHalf,
    buffer: BytesMut,
    /// Messages that were decoded and not handled yet; they come before those in the buffer.
    ahead: VecDeque<SqlResult<Frontend>>,
    /// The last read filled all the room there was.
    has_more: bool,
}

impl Input {
    /// The next message; `None` at the end of the stream.
    pub(super) async fn next(&mut self) -> std::io::Result<Option<SqlResult<Frontend>>> {
        loop {
            if let Some(message) = self.take() {
                return Ok(Some(message));
            }
            if self.read().await? == 0 {
                return Ok(None);
            }
        }
    }

    /// The next message if it is here already.
    fn take(&mut self) -> Option<SqlResult<Frontend>> {
        match self.ahead.pop_front() {
            Some(message) => Some(message),
            None => frame::decode(&mut self.buffer).transpose(),
        }
    }

    /// The next message if it is here already and is one.
    pub(super) fn take_valid(&mut self) -> Option<Frontend> {
        match self.take()? {
            Ok(message) => Some(message),
            Err(error) => {
                self.ahead.push_front(Err(error));
                None
            }
        }
    }

    /// Gives back messages that were taken last, in their order.
    pub(super) fn put_back(&mut self, messages: Vec<Frontend>) {
        for message in messages.into_iter().rev() {
            self.ahead.push_front(Ok(message));
        }
    }

    /// Waits until it can be told whether the next message is Sync. A client that wants an answer sends something after it has
    /// asked for one to be made: Sync, Flush, or the next request.
    pub(super) async fn arrive(&mut self) {
        while self.ahead.is_empty() && self.buffer.len() < SYNC.len() && SYNC.starts_with(&self.buffer) {
            if !matches!(self.read().await, Ok(1..)) {
                return;
            }
        }
    }

    /// Whether the next message is here already and is Sync.
    pub(super) fn next_is_sync(&self) -> bool {
        match self.ahead.front() {
            Some(message) => matches!(message, Ok(Frontend::Sync)),
            None => self.buffer.starts_with(SYNC),
        }
    }

    /// Whether nothing is here that has not been handled.
    fn is_drained(&self) -> bool {
        self.ahead.is_empty() && self.buffer.is_empty()
    }

    /// Reads what is there; more at a time from a client that sends a lot.
    async fn read(&mut self) -> std::io::Result<usize> {
        if self.buffer.capacity() - self.buffer.len() < READ_BYTES_MIN {
            self.buffer.reserve(if self.has_more {
                READ_BYTES_MAX
            } else {
                READ_BYTES_MIN
            });
        }
        let room = self.buffer.capacity() - self.buffer.len();
        let read = self.reader.read_buf(&mut self.buffer).await?;
        self.has_more = read == room;
        Ok(read)
    }

    /// Completes when the client has gone; reads ahead a little to notice.
    async fn gone(&mut self) {
        while self.buffer.len() < READ_AHEAD_BYTES {
            if !matches!(self.read().await, Ok(1..)) {
                return;
            }
        }
        std::future::pending::<()>().await;
    }
}

/// A connection after startup.
pub(crate) struct Connection {
    pub(super) input: Input,
    pub(super) out: Output<OwnedWriteHalf>,
    pub(super) session: Session,
    pub(super) cancel: CancelHandle,
    pub(super) extended: Extended,
    shutdown: watch::Receiver<bool>,
}

impl Connection {
    /// Serves a socket to its end.
    pub(crate) async fn run(
        socket: TcpStream,
        shared: Arc<Shared>,
        shutdown: watch::Receiver<bool>,
    ) -> std::io::Result<()> {
        let (mut reader, writer) = socket.into_split();
        let (mut out, mut buffer) = (Output::new(writer), BytesMut::with_capacity(8 * 1024));
        let negotiated = startup::negotiate(&mut reader, &mut buffer, &mut out);
        let Ok(negotiated) = tokio::time::timeout(shared.options.pre_auth_timeout, negotiated).await else {
            out.error(&SqlError::new("57014", "startup took too long").fatal());
            return out.flush().await;
        };
        let (parameters, negotiate) = match negotiated {
            Ok(Startup::Session {
                parameters,
                negotiate,
            }) => (parameters, negotiate),
            Ok(Startup::Cancel { process, secret }) => {
                shared.keys.cancel(process, secret);
                return Ok(());
            }
            Ok(Startup::Closed) => return Ok(()),
            Err(error) => {
                out.error(&error);
                return out.flush().await;
            }
        };
        let Ok(_permit) = Arc::clone(&shared.sessions).try_acquire_owned() else {
            out.error(&too_many());
            return out.flush().await;
        };
        if let Some(options) = negotiate {
            out.negotiate(&options);
        }
        let user = parameters.get("user").cloned().unwrap_or_default();
        let settings = match initial_settings(&parameters) {
            Ok(settings) => settings,
            Err(error) => {
                out.error(&error.fatal());
                return out.flush().await;
            }
        };
        let cancel = shared.keys.register();
        out.authenticated();
        for (name, value) in settings.reported() {
            out.parameter_status(name, &value);
        }
        out.key_data(cancel.process, cancel.secret);
        out.ready(TransactionStatus::Idle);
        let memory = shared.options.statement_memory_bytes_max;
        let session = Session::new(
            Arc::clone(&shared.backend),
            user,
            cancel.process,
            settings,
            memory,
        );
        let input = Input {
            reader,
            buffer,
            ahead: VecDeque::new(),
            has_more: false,
        };
        let connection = Self {
            input,
            out,
            session,
            cancel,
            extended: Extended::default(),
            shutdown,
        };
        connection.serve().await
    }

    async fn serve(mut self) -> std::io::Result<()> {
        loop {
            if self.input.is_drained() {
                self.out.flush().await?;
            }
            let message = match self.next_message().await? {
                Some(Ok(message)) => message,
                Some(Err(error)) => {
                    self.out.error(&error);
                    if error.fatal {
                        return self.out.flush().await;
                    }
                    // A damaged message of the extended protocol is answered for at its Sync.
                    self.session.fail();
                    self.extended.skip_to_sync();
                    continue;
                }
                None => return Ok(()),
            };
            let handled = match message {
                Frontend::Terminate => return self.out.flush().await,
                Frontend::Query(sql) => {
                    self.extended.forget_unnamed();
                    Box::pin(self.simple_query(sql)).await
                }
                // Left over from a COPY that failed.
                Frontend::CopyData(_) | Frontend::CopyDone | Frontend::CopyFail(_) => Ok(()),
                other => self.extended_message(other).await,
            };
            if let Err(error) = handled {
                self.out.error(&error);
                return self.out.flush().await;
            }
        }
    }

    /// Waits for a message, the server's end, or the end of a transaction's idle time.
    async fn next_message(&mut self) -> std::io::Result<Option<SqlResult<Frontend>>> {
        let idle = match self.session.status() {
            Status::Idle => None,
            _ => self
                .session
                .with_settings(|settings| settings.idle_in_transaction_timeout()),
        };
        if self.input.is_drained() {
            self.out.flush().await?;
        }
        let idle_end = async {
            match idle {
                Some(time) => tokio::time::sleep(time).await,
                None => std::future::pending().await,
            }
        };
        // A message that is only half here keeps what was answered so far from the client otherwise.
        let flushed = &mut self.out;
        tokio::select! {
            biased;
            message = next_flushing(&mut self.input, flushed) => message,
            _ = self.shutdown.wait_for(|stop| *stop) => {
                let error = SqlError::new(sqlstate::ADMIN_SHUTDOWN, "terminating connection due to administrator command");
                Ok(Some(Err(error.fatal())))
            }
            () = idle_end => {
                let error = SqlError::new("25P03", "terminating connection due to idle-in-transaction timeout");
                Ok(Some(Err(error.fatal())))
            }
        }
    }

    /// Tells the client what the session has to say beside its results.
    pub(super) fn announce(&mut self) {
        for notice in self.session.take_notices() {
            self.out.notice(&notice);
        }
        for (name, value) in self.session.take_reported() {
            self.out.parameter_status(name, &value);
        }
    }

    /// Ends a query: the client may send the next.
    pub(super) fn ready(&mut self) {
        self.announce();
        self.out.ready(match self.session.status() {
            Status::Idle => TransactionStatus::Idle,
            Status::Open => TransactionStatus::Transaction,
            Status::Failed => TransactionStatus::Error,
        });
    }
}

async fn next_flushing(
    input: &mut Input,
    out: &mut Output<OwnedWriteHalf>,
) -> std::io::Result<Option<SqlResult<Frontend>>> {
    match input.take() {
        Some(message) => Ok(Some(message)),
        None => {
            out.flush().await?;
            input.next().await
        }
    }
}

fn initial_settings(parameters: &std::collections::BTreeMap<String, String>) -> SqlResult<Settings> {
    let mut settings = Settings::default();
    for (name, value) in parameters {
        match name.as_str() {
            "user" => settings.fix("session_authorization", value),
            // There is one database; a client may call it what it likes.
            "database" | "replication" => {}
            "options" => apply_options(&mut settings, value)?,
            _ => settings.start_with(name, value)?,
        }
    }
    Ok(settings)
}

/// `options=-c name=value`, as libpq sends `PGOPTIONS`.
fn apply_options(settings: &mut Settings, options: &str) -> SqlResult<()> {
    let mut words = options.split_whitespace();
    while let Some(word) = words.next() {
        let assignment = match word.strip_prefix("-c") {
            Some("") => words.next(),
            Some(rest) => Some(rest),
            None => word.strip_prefix("--"),
        };
        let Some((name, value)) = assignment.and_then(|assignment| assignment.split_once('=')) else {
            return Err(SqlError::new(
                sqlstate::SYNTAX_ERROR,
                format!("invalid command-line argument: {word}"),
            ));
        };
        settings.start_with(name, value)?;
    }
    Ok(())
}

/// Runs (a part of) a statement: ends early when it is canceled, out of time, or its client has gone.
pub(super) async fn guarded<T>(
    guard: &Guard<'_>,
    input: &mut Input,
    work: impl Future<Output = SqlResult<T>>,
) -> SqlResult<T> {
    let deadline = guard.deadline;
    let timeout = async {
        match deadline {
            Some(deadline) => tokio::time::sleep_until(deadline).await,
            None => std::future::pending().await,
        }
    };
    let interrupted = async {
        tokio::select! {
            () = guard.running.canceled() => {
                SqlError::new(sqlstate::QUERY_CANCELED, "canceling statement due to user request")
            }
            () = timeout => {
                SqlError::new(sqlstate::QUERY_CANCELED, "canceling statement due to statement timeout")
                    .hint("SET statement_timeout = 0 removes the limit")
            }
            () = input.gone() => SqlError::new("08006", "the client has gone").fatal(),
        }
    };
    let mut work = std::pin::pin!(AssertUnwindSafe(work).catch_unwind());
    // The interruption is polled first and outside of the task's budget: a busy query spends the whole budget in each
    // poll, and would never let it be seen.
    let done = tokio::select! {
        biased;
        error = tokio::task::unconstrained(interrupted) => match guard.interruption.must_wait() {
            true => {
                let done = work.await;
                match guard.interruption.take_pending() {
                    true => done,
                    // It was taken: nothing was written.
                    false => return Err(error),
                }
            }
            false => return Err(error),
        },
        done = &mut work => done,
    };
    done.unwrap_or_else(|panic| Err(of_panic(panic.as_ref())))
}

/// What can interrupt a statement, and whether it may.
pub(super) struct Guard<'a> {
    running: RunningStatement<'a>,
    deadline: Option<Instant>,
    interruption: Arc<Interruption>,
}

impl<'a> Guard<'a> {
    /// The guard of a statement that starts now.
    pub(super) fn new(signal: &'a CancelSignal, session: &Session, timeout: Option<Duration>) -> Self {
        let deadline = timeout.map(|timeout| Instant::now() + timeout);
        Self {
            running: signal.start(),
            deadline,
            interruption: session.interruption(),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn whether_sync_comes_next_is_told_once_it_can_be() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("it is bound");
        let mut client = TcpStream::connect(address).await.expect("it listens");
        let (reader, _writer) = listener.accept().await.expect("a client").0.into_split();
        let mut input = Input {
            reader,
            buffer: BytesMut::new(),
            ahead: VecDeque::new(),
            has_more: false,
        };
        client.write_all(&SYNC[..2]).await.expect("sent");
        let rest = async {
            // Long after what runs has asked.
            tokio::time::sleep(Duration::from_millis(50)).await;
            client.write_all(&SYNC[2..]).await.expect("sent");
        };
        tokio::join!(input.arrive(), rest);
        assert!(input.next_is_sync());
        input.buffer.clear();
        client.write_all(b"H\0\0\0\x04").await.expect("sent");
        input.arrive().await;
        assert!(!input.next_is_sync(), "a client that wants its answer now");
        input.buffer.clear();
        drop(client);
        input.arrive().await;
        assert!(!input.next_is_sync(), "nothing comes any more");
    }
}
