//! The side that is dialled: the Flight service.
//!
//! Of Flight `DoExchange` (the link), `DoAction` (see [`super::actions`]) and `DoGet` (scans of this region's rows, see
//! [`crate::far`]) are served; the rest answers `UNIMPLEMENTED`. A stream has [`INTRODUCE_MAX`] to say who it is, and at most [`STRANGERS_MAX`] streams may
//! be at that point at once. With certificates every request comes with the name that was proven at the handshake,
//! and what it says of its sender has to be that name.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use arrow_flight::flight_service_server::{FlightService, FlightServiceServer};
use arrow_flight::{
    Action, ActionType, Criteria, Empty, FlightData, FlightDescriptor, FlightInfo, HandshakeRequest,
    HandshakeResponse, PollInfo, PutResult, SchemaResult, Ticket,
};
use bytes::Bytes;
use datafusion::error::DataFusionError;
use futures::{Stream, StreamExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};
use tributary_replication::bundle::encode_rows;
use tributary_replication::link::Message;

use super::actions::{ClusterReply, DdlRequest, Kind, StandingRequest};
use super::client::NO_ROOM;
use super::stream::{Incoming, carry, outgoing, read};
use super::tls::accept::incoming;
use super::tls::socket::Certified;
use super::{MESSAGE_BYTES_MAX, OUTBOX_MESSAGES_MAX, PERMIT_BYTES, PeerTls, SCANS_MAX, Shared, refused};
use crate::copy::COPY_BYTES_MAX;
use crate::far::forward::{Errand, WireError};
use crate::far::request::{NoRequest, Request as FarRequest};
use crate::far::{END_OF_SCAN, FAILED, Opened};
use crate::node::Outbox;
use crate::pgwire::error::SqlError;

const INTRODUCE_MAX: Duration = Duration::from_secs(5);
const STRANGERS_MAX: usize = 64;
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(3);
const KEEPALIVE_MAX: Duration = Duration::from_secs(6);
const WINDOW_BYTES: u32 = 4 << 20;
/// The longest request for rows: a long list of values may be in it.
const SCAN_BYTES_MAX: usize = 16 << 20;
/// Batches of a scan that wait for the wire.
const SCAN_BATCHES_AHEAD: usize = 2;
const DDL_BYTES_MAX: usize = 16 << 20;
/// Bytes of all statements of other regions that are being carried out; more are refused, and asked again. It is apart
/// from what links may take: a statement may wait for a region that is behind, and that must not stop the link which ends
/// the wait.
const STATEMENTS_BYTES_MAX: usize = 256 << 20;

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Serves until `shutdown` turns true.
pub(super) async fn serve(
    shared: Arc<Shared>,
    listener: TcpListener,
    tls: Option<PeerTls>,
    mut shutdown: watch::Receiver<bool>,
) -> Result<(), tonic::transport::Error> {
    let service = Service {
        shared,
        secure: tls.is_some(),
        strangers: Arc::new(Semaphore::new(STRANGERS_MAX)),
        scans: Arc::new(Semaphore::new(SCANS_MAX)),
        statements: Arc::new(Semaphore::new(STATEMENTS_BYTES_MAX / PERMIT_BYTES)),
    };
    let service = FlightServiceServer::new(service)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let router = Server::builder()
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(2 * WINDOW_BYTES)
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_MAX))
        .add_service(service);
    let stopped = async move {
        let _ = shutdown.wait_for(|shutdown| *shutdown).await;
    };
    match tls {
        Some(tls) => {
            let proven = incoming(listener, tls);
            router.serve_with_incoming_shutdown(proven, stopped).await
        }
        None => {
            let plain = TcpIncoming::from(listener).with_nodelay(Some(true));
            router.serve_with_incoming_shutdown(plain, stopped).await
        }
    }
}

struct Service {
    shared: Arc<Shared>,
    /// Whether requests come with proven names.
    secure: bool,
    strangers: Arc<Semaphore>,
    scans: Arc<Semaphore>,
    /// Bounds the bytes of statements.
    statements: Arc<Semaphore>,
}

