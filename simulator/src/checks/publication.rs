//! What must hold of every snapshot that a region publishes, whatever is in it.

use tributary_region::Snapshot;
use tributary_replication::Epoch;
use tributary_storage::OriginId;

use crate::failure::{Checked, Violation};
use crate::model::Model;
use crate::world::node::Node;

/// Checks a publication: it never goes back (across restarts too), shows durable records only, lacks no cause,
/// and knows of others exactly what the region's log says it should.
///
/// # Errors
/// The first guarantee that does not hold.
pub fn publication(model: &Model, node: &mut Node, origin: OriginId, snapshot: &Snapshot) -> Checked {
    let frontier = &snapshot.frontier;
    let shown = |detail: String| {
        format!(
            "{origin} publishes {} at {frontier}: {detail}",
            snapshot.position.0
        )
    };
    if snapshot.position.0 < node.published {
        return Err(Violation::new(
            "monotone",
            shown(format!("it had published {}", node.published)),
        ));
    }
    if !frontier.covers(&node.announced) {
        return Err(Violation::new(
            "monotone",
            shown(format!("it had published {}", node.announced)),
        ));
    }
    node.announced = frontier.clone();
    let own = (origin, Epoch(snapshot.position.0));
    for (shown_origin, epoch) in frontier.iter().chain([own]) {
        let durable = model.durable(shown_origin);
        if epoch.0 > durable {
            let detail = shown(format!("{shown_origin} is synced up to {durable} only"));
            return Err(Violation::new("durable before visible", detail));
        }
    }
    if let Some((effect, cause, epoch)) = model.missing_cause(frontier) {
        let detail = shown(format!("{effect} there had seen {cause}:{epoch}"));
        return Err(Violation::new("causal", detail));
    }
    let known = model.frontier(origin, snapshot.position.0);
    let differs = known
        .iter()
        .find(|(other, epoch)| *other != origin && frontier.get(*other) != *epoch);
    let differs = differs.or_else(|| {
        frontier
            .iter()
            .find(|(other, epoch)| *other != origin && known.get(*other) != *epoch)
    });
    if let Some((other, _)) = differs {
        let detail = shown(format!("its log knows {other} up to {}", known.get(other)));
        return Err(Violation::new("a function of the log", detail));
    }
    if frontier.get(origin) > own.1 {
        return Err(Violation::new(
            "a function of the log",
            shown("it is ahead of itself".into()),
        ));
    }
    let expected = model.catalog(&known).map_or(0, |catalog| catalog.version);
    if snapshot.catalog.version != expected {
        let detail = shown(format!(
            "its catalog is of version {}, not {expected}",
            snapshot.catalog.version
        ));
        return Err(Violation::new("a function of the log", detail));
    }
    Ok(())
}
