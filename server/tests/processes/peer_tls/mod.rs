//! Regions that prove to each other who they are, and all that cannot.

mod secured;
mod stranger;

use std::process::Stdio;
use std::time::Duration;

use arrow_flight::{Action, FlightData};
use futures::StreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tributary_replication::link::Message;
use tributary_server::certs::Issued;
use tributary_server::links::actions::{DdlRequest, StandingReply, StandingRequest};

use crate::peer_port::hello;
use crate::running::{BINARY, Running, failed_start_as, rows, run, wait_for_rows};
use secured::{Secured, authority, counted, days, hang_up, issue, wait_for_count};

const REFUSED_UNKNOWN: &str = "tributary_peer_refused_total{peer=\"unknown\"}";
/// What every client says first.
const HTTP2: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const TLS_ALERT: u8 = 21;
const REFUSED_EU: &str = "tributary_peer_refused_total{peer=\"eu\"}";

async fn wait_up(running: &Running, peer: &str) {
    let sql = format!("SELECT state, secure FROM tributary.links WHERE peer = '{peer}'");
    wait_for_rows(&running.connect().await, &sql, &["up|t".to_owned()]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_regions_with_generated_certificates_agree() {
    let regions = ["us", "eu", "ap"];
    let secured = Secured::new(&regions);
    let certs = tempfile::tempdir().expect("a temporary directory");
    let made = Command::new(BINARY)
        .args([
            "gen", "certs", "--region", "us", "--region", "eu", "--region", "ap",
        ])
        .arg("--out")
        .arg(certs.path())
        .stdout(Stdio::null())
        .status()
        .await
        .expect("the binary runs");
    assert!(made.success());
    let mut running = Vec::new();
    for region in regions {
        let file = |name: String| certs.path().join(name);
        let (cert, key) = (file(format!("{region}.pem")), file(format!("{region}.key")));
        let command = secured.command_with(region, &cert, &key, &file("ca.pem".to_owned()));
        running.push(secured.start_by(region, command).await);
    }
    for (region, other) in running.iter().zip(["eu", "ap", "us"]) {
        wait_up(region, other).await;
    }
    // From a region that is not the primary: this is an action, not the link.
    let eu = running[1].connect().await;
    run(&eu, "CREATE TABLE orders (id bigint PRIMARY KEY, units bigint)").await;
    run(
        &eu,
        "CREATE MATERIALIZED VIEW total AS SELECT count(*) AS orders, sum(units) AS units FROM orders",
    )
    .await;
    for region in &running {
        wait_for_rows(
            &region.connect().await,
            "SELECT orders FROM total",
            &["0".to_owned()],
        )
        .await;
    }
    for (id, region) in running.iter().enumerate() {
        let client = region.connect().await;
        run(&client, &format!("INSERT INTO orders VALUES ({id}, 10)")).await;
    }
    for region in &running {
        let client = region.connect().await;
        wait_for_rows(&client, "SELECT orders, units FROM total", &["3|30".to_owned()]).await;
        let metrics = region.get("/metrics").await;
        assert!(!metrics.contains("tributary_peer_refused_total{"), "{metrics}");
    }
    for region in running {
        assert_eq!(region.terminate().await, Some(0));
    }
}

/// What a region says to a link stream that begins with this name, before it closes it.
async fn introduced_as(running: &Running, own: &Issued, name: &str) -> Vec<Message> {
    let data = FlightData {
        data_body: hello(name),
        ..FlightData::default()
    };
    let outgoing = futures::stream::once(async move { data }).chain(futures::stream::pending());
    let mut client = stranger::dial(running.peer, own).await;
    let stream = client.do_exchange(outgoing).await.expect("it is a stream");
    let mut incoming = stream.into_inner();
    let mut answers = Vec::new();
    let reading = async {
        while let Ok(Some(data)) = incoming.message().await {
            answers.push(Message::decode(&data.data_body).expect("the region sends messages"));
        }
    };
    let read = tokio::time::timeout(Duration::from_secs(10), reading);
    read.await.expect("the stream is closed");
    answers
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_cannot_prove_a_name_is_refused_and_counted() {
    let secured = Secured::new(&["us", "eu", "ap"]);
    let (ours, other) = (authority(), authority());
    secured.install("us", &ours, &issue(&ours, "us"));
    let us = secured.start("us").await;

    // Without TLS.
    let mut plain = TcpStream::connect(us.peer).await.expect("the port is open");
    plain.write_all(HTTP2).await.expect("it is read");
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer).await;
    assert!(
        matches!(answer.first(), None | Some(&TLS_ALERT)),
        "something is said without TLS: {answer:?}"
    );
    wait_for_count(&us, REFUSED_UNKNOWN, 1).await;
    secured.wait_for_log("us", "what was sent is not TLS").await;

    // With TLS, but without a certificate that is believed.
    let expired = ours.issue("eu", days(-9, -2)).expect("a certificate");
    let early = ours.issue("eu", days(2, 9)).expect("a certificate");
    let cases = [
        (None, "no certificate was presented"),
        (
            Some(issue(&other, "eu")),
            "is not signed by a CA that is trusted here",
        ),
        (Some(expired), "the certificate expired at"),
        (Some(early), "the certificate is not valid before"),
        (
            Some(issue(&ours, "mars")),
            "\"mars\", which is neither a configured peer nor a member",
        ),
        (
            Some(issue(&ours, "us")),
            "\"us\", which is neither a configured peer nor a member",
        ),
    ];
    let mut refused = 1;
    for (own, reason) in &cases {
        // In TLS 1.3 the answer to a certificate comes after the handshake.
        if let Ok(mut socket) = stranger::handshake(us.peer, own.as_ref(), &TLS13).await {
            let _ = socket.write_all(HTTP2).await;
            socket.read_u8().await.expect_err(reason);
        }
        refused += 1;
        wait_for_count(&us, REFUSED_UNKNOWN, refused).await;
        secured.wait_for_log("us", reason).await;
    }
    let older = stranger::handshake(us.peer, Some(&issue(&ours, "eu")), &TLS12).await;
    older.expect_err("TLS 1.2");
    wait_for_count(&us, REFUSED_UNKNOWN, refused + 1).await;

    // With a good certificate, but in the name of somebody else.
    let eu = issue(&ours, "eu");
    match &introduced_as(&us, &eu, "ap").await[..] {
        [Message::Refuse { reason }] => {
            assert!(
                reason.contains("\"ap\" with the certificate of region \"eu\""),
                "{reason}"
            );
        }
        answers => panic!("expected a refusal, got {answers:?}"),
    }
    assert_eq!(counted(&us, REFUSED_EU).await, 1);
    let ddl = |from: &str| {
        let request = DdlRequest {
            from: from.to_owned(),
            sql: "CREATE TABLE made (id bigint PRIMARY KEY)".to_owned(),
            time_zone: "UTC".to_owned(),
        };
        action("ddl", postcard::to_stdvec(&request).expect("plain data"))
    };
    let mut client = stranger::dial(us.peer, &eu).await;
    let status = client.do_action(ddl("ap")).await.expect_err("it is eu");
    assert_eq!(status.code(), tonic::Code::PermissionDenied);
    assert_eq!(counted(&us, REFUSED_EU).await, 2);
    let sql = us.connect().await;
    sql.simple_query("SELECT * FROM made")
        .await
        .expect_err("no table");
    // In its own name it is heard, which shows that the rest was refused for the name.
    client.do_action(ddl("eu")).await.expect("it is eu");
    assert_eq!(rows(&sql, "SELECT count(*) FROM made").await, ["0"]);
    assert_eq!(counted(&us, REFUSED_EU).await, 2);
    // What others know of a region is told to that region only.
    let standing = |region: &str| {
        let region = region.to_owned();
        action(
            "standing",
            postcard::to_stdvec(&StandingRequest { region }).expect("plain data"),
        )
    };
    let status = client.do_action(standing("ap")).await.expect_err("it is eu");
    assert_eq!(status.code(), tonic::Code::PermissionDenied);
    assert_eq!(counted(&us, REFUSED_EU).await, 3);
    let mut told = client
        .do_action(standing("eu"))
        .await
        .expect("it is eu")
        .into_inner();
    let told = told.message().await.expect("an answer").expect("one answer");
    let told: StandingReply = postcard::from_bytes(&told.body).expect("a reply");
    assert!(
        told.in_cluster && told.members.contains(&"ap".to_owned()),
        "{told:?}"
    );
    assert_eq!(counted(&us, REFUSED_EU).await, 3);

    // Nothing is sent: the handshake is given up in time.
    let silent = TcpStream::connect(us.peer).await.expect("the port is open");
    wait_for_count(&us, REFUSED_UNKNOWN, refused + 2).await;
    secured.wait_for_log("us", "no handshake in time").await;
    drop(silent);
    assert_eq!(us.terminate().await, Some(0));
}

fn action(kind: &str, body: Vec<u8>) -> Action {
    Action {
        r#type: kind.to_owned(),
        body: body.into(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_is_not_the_one_that_was_dialled_is_refused_and_the_others_go_on() {
    let secured = Secured::new(&["us", "ap", "eu"]);
    let (ours, other) = (authority(), authority());
    for region in ["us", "ap"] {
        secured.install(region, &ours, &issue(&ours, region));
    }
    let us = secured.start("us").await;
    let ap = secured.start("ap").await;
    wait_up(&us, "ap").await;
    // At the address of `eu` somebody answers with the certificate of `ap`.
    stranger::answer(secured.peer_address("eu"), &issue(&ours, "ap")).await;
    for region in ["us", "ap"] {
        let reason = "the certificate is of region \"ap\", not of \"eu\"";
        secured.wait_for_log(region, reason).await;
    }
    wait_for_count(&us, REFUSED_EU, 1).await;
    let client = us.connect().await;
    let state = rows(&client, "SELECT state FROM tributary.links WHERE peer = 'eu'").await;
    assert_ne!(state, ["up"]);
    // The link to the other one is as it was.
    run(&client, "CREATE TABLE t (id bigint PRIMARY KEY) LOCALITY GLOBAL").await;
    run(&client, "INSERT INTO t VALUES (7)").await;
    wait_for_rows(&ap.connect().await, "SELECT id FROM t", &["7".to_owned()]).await;
    wait_up(&us, "ap").await;
    drop(ap);

    // A primary without data does not found a cluster beside a peer that it does not believe.
    let secured = Secured::new(&["us", "eu"]);
    secured.install("us", &ours, &issue(&ours, "us"));
    stranger::answer(secured.peer_address("eu"), &issue(&other, "eu")).await;
    let message = failed_start_as(secured.command("us")).await;
    assert!(
        message.contains("not signed by a CA that is trusted here"),
        "{message}"
    );
    assert!(message.contains("what to do"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn new_files_count_for_new_connections_and_bad_ones_change_nothing() {
    let secured = Secured::new(&["us", "eu"]);
    let (old, new) = (authority(), authority());
    for region in ["us", "eu"] {
        secured.install(region, &old, &issue(&old, region));
    }
    let us = secured.start("us").await;
    let eu = secured.start("eu").await;
    wait_up(&us, "eu").await;
    let client = us.connect().await;
    run(&client, "CREATE TABLE t (id bigint PRIMARY KEY) LOCALITY GLOBAL").await;
    run(&client, "INSERT INTO t VALUES (1)").await;
    wait_for_rows(&eu.connect().await, "SELECT id FROM t", &["1".to_owned()]).await;

    let reloads =
        |outcome: &str| format!("tributary_peer_certificate_reloads_total{{outcome=\"{outcome}\"}}");
    // Told to, it reads files that have not changed.
    hang_up(&us).await;
    wait_for_count(&us, &reloads("used"), 1).await;
    // Nobody tells it now: it looks by itself, every few seconds.
    secured.write("us", "cert.pem", "half a certifi");
    secured.wait_for_log("us", "what was read before stays").await;
    assert_eq!(counted(&us, &reloads("refused")).await, 1);
    wait_up(&us, "eu").await;
    // The old files are still good for a new connection.
    eu.kill().await;
    let eu = secured.start("eu").await;
    wait_up(&us, "eu").await;

    // All of another CA.
    secured.install("us", &new, &issue(&new, "us"));
    wait_for_count(&us, &reloads("used"), 2).await;
    // The connection that is there stays.
    run(&client, "INSERT INTO t VALUES (2)").await;
    let two = ["1".to_owned(), "2".to_owned()];
    wait_for_rows(&eu.connect().await, "SELECT id FROM t ORDER BY id", &two).await;
    assert_eq!(counted(&us, REFUSED_UNKNOWN).await, 0);
    // A new one with the old files is refused, one with the new files is not.
    eu.kill().await;
    let eu = secured.start("eu").await;
    secured
        .wait_for_log("us", "not signed by a CA that is trusted here")
        .await;
    secured.install("eu", &new, &issue(&new, "eu"));
    hang_up(&eu).await;
    wait_up(&us, "eu").await;
    run(&client, "INSERT INTO t VALUES (3)").await;
    let three = ["1".to_owned(), "2".to_owned(), "3".to_owned()];
    wait_for_rows(&eu.connect().await, "SELECT id FROM t ORDER BY id", &three).await;
    assert_eq!(eu.terminate().await, Some(0));
    assert_eq!(us.terminate().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_peers_would_refuse_end_the_start_with_their_name() {
    let secured = Secured::new(&["us", "eu"]);
    let (ours, other) = (authority(), authority());
    let refused = async |cert: &str, key: &str, ca: &str| {
        let file = |name: &str| secured.file("us", name);
        failed_start_as(secured.command_with("us", &file(cert), &file(key), &file(ca))).await
    };
    secured.install("us", &ours, &issue(&ours, "us"));
    secured.write("us", "eu.pem", &issue(&ours, "eu").cert);
    secured.write("us", "other.pem", &issue(&other, "us").cert);
    let expired = ours.issue("us", days(-9, -2)).expect("a certificate");
    secured.write("us", "expired.pem", &expired.cert);
    secured.write("us", "other.key", &issue(&ours, "us").key);
    secured.write("us", "garbage", "garbage");
    for (files, parts) in [
        (
            ["eu.pem", "key.pem", "ca.pem"],
            ["--peer-cert", "us-eu.pem", "of region \"eu\", not of \"us\""],
        ),
        (
            ["other.pem", "key.pem", "ca.pem"],
            ["--peer-cert", "us-other.pem", "not signed by a CA"],
        ),
        (
            ["expired.pem", "key.pem", "ca.pem"],
            ["--peer-cert", "us-expired.pem", "expired at 2"],
        ),
        (
            ["cert.pem", "other.key", "ca.pem"],
            ["--peer-key", "us-other.key", "does not belong"],
        ),
        (
            ["cert.pem", "key.pem", "garbage"],
            ["--peer-ca", "us-garbage", "no certificate in it"],
        ),
        (
            ["cert.pem", "none", "ca.pem"],
            ["--peer-key", "us-none", "No such file"],
        ),
    ] {
        let message = refused(files[0], files[1], files[2]).await;
        for part in parts {
            assert!(message.contains(part), "{part}: {message}");
        }
    }
    let mut command = Command::new(BINARY);
    command.args(["start", "--peer-cert", "us.pem", "--peer-key", "us.key"]);
    let message = failed_start_as(command).await;
    assert!(message.contains("--peer-ca is missing"), "{message}");
}
