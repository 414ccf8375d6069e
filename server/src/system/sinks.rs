//! `tributary.sinks`: what carries changes out, and how far this region's part has come.

use tributary_planner::catalog::ObjectKind;
use tributary_planner::types::SqlType;

use super::{Facts, Row, SystemTable, text};
use crate::sink::state::Running;

pub(super) const TABLE: SystemTable = SystemTable {
    name: "sinks",
    columns: &[
        ("name", SqlType::Text),
        ("view", SqlType::Text),
        ("connector", SqlType::Text),
        ("options", SqlType::Text),
        ("status", SqlType::Text),
        ("position", SqlType::Int8),
        ("segments", SqlType::Int8),
        ("rows", SqlType::Int8),
        ("bytes", SqlType::Int8),
        ("error", SqlType::Text),
    ],
    rows,
};

fn rows(facts: &Facts<'_>) -> Vec<Row> {
    let mut rows = Vec::new();
    for object in facts.snapshot.catalog.objects.values() {
        let ObjectKind::Sink(sink) = &object.kind else {
            continue;
        };
        let options: Vec<String> = sink
            .options
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let view = facts.snapshot.catalog.by_id(sink.view);
        let task = facts.sink_tasks.get(&object.id).cloned().unwrap_or_default();
        let status = match task.running {
            _ if !sink.is_written_in(facts.region) => "elsewhere",
            Running::Failed => "failed",
            Running::Running => "running",
            Running::Resuming | Running::Waiting => "waiting for the view",
        };
        rows.push(vec![
            text(&object.name),
            view.map(|view| view.name.clone()),
            text(&sink.connector),
            text(options.join(", ")),
            text(status),
            text(task.position),
            text(task.progress.segments),
            text(task.progress.rows),
            text(task.progress.bytes),
            task.error,
        ]);
    }
    rows
}
