//! The options of regions: from names and texts to [`RegionOptions`].

use std::collections::BTreeMap;

use super::table_options::{DURATION, backpressure, duration_ms};
use crate::catalog::RegionOptions;
use crate::error::{PlanError, PlanErrorKind};

/// Gives options values.
pub(super) fn set(options: &mut RegionOptions, given: &BTreeMap<String, String>) -> Result<(), PlanError> {
    for (name, value) in given {
        match name.as_str() {
            "backpressure" => {
                let wanted = || invalid(name, value, "'coalesce', 'block' or 'shed'");
                options.backpressure = Some(backpressure(value).ok_or_else(wanted)?);
            }
            "lag_max" => {
                let wanted = || invalid(name, value, DURATION);
                options.lag_max_ms = Some(duration_ms(value).ok_or_else(wanted)?);
            }
            _ => return Err(unknown(name)),
        }
    }
    Ok(())
}

/// Has the tables decide again.
pub(super) fn reset(options: &mut RegionOptions, names: &[String]) -> Result<(), PlanError> {
    for name in names {
        match name.as_str() {
            "backpressure" => options.backpressure = None,
            "lag_max" => options.lag_max_ms = None,
            _ => return Err(unknown(name)),
        }
    }
    Ok(())
}

fn invalid(name: &str, value: &str, wanted: &str) -> PlanError {
    let message = format!("invalid value for the region option \"{name}\": \"{value}\"");
    PlanError::new(PlanErrorKind::InvalidParameter, message).with_hint(format!("Use {wanted}."))
}

fn unknown(name: &str) -> PlanError {
    let message = format!("unrecognized region option \"{name}\"");
    PlanError::new(PlanErrorKind::InvalidParameter, message)
        .with_hint("Region options are: backpressure and lag_max.")
}
