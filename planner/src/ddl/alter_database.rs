//! ALTER DATABASE: who belongs to the cluster.
//!
//! Only what the catalog says is decided here. DROP REGION takes two changes, and what must be true between them
//! (everybody has what the region had) is for the primary's shell to see to: planned for a member the statement
//! drains it, planned for one that is leaving it drops it.

use tributary_storage::RegionId;

use super::{DdlPlan, region_options};
use crate::catalog::{
    Catalog, CatalogChange, MemberChange, ObjectKind, RegionOptions, Standing, TableLocality,
};
use crate::error::{PlanError, PlanErrorKind};
use crate::parse::{AlterDatabase, RegionAction};

/// The name of the one database.
pub const DATABASE: &str = "tributary";

/// More members than this are not meant.
const MEMBERS_MAX: usize = 256;

pub(super) fn plan(alter: &AlterDatabase, catalog: &Catalog) -> Result<DdlPlan, PlanError> {
    if alter.database != DATABASE {
        let message = format!("database \"{}\" does not exist", alter.database);
        return Err(PlanError::new(PlanErrorKind::UndefinedDatabase, message)
            .with_hint(format!("The database is named \"{DATABASE}\".")));
    }
    match &alter.action {
        RegionAction::Add { address } => add(&alter.region, address.as_deref(), catalog),
        RegionAction::Drop { force } => drop(member(&alter.region, catalog)?, *force, catalog),
        RegionAction::Fence => fence(member(&alter.region, catalog)?, catalog),
        RegionAction::MakePrimary => make_primary(member(&alter.region, catalog)?, catalog),
        RegionAction::Set(given) => {
            let id = member(&alter.region, catalog)?;
            let mut options = catalog.region_options(id);
            region_options::set(&mut options, given)?;
            Ok(with_options(id, options, catalog))
        }
        RegionAction::Reset(names) => {
            let id = member(&alter.region, catalog)?;
            let mut options = catalog.region_options(id);
            region_options::reset(&mut options, names)?;
            Ok(with_options(id, options, catalog))
        }
    }
}

/// The member of this name.
///
/// # Errors
/// `UndefinedObject`, naming the members.
pub fn member(name: &str, catalog: &Catalog) -> Result<RegionId, PlanError> {
    catalog.region_named(name).ok_or_else(|| {
        let members: Vec<&str> = catalog
            .members()
            .map(|(_, region)| region.name.as_str())
            .collect();
        let was_dropped = catalog.regions.values().any(|region| region.name == name);
        let message = match was_dropped {
            true => format!("region \"{name}\" was dropped"),
            false => format!("region \"{name}\" does not exist"),
        };
        PlanError::new(PlanErrorKind::UndefinedObject, message)
            .with_hint(format!("The regions are: {}.", members.join(", ")))
    })
}

fn add(name: &str, address: Option<&str>, catalog: &Catalog) -> Result<DdlPlan, PlanError> {
    check_name(name)?;
    if let Some(address) = address.filter(|address| !is_address(address)) {
        let message = format!("\"{address}\" is not of the form host:port");
        return Err(PlanError::new(PlanErrorKind::InvalidDefinition, message));
    }
    if let Some(id) = catalog.region_named(name) {
        if catalog.regions[&id].standing == Standing::Leaving {
            let notice = format!("region \"{name}\" was leaving and stays");
            return Ok(changed(id, MemberChange::Drain(false), vec![notice]));
        }
        if let Some(address) = address {
            let change = MemberChange::SetAddress(address.to_owned());
            let notice = format!("region \"{name}\" is a member already; its address is changed");
            return Ok(changed(id, change, vec![notice]));
        }
        let message = format!("region \"{name}\" is a member already");
        return Err(PlanError::new(PlanErrorKind::DuplicateObject, message)
            .with_hint("SHOW REGIONS lists the members."));
    }
    if catalog.members().count() >= MEMBERS_MAX {
        return Err(PlanError::new(
            PlanErrorKind::InvalidDefinition,
            format!("a cluster has at most {MEMBERS_MAX} regions"),
        ));
    }
    let id = catalog
        .next_region()
        .ok_or_else(|| PlanError::internal("region numbers are used up"))?;
    let mut notices = vec![format!(
        "start region \"{name}\" with --region {name} and a --peer for each member; SHOW REGIONS tells when it serves"
    )];
    if catalog.members().count() == 1 {
        notices.push(
            "materialized views are built again for several regions; until then they cannot be read".into(),
        );
    }
    let change = MemberChange::Add {
        name: name.to_owned(),
        address: address.map(str::to_owned),
    };
    Ok(changed(id, change, notices))
}

