//! Three regions in one process, and statements of the first that ask the others.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use async_trait::async_trait;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};
use futures::{StreamExt, TryStreamExt};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tributary_planner::parse::{Statement, parse};
use tributary_region::Snapshot;
use tributary_replication::bundle::{decode_rows, encode_rows};
use tributary_storage::ObjectId;

use super::super::forward::{Errand, ForwardReply};
use super::super::owner;
use super::super::push::Pushing;
use super::super::relation::{Far, FarRelation};
use super::super::request::Request;
use super::super::scan::FarScans;
use super::super::window::Versions;
use super::super::{Arrived, FarError, FarReads, FarRows, Opened, Owner};
use crate::pgwire::error::{SqlError, SqlResult};
use crate::query::facts::Facts;
use crate::query::reader::{Planned, Reader, Writes};
use crate::query::relation::{Exposed, RegionNames, Relation};
use crate::session::backend::Backend;
use crate::session::memory_backend::MemoryBackend;
use crate::session::settings::Settings;
use crate::session::{Scope, Session};

const REGIONS: [&str; 3] = ["ap", "eu", "us"];
const COLUMNS: &str = "id int PRIMARY KEY, g int, k text, f double precision, d numeric(10,2), b bigint, \
                       ok boolean, at timestamptz, day date, s smallint";

/// What only the first region has, to be joined with `t`.
const SMALL: [&str; 6] = [
    "CREATE TABLE dim (g int PRIMARY KEY, name text, weight int)",
    "INSERT INTO dim VALUES (0, 'none', 0), (1, 'one', 3), (2, 'two', NULL), (3, NULL, 2), (9, 'nine', 1)",
    "CREATE TABLE kinds (k text, n int, PRIMARY KEY (k, n))",
    "INSERT INTO kinds VALUES ('a', 1), ('a', 2), ('b', 1), ('Ä', 3), ('', 0), ('nobody', 5)",
    "CREATE TABLE secret (g int PRIMARY KEY, name text) WITH (residency = 'enforced')",
    "INSERT INTO secret VALUES (1, 'who'), (2, 'knows')",
];

/// One owner.
pub(super) struct Kept {
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) versions: Versions,
}

/// Owners that are asked in this process; every request goes through its bytes.
#[derive(Default)]
pub(super) struct Owners {
    pub(super) regions: BTreeMap<String, Kept>,
    /// Regions that know scans only.
    pub(super) old: Vec<&'static str>,
    arrived: Arc<AtomicUsize>,
    pub(super) asked: Mutex<Vec<&'static str>>,
    /// Tables of the first region whose residency has been enforced since.
    pub(super) enforced: BTreeSet<ObjectId>,
    /// Whether the statement runs again.
    pub(super) is_repeated: bool,
}

#[async_trait]
impl FarReads for Owners {
    async fn open(&self, region: &str, request: &Request) -> Result<FarRows, FarError> {
        let kept = &self.regions[region];
        let kind = match request {
            Request::Rows(_) => "rows",
            Request::States(_) if self.old.contains(&region) => {
                return Err(FarError::NotUnderstood {
                    region: region.to_owned(),
                });
            }
            Request::States(_) => "states",
        };
        self.asked.lock().expect("no panic").push(kind);
        let request = Request::from_bytes(&request.to_bytes()).expect("it was just written");
        let answer = owner::answer(&kept.versions, &kept.snapshot, &request);
        let answer = answer.map_err(|opened| match opened {
            Opened::Unreadable => FarError::NotUnderstood {
                region: region.to_owned(),
            },
            other => panic!("{region} answers {other:?}"),
        })?;
        let arrived = Arc::clone(&self.arrived);
        let answer = answer.map(move |batch| {
            let batch = batch.map_err(|error| FarError::Failed(Box::new(SqlError::from(error))))?;
            let bytes = encode_rows(&batch);
            arrived.fetch_add(batch.num_rows(), Ordering::Relaxed);
            Ok(Arrived {
                rows: decode_rows(&bytes).expect("just encoded"),
                bytes: bytes.len(),
            })
        });
        Ok(futures::stream::iter(answer.collect::<Vec<_>>()).boxed())
    }

    async fn forward(&self, _region: &str, _errand: &Errand) -> Result<ForwardReply, FarError> {
        panic!("nothing is written here")
    }

    fn is_resident(&self, table: ObjectId) -> bool {
        self.enforced.contains(&table)
    }
}

