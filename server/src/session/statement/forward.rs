//! Statements that write in another region, from the side of the session.

use std::sync::Arc;
use std::time::Duration;

use tributary_planner::parse::{Parsed, Statement, parse};
use tributary_planner::residency::check_forwarded;
use tributary_region::{CommitToken, Committed, Snapshot};
use tributary_replication::Epoch;
use tributary_storage::{OriginId, Position};

use super::super::{Outcome, Scope, Session};
use super::dml::{self, read_only};
use super::{load, rows_of};
use crate::copy::CopyTarget;
use crate::far::forward::{
    CopyRequest, Errand, ForwardReply, ForwardRequest, Forwarded, STATEMENT_BYTES_MAX, WireError,
};
use crate::pgwire::ServeOptions;
use crate::pgwire::error::{SqlError, SqlResult};
use crate::pgwire::sqlstate;
use crate::session::backend::Backend;
use crate::session::settings::Settings;

/// How long the session waits until its own region shows what it wrote in another.
const ARRIVE_MAX: Duration = Duration::from_secs(5);
/// How long the other region waits until it shows what the session wrote before.
const SEEN_MAX: Duration = Duration::from_secs(5);

/// Has another region carry out the statement.
pub(crate) async fn run(
    session: &mut Session,
    parsed: &Parsed,
    region: &str,
    scope: Scope,
) -> SqlResult<Outcome> {
    check(session, region, scope)?;
    if dml::calls(&parsed.statement, |name| dml::is_named(name, "set_config")) {
        return Err(
            SqlError::unsupported("set_config in a statement that is carried out in another region")
                .hint("SET the value before; what is set goes along"),
        );
    }
    let errand = Errand::Statement(request_of(session, parsed.bound_text()?.into_owned())?);
    let done = session.send(region, &errand).await?;
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
    let statement = request_of(session, text.to_owned())?;
    let errand = Errand::Copy(CopyRequest { statement, input });
    let done = session.send(region, &errand).await?;
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

fn request_of(session: &Session, sql: String) -> SqlResult<ForwardRequest> {
    let snapshot = session.backend.snapshot();
    let settings = session.with_settings(Settings::chosen);
    let set = settings.iter().map(|(name, value)| name.len() + value.len());
    let bytes = sql.len() + set.sum::<usize>();
    if bytes > STATEMENT_BYTES_MAX {
        let message = format!(
            "a statement of {bytes} bytes, with its parameters and settings, is too long to be carried out in another \
             region: the limit is {STATEMENT_BYTES_MAX}"
        );
        return Err(SqlError::new(sqlstate::PROGRAM_LIMIT, message)
            .hint("connect to the region that owns the rows, or write fewer at a time"));
    }
    Ok(ForwardRequest {
        from: session.backend.region_name(),
        user: session.user.clone(),
        sql,
        settings,
        catalog_version: snapshot.catalog.version,
        seen: session.written(&snapshot),
        token: uuid::Uuid::new_v4().into_bytes(),
    })
}

/// What fails on the way to another region, as a statement that writes tells it.
fn of_write(error: SqlError) -> SqlError {
    match error.state == sqlstate::CANNOT_CONNECT_NOW {
        true => error.hint("nothing was written; run the statement again, or in that region"),
        false => error,
    }
}

/// A session reads what it wrote: the other region's epoch has to be here first.
async fn await_arrival(session: &mut Session, region: &str, done: &Forwarded) {
    let Some((origin, epoch)) = done.committed else {
        return;
    };
    let written = session.written_elsewhere.entry(origin).or_insert(epoch);
    *written = epoch.max(*written);
    // It is durable: whoever is told that it was canceled would run it again.
    let arrival = session.backend.wait_for_epoch(origin, epoch, ARRIVE_MAX);
    if !session.uninterrupted(arrival).await {
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
    /// Has another region carry out a statement, and waits until it is shown here. Once it is on its way it is not
    /// interrupted: its outcome has to be told.
    async fn send(&mut self, region: &str, errand: &Errand) -> SqlResult<Forwarded> {
        let reply = self.uninterrupted(self.backend.forward(region, errand)).await;
        let done = match reply.map_err(of_write)? {
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

    /// The session in which a statement of another region is carried out.
    ///
    /// # Errors
    /// For settings that are none, and for a text that is not the one statement which was announced.
    pub(crate) fn of_errand(backend: Arc<dyn Backend>, errand: &Errand) -> SqlResult<(Session, Parsed)> {
        let request = errand.statement();
        let mut settings = Settings::default();
        for (name, value) in &request.settings {
            settings.set(name, value)?;
        }
        let mut parsed = parse(&request.sql)?;
        let parsed = match (parsed.pop(), parsed.is_empty()) {
            (Some(only), true) if errand.is_of(&only.statement) => only,
            _ => return Err(SqlError::internal("not one statement that writes")),
        };
        let memory = ServeOptions::default().statement_memory_bytes_max;
        let session = Session::new(backend, request.user.clone(), 0, settings, memory);
        Ok((session, parsed))
    }

    /// Carries out a statement of another region, once, whatever the number of its repetitions.
    pub(crate) async fn carry_out(&mut self, parsed: &Parsed, errand: &Errand) -> ForwardReply {
        if let Err(error) = self.await_seen(parsed, &errand.statement().seen).await {
            return ForwardReply::Refused(error.into());
        }
        let checked = self.fresh_snapshot().await.and_then(|snapshot| {
            check_forwarded(&snapshot.catalog, &parsed.statement)?;
            Ok(snapshot)
        });
        let snapshot = match checked {
            Ok(checked) => checked,
            Err(error) => return ForwardReply::Refused(error.into()),
        };
        match self.carry_out_at(&snapshot, parsed, errand).await {
            Ok(done) if done.returned.is_none() && done.notices.is_empty() => ForwardReply::Done(done),
            outcome => match (outcome, self.may_tell_values(parsed).await) {
                (Ok(done), true) => ForwardReply::Done(done),
                (Ok(done), false) if done.returned.is_some() => ForwardReply::Refused(untold().into()),
                (Ok(mut done), false) => {
                    done.notices.clear();
                    ForwardReply::Done(done)
                }
                (Err(error), true) => ForwardReply::Refused(error.into()),
                (Err(error), false) => ForwardReply::Refused(without_values(&error).into()),
            },
        }
    }

    /// Waits until this region shows what the session wrote before, here and elsewhere.
    async fn await_seen(&mut self, parsed: &Parsed, seen: &[(OriginId, Epoch)]) -> SqlResult<()> {
        let own = self.backend.snapshot().origin;
        for &(origin, epoch) in seen {
            if Some(origin) == own {
                self.own_position = self.own_position.max(Position(epoch.0));
            } else if dml::reads_other_rows(&parsed.statement)
                && !self.backend.wait_for_epoch(origin, epoch, SEEN_MAX).await
            {
                let message = "the region does not show yet what this session wrote before";
                return Err(
                    SqlError::new(sqlstate::CANNOT_CONNECT_NOW, message).hint("run the statement again")
                );
            }
        }
        Ok(())
    }

    /// Whether values of rows may be told of a statement that was carried out. A catalog at or after its commit decides:
    /// it may have waited for long.
    async fn may_tell_values(&self, parsed: &Parsed) -> bool {
        let snapshot = self.fresh_snapshot().await;
        snapshot
            .is_ok_and(|snapshot| matches!(check_forwarded(&snapshot.catalog, &parsed.statement), Ok(false)))
    }

    async fn carry_out_at(
        &mut self,
        snapshot: &Snapshot,
        parsed: &Parsed,
        errand: &Errand,
    ) -> SqlResult<Forwarded> {
        let token = errand.statement().token;
        let found = self.backend.find(token).await;
        if let Some(committed) =
            found.map_err(|rejected| sqlstate::of_rejected(&rejected, &snapshot.catalog))?
        {
            return repeated(parsed, snapshot.origin, committed);
        }
        let done = |count: usize, committed: Option<Committed>| Forwarded {
            count: count as u64,
            returned: None,
            notices: Vec::new(),
            committed: committed.and_then(|committed| place_of(snapshot.origin, committed)),
        };
        if let (Statement::Copy(copy), Some(input)) = (&parsed.statement, errand.input()) {
            let target = CopyTarget::bind(copy, &parsed.text, snapshot)?;
            let rows = target.read(input, self.settings().zone())?;
            let token = CommitToken {
                id: token,
                rows: rows.count as u64,
            };
            let committed = load::alone(self, Some(token), |_| Ok((target.table, rows.given()))).await?;
            return Ok(done(rows.count, committed));
        }
        let (affected, _, committed) = dml::alone(self, parsed, Some(token)).await?;
        let mut done = done(affected.count, committed);
        done.notices = affected.notices.into_iter().map(WireError::from).collect();
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

/// The answer to a statement whose rows may not leave since residency of their table was enforced meanwhile.
fn untold() -> SqlError {
    SqlError::new(
        sqlstate::COMPLETION_UNKNOWN,
        "the statement was carried out, and what it returned may not leave the region any more",
    )
    .hint("do not run it again; read the rows in the region that owns them")
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
