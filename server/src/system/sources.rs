//! `tributary.sources`: generators and files, the tables they fill, and how far this region's part has come.

use tributary_planner::catalog::{ObjectKind, SourceDef};
use tributary_planner::types::SqlType;
use tributary_storage::ObjectId;

use super::{Facts, Row, SystemTable, text};
use crate::source::state::Running;

pub(super) const TABLE: SystemTable = SystemTable {
    name: "sources",
    columns: &[
        ("name", SqlType::Text),
        ("connector", SqlType::Text),
        ("tables", SqlType::Text),
        ("options", SqlType::Text),
        ("events", SqlType::Int8),
        ("state", SqlType::Text),
        ("file", SqlType::Text),
        ("error", SqlType::Text),
    ],
    rows,
};

fn rows(facts: &Facts<'_>) -> Vec<Row> {
    let mut rows = Vec::new();
    for object in facts.snapshot.catalog.objects.values() {
        let ObjectKind::Source(source) = &object.kind else {
            continue;
        };
        let tables: Vec<String> = source
            .tables
            .iter()
            .filter_map(|id| facts.snapshot.catalog.by_id(*id))
            .map(|table| table.name.clone())
            .collect();
        let options: Vec<String> = source
            .options
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let task = facts.source_tasks.get(&object.id);
        rows.push(vec![
            text(&object.name),
            text(&source.connector),
            text(tables.join(", ")),
            text(options.join(", ")),
            text(facts.snapshot.sources.get(&object.id).copied().unwrap_or(0)),
            text(state(facts, object.id, source)),
            task.and_then(|task| text(task.file.as_ref()?.display())),
            task.and_then(|task| task.error.clone()),
        ]);
    }
    rows
}

/// What a source does in this region, in a word.
fn state(facts: &Facts<'_>, id: ObjectId, source: &SourceDef) -> &'static str {
    if !source.is_relation() {
        return "generating";
    }
    let running = facts
        .source_tasks
        .get(&id)
        .map_or(Running::Idle, |task| task.running);
    match running {
        Running::Failed => "failed",
        _ if !source.is_read_in(facts.region) => "elsewhere",
        _ if source.is_paused() => "paused",
        _ if !facts.snapshot.catalog.is_read_by_views(id) => "waiting for a view",
        Running::Finished => "finished",
        Running::Idle | Running::Reading => "reading",
    }
}
