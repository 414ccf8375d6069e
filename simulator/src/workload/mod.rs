//! What clients do, drawn at random: tables, views, writes.
//!
//! Everything is drawn from what a client can see: a snapshot and its catalog. Nothing here judges an answer.

mod by_hand;
mod tables;
mod views;
mod writes;

use std::collections::BTreeSet;

use tributary_planner::catalog::{Catalog, CatalogChange, ObjectKind, PlanSettings};
use tributary_planner::ddl::plan_ddl;
use tributary_planner::error::PlanErrorKind;
use tributary_region::{Snapshot, WriteSet};

use crate::failure::{Checked, Violation};
use crate::options::{Control, Options};
use crate::report::Report;
use crate::rng::Rng;

/// How many drawn views the planner may refuse in a row.
const REFUSALS_MAX: u32 = 12;

/// The state of a workload.
pub struct Workload {
    rng: Rng,
    tables: usize,
    views: usize,
    sql_views: u64,
    keys: u64,
    named: u32,
    complete: bool,
    /// Whether the residency of some REGIONAL tables is enforced.
    enforced: bool,
    /// Whether keys of large groups may leave these, and views leave small ones out.
    groups_leave: bool,
    /// Whether some tables are written only while connected regions are near.
    sheds: bool,
    /// Whether views are made that residency forbids.
    forbidden: bool,
    /// Views whose rows depend on how ties are broken.
    ordered: BTreeSet<String>,
}

/// A change of the catalog that the primary's planner has made.
pub struct Ddl {
    /// Its text, or a name for it.
    pub text: String,
    /// What it changes.
    pub changes: Vec<CatalogChange>,
}

impl Workload {
    /// A workload for these options.
    pub fn new(mut rng: Rng, options: &Options) -> Self {
        let (tables, views) = (2 + rng.index(3), 3 + rng.index(4));
        let keys = *rng.pick(&[3, 8, 20]);
        Self {
            rng,
            tables,
            views,
            sql_views: options.sql_views,
            keys,
            named: 0,
            complete: false,
            enforced: options.enforced,
            // A region that is alone holds nothing back, and marked values are for tables of which no key leaves.
            groups_leave: options.regions > 1 && options.seed.is_multiple_of(2) && options.control.is_none(),
            sheds: options.sheds,
            forbidden: options.control == Some(Control::SkipResidencyCheck),
            ordered: BTreeSet::new(),
        }
    }

    /// Whether there are as many tables and views as there should be.
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// Whether a view's rows depend on how ties are broken, which SQL leaves open.
    pub fn is_ordered(&self, view: &str) -> bool {
        self.ordered.contains(view)
    }

    /// A random transaction on what a snapshot shows; `None` when there is nothing to write to.
    ///
    /// # Errors
    /// When rows cannot be read or built.
    pub fn draw_writes(&mut self, snapshot: &Snapshot) -> Result<Option<WriteSet>, String> {
        writes::draw(&mut self.rng, self.keys, snapshot)
    }

