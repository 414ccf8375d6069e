//! Hidden views: merged sides that local fragments read (RFC 0011).
//!
//! ```text
//!        Join                    hidden view: merged rows of b         view: local 0: Join
//!        ├─ a (regional)   ═▶    (every region has them)        and             ├─ a
//!        └─ b (regional)                                                        └─ hidden view (global)
//! ```
//!
//! A hidden view is an object of the catalog with a plan and a fingerprint, like any other view, so regions need to know
//! nothing of it. Equal ones are one, also between views.

use std::sync::Arc;

use tributary_storage::ObjectId;

use super::named;
use crate::catalog::{Catalog, HIDDEN_PREFIX, MaterializedViewDef, Object, ObjectKind, ViewColumn};
use crate::error::PlanError;
use crate::plan::{Column, GlobalLeaf, LocalFragment, Locality, Node, Scan, ViewPlan};
use crate::types::SqlType;

/// The hidden views of one plan.
pub struct HiddenViews<'a> {
    catalog: &'a Catalog,
    created: Vec<Object>,
}

impl<'a> HiddenViews<'a> {
    /// None yet, beside those of the catalog.
    pub fn new(catalog: &'a Catalog) -> Self {
        Self {
            catalog,
            created: Vec::new(),
        }
    }

    /// A scan of the hidden view that holds what the global tree computes from the fragments that it reads.
    ///
    /// # Errors
    /// `Internal` for columns of types that SQL does not have, and when ids are used up.
    pub fn scan(
        &mut self,
        fragments: Vec<LocalFragment>,
        global: Node<GlobalLeaf>,
    ) -> Result<Scan, PlanError> {
        let (fragments, global) = compact(fragments, global);
        let mut plan = ViewPlan {
            fragments,
            global,
            columns: Vec::new(),
        };
        let types = plan.global_types();
        let named = types.iter().enumerate().map(|(number, data_type)| Column {
            name: format!("c{number}"),
            data_type: data_type.clone(),
        });
        plan.columns = named.collect();
        let object = match self.equal(&plan) {
            Some(object) => object.clone(),
            None => self.create(plan)?,
        };
        Ok(Scan {
            object: object.id,
            name: object.name.clone(),
            locality: Locality::Global,
            columns: (0..types.len()).collect(),
            types,
            append_only: false,
        })
    }

    /// Those that do not exist yet, in the order of their ids.
    pub fn into_created(self) -> Vec<Object> {
        self.created
    }

    fn equal(&self, plan: &ViewPlan) -> Option<&Object> {
        let existing = self.catalog.objects.values().map(AsRef::as_ref);
        let mut hidden = existing.chain(&self.created).filter(|object| object.is_hidden());
        hidden.find(|object| match &object.kind {
            ObjectKind::MaterializedView(view) => *view.plan == *plan,
            _ => false,
        })
    }

    fn create(&mut self, plan: ViewPlan) -> Result<Object, PlanError> {
        let number = u32::try_from(self.created.len()).ok();
        let id = number.and_then(|number| self.catalog.next_object.checked_add(number));
        let id = id.ok_or_else(|| PlanError::internal("object ids are used up"))?;
        let column = |column: &Column| {
            let sql_type = SqlType::from_arrow(&column.data_type)
                .ok_or_else(|| PlanError::internal(format!("a column of type {}", column.data_type)))?;
            Ok(ViewColumn {
                name: column.name.clone(),
                sql_type,
            })
        };
        let view = MaterializedViewDef {
            sql: String::new(),
            columns: plan
                .columns
                .iter()
                .map(column)
                .collect::<Result<_, PlanError>>()?,
            fingerprint: plan.fingerprint(),
            plan: Arc::new(plan),
            // Time zones are constants of the plan by now.
            time_zone: "UTC".to_owned(),
        };
        let object = Object {
            id: ObjectId(id),
            name: format!("{HIDDEN_PREFIX}{id}"),
            kind: ObjectKind::MaterializedView(view),
        };
        self.created.push(object.clone());
        Ok(object)
    }
}

/// The fragments that a global tree reads, equal ones as one and without the relations of the query that they are of, and the
/// tree with their new numbers.
pub fn compact(
    fragments: Vec<LocalFragment>,
    global: Node<GlobalLeaf>,
) -> (Vec<LocalFragment>, Node<GlobalLeaf>) {
    let mut new_numbers: Vec<Option<usize>> = vec![None; fragments.len()];
    global.for_each_leaf(&mut |leaf: &GlobalLeaf| {
        if let GlobalLeaf::Merge(number) = leaf {
            new_numbers[*number] = Some(0);
        }
    });
    let mut kept = Vec::with_capacity(fragments.len());
    for (fragment, new_number) in fragments.into_iter().zip(&mut new_numbers) {
        if let Some(new_number) = new_number {
            let fragment = named::unmarked_fragment(fragment);
            let known = kept.iter().position(|other| *other == fragment);
            *new_number = known.unwrap_or(kept.len());
            if known.is_none() {
                kept.push(fragment);
            }
        }
    }
    let global = global.map_leaves(&mut |leaf| match leaf {
        GlobalLeaf::Scan(scan) => GlobalLeaf::Scan(scan),
        GlobalLeaf::Merge(number) => GlobalLeaf::Merge(new_numbers[number].expect("a fragment that is read")),
    });
    (kept, global)
}
