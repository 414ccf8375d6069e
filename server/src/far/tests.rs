//! What other regions may ask for, damaged in every byte: it is refused or answered, and nothing panics.

mod joined;
mod pushed;
mod world;

use std::fmt::Debug;
use std::sync::Arc;
use std::time::{Duration, Instant};

use datafusion::logical_expr::{col, lit};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tributary_planner::catalog::PlanSettings;
use tributary_planner::parse::parse;
use tributary_replication::bundle::encode_rows;

use super::condition::Writer;
use super::forward::{CopyRequest, Errand, ForwardReply, ForwardRequest};
use super::request::Request;
use super::window::Versions;
use super::{ScanRequest, owner};
use crate::links::actions::{DdlRequest, StandingRequest};
use crate::pgwire::error::SqlError;
use crate::pgwire::sqlstate;
use crate::session::backend::Backend;
use crate::session::memory_backend::MemoryBackend;
use crate::session::settings::Settings;
use crate::session::{Scope, Session};

/// The bytes of a request with each bit turned, and cut at each byte.
fn damaged(request: &impl Serialize) -> impl Iterator<Item = Vec<u8>> {
    let sound = postcard::to_stdvec(request).expect("a request is plain data");
    let turned = {
        let sound = sound.clone();
        (0..sound.len() * 8).map(move |bit| {
            let mut bytes = sound.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            bytes
        })
    };
    turned.chain((0..sound.len()).map(move |end| sound[..end].to_vec()))
}

#[tokio::test]
async fn a_damaged_scan_is_refused_or_answered() {
    let backend = MemoryBackend::new(&[]);
    let mut session = Session::new(backend.clone(), "test".into(), 1, Settings::default(), 1 << 20);
    for sql in [
        "CREATE TABLE t (id int PRIMARY KEY, name text)",
        "INSERT INTO t VALUES (1, 'a'), (2, 'b'), (3, NULL)",
    ] {
        for parsed in parse(sql).expect(sql) {
            session.execute(&parsed, Scope::Alone).await.map(drop).expect(sql);
        }
    }
    let snapshot = backend.snapshot();
    let origin = snapshot.origin.expect("it founded the cluster");
    let versions = Versions::default();
    versions.publish(&snapshot, Instant::now());
    let (table, stored) = snapshot.tables.iter().next().expect("it was made");
    let schema = stored.def.schema();
    let mut writer = Writer::new(&schema);
    let condition = writer.all(&[col("id").gt(lit(1_i32)), col("name").is_not_null()]);
    let sound = ScanRequest {
        from: "eu".to_owned(),
        table: *table,
        origin,
        epoch: snapshot.frontier.get(origin),
        columns: vec![1, 0],
        hidden: false,
        condition,
        values: writer
            .values()
            .map(|values| encode_rows(&values))
            .unwrap_or_default(),
        rows_max: Some(10),
    };
    let rows = |request: ScanRequest| {
        let answer = owner::answer(&versions, &snapshot, &Request::Rows(request));
        answer
            .map_err(|opened| format!("{opened:?}"))?
            .map(|batch| batch.map(|batch| batch.num_rows()))
            .sum::<Result<usize, _>>()
            .map_err(|error| error.to_string())
    };
    assert_eq!(rows(sound.clone()), Ok(1));
    let (mut answered, mut refused) = (0, 0);
    for bytes in damaged(&sound) {
        match postcard::from_bytes(&bytes).map(&rows) {
            Ok(Ok(_)) => answered += 1,
            _ => refused += 1,
        }
    }
    assert!(
        answered > 0 && refused > 0,
        "{answered} answered, {refused} refused"
    );
}

/// What a request reads as when it is damaged: never when it is cut, and never as what it was.
fn read_damaged<T: Serialize + DeserializeOwned + PartialEq + Debug>(sound: &T) -> Vec<T> {
    let whole = postcard::to_stdvec(sound).expect("a request is plain data").len();
    let read = damaged(sound).filter_map(|bytes| {
        let read = postcard::from_bytes::<T>(&bytes).ok()?;
        assert_eq!(bytes.len(), whole, "a part is read as {read:?}");
        assert_ne!(&read, sound, "a byte without a meaning");
        Some(read)
    });
    let read: Vec<T> = read.collect();
    assert!(!read.is_empty(), "some damage only changes a text");
    read
}

