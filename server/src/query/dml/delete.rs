//! DELETE.

use datafusion::arrow::array::RecordBatch;
use tributary_planner::dml::BoundDelete;

use super::rows::{KeyedRows, once_each};
use super::{Affected, Target};
use crate::pgwire::error::SqlResult;
use crate::query::reader::PlanOptions;

pub(super) async fn run(target: &mut Target<'_>, delete: &BoundDelete) -> SqlResult<Affected> {
    let object = std::sync::Arc::clone(&target.object);
    let table = object.as_table().expect("the target is a table");
    let options = PlanOptions {
        versions: Some(object.id),
        ..PlanOptions::default()
    };
    let found = target
        .reader()
        .plan(delete.query.as_ref().clone(), options)
        .await?
        .collect()
        .await?;
    let own: Vec<usize> = (0..table.columns.len()).collect();
    let old = RecordBatch::try_new(table.schema(), found.project(&own)?.columns().to_vec())?;
    let (old, keyed) = match delete.joined {
        true => once_each(target, old)?,
        false => {
            let keyed = KeyedRows::look_up(target, &old)?;
            (old, keyed)
        }
    };
    target.write(old.clone(), true, &keyed.versions);
    let returned = target.returning(&delete.returning, &old).await?;
    let count = old.num_rows();
    Ok(Affected {
        count,
        returned,
        notices: target.nothing_matched(count),
    })
}
