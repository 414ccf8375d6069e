//! The options of tables: from names and texts to [`TableOptions`].

use std::collections::BTreeMap;

use crate::catalog::{Backpressure, Residency, TableDef, TableOptions};
use crate::error::{PlanError, PlanErrorKind};
use crate::plan::LiteralValue;
use crate::types::SqlType;

/// All options.
const NAMES: &str = "residency, min_group_size, tombstones_max, backpressure and lag_max";

/// Gives options values.
pub(super) fn set(options: &mut TableOptions, given: &BTreeMap<String, String>) -> Result<(), PlanError> {
    for (name, value) in given {
        set_one(options, name, value)?;
    }
    Ok(())
}

/// Gives options their defaults back.
pub(super) fn reset(options: &mut TableOptions, names: &[String]) -> Result<(), PlanError> {
    let default = TableOptions::default();
    for name in names {
        match name.as_str() {
            "residency" => options.residency = default.residency,
            "min_group_size" => options.min_group_size = default.min_group_size,
            "tombstones_max" => options.tombstones_max = default.tombstones_max,
            "backpressure" => options.backpressure = default.backpressure,
            "lag_max" => options.lag_max_ms = default.lag_max_ms,
            _ => return Err(unknown(name)),
        }
    }
    Ok(())
}

/// Whether a table can have these options together.
pub(super) fn check(name: &str, table: &TableDef, options: &TableOptions) -> Result<(), PlanError> {
    if options.is_resident() && table.is_global() {
        let message = format!(
            "residency cannot be enforced on the GLOBAL table \"{name}\": every region holds its rows"
        );
        return Err(PlanError::new(PlanErrorKind::PrerequisiteState, message)
            .with_hint("Rows stay in a region only in a table with LOCALITY REGIONAL BY ROW or BY TABLE IN a region."));
    }
    if options.tombstones_max.is_some() && !table.is_global() {
        let message = format!("table \"{name}\" is not GLOBAL: no tombstones of its rows are kept");
        return Err(
            PlanError::new(PlanErrorKind::PrerequisiteState, message).with_hint("Leave tombstones_max out.")
        );
    }
    Ok(())
}

fn set_one(options: &mut TableOptions, name: &str, value: &str) -> Result<(), PlanError> {
    match name {
        "residency" => {
            options.residency = match value.to_lowercase().as_str() {
                "enforced" => Residency::Enforced,
                "none" => Residency::None,
                _ => return Err(invalid(name, value, "'enforced' or 'none'")),
            }
        }
        "min_group_size" => options.min_group_size = Some(count(name, value)?),
        "tombstones_max" => options.tombstones_max = Some(count(name, value)?),
        "backpressure" => {
            let wanted = || invalid(name, value, "'coalesce', 'block' or 'shed'");
            options.backpressure = backpressure(value).ok_or_else(wanted)?;
        }
        "lag_max" => {
            let wanted = || invalid(name, value, DURATION);
            options.lag_max_ms = Some(duration_ms(value).ok_or_else(wanted)?);
        }
        _ => return Err(unknown(name)),
    }
    Ok(())
}

fn count(name: &str, value: &str) -> Result<u64, PlanError> {
    let max = u64::try_from(i64::MAX).unwrap_or(u64::MAX);
    let number = value
        .parse::<u64>()
        .ok()
        .filter(|number| (1..=max).contains(number));
    number.ok_or_else(|| invalid(name, value, "a whole number from 1"))
}

/// What `backpressure` may be.
pub(super) fn backpressure(value: &str) -> Option<Backpressure> {
    match value.to_lowercase().as_str() {
        "coalesce" => Some(Backpressure::Coalesce),
        "block" => Some(Backpressure::Block),
        "shed" => Some(Backpressure::Shed),
        _ => None,
    }
}

/// What `lag_max` has to be.
pub(super) const DURATION: &str = "a time of at least a millisecond, such as '10s'";

/// A text like '10s' or '1 minute 30 seconds' in milliseconds, of at least one and without months.
pub(super) fn duration_ms(value: &str) -> Option<u64> {
    let parsed = SqlType::Interval.literal(value, "UTC").ok()?;
    let Some(LiteralValue::Interval {
        months: 0,
        days,
        nanoseconds,
    }) = parsed.value
    else {
        return None;
    };
    let ms = i64::from(days) * 86_400_000 + nanoseconds / 1_000_000;
    u64::try_from(ms).ok().filter(|ms| *ms > 0)
}

fn invalid(name: &str, value: &str, wanted: &str) -> PlanError {
    let message = format!("invalid value for the table option \"{name}\": \"{value}\"");
    PlanError::new(PlanErrorKind::InvalidParameter, message).with_hint(format!("Use {wanted}."))
}

fn unknown(name: &str) -> PlanError {
    let message = format!("unrecognized table option \"{name}\"");
    PlanError::new(PlanErrorKind::InvalidParameter, message).with_hint(format!("Table options are: {NAMES}."))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(sets: &[(&str, &str)]) -> Result<Vec<String>, PlanErrorKind> {
        let mut options = TableOptions::default();
        for (name, value) in sets {
            set_one(&mut options, name, value).map_err(|error| error.kind)?;
        }
        let settings = options.settings().into_iter();
        Ok(settings.map(|(name, value)| format!("{name}={value}")).collect())
    }

    #[test]
    fn what_is_shown_can_be_set_again() {
        let sets = [
            ("residency", "ENFORCED"),
            ("min_group_size", "5"),
            ("tombstones_max", "1000000"),
            ("backpressure", "block"),
            ("lag_max", "1 minute 30 seconds"),
        ];
        let shown = after(&sets).expect("all are valid");
        let again: Vec<(&str, &str)> = shown.iter().filter_map(|set| set.split_once('=')).collect();
        assert_eq!(after(&again), Ok(shown.clone()));
        assert_eq!(
            shown,
            [
                "residency=enforced",
                "min_group_size=5",
                "tombstones_max=1000000",
                "backpressure=block",
                "lag_max=90000 milliseconds"
            ]
        );
        assert_eq!(
            after(&[("lag_max", "10s")]),
            Ok(vec!["lag_max=10000 milliseconds".to_owned()])
        );
    }

    #[test]
    fn values_that_mean_nothing_are_refused() {
        let wrong = [
            ("residency", "yes"),
            ("min_group_size", "0"),
            ("min_group_size", "1.5"),
            ("min_group_size", "-3"),
            ("tombstones_max", "many"),
            ("backpressure", "on"),
            ("lag_max", "soon"),
            ("lag_max", "1 month"),
            ("lag_max", "-1 s"),
            ("fillfactor", "70"),
        ];
        for set in wrong {
            assert_eq!(after(&[set]), Err(PlanErrorKind::InvalidParameter), "{set:?}");
        }
    }

    #[test]
    fn a_reset_gives_defaults_back() {
        let mut options = TableOptions::default();
        set_one(&mut options, "min_group_size", "7").expect("valid");
        reset(
            &mut options,
            &["min_group_size".to_owned(), "residency".to_owned()],
        )
        .expect("they exist");
        assert_eq!(options, TableOptions::default());
        assert!(reset(&mut options, &["fillfactor".to_owned()]).is_err());
    }
}
