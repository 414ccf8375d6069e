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

async fn ready(State(shared): State<Shared>) -> (StatusCode, &'static str) {
    if shared.node.is_ready() {
        (StatusCode::OK, "ready\n")
    } else {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            "joining: the catalog, or what views are computed from, has not arrived yet\n",
        )
    }
}

async fn render(State(shared): State<Shared>) -> String {
    metrics::observe(&shared.node.newest());
    shared.recorder.run_upkeep();
    shared.recorder.render()
}
