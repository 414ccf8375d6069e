//! What EXPLAIN says of residency: everything that would leave a region, and why it may or may not.

use super::{incompleteness, outgoing};
use crate::catalog::Catalog;
use crate::plan::ViewPlan;

/// Lines for each fragment that reads a table whose residency is enforced; none when there is no such fragment.
pub fn explain_residency(catalog: &Catalog, plan: &ViewPlan) -> Vec<String> {
    let mut lines = Vec::new();
    for (number, fragment) in plan.fragments.iter().enumerate() {
        for outgoing in outgoing(catalog, fragment) {
            let from = match outgoing.from.is_empty() {
                true => String::new(),
                false => format!(" from {}", outgoing.from.join(", ")),
            };
            let verdict = match outgoing.verdict {
                Ok(reason) => format!("leaves, {reason}"),
                Err(refusal) => format!("MAY NOT LEAVE: {}", refusal.reason),
            };
            lines.push(format!("  boundary {number}: {}{from}: {verdict}", outgoing.what));
        }
    }
    if !lines.is_empty() {
        lines.insert(0, "residency: what crosses between regions".to_owned());
        lines.extend(incompleteness(catalog, plan).map(|why| format!("  {why}")));
    }
    lines
}
