//! A sink beside the view that is measured.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::Result;
use crate::session::Session;

/// Short, so that waiting for the last segment is little of what is measured.
const INTERVAL_MS: u64 = 100;
const POLL: Duration = Duration::from_millis(10);

/// A sink, and the directory of its files, which goes with the value.
pub struct Sink {
    directory: PathBuf,
}

impl Sink {
    /// Makes one of the kind: blackhole, or a format of files.
    pub async fn create(session: &Session, view: &str, kind: &str) -> Result<Sink> {
        let directory = std::env::temp_dir().join(format!("tributary-bench-sink-{}", std::process::id()));
        std::fs::create_dir_all(&directory).map_err(|error| error.to_string())?;
        let sink = Sink { directory };
        let options = match kind {
            "blackhole" => format!("connector = 'blackhole', interval_ms = {INTERVAL_MS}"),
            format => format!(
                "connector = 'file', path = '{}', format = '{format}', interval_ms = {INTERVAL_MS}",
                sink.directory.display()
            ),
        };
        session
            .execute(&format!("CREATE SINK changes FROM {view} WITH ({options})"))
            .await?;
        Ok(sink)
    }

    /// Waits until it has written everything that the view shows; the bytes written.
    pub async fn wait(&self, session: &Session, deadline: Instant) -> Result<u64> {
        let shown = session
            .number("SELECT max(epoch) FROM tributary.frontier")
            .await?;
        loop {
            let seen = session
                .rows("SELECT position, bytes, error FROM tributary.sinks")
                .await?;
            let value = |at: usize| seen.first().and_then(|row| row.get(at)?.clone());
            let number = |at: usize| value(at).and_then(|text| text.parse().ok()).unwrap_or(0_u64);
            if let Some(error) = value(2) {
                return Err(error);
            }
            if number(0) >= shown {
                return Ok(number(1));
            }
            if Instant::now() > deadline {
                return Err(format!("the sink is at position {} of {shown}", number(0)));
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}