    /// A random change of the catalog; `None` when nothing is to be changed.
    ///
    /// # Errors
    /// When the planner answers with an error of its own making.
    pub fn draw_ddl(&mut self, catalog: &Catalog, now_ms: u64, report: &mut Report) -> Checked<Option<Ddl>> {
        let is_table = |kind: &ObjectKind| matches!(kind, ObjectKind::Table(_));
        let tables = catalog
            .objects
            .values()
            .filter(|object| is_table(&object.kind))
            .count();
        let views = catalog.objects.len() - tables;
        self.complete = tables >= self.tables && views >= self.views;
        if tables < self.tables && (tables < 2 || self.rng.percent(50)) {
            let name = self.next_name("t");
            let regions: Vec<&str> = catalog.members().map(|(_, def)| def.name.as_str()).collect();
            let mut text = tables::draw(&mut self.rng, &regions, &name);
            let mut table_options = Vec::new();
            if self.enforced && self.named % 2 == 1 && !text.ends_with("GLOBAL") {
                table_options.push(match self.groups_leave {
                    true => "residency = 'enforced', min_group_size = 2",
                    false => "residency = 'enforced'",
                });
                report.enforced_tables += 1;
            }
            if self.sheds && self.named.is_multiple_of(2) {
                table_options.push("backpressure = 'shed', lag_max = '60ms'");
            }
            if !table_options.is_empty() {
                text.push_str(&format!(" WITH ({})", table_options.join(", ")));
            }
            report.tables += 1;
            return self
                .planned(text, catalog, now_ms, report)
                .map_err(|refusal| refusal.into_violation());
        }
        if views < self.views {
            return self.draw_view(catalog, now_ms, report);
        }
        let droppable: Vec<_> = catalog
            .objects
            .values()
            .filter(|object| !is_table(&object.kind))
            .collect();
        if droppable.is_empty() || !self.rng.percent(30) {
            return Ok(None);
        }
        let name = &self.rng.pick(&droppable).name;
        let text = format!("DROP MATERIALIZED VIEW {name}");
        match self.planned(text, catalog, now_ms, report) {
            Ok(ddl) => {
                report.dropped += 1;
                Ok(ddl)
            }
            Err(refusal) if refusal.kind == PlanErrorKind::DependentObjects => Ok(None),
            Err(refusal) => Err(refusal.into_violation()),
        }
    }

    fn draw_view(&mut self, catalog: &Catalog, now_ms: u64, report: &mut Report) -> Checked<Option<Ddl>> {
        if !self.rng.percent(self.sql_views) {
            let name = self.next_name("h");
            let Some(object) = by_hand::draw(&mut self.rng, catalog, name.clone(), self.forbidden) else {
                return Ok(None);
            };
            report.views_by_hand += 1;
            return Ok(Some(Ddl {
                text: format!("{name} by hand"),
                changes: vec![CatalogChange::Create(object)],
            }));
        }
        let name = self.next_name("v");
        for _ in 0..REFUSALS_MAX {
            let Some(drawn) = views::draw(&mut self.rng, catalog) else {
                return Ok(None);
            };
            let text = format!("CREATE MATERIALIZED VIEW {name} AS {}", drawn.sql);
            match self.planned(text, catalog, now_ms, report) {
                Ok(ddl) => {
                    report.views_from_sql += 1;
                    if drawn.ordered {
                        self.ordered.insert(name);
                    }
                    return Ok(ddl);
                }
                Err(refusal) if refusal.kind == PlanErrorKind::Forbidden => report.forbidden_views += 1,
                Err(refusal) if refusal.kind == PlanErrorKind::Unsupported => {
                    *report.refused_views.entry(refusal.message).or_default() += 1;
                }
                Err(refusal) => return Err(refusal.into_violation()),
            }
        }
        Ok(None)
    }

    fn planned(
        &self,
        text: String,
        catalog: &Catalog,
        now_ms: u64,
        _report: &mut Report,
    ) -> Result<Option<Ddl>, Refusal> {
        let refusal = |error: tributary_planner::error::PlanError| Refusal {
            text: text.clone(),
            kind: error.kind,
            message: error.message,
        };
        let parsed = tributary_planner::parse::parse(&text).map_err(refusal)?;
        let [statement] = parsed.as_slice() else {
            return Err(Refusal {
                text,
                kind: PlanErrorKind::Internal,
                message: "not one statement".into(),
            });
        };
        let plan =
            plan_ddl(&statement.statement, catalog, &PlanSettings::default(), now_ms).map_err(refusal)?;
        Ok(Some(Ddl {
            text,
            changes: plan.changes,
        }))
    }

    fn next_name(&mut self, prefix: &str) -> String {
        self.named += 1;
        format!("{prefix}{}", self.named)
    }
}

/// The planner's no.
struct Refusal {
    text: String,
    kind: PlanErrorKind,
    message: String,
}

impl Refusal {
    fn into_violation(self) -> Violation {
        let Refusal { text, kind, message } = self;
        Violation::new(
            "the planner takes what is SQL",
            format!("{text}: {kind:?}: {message}"),
        )
    }
}