fn drop(id: RegionId, force: bool, catalog: &Catalog) -> Result<DdlPlan, PlanError> {
    let region = &catalog.regions[&id];
    refuse_primary(id, "dropped", catalog)?;
    let of_region = |object: &&std::sync::Arc<crate::catalog::Object>| matches!(&object.kind, ObjectKind::Table(def) if def.locality == TableLocality::RegionalByTable(id));
    let tables: Vec<&str> = catalog
        .objects
        .values()
        .filter(of_region)
        .map(|object| object.name.as_str())
        .collect();
    if !tables.is_empty() && !force {
        let message = format!(
            "cannot drop region \"{}\" because tables live in it: {}",
            region.name,
            tables.join(", ")
        );
        return Err(PlanError::new(PlanErrorKind::DependentObjects, message)
            .with_hint("Drop these tables first, or use FORCE: their rows are lost then."));
    }
    if region.standing == Standing::Member && !force {
        return Ok(changed(id, MemberChange::Drain(true), Vec::new()));
    }
    let notice = format!(
        "rows of REGIONAL tables in \"{}\" can no longer be read; its share of views stays as it was",
        region.name
    );
    Ok(changed(id, MemberChange::Drop, vec![notice]))
}

fn fence(id: RegionId, catalog: &Catalog) -> Result<DdlPlan, PlanError> {
    let region = &catalog.regions[&id];
    refuse_primary(id, "fenced", catalog)?;
    let incarnation = region.incarnation + 1;
    let notice = format!(
        "what \"{name}\" wrote as incarnation {old} and has not sent yet does not count any more; \
         it comes back with --reincarnate",
        name = region.name,
        old = region.incarnation,
    );
    Ok(changed(
        id,
        MemberChange::Reincarnate { incarnation },
        vec![notice],
    ))
}

fn make_primary(id: RegionId, catalog: &Catalog) -> Result<DdlPlan, PlanError> {
    let region = &catalog.regions[&id];
    if catalog.primary == Some(id) {
        let notice = format!("region \"{}\" is the primary region already", region.name);
        return Ok(DdlPlan::unchanged(AlterDatabase::TAG, notice));
    }
    if region.standing != Standing::Member {
        return Err(PlanError::new(
            PlanErrorKind::PrerequisiteState,
            format!("region \"{}\" is leaving", region.name),
        ));
    }
    let mut notices = Vec::new();
    if region.address.is_none() {
        notices.push(format!(
            "regions that were started without a --peer for \"{0}\" cannot forward DDL to it: \
             ALTER DATABASE tributary ADD REGION \"{0}\" WITH (address = 'host:port') tells them where it is",
            region.name
        ));
    }
    Ok(changed(id, MemberChange::MakePrimary, notices))
}

fn with_options(id: RegionId, options: RegionOptions, catalog: &Catalog) -> DdlPlan {
    let mut plan = changed(id, MemberChange::SetOptions(options), Vec::new());
    if options == catalog.region_options(id) {
        plan.changes.clear();
    }
    plan
}

fn refuse_primary(id: RegionId, what: &str, catalog: &Catalog) -> Result<(), PlanError> {
    if catalog.primary != Some(id) {
        return Ok(());
    }
    let message = format!(
        "region \"{}\" is the primary region and cannot be {what}",
        catalog.regions[&id].name
    );
    Err(PlanError::new(PlanErrorKind::PrerequisiteState, message)
        .with_hint("ALTER DATABASE tributary SET PRIMARY REGION to another one first."))
}

fn changed(region: RegionId, change: MemberChange, notices: Vec<String>) -> DdlPlan {
    DdlPlan {
        changes: vec![CatalogChange::Member { region, change }],
        notices,
        tag: AlterDatabase::TAG.to_owned(),
    }
}

