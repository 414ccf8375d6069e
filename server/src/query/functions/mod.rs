//! Functions that DataFusion lacks or that mean something else there.
//!
//! Facts of the session are functions made anew for each statement, so their values are constants of the plan.

mod checked;
mod constant;
mod current_setting;
mod gen_random_uuid;
mod integer_average;
mod pg_sleep;
mod set_config;
mod stubs;
mod text_in;
mod text_out;

use std::sync::Arc;

use datafusion::logical_expr::ScalarUDF;

pub use checked::checked;
pub use integer_average::exact_average;
pub use text_in::text_in;
pub use text_out::text_out;

use super::facts::{DATABASE, Facts};

/// The functions that depend on the session.
pub fn of_session(facts: &Facts) -> Vec<Arc<ScalarUDF>> {
    let version = format!(
        "PostgreSQL {} (Tributary {}) on {}",
        crate::session::settings::SERVER_VERSION,
        facts.version,
        std::env::consts::ARCH
    );
    vec![
        constant::text("gateway_region", &facts.region),
        constant::text("tributary_frontier", &facts.frontier),
        constant::text("version", &version),
        constant::text("current_database", DATABASE),
        constant::text("current_schema", "public"),
        constant::text("session_user", &facts.user),
        constant::text("current_user", &facts.user),
        constant::text("user", &facts.user),
        constant::integer("pg_backend_pid", facts.process),
        current_setting::function(facts.settings()),
        set_config::function(Arc::clone(&facts.settings)),
    ]
}

/// The functions that are the same in every session.
pub fn of_server() -> Vec<Arc<ScalarUDF>> {
    let mut functions = vec![gen_random_uuid::function(), pg_sleep::function()];
    functions.extend(stubs::functions());
    functions
}
