//! What anybody can send to the port for peers: it is refused, logged and counted, and the region goes on.

use std::time::Duration;

use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::{Action, FlightData};
use bytes::Bytes;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tonic::transport::{Channel, Endpoint};
use tributary_replication::Frontier;
use tributary_replication::link::{Hello, Message};

use crate::running::{Running, rows};

async fn dial(running: &Running) -> FlightServiceClient<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{}", running.peer)).expect("an address");
    FlightServiceClient::new(endpoint.connect().await.expect("the port is open"))
}

/// Sends one message on a link stream and returns what comes back before the other side closes it.
async fn answers(running: &Running, bytes: Bytes) -> Vec<Message> {
    let data = FlightData {
        data_body: bytes,
        ..FlightData::default()
    };
    // The stream stays open: it is the other side that ends it.
    let outgoing = futures::StreamExt::chain(
        futures::stream::once(async move { data }),
        futures::stream::pending(),
    );
    let mut client = dial(running).await;
    let mut incoming = client
        .do_exchange(outgoing)
        .await
        .expect("it is a stream")
        .into_inner();
    let mut answers = Vec::new();
    let reading = async {
        while let Ok(Some(data)) = incoming.message().await {
            answers.push(Message::decode(&data.data_body).expect("the region sends messages"));
        }
    };
    tokio::time::timeout(Duration::from_secs(10), reading)
        .await
        .expect("the stream is closed");
    answers
}

pub fn hello(name: &str) -> Bytes {
    let hello = Hello {
        session: 1,
        answers: None,
        format: tributary_replication::link::LINK_FORMAT,
        name: name.to_owned(),
        cluster: None,
        origin: None,
        frontier: Frontier::new(),
        chains: Vec::new(),
        standings: Vec::new(),
    };
    Message::Hello(Box::new(hello)).encode()
}

fn refusal(answers: &[Message]) -> String {
    match answers {
        [Message::Refuse { reason }] => reason.clone(),
        other => panic!("expected a refusal, got {other:?}"),
    }
}

#[tokio::test]
async fn strangers_and_damaged_bytes_are_refused_and_counted() {
    let data = tempfile::tempdir().expect("a temporary directory");
    let running = Running::start(data.path()).await;

    let mut socket = TcpStream::connect(running.peer).await.expect("the port is open");
    socket
        .write_all(b"this is not HTTP/2 at all\r\n\r\n")
        .await
        .expect("it is read");
    drop(socket);

    let reason = refusal(&answers(&running, hello("mars")).await);
    assert!(
        reason.contains("\"mars\" is neither a configured peer"),
        "{reason}"
    );
    let damaged = {
        let mut bytes = hello("mars").to_vec();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        Bytes::from(bytes)
    };
    let reason = refusal(&answers(&running, damaged).await);
    assert!(reason.contains("damaged"), "{reason}");
    let reason = refusal(
        &answers(
            &running,
            Message::Ack {
                frontier: Frontier::new(),
            }
            .encode(),
        )
        .await,
    );
    assert!(reason.contains("no introduction"), "{reason}");

    let mut client = dial(&running).await;
    for (kind, body) in [("ddl", "DROP TABLE everything"), ("no such action", ""), ("", "")] {
        let action = Action {
            r#type: kind.to_owned(),
            body: Bytes::from(body),
        };
        client.do_action(action).await.expect_err(kind);
    }

    let metrics = running.get("/metrics").await;
    let count = |name: &str| {
        let line = metrics.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.rsplit(' ').next())
            .and_then(|count| count.parse::<u64>().ok())
    };
    assert_eq!(
        count("tributary_peer_refused_total{peer=\"unknown\"}"),
        Some(3),
        "{metrics}"
    );
    assert_eq!(count("tributary_peer_damaged_total"), Some(1), "{metrics}");
    assert_eq!(rows(&running.connect().await, "SELECT 1").await, ["1"]);
    assert_eq!(running.terminate().await, Some(0));
}