/// Three regions with rows of `t`.
pub(super) struct World {
    backends: Vec<Arc<MemoryBackend>>,
}

impl World {
    /// Regions with so many rows each, made from the seed.
    pub(super) async fn new(seed: u64, rows: [usize; 3]) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let mut backends = Vec::new();
        for (region, rows) in REGIONS.into_iter().zip(rows) {
            let backend = MemoryBackend::named(region, &[]);
            let mut session = Session::new(backend.clone(), "test".into(), 1, Settings::default(), 1 << 24);
            let mut statements = vec![format!("CREATE TABLE t ({COLUMNS})")];
            if region == REGIONS[0] {
                statements.extend(SMALL.map(str::to_owned));
            }
            let values: Vec<String> = (0..rows).map(|id| row(id, &mut random)).collect();
            if !values.is_empty() {
                statements.push(format!("INSERT INTO t VALUES {}", values.join(", ")));
            }
            for sql in statements {
                for parsed in parse(&sql).expect("it parses") {
                    session
                        .execute(&parsed, Scope::Alone)
                        .await
                        .map(drop)
                        .expect("it runs");
                }
            }
            backends.push(backend);
        }
        Self { backends }
    }

    /// A table of the first region.
    pub(super) fn table(&self, name: &str) -> ObjectId {
        let catalog = &self.backends[0].snapshot().catalog;
        catalog.object(name).expect("it is there").id
    }

    pub(super) fn owners(&self) -> Owners {
        let regions = REGIONS
            .iter()
            .zip(&self.backends)
            .skip(1)
            .map(|(region, backend)| {
                let (snapshot, versions) = (backend.snapshot(), Versions::default());
                versions.publish(&snapshot, Instant::now());
                (region.to_string(), Kept { snapshot, versions })
            });
        Owners {
            regions: regions.collect(),
            ..Owners::default()
        }
    }

    /// A query, planned in the first region; `t` is there in all that are named.
    pub(super) async fn plan(&self, sql: &str, reads: &Arc<Owners>, reads_own: bool) -> Planned {
        self.plan_by(sql, reads, Arc::clone(reads) as _, reads_own).await
    }

    /// The same, asked by another road.
    pub(super) async fn plan_by(
        &self,
        sql: &str,
        owners: &Owners,
        road: Arc<dyn FarReads>,
        reads_own: bool,
    ) -> Planned {
        let snapshot = self.backends[0].snapshot();
        let facts = Facts {
            user: "test".into(),
            process: 1,
            region: REGIONS[0].into(),
            version: "test".into(),
            source_tasks: Arc::default(),
            sink_tasks: Arc::default(),
            secure_links: false,
            frontier: String::new(),
            started_ns: 0,
            settings: Arc::new(Mutex::new(Settings::default())),
        };
        let reader = Reader {
            snapshot: Arc::clone(&snapshot),
            writes: Writes::new(),
            facts,
            memory_bytes_max: 1 << 28,
            far: Some(Arc::clone(&road)),
            sends_sides: !owners.is_repeated,
        };
        let exposed = Exposed {
            hidden: true,
            versions: false,
        };
        let (context, public, far) = reader.context(exposed, None).expect("a context");
        let relation = self.relation(exposed, owners, road, reads_own, &far);
        public.replace("t", Arc::new(relation));
        let parsed = parse(sql).expect(sql).pop().expect("one statement");
        let Statement::Sql(statement) = parsed.statement else {
            panic!("a query");
        };
        let plan = context.plan_statement(*statement).await.expect(sql);
        let plan = context.analyze(plan).expect(sql);
        Planned {
            plan,
            context,
            far,
            notices: Vec::new(),
        }
    }

    fn relation(
        &self,
        exposed: Exposed,
        owners: &Owners,
        road: Arc<dyn FarReads>,
        reads_own: bool,
        far: &Arc<FarScans>,
    ) -> FarRelation {
        let snapshot = self.backends[0].snapshot();
        let (table, stored) = snapshot.tables.iter().next().expect("it was made");
        let names: RegionNames = Arc::new(|_| Some(REGIONS[0].to_owned()));
        let owners = owners.regions.iter().map(|(region, kept)| {
            let origin = kept.snapshot.origin.expect("it founded its cluster");
            Owner {
                region: region.clone(),
                origin,
                epoch: kept.snapshot.frontier.get(origin),
            }
        });
        FarRelation::new(
            Relation::table(stored, exposed, None, names),
            Far {
                table: *table,
                reads_own,
                own_region: REGIONS[0].to_owned(),
                hidden: true,
                resident: false,
                owners: owners.collect(),
                reads: road,
                scans: Arc::clone(far),
            },
        )
    }

    /// The answer over rows, and that with the owners' help; how many rows arrived for each, and whether there was help.
    pub(super) async fn both(&self, sql: &str, reads_own: bool) -> (Answer, Answer, bool) {
        let (mut answers, mut helped) = (Vec::new(), false);
        for pushing in [false, true] {
            let reads = Arc::new(self.owners());
            let planned = self.plan(sql, &reads, reads_own).await;
            let rows = match pushing {
                true => planned.collect().await,
                false => unpushed(planned).await,
            };
            helped = reads.asked.lock().expect("no panic").contains(&"states");
            let lines = rows
                .map(|rows| lines(&rows))
                .map_err(|error| error.state.to_owned());
            answers.push((lines, reads.arrived.load(Ordering::Relaxed)));
        }
        let with = answers.pop().expect("two");
        (answers.pop().expect("two"), with, helped)
    }

    /// Owners help with each of these, fewer rows arrive, and the answer is that over rows.
    pub(super) async fn all_go_along(&self, statements: &[&str]) {
        for sql in statements {
            let (over_rows, with_help, helped) = self.both(sql, true).await;
            assert!(over_rows.0.is_ok(), "{sql}: {:?}", over_rows.0);
            assert_eq!(over_rows.0, with_help.0, "{sql}");
            assert!(helped && with_help.1 < over_rows.1, "{sql}");
        }
    }

    /// Owners help with none of these, and there is an answer.
    pub(super) async fn all_stay_here(&self, statements: &[&str]) {
        for sql in statements {
            let (over_rows, with_help, helped) = self.both(sql, true).await;
            assert!(!helped, "{sql}");
            assert!(over_rows.0.is_ok(), "{sql}: {:?}", over_rows.0);
            assert_eq!(over_rows, with_help, "{sql}");
        }
    }
}

