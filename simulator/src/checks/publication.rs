//! What must hold of every snapshot that a region publishes, whatever is in it.

use tributary_region::Snapshot;
use tributary_replication::Epoch;

use crate::failure::{Checked, Violation};
use crate::model::{LogId, Model};
use crate::world::node::Node;

/// Checks a publication: it never goes back (across restarts too), shows durable records only, lacks no cause,
/// and knows of others and of itself exactly what the region's log says it should.
///
/// # Errors
/// The first guarantee that does not hold.
pub fn publication(model: &Model, node: &mut Node, log: LogId, snapshot: &Snapshot) -> Checked {
    let frontier = &snapshot.frontier;
    let shown = |detail: String| format!("{log} publishes {} at {frontier}: {detail}", snapshot.position.0);
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
    let origin = model.writes_as(log, snapshot.position.0);
    if snapshot.origin != origin {
        let detail = shown(format!("it calls itself {:?}, not {origin:?}", snapshot.origin));
        return Err(Violation::new("an incarnation has one log", detail));
    }
    let of_origin = |(origin, epoch)| (model.log_of(origin, log), epoch);
    let own = (Some(log), Epoch(snapshot.position.0));
    for (shown_log, epoch) in frontier.iter().map(of_origin).chain([own]) {
        let durable = shown_log.map_or(0, |log| model.durable(log));
        if epoch.0 > durable {
            let of = shown_log.map_or_else(|| "nobody".to_owned(), |log| log.to_string());
            let detail = shown(format!("of {of} it shows {epoch}, and {durable} is synced"));
            return Err(Violation::new("durable before visible", detail));
        }
    }
    if let Some((effect, cause, epoch)) = model.missing_cause(log, frontier) {
        let detail = shown(format!("{effect} there had seen {cause}:{epoch}"));
        return Err(Violation::new("causal", detail));
    }
    let known = model.frontier(log, snapshot.position.0);
    let differs = known
        .iter()
        .find(|(other, epoch)| Some(*other) != origin && frontier.get(*other) != *epoch);
    let differs = differs.or_else(|| {
        frontier
            .iter()
            .find(|(other, epoch)| Some(*other) != origin && known.get(*other) != *epoch)
    });
    if let Some((other, _)) = differs {
        let detail = shown(format!("its log knows {other} up to {}", known.get(other)));
        return Err(Violation::new("a function of the log", detail));
    }
    if origin.is_some_and(|origin| frontier.get(origin) > own.1) {
        return Err(Violation::new(
            "a function of the log",
            shown("it is ahead of itself".into()),
        ));
    }
    let expected = model
        .catalog(log, snapshot.position.0)
        .map_or(0, |catalog| catalog.version);
    if snapshot.catalog.version != expected {
        let detail = shown(format!(
            "its catalog is of version {}, not {expected}",
            snapshot.catalog.version
        ));
        return Err(Violation::new("a function of the log", detail));
    }
    Ok(())
}
