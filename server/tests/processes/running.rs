//! A region as a process with an exit code, and SQL as text.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};
use tributary_server::demo::{Cluster, free_ports};

pub const BINARY: &str = env!("CARGO_BIN_EXE_tributary");
const READY_MAX: Duration = Duration::from_secs(30);

/// Regions that have found each other, and a session in each.
pub async fn regions<const N: usize>(names: [&str; N]) -> (Cluster, [Client; N]) {
    let spawned = Cluster::spawn(Path::new(BINARY), &names).await;
    let mut cluster = spawned.expect("the binary runs");
    cluster.wait_ready().await.expect("they find each other");
    let mut clients = Vec::new();
    for region in names {
        clients.push(cluster.connect(region).await.expect("the region answers"));
    }
    let clients = clients.try_into();
    (cluster, clients.expect("one for each name"))
}

/// A region that runs alone.
pub struct Running {
    pub child: Child,
    pub sql: SocketAddr,
    pub peer: SocketAddr,
    pub http: SocketAddr,
}

/// The command that starts region `local` on a directory, with free ports.
pub fn command(data: &Path) -> (Command, [SocketAddr; 3]) {
    let ports = free_ports(3).expect("free ports");
    let mut command = Command::new(BINARY);
    command
        .arg("start")
        .arg("--data")
        .arg(data)
        .args([
            "--listen",
            &ports[0].to_string(),
            "--peer-listen",
            &ports[1].to_string(),
        ])
        .args(["--http", &ports[2].to_string()])
        .kill_on_drop(true)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    (command, [ports[0], ports[1], ports[2]])
}

impl Running {
    /// Starts it and waits until it answers SQL.
    pub async fn start(data: &Path) -> Running {
        let (mut command, [sql, peer, http]) = command(data);
        // Nobody reads these here, and a full pipe would stop the region.
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let running = Running {
            child: command.spawn().expect("the binary runs"),
            sql,
            peer,
            http,
        };
        running.connect().await;
        running
    }

    /// A session, as soon as there can be one.
    pub async fn connect(&self) -> Client {
        connect_at(self.sql).await
    }

    /// The answer to an HTTP request, headers and all.
    pub async fn get(&self, path: &str) -> String {
        get(self.http, path).await
    }

    /// SIGTERM, and the exit code.
    pub async fn terminate(mut self) -> Option<i32> {
        let pid = self.child.id().expect("it runs").to_string();
        let sent = Command::new("kill")
            .args(["-TERM", &pid])
            .status()
            .await
            .expect("kill runs");
        assert!(sent.success());
        let status = tokio::time::timeout(READY_MAX, self.child.wait())
            .await
            .expect("it ends in time");
        status.expect("it can be waited for").code()
    }

    /// kill -9.
    pub async fn kill(mut self) {
        self.child.kill().await.expect("it can be killed");
    }
}

/// A session at an address, as soon as there can be one.
pub async fn connect_at(sql: SocketAddr) -> Client {
    let config = format!(
        "host=127.0.0.1 port={} user=postgres dbname=tributary",
        sql.port()
    );
    let started = Instant::now();
    loop {
        match tokio_postgres::connect(&config, NoTls).await {
            Ok((client, connection)) => {
                tokio::spawn(connection);
                if client.simple_query("SELECT 1").await.is_ok() {
                    return client;
                }
            }
            Err(error) => assert!(started.elapsed() < READY_MAX, "not ready: {error}"),
        }
        assert!(started.elapsed() < READY_MAX, "no SQL in time");
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
}

/// The answer to an HTTP request, headers and all.
pub async fn get(address: SocketAddr, path: &str) -> String {
    let mut socket = TcpStream::connect(address).await.expect("it listens");
    let request = format!("GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).await.expect("it reads");
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.expect("it answers");
    answer
}

/// A number in a region's metrics, by its name with its labels; 0 when there is none.
pub async fn counted(http: SocketAddr, name: &str) -> u64 {
    let metrics = get(http, "/metrics").await;
    let line = metrics
        .lines()
        .find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ')));
    line.and_then(|line| line.rsplit(' ').next())
        .map_or(0, |count| count.parse().expect("a number"))
}

/// Runs a start that is expected to fail, to its end.
pub async fn failed_start(data: &Path) -> Output {
    let (mut command, _) = command(data);
    let output = tokio::time::timeout(READY_MAX, command.output())
        .await
        .expect("it ends in time");
    let output = output.expect("the binary runs");
    assert_eq!(
        output.status.code(),
        Some(1),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

/// The same for a command of somebody else; its message.
pub async fn failed_start_as(mut command: Command) -> String {
    command.stderr(Stdio::piped());
    let output = tokio::time::timeout(READY_MAX, command.output())
        .await
        .expect("it ends in time");
    let output = output.expect("the binary runs");
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{message}");
    message
}

/// The rows of a statement, columns separated by `|`, in the order given.
pub async fn rows(client: &Client, sql: &str) -> Vec<String> {
    let rows = try_rows(client, sql).await;
    rows.unwrap_or_else(|error| panic!("{sql}: {error:?}"))
}

async fn try_rows(client: &Client, sql: &str) -> Result<Vec<String>, tokio_postgres::Error> {
    let messages = client.simple_query(sql).await?;
    let mut rows = Vec::new();
    for message in messages {
        if let SimpleQueryMessage::Row(row) = message {
            let columns: Vec<&str> = (0..row.len())
                .map(|column| row.get(column).unwrap_or("NULL"))
                .collect();
            rows.push(columns.join("|"));
        }
    }
    Ok(rows)
}

/// Runs a statement that must succeed.
pub async fn run(client: &Client, sql: &str) {
    client
        .batch_execute(sql)
        .await
        .unwrap_or_else(|error| panic!("{sql}: {error:?}"));
}

/// Asks again and again until something is there; what was last seen instead is told when that takes too long.
pub async fn wait_until<T, F: Future<Output = Result<T, String>>>(mut ask: impl FnMut() -> F) -> T {
    let started = Instant::now();
    loop {
        match ask().await {
            Ok(found) => return found,
            Err(seen) => assert!(started.elapsed() < READY_MAX, "not in time: {seen}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until a statement gives these rows. In another region than the one that created it, a relation may not be there
/// yet, or not have the rows of all members.
pub async fn wait_for_rows(client: &Client, sql: &str, expected: &[String]) {
    let ask = || async {
        let seen = try_rows(client, sql).await;
        let arrives = match &seen {
            Ok(rows) if rows == expected => return Ok(()),
            Ok(_) => true,
            Err(error) => [
                SqlState::UNDEFINED_TABLE,
                SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
            ]
            .iter()
            .any(|state| error.code() == Some(state)),
        };
        assert!(arrives, "{sql}: {seen:?} instead of {expected:?}");
        Err(format!("{sql}: {seen:?} instead of {expected:?}"))
    };
    wait_until(ask).await
}
