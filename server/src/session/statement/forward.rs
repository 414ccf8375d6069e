//! Statements that write in another region, from the side of the session.

use std::time::Duration;

use tributary_planner::parse::{Parsed, Statement};
use tributary_planner::residency::check_forwarded;

use super::super::{Outcome, Session};
use super::dml::{self, read_only};
use super::rows_of;
use crate::far::forward::{ForwardReply, ForwardRequest, Forwarded, WireError};
use crate::pgwire::error::{SqlError, SqlResult};
use crate::pgwire::sqlstate;

/// How long the session waits until its own region shows what it wrote in another.
const ARRIVE_MAX: Duration = Duration::from_secs(5);

/// Has another region carry out the statement.
pub(crate) async fn run(session: &mut Session, parsed: &Parsed, region: &str) -> SqlResult<Outcome> {
    if session.transaction.is_some() {
        return Err(SqlError::unsupported(format!(
            "a transaction cannot write rows of region \"{region}\" from here"
        ))
        .hint("run the statement by itself, or connect to that region"));
    }
    if session.settings().get("default_transaction_read_only")? == "on" {
        return Err(read_only());
    }
    let request = ForwardRequest {
        from: session.backend.region_name(),
        user: session.user.clone(),
        sql: text_of(parsed),
        time_zone: session.plan_settings().time_zone,
        catalog_version: session.backend.snapshot().catalog.version,
        token: uuid::Uuid::new_v4().into_bytes(),
    };
    let done = match session.backend.forward(region, request).await? {
        ForwardReply::Done(done) => done,
        ForwardReply::Refused(error) => {
            return Err(SqlError::from(error).context(format!("in region \"{region}\"")));
        }
    };
    for notice in &done.notices {
        session.notice(notice.clone().into());
    }
    await_arrival(session, region, &done).await;
    let verb = dml::verb_of(&parsed.statement);
    match done.rows()? {
        Some(rows) => Ok(rows_of(rows, verb)),
        None => Ok(Outcome::Done(format!("{verb} {}", done.count))),
    }
}

/// The statement's text, with its parameters in it.
fn text_of(parsed: &Parsed) -> String {
    match &parsed.statement {
        Statement::Insert(insert) => insert.to_string(),
        Statement::Update(update) => update.to_string(),
        Statement::Delete(delete) => delete.to_string(),
        _ => parsed.text.clone(),
    }
}

/// A session reads what it wrote: the other region's epoch has to be here first.
async fn await_arrival(session: &mut Session, region: &str, done: &Forwarded) {
    let Some((origin, epoch)) = done.committed else {
        return;
    };
    if !session.backend.wait_for_epoch(origin, epoch, ARRIVE_MAX).await {
        session.notice(SqlError::new(
            "00000",
            format!("the write is durable in region \"{region}\", and is not shown here yet"),
        ));
    }
}

/// The error of a statement over rows that may not leave this region: texts of errors quote values.
fn without_values(error: &SqlError) -> SqlError {
    if error.state == sqlstate::INSUFFICIENT_PRIVILEGE {
        return error.clone();
    }
    SqlError::new(
        error.state,
        "the statement failed; its error can hold values of a table whose residency is enforced",
    )
    .hint("run it in the region that owns the rows")
}

impl Session {
    /// Carries out a statement for another region, once, whatever the number of its repetitions.
    pub(crate) async fn execute_forwarded(&mut self, parsed: &Parsed, token: [u8; 16]) -> ForwardReply {
        let resident = match self.fresh_snapshot().await {
            Ok(snapshot) => check_forwarded(&snapshot.catalog, &parsed.statement).map_err(SqlError::from),
            Err(error) => Err(error),
        };
        let resident = match resident {
            Ok(resident) => resident,
            Err(error) => return ForwardReply::Refused(error.into()),
        };
        match self.try_forwarded(parsed, token).await {
            Ok(mut done) if resident => {
                done.notices.clear();
                ForwardReply::Done(done)
            }
            Ok(done) => ForwardReply::Done(done),
            Err(error) if resident => ForwardReply::Refused(without_values(&error).into()),
            Err(error) => ForwardReply::Refused(error.into()),
        }
    }

    async fn try_forwarded(&mut self, parsed: &Parsed, token: [u8; 16]) -> SqlResult<Forwarded> {
        let origin = self.fresh_snapshot().await?.origin;
        let (affected, _, committed) = dml::alone(self, parsed, Some(token)).await?;
        let repeated = committed.and_then(|committed| committed.repeated);
        if repeated.is_some() && affected.returned.is_some() {
            return Err(SqlError::new(
                sqlstate::SERIALIZATION_FAILURE,
                "the statement was carried out, and what it returned was lost on the way",
            )
            .hint("do not run it again; read the rows"));
        }
        let committed = committed.and_then(|committed| {
            let epoch = tributary_replication::Epoch(committed.position.0);
            origin.map(|origin| (origin, epoch))
        });
        let notices: Vec<WireError> = affected.notices.into_iter().map(WireError::from).collect();
        let done = Forwarded {
            count: repeated.unwrap_or(affected.count as u64),
            returned: None,
            notices,
            committed,
            repeated: repeated.is_some(),
        };
        Ok(done.with_rows(affected.returned.as_ref()))
    }
}
