//! Why the laboratory itself cannot go on. What the product does wrong is a violation in the journal instead.

use thiserror::Error;

/// The laboratory stops.
#[derive(Debug, Error)]
pub enum ChaosError {
    /// The system refused something.
    #[error("{0}")]
    System(#[from] std::io::Error),
    /// A tool of the system failed.
    #[error("{command} failed: {message}")]
    Tool {
        /// The command line.
        command: String,
        /// What it said.
        message: String,
    },
    /// A statement that must succeed on healthy regions did not.
    #[error("SQL failed in {region}: {message}")]
    Sql {
        /// Where.
        region: &'static str,
        /// What the server said.
        message: String,
    },
    /// A region did not start at all.
    #[error("region {region} {problem}\n{log_tail}")]
    Region {
        /// Which.
        region: &'static str,
        /// What is wrong with it.
        problem: String,
        /// The end of its log.
        log_tail: String,
    },
    /// The arguments do not fit.
    #[error("{0}")]
    Arguments(String),
}

/// Whatever can stop the laboratory.
pub type Result<T> = std::result::Result<T, ChaosError>;

/// Runs a tool of the system to its end; an error if it fails.
pub async fn run_tool(program: &str, arguments: &[&str]) -> Result<String> {
    let failed = |message: String| ChaosError::Tool {
        command: format!("{program} {}", arguments.join(" ")),
        message,
    };
    let output = tokio::process::Command::new(program)
        .args(arguments)
        .stdin(std::process::Stdio::null())
        .output()
        .await
        .map_err(|error| failed(error.to_string()))?;
    if !output.status.success() {
        return Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
