//! Health and metrics over HTTP.
//!
//! `/health/live`: the process runs its event loop. `/health/ready`: the region has joined a cluster and published
//! a snapshot, so that SQL is answered; otherwise 503 with the reason. `/metrics`: Prometheus text.

mod metrics;

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;
use tokio::sync::watch;

pub use metrics::install;

use tributary_region::{Snapshot, ViewSnapshot};
use tributary_storage::ObjectId;

use crate::node::Node;

#[derive(Clone)]
struct Shared {
    node: Arc<Node>,
    recorder: PrometheusHandle,
}

/// Serves until `shutdown` turns true.
pub async fn serve(
    listener: TcpListener,
    node: Arc<Node>,
    recorder: PrometheusHandle,
    mut shutdown: watch::Receiver<bool>,
) -> std::io::Result<()> {
    let router = Router::new()
        .route("/health/live", get(|| async { "live\n" }))
        .route("/health/ready", get(ready))
        .route("/metrics", get(render))
        .with_state(Shared { node, recorder });
    axum::serve(listener, router)
        .with_graceful_shutdown(async move {
            let _ = shutdown.wait_for(|shutdown| *shutdown).await;
        })
        .await
}

async fn ready(State(shared): State<Shared>) -> (StatusCode, String) {
    match shared.node.is_ready() {
        true => (StatusCode::OK, "ready\n".to_owned()),
        false => (StatusCode::SERVICE_UNAVAILABLE, progress(&shared.node.newest())),
    }
}

/// How far a region is that does not serve yet.
fn progress(snapshot: &Snapshot) -> String {
    if snapshot.origin.is_some() {
        return "joined: rows of an earlier log of this region are taken over\n".to_owned();
    }
    let (chunks, rows) = snapshot.held.values().fold((0, 0), |(chunks, rows), held| {
        (chunks + held.chunks, rows + held.rows)
    });
    let is_shown = |id: &ObjectId| {
        let object = snapshot.catalog.by_id(*id);
        object.is_some_and(|object| !object.is_hidden())
    };
    let views = snapshot.views.iter().filter(|(id, _)| is_shown(id));
    let views: Vec<&ViewSnapshot> = views.map(|(_, view)| view).collect();
    let is_computed = |view: &&&ViewSnapshot| view.backfill.0 >= view.backfill.1;
    format!(
        "joining: {rows} rows in {chunks} chunks have come, {} rows are to be merged, {} of {} views are computed\n",
        snapshot.rows_to_merge,
        views.iter().filter(is_computed).count(),
        views.len()
    )
}

async fn render(State(shared): State<Shared>) -> String {
    metrics::observe(&shared.node.newest());
    shared.recorder.run_upkeep();
    shared.recorder.render()
}
