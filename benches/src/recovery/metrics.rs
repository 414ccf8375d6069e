//! What the server says of its checkpoints, read as Prometheus would.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::Result;

/// Figures by name and labels.
#[derive(Clone, Debug, Default)]
pub struct Metrics(Vec<(String, f64)>);

impl Metrics {
    /// The server's figures now.
    pub async fn fetch(port: u16) -> Result<Metrics> {
        let answer = get(port).await.map_err(|error| format!("/metrics: {error}"))?;
        let figure = |line: &str| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.to_owned(), value.trim().parse().ok()?))
        };
        let lines = answer.lines().filter(|line| !line.starts_with('#'));
        Ok(Metrics(lines.filter_map(figure).collect()))
    }

    fn figure(&self, name: &str) -> f64 {
        let found = self.0.iter().find(|(other, _)| other == name);
        found.map_or(0.0, |(_, value)| *value)
    }

    /// Checkpoints written.
    pub fn checkpoints(&self) -> u64 {
        self.figure("tributary_checkpoint_seconds_count") as u64
    }

    /// The time of writing all of them.
    pub fn checkpoint_seconds(&self) -> f64 {
        self.figure("tributary_checkpoint_seconds_sum")
    }

    /// The bytes of all of them.
    pub fn checkpoint_bytes(&self) -> f64 {
        self.figure("tributary_checkpoint_bytes_total")
    }

    /// How often checkpoints held the region.
    pub fn stalls(&self) -> u64 {
        self.figure("tributary_checkpoint_stall_seconds_count") as u64
    }

    /// How long they held it in all.
    pub fn stall_seconds(&self) -> f64 {
        self.figure("tributary_checkpoint_stall_seconds_sum")
    }

    /// The longest time for which one held it.
    pub fn stall_max_seconds(&self) -> f64 {
        self.figure("tributary_checkpoint_stall_max_seconds")
    }
}

async fn get(port: u16) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream
        .write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
