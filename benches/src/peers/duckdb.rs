//! DuckDB, through its Python module: the rows expected, and, as a peer, the time of computing them anew.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use crate::process::cpu_list;
use crate::report::Sample;
use crate::{Result, Setting};

fn script(setting: &Setting, cores: usize, arguments: &[&std::ffi::OsStr]) -> Result<Output> {
    Command::new("taskset")
        .arg("-c")
        .arg(cpu_list(cores))
        .arg(&setting.python)
        .arg(setting.nexmark.join("check.py"))
        .args(arguments)
        .output()
        .map_err(|error| format!("{}: {error}", setting.python.display()))
}

/// Whether there is a query for DuckDB.
pub fn has(setting: &Setting, query: &str) -> bool {
    setting
        .nexmark
        .join("duckdb")
        .join(format!("{query}.sql"))
        .is_file()
}

/// Compares rows of a view, as written by `write_rows`, with what DuckDB gives for the same files.
pub fn compare(setting: &Setting, query: &str, files: &Path, rows: &Path) -> Result<()> {
    let sql = setting.nexmark.join("duckdb").join(format!("{query}.sql"));
    let output = script(
        setting,
        2,
        &[
            "compare".as_ref(),
            sql.as_os_str(),
            files.as_os_str(),
            rows.as_os_str(),
        ],
    )?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        )),
    }
}

/// One full computation.
pub fn measure(setting: &Setting, query: &str, files: &Path, cores: usize) -> Result<Sample> {
    let sql = setting.nexmark.join("duckdb").join(format!("{query}.sql"));
    let threads = cores.to_string();
    let output = script(
        setting,
        cores,
        &[
            "time".as_ref(),
            sql.as_os_str(),
            files.as_os_str(),
            threads.as_ref(),
        ],
    )?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    let result: serde_json::Value =
        serde_json::from_slice(&output.stdout).map_err(|error| format!("check.py: {error}"))?;
    let number = |name: &str| result[name].as_f64().unwrap_or(0.0);
    Ok(Sample {
        elapsed_seconds: number("elapsed_seconds"),
        cpu_seconds: number("cpu_seconds"),
        peak_rss_bytes: number("peak_rss_bytes") as u64,
        view_rows: result["rows"].as_u64(),
        ..Sample::default()
    })
}

/// Rows as csv: every value quoted, null as nothing at all.
pub fn write_rows(path: &Path, rows: &[Vec<Option<String>>]) -> Result<()> {
    let mut text = String::new();
    for row in rows {
        for (at, value) in row.iter().enumerate() {
            if at > 0 {
                text.push(',');
            }
            if let Some(value) = value {
                text.push('"');
                text.push_str(&value.replace('"', "\"\""));
                text.push('"');
            }
        }
        text.push('\n');
    }
    fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
}