/// Finds out who dialled, and carries the connection if it may be.
async fn accept(
    shared: Arc<Shared>,
    mut stream: Streaming<FlightData>,
    outbox: Outbox,
    closed: watch::Receiver<bool>,
    stranger: tokio::sync::OwnedSemaphorePermit,
    proven: Option<Certified>,
) {
    let refuse = |outbox: Outbox, reason: String| {
        refused(label(proven.as_ref()), &reason);
        outbox.send(Message::Refuse { reason });
    };
    let introduction = tokio::time::timeout(INTRODUCE_MAX, read(&mut stream)).await;
    drop(stranger);
    let (message, size) = match introduction {
        Ok(Ok(read)) => read,
        Ok(Err(reason)) => return refuse(outbox, reason),
        Err(_) => return refuse(outbox, "no introduction in time".to_owned()),
    };
    let Some(peer) = introduced_as(&message) else {
        return refuse(outbox, "the first message is no introduction".to_owned());
    };
    if !shared.node.peers().admits(&peer) {
        let peer: String = peer.chars().take(64).collect();
        return refuse(
            outbox,
            format!(
                "region {peer:?} is neither a configured peer of {:?} nor a member",
                shared.region
            ),
        );
    }
    if let Some(other) = proven.as_ref().filter(|proven| *proven.0 != *peer) {
        return refuse(outbox, other_name(&peer, other));
    }
    let Some(claim) = shared.registry.claim(&peer, false) else {
        tracing::debug!(peer, "a second connection is not needed");
        return;
    };
    tracing::info!(peer, "connected by the peer");
    let incoming = Incoming {
        stream,
        closed,
        first: Some((message, size)),
    };
    let reason = carry(&shared, &peer, claim, outbox, incoming).await;
    tracing::info!(peer, reason, "connection ended");
}

/// Who is refused, in metrics. Names that are proven are those of configured peers.
fn label(proven: Option<&Certified>) -> &str {
    proven.map_or("unknown", |proven| &proven.0)
}

fn other_name(claimed: &str, proven: &Certified) -> String {
    format!(
        "it claims to be region {claimed:?} with the certificate of region {:?}",
        &*proven.0
    )
}

/// A scan on a thread of its own, no further ahead of the wire than a few batches: how it was opened, then its rows.
fn scan(shared: &Arc<Shared>, request: FarRequest, permit: OwnedSemaphorePermit) -> Answers<FlightData> {
    let (batches, queue) = tokio::sync::mpsc::channel(SCAN_BATCHES_AHEAD);
    let node = shared.node.clone();
    tokio::task::spawn_blocking(move || {
        let _permit = permit;
        let message = |body: Vec<u8>| FlightData {
            data_body: body.into(),
            ..FlightData::default()
        };
        let opened = node.open_scan(&request);
        let answer = opened.as_ref().err().cloned().unwrap_or(Opened::Rows);
        let answer = postcard::to_stdvec(&answer).expect("an answer is plain data");
        // Whoever does not read any more does not want the rest.
        if batches.blocking_send(Ok(message(answer))).is_err() {
            return;
        }
        let Ok(opened) = opened else { return };
        for batch in opened {
            let sent = match batch {
                Ok(batch) => batches.blocking_send(Ok(message(encode_rows(&batch)))),
                Err(error) => {
                    let _ = batches.blocking_send(failed(&request, error).map(message));
                    return;
                }
            };
            if sent.is_err() {
                return;
            }
        }
        // Without this the rows are not all there are, whatever ended the stream.
        let _ = batches.blocking_send(Ok(message(END_OF_SCAN.to_vec())));
    });
    Box::pin(ReceiverStream::new(queue))
}

/// What is said of an error on the way: one of what was computed is the statement's own, and goes along whole.
fn failed(request: &FarRequest, error: DataFusionError) -> Result<Vec<u8>, Status> {
    match request {
        FarRequest::Rows(_) => Err(Status::internal(error.to_string())),
        FarRequest::States(_) => {
            let error = WireError::from(SqlError::from(error));
            Ok(postcard::to_extend(&error, FAILED.to_vec()).expect("an error is plain data"))
        }
    }
}

