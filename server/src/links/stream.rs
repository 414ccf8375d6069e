//! One connection while it lasts: bytes to messages and news to the region's thread, in order.

use std::sync::Arc;

use arrow_flight::FlightData;
use futures::StreamExt;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tributary_replication::link::Message;

use super::registry::Claim;
use super::{INBOUND_BYTES_MAX, PERMIT_BYTES, Shared};
use crate::node::{LinkEvent, LinkNews, Outbox, Request};

/// The outgoing half: messages as Flight data, until the outbox is dropped.
pub(super) fn outgoing(queue: mpsc::Receiver<Message>) -> impl futures::Stream<Item = FlightData> {
    let sent = metrics::counter!("tributary_link_bytes_total", "direction" => "out");
    ReceiverStream::new(queue).map(move |message| {
        let bytes = message.encode();
        sent.increment(bytes.len() as u64);
        FlightData {
            data_body: bytes,
            ..FlightData::default()
        }
    })
}

/// The incoming half.
pub(super) struct Incoming {
    /// The socket's side.
    pub stream: Streaming<FlightData>,
    /// Turns true when the region's thread dropped the outbox.
    pub closed: watch::Receiver<bool>,
    /// The message that said who the peer is, if it was read already; with its size.
    pub first: Option<(Message, usize)>,
}

/// Carries news of a claimed connection to the region until it ends; says why it ended.
pub(super) async fn carry(
    shared: &Arc<Shared>,
    peer: &str,
    claim: Claim,
    outbox: Outbox,
    mut incoming: Incoming,
) -> String {
    let Claim {
        generation,
        mut cancelled,
    } = claim;
    let event = |news| {
        Request::Link(LinkEvent {
            peer: peer.to_owned(),
            generation,
            news,
        })
    };
    let mut ended = None;
    if shared.requests.send(event(LinkNews::Up(outbox))).await.is_err() {
        ended = Some("the node is stopping".to_owned());
    }
    let received = metrics::counter!("tributary_link_bytes_total", "direction" => "in");
    let mut next = incoming.first.take();
    while ended.is_none() {
        let (message, size) = match next.take() {
            Some(first) => first,
            None => {
                let read = tokio::select! {
                    biased;
                    _ = cancelled.wait_for(|cancelled| *cancelled) => Err("another connection took over".to_owned()),
                    _ = incoming.closed.wait_for(|closed| *closed) => Err("closed by this region".to_owned()),
                    read = read(&mut incoming.stream) => read,
                };
                match read {
                    Ok(read) => read,
                    Err(reason) => {
                        ended = Some(reason);
                        break;
                    }
                }
            }
        };
        received.increment(size as u64);
        let permits = size.min(INBOUND_BYTES_MAX) / PERMIT_BYTES;
        let permits = u32::try_from(permits).unwrap_or(u32::MAX);
        let Ok(permit) = shared.inbound.clone().acquire_many_owned(permits).await else {
            break;
        };
        if shared
            .requests
            .send(event(LinkNews::Message { message, permit }))
            .await
            .is_err()
        {
            ended = Some("the node is stopping".to_owned());
        }
    }
    let _ = shared.requests.send(event(LinkNews::Down)).await;
    shared.registry.release(peer, generation);
    ended.unwrap_or_else(|| "the node is stopping".to_owned())
}

/// The next message of a stream. Bytes that are none end the connection, and are counted.
pub(super) async fn read(stream: &mut Streaming<FlightData>) -> Result<(Message, usize), String> {
    let data = match stream.message().await {
        Ok(Some(data)) => data,
        Ok(None) => return Err("the peer closed it".to_owned()),
        Err(status) => return Err(status.message().to_owned()),
    };
    let size = data.data_body.len();
    match Message::decode(&data.data_body) {
        Ok(message) => Ok((message, size)),
        Err(error) => {
            metrics::counter!("tributary_peer_damaged_total").increment(1);
            tracing::warn!(%error, size, "a peer sent bytes that are no message");
            Err(format!("damaged message: {error}"))
        }
    }
}
