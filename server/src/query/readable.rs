//! Whether a relation can be read now.

use tributary_planner::catalog::Object;
use tributary_region::Snapshot;
use tributary_storage::RegionId;

use crate::pgwire::error::{SqlError, SqlResult};
use crate::pgwire::sqlstate;

/// A view that waits for a member's rows cannot be read, anywhere (55000).
pub fn check_readable(snapshot: &Snapshot, object: &Object) -> SqlResult<()> {
    let Some(view) = snapshot.views.get(&object.id) else {
        return Ok(());
    };
    if view.missing.is_empty() {
        return Ok(());
    }
    let name_of = |region: &RegionId| {
        let known = snapshot.catalog.regions.get(region);
        known.map_or_else(|| format!("region {}", region.0), |known| known.name.clone())
    };
    let names: Vec<String> = view.missing.iter().map(name_of).collect();
    let message = format!("materialized view \"{}\" is not complete yet", object.name);
    Err(SqlError::new(sqlstate::NOT_IN_PREREQUISITE_STATE, message)
        .detail(format!(
            "Rows of these regions have not arrived: {}.",
            names.join(", ")
        ))
        .hint("try again; tributary.materialized_views shows the progress"))
}