/// The sender's name in a `Hello`.
fn introduced_as(message: &Message) -> Option<String> {
    match message {
        Message::Hello(hello) => Some(hello.name.clone()),
        _ => None,
    }
}

fn answer<T: Serialize>(answer: &T) -> Response<Answers<arrow_flight::Result>> {
    let body = postcard::to_stdvec(answer).expect("an answer is plain data");
    let one = futures::stream::once(async { Ok(arrow_flight::Result { body: body.into() }) });
    Response::new(Box::pin(one))
}

fn not_served<T>(what: &str) -> Result<T, Status> {
    Err(Status::unimplemented(format!(
        "{what} is not served here; SQL clients connect to the SQL port"
    )))
}

impl Service {
    /// What an action of a region that may ask says, and the room that it takes while it is carried out; the bytes
    /// themselves go.
    fn read<T: DeserializeOwned>(
        &self,
        what: &str,
        body: Bytes,
        bytes_max: usize,
        proven: Option<&Certified>,
    ) -> Result<(T, OwnedSemaphorePermit), Status> {
        if body.len() > bytes_max {
            return Err(Status::invalid_argument("the request is too long"));
        }
        // All of these begin with who asks.
        let from = postcard::take_from_bytes::<&str>(&body);
        let (from, _) = from.map_err(|_| Status::invalid_argument("the request cannot be read"))?;
        self.admit(what, from, proven)?;
        let permits = u32::try_from(body.len().div_ceil(PERMIT_BYTES)).unwrap_or(u32::MAX);
        let Ok(room) = self.statements.clone().try_acquire_many_owned(permits) else {
            return Err(Status::new(NO_ROOM, "too many statements of other regions"));
        };
        let request = postcard::from_bytes(&body);
        let request = request.map_err(|_| Status::invalid_argument("the request cannot be read"))?;
        Ok((request, room))
    }

    /// Refuses what comes from somebody else than a region that may ask.
    fn admit(&self, what: &str, from: &str, proven: Option<&Certified>) -> Result<(), Status> {
        let refuse = |reason: String| {
            refused(label(proven), &format!("{what}: {reason}"));
            Err(Status::permission_denied(reason))
        };
        if !self.shared.node.peers().may_ask(from) {
            return refuse("it is no member".to_owned());
        }
        match proven.filter(|proven| *proven.0 != *from) {
            Some(other) => refuse(other_name(from, other)),
            None => Ok(()),
        }
    }

    /// The proven name of a request's sender; `None` where names are not proven.
    fn proven<T>(&self, request: &Request<T>) -> Result<Option<Certified>, Status> {
        match request.extensions().get::<Certified>() {
            None if self.secure => Err(Status::unauthenticated("no certificate")),
            proven => Ok(proven.cloned()),
        }
    }
}

#[tonic::async_trait]
impl FlightService for Service {
    type HandshakeStream = Answers<HandshakeResponse>;
    type ListFlightsStream = Answers<FlightInfo>;
    type DoGetStream = Answers<FlightData>;
    type DoPutStream = Answers<PutResult>;
    type DoExchangeStream = Answers<FlightData>;
    type DoActionStream = Answers<arrow_flight::Result>;
    type ListActionsStream = Answers<ActionType>;

    async fn do_exchange(
        &self,
        request: Request<Streaming<FlightData>>,
    ) -> Result<Response<Self::DoExchangeStream>, Status> {
        let Ok(stranger) = self.strangers.clone().try_acquire_owned() else {
            return Err(Status::resource_exhausted(
                "too many connections without an introduction",
            ));
        };
        let proven = self.proven(&request)?;
        let (outbox, queue, closed) = Outbox::new(OUTBOX_MESSAGES_MAX);
        // The answer's headers must go out before the peer introduces itself, so that happens beside.
        tokio::spawn(accept(
            self.shared.clone(),
            request.into_inner(),
            outbox,
            closed,
            stranger,
            proven,
        ));
        let sent = outgoing(queue).map(Ok);
        Ok(Response::new(Box::pin(sent)))
    }