/// Lines or an SQLSTATE, and how many rows arrived.
pub(super) type Answer = (Result<Vec<String>, String>, usize);

async fn unpushed(planned: Planned) -> SqlResult<RecordBatch> {
    let prepared = planned.context.prepare(&planned.plan, Pushing::Nothing).await?;
    planned
        .far
        .open_all(|| planned.context.state().task_ctx())
        .await?;
    let schema = prepared.schema();
    let batches: Vec<RecordBatch> = prepared.start()?.try_collect().await?;
    Ok(datafusion::arrow::compute::concat_batches(&schema, &batches)?)
}

/// Rows as text, in an order of their own.
pub(super) fn lines(rows: &RecordBatch) -> Vec<String> {
    let options = FormatOptions::new().with_null("NULL");
    let columns: Vec<_> = rows
        .columns()
        .iter()
        .map(|column| ArrayFormatter::try_new(column, &options).expect("it can be shown"))
        .collect();
    let line = |row| {
        let values: Vec<String> = columns
            .iter()
            .map(|column| column.value(row).to_string())
            .collect();
        values.join("|")
    };
    let mut lines: Vec<String> = (0..rows.num_rows()).map(line).collect();
    lines.sort();
    lines
}

/// Values whose sums are exact, so that no order of rows shows.
fn row(id: usize, random: &mut StdRng) -> String {
    let mut or_null = |value: String| match random.random_ratio(1, 6) {
        true => "NULL".to_owned(),
        false => value,
    };
    let g = or_null((id % 5).to_string());
    let k = or_null(format!("'{}'", ["a", "b", "Ä", "", "x y"][id % 5]));
    let f = or_null(format!("{}", (id as f64 - 7.0) / 4.0));
    let d = or_null(format!("{}.{:02}", id * 3, id % 100));
    let b = or_null(format!("{}", 1_000_000_000_000_i64 * (id as i64 - 3)));
    let ok = or_null(id.is_multiple_of(3).to_string());
    let at = or_null(format!("'2024-03-{:02} 1{}:30:00+00'", id % 28 + 1, id % 10));
    let day = or_null(format!("'2024-0{}-11'", id % 9 + 1));
    let s = or_null((id % 7).to_string());
    format!("({id}, {g}, {k}, {f}, {d}, {b}, {ok}, {at}, {day}, {s})")
}
