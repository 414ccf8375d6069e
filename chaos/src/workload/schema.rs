//! Tables and views, and what is in them before anything else.

use std::time::{Duration, Instant};

use super::{Session, Shared, bank, settings};
use crate::error::{ChaosError, Result};
use crate::regions::Region;

const STATEMENTS: [&str; 7] = [
    "CREATE TABLE events (id BIGINT PRIMARY KEY, region TEXT NOT NULL, key BIGINT NOT NULL, n BIGINT NOT NULL) \
     LOCALITY REGIONAL BY ROW",
    "CREATE TABLE accounts (id BIGINT PRIMARY KEY, region TEXT NOT NULL, balance BIGINT NOT NULL) \
     LOCALITY REGIONAL BY ROW",
    "CREATE TABLE settings (key BIGINT PRIMARY KEY, value BIGINT NOT NULL, writer TEXT NOT NULL) LOCALITY GLOBAL",
    "CREATE MATERIALIZED VIEW counted AS \
     SELECT region, count(*) AS n, sum(id) AS ids, sum(n) AS total FROM events GROUP BY region",
    "CREATE MATERIALIZED VIEW bank AS SELECT count(*) AS n, sum(balance) AS total FROM accounts",
    "CREATE MATERIALIZED VIEW branches AS \
     SELECT region, count(*) AS n, sum(balance) AS total FROM accounts GROUP BY region",
    // Each event has its setting, so its counts add up to those of `counted` at every moment.
    "CREATE MATERIALIZED VIEW joined AS \
     SELECT s.writer, count(*) AS n FROM events e JOIN settings s ON e.key = s.key GROUP BY s.writer",
];
const EVERYWHERE_MAX: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(50);

/// Makes everything through the primary, and waits until every region has it.
pub async fn make(shared: &std::sync::Arc<Shared>) -> Result<()> {
    let mut session = Session::new(shared.clone(), Region::PRIMARY);
    session.connect().await;
    let fill = settings::initial();
    for sql in STATEMENTS.iter().copied().chain([fill.as_str()]) {
        session
            .query(sql)
            .await
            .map_err(|failure| failed(Region::PRIMARY, sql, &failure))?;
    }
    for region in Region::ALL {
        let mut session = Session::new(shared.clone(), region);
        session.connect().await;
        let expected = Some(settings::KEYS.to_string());
        let started = Instant::now();
        loop {
            let seen = session
                .query("SELECT count(*) FROM settings, (SELECT count(*) FROM joined) j")
                .await;
            match seen {
                Ok(rows) if rows == [vec![expected.clone()]] => break,
                Err(failure) if started.elapsed() > EVERYWHERE_MAX => {
                    return Err(failed(region, "the new tables are not there", &failure));
                }
                _ if started.elapsed() > EVERYWHERE_MAX => {
                    return Err(failed(
                        region,
                        "the settings are not there",
                        &super::Failure::Lost,
                    ));
                }
                _ => tokio::time::sleep(POLL).await,
            }
            session.connect().await;
        }
    }
    Ok(())
}

/// Opens the accounts of a region, all at once.
pub async fn open_accounts(shared: &std::sync::Arc<Shared>, region: Region) -> Result<()> {
    let mut session = Session::new(shared.clone(), region);
    session.connect().await;
    let sql = bank::initial(region);
    let opened = session.query(&sql).await;
    opened
        .map(|_| ())
        .map_err(|failure| failed(region, "opening accounts", &failure))
}

fn failed(region: Region, what: &str, failure: &super::Failure) -> ChaosError {
    ChaosError::Sql {
        region: region.name(),
        message: format!("{what}: {failure:?}"),
    }
}
