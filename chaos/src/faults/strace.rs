//! Faults of system calls: `strace` is attached to a region that runs, and changes what its fsyncs do.
//!
//! `strace` counts for each thread by itself: the Nth sync of *some* thread is hit, and so are further ones of others,
//! until it is detached. RocksDB syncs with fdatasync and, for directories, fsync.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::process::{Child, Command};

use crate::error::Result;
use crate::regions::{Signal, signal};

const SYNCS: &str = "fsync,fdatasync,sync_file_range";
const DETACH_MAX: Duration = Duration::from_secs(5);

/// An attached `strace`.
pub struct Tracer {
    child: Child,
    output: PathBuf,
}

/// Attaches to a process; from the Nth sync of a thread on `what` happens (`signal=KILL`, `error=EIO`), once a thread.
pub fn attach(pid: u32, what: &str, nth: u64, output: &Path) -> Result<Tracer> {
    let child = Command::new("strace")
        .args(["-f", "-qq", "-e", "signal=none"])
        .args(["-e", &format!("trace={SYNCS}")])
        .args(["-e", &format!("inject={SYNCS}:{what}:when={nth}")])
        .arg("-o")
        .arg(output)
        .args(["-p", &pid.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    Ok(Tracer {
        child,
        output: output.to_owned(),
    })
}

impl Tracer {
    /// How it ended, if it has: the process is gone, or it never could attach.
    pub fn try_ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// The first system call that was changed, as `strace` tells it. Of one that killed, nothing is told.
    pub fn injected(&self) -> Option<String> {
        let text = std::fs::read_to_string(&self.output).unwrap_or_default();
        let mut lines = text.lines();
        lines.find(|line| line.contains("INJECTED")).map(str::to_owned)
    }

    /// The last system call that `strace` told of.
    pub fn last(&self) -> Option<String> {
        let text = std::fs::read_to_string(&self.output).unwrap_or_default();
        let mut lines = text.lines().rev();
        lines.find(|line| line.contains("sync")).map(str::to_owned)
    }

    /// How many syncs it has seen.
    pub fn syncs(&self) -> usize {
        let text = std::fs::read_to_string(&self.output).unwrap_or_default();
        text.lines().filter(|line| line.contains("sync")).count()
    }

    /// Lets the process go on without it.
    pub async fn detach(mut self) {
        if let Some(pid) = self.child.id() {
            // It detaches on SIGTERM; killing it would detach too, in the middle of whatever it was doing.
            let _ = signal(pid, Signal::Terminate);
            if tokio::time::timeout(DETACH_MAX, self.child.wait()).await.is_err() {
                let _ = self.child.kill().await;
            }
        }
    }
}
