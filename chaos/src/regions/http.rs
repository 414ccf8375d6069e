//! Health and metrics of a region, over HTTP/1.1 by hand: two requests do not need a client.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const ANSWER_MAX: Duration = Duration::from_secs(2);

/// The answer to a GET, status line and all; `None` when there is none in time.
async fn get(address: SocketAddr, path: &str) -> Option<String> {
    let asking = async {
        let mut socket = TcpStream::connect(address).await.ok()?;
        let request = format!("GET {path} HTTP/1.1\r\nhost: chaos\r\nconnection: close\r\n\r\n");
        socket.write_all(request.as_bytes()).await.ok()?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.ok()?;
        Some(answer)
    };
    tokio::time::timeout(ANSWER_MAX, asking).await.ok().flatten()
}

/// Whether the region has joined and serves snapshots.
pub async fn is_ready(address: SocketAddr) -> bool {
    let answer = get(address, "/health/ready").await;
    answer.is_some_and(|answer| answer.starts_with("HTTP/1.1 200"))
}

/// The sum of a metric over its labels; `None` when the region does not answer.
pub async fn metric(address: SocketAddr, name: &str) -> Option<f64> {
    Some(sum_of(&get(address, "/metrics").await?, name))
}

fn sum_of(text: &str, name: &str) -> f64 {
    let values = text.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        let is_name_complete = rest.starts_with('{') || rest.starts_with(' ');
        if !is_name_complete {
            return None;
        }
        line.rsplit(' ').next()?.parse::<f64>().ok()
    });
    values.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_summed_over_its_labels_and_no_other_metric() {
        let text =
            "# TYPE lag_ms gauge\nlag_ms{region=\"us\"} 20\nlag_ms{region=\"eu\"} 22.5\nlag_ms_max 99\n";
        assert_eq!(sum_of(text, "lag_ms"), 42.5);
        assert_eq!(sum_of(text, "lag"), 0.0);
    }
}
