//! Statements that write in another region, from the side of the session.

use std::time::Duration;

use tributary_planner::parse::{Parsed, Statement};
use tributary_planner::residency::check_forwarded;
use tributary_region::{CommitToken, Committed, Snapshot};
use tributary_replication::Epoch;
use tributary_storage::OriginId;

use super::super::{Outcome, Scope, Session};
use super::dml::{self, read_only};
use super::{load, rows_of};
use crate::copy::CopyTarget;
use crate::far::forward::{CopyRequest, ForwardReply, ForwardRequest, Forwarded, WireError};
use crate::pgwire::error::{SqlError, SqlResult};
use crate::pgwire::sqlstate;

/// How long the session waits until its own region shows what it wrote in another.
const ARRIVE_MAX: Duration = Duration::from_secs(5);

/// Has another region carry out the statement.
pub(crate) async fn run(
    session: &mut Session,
    parsed: &Parsed,
    region: &str,
    scope: Scope,
) -> SqlResult<Outcome> {
    check(session, region, scope)?;
    let request = request_of(session, text_of(parsed));
    let done = session.send_forward(region, Errand::Statement(request)).await?;
    let verb = dml::verb_of(&parsed.statement);
    match done.rows()? {
        Some(rows) => Ok(rows_of(rows, verb)),
        None => Ok(Outcome::Done(format!("{verb} {}", done.count))),
    }
}

/// Has another region carry out a COPY with these data.
pub(super) async fn copy(
    session: &mut Session,
    text: &str,
    input: Vec<u8>,
    region: &str,
    scope: Scope,
) -> SqlResult<Outcome> {
    check(session, region, scope)?;
    let statement = request_of(session, text.to_owned());
    let request = CopyRequest { statement, input };
    let done = session.send_forward(region, Errand::Copy(request)).await?;
    Ok(Outcome::Done(format!("COPY {}", done.count)))
}

/// Whether the session may write there now.
pub(super) fn check(session: &Session, region: &str, scope: Scope) -> SqlResult<()> {
    // It would be in before the statements beside it are, and stay when they fail.
    if session.transaction.is_some() || scope == Scope::Several {
        return Err(SqlError::unsupported(format!(
            "a transaction cannot write rows of region \"{region}\" from here"
        ))
        .hint("run the statement by itself, or connect to that region"));
    }
    match session.settings().get("default_transaction_read_only")?.as_str() {
        "on" => Err(read_only()),
        _ => Ok(()),
    }
}

fn request_of(session: &Session, sql: String) -> ForwardRequest {
    ForwardRequest {
        from: session.backend.region_name(),
        user: session.user.clone(),
        sql,
        time_zone: session.plan_settings().time_zone,
        catalog_version: session.backend.snapshot().catalog.version,
        token: uuid::Uuid::new_v4().into_bytes(),
    }
}

/// What another region is to carry out.
enum Errand {
    Statement(ForwardRequest),
    Copy(CopyRequest),
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
    /// Once the statement is on its way it is not interrupted: its outcome has to be told. Waits until it is shown here.
    async fn send_forward(&mut self, region: &str, errand: Errand) -> SqlResult<Forwarded> {
        let outcome = match errand {
            Errand::Statement(request) => self.uninterrupted(self.backend.forward(region, request)).await,
            Errand::Copy(request) => self.uninterrupted(self.backend.copy(region, request)).await,
        };
        let done = match outcome? {
            ForwardReply::Done(done) => done,
            ForwardReply::Refused(error) => {
                return Err(SqlError::from(error).context(format!("in region \"{region}\"")));
            }
        };
        for notice in &done.notices {
            self.notice(notice.clone().into());
        }
        await_arrival(self, region, &done).await;
        Ok(done)
    }

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

    /// Carries out a COPY for another region, once, whatever the number of its repetitions.
    pub(crate) async fn copy_forwarded(
        &mut self,
        parsed: &Parsed,
        input: &[u8],
        token: [u8; 16],
    ) -> ForwardReply {
        let snapshot = match self.fresh_snapshot().await {
            Ok(snapshot) => snapshot,
            Err(error) => return ForwardReply::Refused(error.into()),
        };
        let resident = match &parsed.statement {
            Statement::Copy(copy) => {
                let table = snapshot.catalog.object(&copy.table);
                table.is_some_and(|table| snapshot.catalog.is_resident(table.id))
            }
            _ => false,
        };
        match self.try_copy(parsed, input, token).await {
            Ok(done) => ForwardReply::Done(done),
            Err(error) if resident => ForwardReply::Refused(without_values(&error).into()),
            Err(error) => ForwardReply::Refused(error.into()),
        }
    }

    async fn try_copy(&mut self, parsed: &Parsed, input: &[u8], token: [u8; 16]) -> SqlResult<Forwarded> {
        let snapshot = self.fresh_snapshot().await?;
        if let Some(committed) = self.found(token, &snapshot).await? {
            return repeated(parsed, snapshot.origin, committed);
        }
        let Statement::Copy(copy) = &parsed.statement else {
            return Err(SqlError::internal("not a COPY"));
        };
        let target = CopyTarget::bind(copy, &parsed.text, &snapshot)?;
        let rows = target.read(input, self.settings().zone())?;
        let count = rows.count as u64;
        let token = CommitToken {
            id: token,
            rows: count,
        };
        let committed = load::alone(self, Some(token), |_| Ok((target.table, rows.given()))).await?;
        Ok(Forwarded {
            count,
            returned: None,
            notices: Vec::new(),
            committed: committed.and_then(|committed| place_of(snapshot.origin, committed)),
        })
    }

    /// Where a statement with this token is in already.
    async fn found(&self, token: [u8; 16], snapshot: &Snapshot) -> SqlResult<Option<Committed>> {
        let found = self.backend.find(token).await;
        found.map_err(|rejected| sqlstate::of_rejected(&rejected, &snapshot.catalog))
    }

    async fn try_forwarded(&mut self, parsed: &Parsed, token: [u8; 16]) -> SqlResult<Forwarded> {
        let snapshot = self.fresh_snapshot().await?;
        if let Some(committed) = self.found(token, &snapshot).await? {
            return repeated(parsed, snapshot.origin, committed);
        }
        let (affected, _, committed) = dml::alone(self, parsed, Some(token)).await?;
        let done = Forwarded {
            count: affected.count as u64,
            returned: None,
            notices: affected.notices.into_iter().map(WireError::from).collect(),
            committed: committed.and_then(|committed| place_of(snapshot.origin, committed)),
        };
        Ok(done.with_rows(affected.returned.as_ref()))
    }
}

/// The answer to a statement that is in already.
fn repeated(parsed: &Parsed, origin: Option<OriginId>, committed: Committed) -> SqlResult<Forwarded> {
    if returns_rows(&parsed.statement) {
        return Err(SqlError::new(
            sqlstate::COMPLETION_UNKNOWN,
            "the statement was carried out, and what it returned was lost on the way",
        )
        .hint("do not run it again; read the rows"));
    }
    Ok(Forwarded {
        count: committed.repeated.unwrap_or_default(),
        returned: None,
        notices: Vec::new(),
        committed: place_of(origin, committed),
    })
}

fn returns_rows(statement: &Statement) -> bool {
    match statement {
        Statement::Insert(insert) => insert.returning.is_some(),
        Statement::Update(update) => update.returning.is_some(),
        Statement::Delete(delete) => delete.returning.is_some(),
        _ => false,
    }
}

fn place_of(origin: Option<OriginId>, committed: Committed) -> Option<(OriginId, Epoch)> {
    origin.map(|origin| (origin, Epoch(committed.position.0)))
}
