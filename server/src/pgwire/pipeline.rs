//! Pipelined executions of one prepared INSERT, run at once.
//!
//! ```text
//!   Bind Execute | Sync Bind Execute | Sync Bind Execute | Sync     (each a transaction by itself, or within BEGIN)
//!   Bind Execute | Bind Execute      | Bind Execute      | Sync     (one implicit transaction)
//!        ▲ here    └──── taken along, as far as they have arrived
//! ```
//! A client that sends on without waiting has many executions in the buffer. Their rows go into one set of columns and
//! are checked, written and committed once; then each is answered in turn. That executions share a commit is not seen
//! from outside: each is durable before its answer, and is in as a whole. When the rows do not go in together, nothing
//! has happened: the messages are put back, and each is run by itself and has its own answer.

use std::sync::Arc;

use bytes::Bytes;

use super::connection::{Connection, Guard, guarded};
use super::error::{SqlError, SqlResult};
use super::extended::{Portal, PortalState};
use super::frame::{Bind, Frontend, Target};
use super::sqlstate;
use crate::pgwire::types::datetime::Zone;
use crate::session::plain_insert::{PlainInsert, PlainRows};
use crate::session::prepared::PreparedStatement;
use crate::session::{Scope, Status};

/// Executions that are run at once.
const EXECUTIONS_MAX: usize = 4096;

/// Parameters that were read, and as they came.
pub(super) struct PlainValues {
    values: Vec<Option<Bytes>>,
    formats: Vec<i16>,
    zone: Zone,
    rows: PlainRows,
}

/// What stands between two executions.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Between {
    /// Sync: each is a transaction.
    Sync,
    /// Nothing: a Sync would end the implicit transaction.
    Nothing,
    /// Either: a Sync within BEGIN is only answered.
    Either,
}

/// An execution that was taken along.
struct Taken {
    messages: Vec<Frontend>,
}

impl PlainValues {
    /// Reads the parameters of a Bind.
    pub(super) fn read(
        statement: &PreparedStatement,
        plain: &PlainInsert,
        bind: Bind,
        zone: Zone,
    ) -> SqlResult<Self> {
        statement.check(&bind.parameters, &bind.parameter_formats)?;
        let mut values = Self {
            values: bind.parameters,
            formats: bind.parameter_formats,
            zone,
            rows: PlainRows::new(zone),
        };
        values.rows = values.again(statement, plain)?;
        Ok(values)
    }

    fn again(&self, statement: &PreparedStatement, plain: &PlainInsert) -> SqlResult<PlainRows> {
        let mut rows = PlainRows::new(self.zone);
        plain.read(&statement.types, &self.values, &self.formats, &mut rows)?;
        Ok(rows)
    }
}

impl Connection {
    /// Runs a plain INSERT together with the executions behind it; false when the catalog has it run as any statement.
    pub(super) async fn run_plain(
        &mut self,
        name: &str,
        portal: &mut Portal,
        values: PlainValues,
    ) -> SqlResult<bool> {
        let statement = Arc::clone(&portal.statement);
        let (Some(plain), Some(parsed)) = (&statement.plain, &statement.parsed) else {
            return Err(SqlError::internal("not a plain INSERT"));
        };
        let signal = self.cancel.signal();
        let timeout = self
            .session
            .with_settings(|settings| settings.statement_timeout());
        let guard = Guard::new(&signal, &self.session, timeout);
        let is_plain = self
            .session
            .runs_plainly(plain, &parsed.statement, &statement.types);
        if !guarded(&guard, &mut self.input, is_plain).await? {
            portal.parsed = statement.bind(&values.values, &values.formats, values.zone)?;
            portal.state = PortalState::New;
            return Ok(false);
        }
        let (scope, between) = match (self.session.is_in_transaction(), self.session.status()) {
            (true, Status::Open) => (Scope::Several, Between::Either),
            (false, _) if self.input.next_is_sync() => (Scope::Alone, Between::Sync),
            _ => (Scope::Several, Between::Nothing),
        };
        let PlainValues {
            values,
            formats,
            zone,
            mut rows,
        } = values;
        let first = PlainValues {
            values,
            formats,
            zone,
            rows: PlainRows::new(zone),
        };
        let rows_each = rows.count;
        let mut taken = Vec::new();
        if let Some(left) = self.extended.singly.checked_sub(1) {
            self.extended.singly = left;
        } else if name.is_empty() && !self.take_along(portal, plain, between, &mut rows, &mut taken) {
            self.put_back(&mut taken);
            rows = first.again(&statement, plain)?;
        }
        loop {
            let insert = self
                .session
                .insert_plain(plain, &parsed.statement, &statement.types, rows, scope);
            match guarded(&guard, &mut self.input, insert).await {
                Ok(()) => break,
                Err(error) => {
                    let is_alone = taken.is_empty();
                    self.put_back(&mut taken);
                    if is_alone || is_final(&error) {
                        return Err(error);
                    }
                    rows = first.again(&statement, plain)?;
                }
            }
        }
        let tag = format!("INSERT 0 {rows_each}");
        self.out.complete(&tag);
        for message in taken.into_iter().flat_map(|taken: Taken| taken.messages) {
            match message {
                Frontend::Sync => self.ready(),
                Frontend::Bind(_) => self.out.bind_complete(),
                Frontend::Describe(_) => self.out.no_data(),
                _ => self.out.complete(&tag),
            }
        }
        Ok(true)
    }