/// Region names go into SQL, file names and labels of metrics.
fn check_name(name: &str) -> Result<(), PlanError> {
    let is_letter = |c: char| c.is_ascii_lowercase();
    let usable = name.len() <= super::NAME_BYTES_MAX
        && name.starts_with(is_letter)
        && name
            .chars()
            .all(|c| is_letter(c) || c.is_ascii_digit() || c == '-' || c == '_');
    if usable {
        return Ok(());
    }
    let message = format!("\"{name}\" is not a name for a region");
    Err(PlanError::new(PlanErrorKind::InvalidDefinition, message)
        .with_hint("1 to 63 of a-z, 0-9, '-' and '_', beginning with a letter."))
}

fn is_address(address: &str) -> bool {
    let parts = address.rsplit_once(':');
    parts.is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::{Backpressure, PlanSettings, TableOptions};
    use crate::ddl::plan_ddl;
    use crate::parse::parse;

    fn cluster() -> Catalog {
        let mut catalog = Catalog::default();
        catalog.apply(&CatalogChange::Found {
            cluster: [1; 16],
            regions: vec![(RegionId(1), "us".into()), (RegionId(2), "eu".into())],
            primary: RegionId(1),
        });
        catalog
    }

    fn run(catalog: &mut Catalog, sql: &str) -> Result<Vec<String>, PlanErrorKind> {
        let statement = parse(sql).map_err(|error| error.kind)?.remove(0).statement;
        let plan = plan_ddl(&statement, catalog, &PlanSettings::default(), 0).map_err(|error| error.kind)?;
        plan.changes.iter().for_each(|change| catalog.apply(change));
        Ok(plan.notices)
    }

    #[test]
    fn a_region_joins_under_a_number_of_its_own_and_is_dropped_in_two_steps() {
        let mut catalog = cluster();
        run(
            &mut catalog,
            "ALTER DATABASE tributary ADD REGION \"ap\" WITH (address = 'h:1')",
        )
        .expect("added");
        let ap = catalog.region_named("ap").expect("a member");
        assert_eq!(
            (ap, catalog.regions[&ap].address.as_deref()),
            (RegionId(3), Some("h:1"))
        );
        run(&mut catalog, "ALTER DATABASE tributary DROP REGION ap").expect("drained");
        assert_eq!(catalog.regions[&ap].standing, Standing::Leaving);
        run(&mut catalog, "ALTER DATABASE tributary DROP REGION ap").expect("dropped");
        assert_eq!(catalog.region_named("ap"), None);
        run(&mut catalog, "ALTER DATABASE tributary ADD REGION ap").expect("another one of the name");
        assert_eq!(catalog.region_named("ap"), Some(RegionId(4)));
        assert_eq!(catalog.region_name(RegionId(3)), Some("ap"));
        run(
            &mut catalog,
            "ALTER DATABASE tributary ADD REGION ap WITH (address = 'h:2')",
        )
        .expect("changed");
        assert_eq!(catalog.regions[&RegionId(4)].address.as_deref(), Some("h:2"));
    }

    #[test]
    fn a_region_that_is_leaving_can_be_kept() {
        let mut catalog = cluster();
        run(&mut catalog, "ALTER DATABASE tributary DROP REGION eu").expect("drained");
        run(&mut catalog, "ALTER DATABASE tributary ADD REGION eu").expect("kept");
        assert_eq!(catalog.regions[&RegionId(2)].standing, Standing::Member);
    }

    #[test]
    fn the_primary_is_handed_over_before_it_goes() {
        let mut catalog = cluster();
        for what in ["DROP", "FENCE"] {
            let refused = run(
                &mut catalog,
                &format!("ALTER DATABASE tributary {what} REGION us"),
            );
            assert_eq!(refused, Err(PlanErrorKind::PrerequisiteState), "{what}");
        }
        run(&mut catalog, "ALTER DATABASE tributary SET PRIMARY REGION eu").expect("handed over");
        assert_eq!(catalog.primary, Some(RegionId(2)));
        run(&mut catalog, "ALTER DATABASE tributary DROP REGION us FORCE").expect("dropped at once");
        assert_eq!(catalog.region_named("us"), None);
    }

    #[test]
    fn a_fence_bumps_the_incarnation() {
        let mut catalog = cluster();
        run(&mut catalog, "ALTER DATABASE tributary FENCE REGION eu").expect("fenced");
        assert_eq!(catalog.regions[&RegionId(2)].incarnation, 2);
    }

    #[test]
    fn options_of_a_region_go_before_those_of_tables() {
        let mut catalog = cluster();
        let eu = RegionId(2);
        let blocks = TableOptions {
            backpressure: Backpressure::Block,
            lag_max_ms: Some(500),
            ..TableOptions::default()
        };
        let limit = |catalog: &Catalog, table: TableOptions| {
            let limit = table.lag_limit(&catalog.region_options(eu));
            limit.map(|limit| (limit.max_ms, limit.waits))
        };
        assert_eq!(limit(&catalog, blocks), Some((500, true)));
        for (sql, of_blocking, of_any) in [
            ("SET (lag_max = '2s')", Some((2_000, true)), None),
            (
                "SET (backpressure = 'shed')",
                Some((2_000, false)),
                Some((2_000, false)),
            ),
            ("RESET (lag_max)", Some((500, false)), Some((10_000, false))),
            ("SET (backpressure = 'coalesce')", None, None),
            ("RESET (backpressure, lag_max)", Some((500, true)), None),
        ] {
            run(
                &mut catalog,
                &format!("ALTER DATABASE tributary ALTER REGION eu {sql}"),
            )
            .expect(sql);
            assert_eq!(limit(&catalog, blocks), of_blocking, "{sql}");
            assert_eq!(limit(&catalog, TableOptions::default()), of_any, "{sql}");
            assert_eq!(
                Catalog::from_bytes(&catalog.to_bytes()).as_ref(),
                Ok(&catalog),
                "{sql}"
            );
        }
        assert!(catalog.region_options.is_empty());
        let version = catalog.version;
        run(
            &mut catalog,
            "ALTER DATABASE tributary ALTER REGION eu RESET (lag_max)",
        )
        .expect("nothing to do");
        assert_eq!(catalog.version, version);
        // They go with the region.
        run(
            &mut catalog,
            "ALTER DATABASE tributary ALTER REGION eu SET (lag_max = '1s')",
        )
        .expect("set");
        run(&mut catalog, "ALTER DATABASE tributary DROP REGION eu FORCE").expect("dropped");
        assert!(catalog.region_options.is_empty());
    }

    #[test]
    fn wrong_names_are_told() {
        let mut catalog = cluster();
        for (sql, kind) in [
            (
                "ALTER DATABASE other ADD REGION ap",
                PlanErrorKind::UndefinedDatabase,
            ),
            (
                "ALTER DATABASE tributary ADD REGION eu",
                PlanErrorKind::DuplicateObject,
            ),
            (
                "ALTER DATABASE tributary ADD REGION \"E U\"",
                PlanErrorKind::InvalidDefinition,
            ),
            (
                "ALTER DATABASE tributary ADD REGION ap WITH (address = 'nowhere')",
                PlanErrorKind::InvalidDefinition,
            ),
            (
                "ALTER DATABASE tributary ADD REGION ap WITH (place = 'h:1')",
                PlanErrorKind::Syntax,
            ),
            (
                "ALTER DATABASE tributary DROP REGION ap",
                PlanErrorKind::UndefinedObject,
            ),
            (
                "ALTER DATABASE tributary FENCE REGION ap",
                PlanErrorKind::UndefinedObject,
            ),
            (
                "ALTER DATABASE tributary SET PRIMARY REGION ap",
                PlanErrorKind::UndefinedObject,
            ),
            ("ALTER DATABASE tributary RENAME TO x", PlanErrorKind::Syntax),
            ("ALTER DATABASE tributary ALTER REGION eu", PlanErrorKind::Syntax),
            (
                "ALTER DATABASE tributary ALTER REGION ap RESET (lag_max)",
                PlanErrorKind::UndefinedObject,
            ),
            (
                "ALTER DATABASE tributary ALTER REGION eu SET (lag_max = 'soon')",
                PlanErrorKind::InvalidParameter,
            ),
            (
                "ALTER DATABASE tributary ALTER REGION eu SET (residency = 'enforced')",
                PlanErrorKind::InvalidParameter,
            ),
        ] {
            assert_eq!(run(&mut catalog, sql), Err(kind), "{sql}");
        }
    }
}