fn statement(sql: &str) -> ForwardRequest {
    ForwardRequest {
        from: "eu".to_owned(),
        user: "postgres".to_owned(),
        sql: sql.to_owned(),
        settings: vec![("TimeZone".to_owned(), "UTC".to_owned())],
        catalog_version: 300,
        seen: Vec::new(),
        token: [7; 16],
    }
}

#[test]
fn damaged_questions_are_other_questions_or_none() {
    read_damaged(&DdlRequest {
        from: "eu".to_owned(),
        sql: "DROP TABLE t".to_owned(),
        time_zone: "UTC".to_owned(),
    });
    read_damaged(&StandingRequest {
        region: "eu".to_owned(),
    });
}

/// A region with a table `t`.
async fn with_table() -> Arc<MemoryBackend> {
    let backend = MemoryBackend::new(&[]);
    ddl(&backend, "CREATE TABLE t (id int PRIMARY KEY, name text)").await;
    backend
}

async fn ddl(backend: &MemoryBackend, sql: &str) {
    let done = backend.ddl(sql.to_owned(), PlanSettings::default()).await;
    done.expect("it is defined");
}

async fn carried_out(backend: &Arc<MemoryBackend>, errand: &Errand) -> ForwardReply {
    match Session::of_errand(backend.clone(), errand) {
        Ok((mut session, parsed)) => session.carry_out(&parsed, errand).await,
        Err(error) => ForwardReply::Refused(error.into()),
    }
}

#[tokio::test]
async fn what_is_returned_is_judged_by_the_catalog_of_the_commit() {
    let backend = with_table().await;
    let mut insert = statement("INSERT INTO t VALUES (1, 'a'), (2, 'b') RETURNING name");
    insert.token = [1; 16];
    let reply = carried_out(&backend, &Errand::Statement(insert)).await;
    assert!(
        matches!(&reply, ForwardReply::Done(done) if done.returned.is_some()),
        "{reply:?}"
    );

    backend.hold_snapshots(true);
    ddl(&backend, "ALTER TABLE t SET (residency = 'enforced')").await;
    let errand = Errand::Statement(statement("DELETE FROM t WHERE id = 1 RETURNING name"));
    let later = async {
        tokio::time::sleep(Duration::from_millis(30)).await;
        backend.hold_snapshots(false);
    };
    let (reply, ()) = tokio::join!(carried_out(&backend, &errand), later);
    let ForwardReply::Refused(error) = reply else {
        panic!("a name has left: {reply:?}");
    };
    assert_eq!(SqlError::from(error).state, sqlstate::COMPLETION_UNKNOWN);
    let again = Errand::Statement(statement("DELETE FROM t WHERE id = 2 RETURNING name"));
    let ForwardReply::Refused(error) = carried_out(&backend, &again).await else {
        panic!("a name has left");
    };
    assert_eq!(SqlError::from(error).state, sqlstate::INSUFFICIENT_PRIVILEGE);
}

#[tokio::test]
async fn damaged_statements_are_carried_out_or_refused() {
    let backend = with_table().await;
    let statements = read_damaged(&statement("DELETE FROM t"));
    let copies = read_damaged(&CopyRequest {
        statement: statement("COPY t FROM STDIN"),
        input: b"1\ta\n".to_vec(),
    });
    let (statements, copies) = (
        statements.into_iter().map(Errand::Statement),
        copies.into_iter().map(Errand::Copy),
    );
    let (mut done, mut refused) = ([0, 0], 0);
    for errand in statements.chain(copies) {
        let kind = usize::from(errand.input().is_some());
        match carried_out(&backend, &errand).await {
            ForwardReply::Done(_) => done[kind] += 1,
            ForwardReply::Refused(_) => refused += 1,
        }
    }
    assert!(
        done[0] > 0 && done[1] > 0 && refused > 0,
        "{done:?} done, {refused} refused"
    );
}