    /// Puts back what was taken along; each of it is run by itself.
    fn put_back(&mut self, taken: &mut Vec<Taken>) {
        self.extended.singly = taken.len();
        let messages = std::mem::take(taken).into_iter().flat_map(|taken| taken.messages);
        self.input.put_back(messages.collect());
    }

    /// Takes the executions behind this one, as far as they are here. False when a value is wrong: the rows are of no
    /// use then.
    fn take_along(
        &mut self,
        portal: &Portal,
        plain: &PlainInsert,
        between: Between,
        rows: &mut PlainRows,
        taken: &mut Vec<Taken>,
    ) -> bool {
        let statement = &portal.statement;
        while taken.len() < EXECUTIONS_MAX {
            let mut messages = Vec::with_capacity(3);
            let is_whole = self.take_one(portal, between, &mut messages);
            let bind = messages.iter().find_map(|message| match message {
                Frontend::Bind(bind) => Some(bind),
                _ => None,
            });
            let Some(bind) = bind.filter(|_| is_whole) else {
                self.input.put_back(messages);
                break;
            };
            if let Err(_wrong) = plain.read(&statement.types, &bind.parameters, &bind.parameter_formats, rows)
            {
                taken.push(Taken { messages });
                return false;
            }
            taken.push(Taken { messages });
        }
        true
    }

    /// Takes the messages of one execution; false when those that came next are not such.
    fn take_one(&mut self, portal: &Portal, between: Between, messages: &mut Vec<Frontend>) -> bool {
        let next_is_sync = self.input.next_is_sync();
        match between {
            Between::Sync if !next_is_sync => return false,
            Between::Nothing if next_is_sync => return false,
            _ if next_is_sync => messages.extend(self.input.take_valid()),
            _ => {}
        }
        let is_bound = match self.input.take_valid() {
            Some(message) => {
                let is_same = matches!(&message, Frontend::Bind(bind) if bind.portal.is_empty()
                    && bind.statement == portal.statement_name
                    && portal.statement.check(&bind.parameters, &bind.parameter_formats).is_ok());
                messages.push(message);
                is_same
            }
            None => false,
        };
        if !is_bound {
            return false;
        }
        while let Some(message) = self.input.take_valid() {
            let is_describe = matches!(&message, Frontend::Describe(Target::Portal(name)) if name.is_empty());
            let is_execute = matches!(&message, Frontend::Execute { portal, .. } if portal.is_empty());
            messages.push(message);
            if is_execute {
                return between != Between::Sync || self.input.next_is_sync();
            }
            if !is_describe {
                return false;
            }
        }
        false
    }
}

/// Whether an error is that of the first execution whatever came behind it: running it again would be wrong.
fn is_final(error: &SqlError) -> bool {
    error.fatal || error.state == sqlstate::QUERY_CANCELED || error.state == sqlstate::PROGRAM_LIMIT
}