    async fn do_action(&self, request: Request<Action>) -> Result<Response<Self::DoActionStream>, Status> {
        let proven = self.proven(&request)?;
        let Action { r#type, body } = request.into_inner();
        match Kind::named(&r#type) {
            Some(Kind::Cluster) => {
                let cluster = self.shared.node.newest().catalog.cluster;
                Ok(answer(&ClusterReply { cluster }))
            }
            Some(Kind::Ddl) => {
                let (request, _room) =
                    self.read::<DdlRequest>("DDL", body, DDL_BYTES_MAX, proven.as_ref())?;
                Ok(answer(&self.shared.node.answer_ddl(request).await))
            }
            Some(Kind::Forward) => {
                let (request, room) = self.read("a statement", body, DDL_BYTES_MAX, proven.as_ref())?;
                let errand = Errand::Statement(request);
                Ok(answer(&self.shared.node.answer_errand(errand, room).await))
            }
            Some(Kind::Copy) => {
                let bytes_max = COPY_BYTES_MAX + DDL_BYTES_MAX;
                let (request, room) = self.read("a statement", body, bytes_max, proven.as_ref())?;
                let errand = Errand::Copy(request);
                Ok(answer(&self.shared.node.answer_errand(errand, room).await))
            }
            Some(Kind::Standing) => {
                let request: StandingRequest = postcard::from_bytes(&body)
                    .map_err(|_| Status::invalid_argument("the request cannot be read"))?;
                if let Some(other) = proven.as_ref().filter(|proven| *proven.0 != *request.region) {
                    let reason = other_name(&request.region, other);
                    refused(label(Some(other)), &format!("a question: {reason}"));
                    return Err(Status::permission_denied(reason));
                }
                Ok(answer(&self.shared.node.answer_standing(&request.region)))
            }
            None => Err(Status::invalid_argument("no such action")),
        }
    }

    async fn list_actions(&self, _: Request<Empty>) -> Result<Response<Self::ListActionsStream>, Status> {
        let types = Kind::ALL.map(|kind| {
            Ok(ActionType {
                r#type: kind.name().to_owned(),
                description: "between regions".to_owned(),
            })
        });
        Ok(Response::new(Box::pin(futures::stream::iter(types))))
    }

    async fn handshake(
        &self,
        _: Request<Streaming<HandshakeRequest>>,
    ) -> Result<Response<Self::HandshakeStream>, Status> {
        not_served("Handshake")
    }

    async fn list_flights(&self, _: Request<Criteria>) -> Result<Response<Self::ListFlightsStream>, Status> {
        not_served("ListFlights")
    }

    async fn get_flight_info(&self, _: Request<FlightDescriptor>) -> Result<Response<FlightInfo>, Status> {
        not_served("GetFlightInfo")
    }

    async fn poll_flight_info(&self, _: Request<FlightDescriptor>) -> Result<Response<PollInfo>, Status> {
        not_served("PollFlightInfo")
    }

    async fn get_schema(&self, _: Request<FlightDescriptor>) -> Result<Response<SchemaResult>, Status> {
        not_served("GetSchema")
    }

    async fn do_get(&self, request: Request<Ticket>) -> Result<Response<Self::DoGetStream>, Status> {
        let proven = self.proven(&request)?;
        let ticket = request.into_inner().ticket;
        if ticket.len() > SCAN_BYTES_MAX {
            return Err(Status::invalid_argument("the request is too long"));
        }
        let unread = |error| match error {
            NoRequest::Unreadable => Status::invalid_argument("the request cannot be read"),
            NoRequest::OtherEngine => Status::invalid_argument("the request is of another version"),
        };
        // A request takes more memory than its bytes: it is read once it is known that it may be.
        self.admit(
            "rows",
            FarRequest::sender(&ticket).map_err(unread)?,
            proven.as_ref(),
        )?;
        let Ok(permit) = self.scans.clone().try_acquire_owned() else {
            return Err(Status::resource_exhausted("too many scans of other regions"));
        };
        let request = FarRequest::from_bytes(&ticket).map_err(unread)?;
        Ok(Response::new(scan(&self.shared, request, permit)))
    }

    async fn do_put(&self, _: Request<Streaming<FlightData>>) -> Result<Response<Self::DoPutStream>, Status> {
        not_served("DoPut")
    }
}
