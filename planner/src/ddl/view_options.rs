//! The options of materialized views: from names and texts to what they mean. They are no part of the catalog: what they
//! decide stands in the view's plan.

use std::collections::BTreeMap;

use crate::error::{PlanError, PlanErrorKind};
use crate::split::sides::Merge;

/// What `WITH (…)` says.
pub(super) fn merge(given: &BTreeMap<String, String>) -> Result<Merge, PlanError> {
    let mut merge = Merge::Both;
    for (name, value) in given {
        match name.as_str() {
            "merge" => merge = sides(value)?,
            _ => {
                let message = format!("unrecognized option \"{name}\" of a materialized view");
                return Err(PlanError::new(PlanErrorKind::InvalidParameter, message)
                    .with_hint("The option of materialized views is: merge."));
            }
        }
    }
    Ok(merge)
}

/// `both`, `smaller`, or names of relations apart by commas, folded unless they are quoted.
fn sides(value: &str) -> Result<Merge, PlanError> {
    match value.to_lowercase().as_str() {
        "both" => return Ok(Merge::Both),
        "smaller" => return Ok(Merge::Smaller),
        _ => {}
    }
    let mut names: Vec<String> = Vec::new();
    for written in value.split(',').map(str::trim) {
        let quoted = written.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
        let name = quoted.map_or_else(|| written.to_lowercase(), |name| name.replace("\"\"", "\""));
        if name.is_empty() || names.contains(&name) {
            let message = format!("invalid value for the option \"merge\": \"{value}\"");
            return Err(PlanError::new(PlanErrorKind::InvalidParameter, message)
                .with_hint("Use 'both', 'smaller', or names of relations of the query, each once."));
        }
        names.push(name);
    }
    Ok(Merge::Named(names))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_folded_unless_they_are_quoted() {
        let named = |names: &[&str]| {
            Ok(Merge::Named(
                names.iter().map(|name| (*name).to_owned()).collect(),
            ))
        };
        assert_eq!(sides("Both"), Ok(Merge::Both));
        assert_eq!(sides("smaller"), Ok(Merge::Smaller));
        assert_eq!(sides("Payments"), named(&["payments"]));
        assert_eq!(sides(" a, \"B\"\"b\" ,c"), named(&["a", "B\"b", "c"]));
        for wrong in ["", "a,", "a, a", "\"\""] {
            assert_eq!(
                sides(wrong).map_err(|error| error.kind),
                Err(PlanErrorKind::InvalidParameter),
                "{wrong}"
            );
        }
    }
}
