//! FLUSH: returns when everything written in this region so far is visible in its views.
//!
//! An empty commit is the mark: whatever was sealed before it has a smaller position, so the first snapshot at its
//! position shows all of it.

use std::time::Duration;

use tributary_region::WriteSet;

use super::super::{Outcome, Session, of_wait_error};
use crate::pgwire::error::SqlResult;
use crate::pgwire::sqlstate;

const FLUSH_TIMEOUT: Duration = Duration::from_secs(300);

pub(crate) async fn run(session: &mut Session) -> SqlResult<Outcome> {
    let snapshot = session.backend.snapshot();
    let mark = WriteSet {
        token: None,
        catalog_version: snapshot.catalog.version,
        ..WriteSet::default()
    };
    let committed = session.backend.commit(mark).await;
    let committed = committed.map_err(|rejected| sqlstate::of_rejected(&rejected, &snapshot.catalog))?;
    session.committed(committed);
    session
        .backend
        .wait_for(committed.position, FLUSH_TIMEOUT)
        .await
        .map_err(of_wait_error)?;
    Ok(Outcome::Done("FLUSH".into()))
}
