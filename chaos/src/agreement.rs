//! Waiting until all regions show the same, and what they then show.
//!
//! It is asked for when all faults are healed, in two steps: while the clients go on, until every region shows what was
//! acknowledged anywhere before the healing; then with the clients at rest, until all answers are equal and are those of
//! the ledgers. Each has a bound, beyond which it is a violation.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::regions::Region;
use crate::workload::{Failure, Session, Shared, bank, settings};

const POLL: Duration = Duration::from_millis(50);

/// Everything that has to be equal in all regions, in the order of its rows.
const EVERYWHERE: [(&str, &str); 5] = [
    (
        "counted",
        "SELECT region, n, ids, total FROM counted ORDER BY region",
    ),
    ("bank", "SELECT n, total FROM bank"),
    (
        "branches",
        "SELECT region, n, total FROM branches ORDER BY region",
    ),
    ("joined", "SELECT writer, n FROM joined ORDER BY writer"),
    ("settings", "SELECT key, value, writer FROM settings ORDER BY key"),
];

/// A region's own rows, to be compared with what all count of them.
const OWN: &str = "SELECT count(*), sum(id), sum(n) FROM events";

/// The rows of each relation as text, by the relation's name.
type Answers = BTreeMap<&'static str, Vec<String>>;

/// Waits, with the clients at work, until every region shows as many events of each region as were acknowledged when it
/// was called. `None`: not within the bound, which is a violation.
pub async fn caught_up(shared: &Arc<Shared>, since: Instant) -> Option<Duration> {
    let wanted = Region::ALL.map(|region| shared.events(region).counts().acknowledged);
    let mut sessions = sessions(shared);
    loop {
        let mut behind = Vec::new();
        for (region, session) in &mut sessions {
            session.connect().await;
            let shown = counted(session).await;
            for (origin, wanted) in Region::ALL.into_iter().zip(wanted) {
                let shown = shown.get(origin.name()).copied().unwrap_or(0);
                if shown < wanted {
                    behind.push(format!("{region} shows {shown} of {wanted} events of {origin}"));
                }
            }
        }
        if behind.is_empty() {
            return Some(since.elapsed());
        }
        if since.elapsed() > shared.agree_max {
            shared
                .journal
                .violation("regions catch up after they are healed", behind.join("; "));
            return None;
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Waits, with the clients at rest, until all regions are equal and as they should be. `None`: a violation.
pub async fn equal(shared: &Arc<Shared>) -> Option<Duration> {
    let since = Instant::now();
    let mut sessions = sessions(shared);
    loop {
        let difference = difference(shared, &mut sessions).await;
        match difference {
            None => return Some(since.elapsed()),
            Some(difference) if since.elapsed() > shared.agree_max => {
                shared
                    .journal
                    .violation("regions agree when nothing is written", difference);
                return None;
            }
            Some(_) => tokio::time::sleep(POLL).await,
        }
    }
}

/// Writes a row in a region that has seen all others, and waits until all have it: it has to win against every older one.
pub async fn newest_wins(shared: &Arc<Shared>, writer: Region, value: u64) {
    let mut sessions = sessions(shared);
    let sql = settings::upsert(settings::MARKER, value, writer);
    let since = Instant::now();
    for (region, session) in &mut sessions {
        if *region != writer {
            continue;
        }
        while session.connect().await.is_none() || session.query(&sql).await.is_err() {
            if since.elapsed() > shared.agree_max {
                let detail = format!("{writer} does not take a row");
                return shared.journal.violation("a healed region takes writes", detail);
            }
            tokio::time::sleep(POLL).await;
        }
    }
    let sql = format!(
        "SELECT value FROM settings WHERE key = {} AND writer = '{writer}'",
        settings::MARKER
    );
    for (region, session) in &mut sessions {
        loop {
            session.connect().await;
            let seen = session.query(&sql).await;
            if seen.as_deref() == Ok(&[vec![Some(value.to_string())]]) {
                break;
            }
            if since.elapsed() > shared.agree_max {
                let detail = format!("{region} shows {seen:?} and not {value}, written last by {writer}");
                shared
                    .journal
                    .violation("the newest version of a row wins everywhere", detail);
                return;
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

fn sessions(shared: &Arc<Shared>) -> Vec<(Region, Session)> {
    let session = |region| (region, Session::new(shared.clone(), region));
    Region::ALL.map(session).into_iter().collect()
}

async fn counted(session: &mut Session) -> BTreeMap<String, u64> {
    let rows = session.query("SELECT region, n FROM counted").await;
    let parse = |row: Vec<Option<String>>| {
        let mut columns = row.into_iter().flatten();
        Some((columns.next()?, columns.next()?.parse().ok()?))
    };
    rows.unwrap_or_default().into_iter().filter_map(parse).collect()
}

/// What still differs; `None` when nothing does.
async fn difference(shared: &Arc<Shared>, sessions: &mut [(Region, Session)]) -> Option<String> {
    let mut all = Vec::new();
    for (region, session) in sessions.iter_mut() {
        session.connect().await;
        match answers(session).await {
            Ok(answers) => all.push((*region, answers)),
            Err(failure) => return Some(format!("{region} does not answer: {failure:?}")),
        }
    }
    let (first, expected) = all.first()?;
    for (region, answers) in &all[1..] {
        for (name, rows) in answers {
            if rows != &expected[name] {
                return Some(format!(
                    "{name}: {}",
                    first_difference(*first, &expected[name], *region, rows)
                ));
            }
        }
    }
    if let Some(unexpected) = unexpected(shared, expected) {
        return Some(unexpected);
    }
    for (region, session) in sessions {
        let own = match session.query(OWN).await {
            Ok(rows) => texts(rows),
            Err(failure) => return Some(format!("{region} does not answer: {failure:?}")),
        };
        let prefix = format!("{region}|");
        let shown = expected["counted"]
            .iter()
            .find_map(|row| row.strip_prefix(&prefix));
        if own.first().map(String::as_str) != shown {
            return Some(format!("{region} has own events {own:?}, and all show {shown:?}"));
        }
    }
    None
}

/// What is equal everywhere and yet not what the clients were told.
fn unexpected(shared: &Shared, answers: &Answers) -> Option<String> {
    let regions = Region::ALL.len() as i64;
    let bank = format!("{}|{}", regions * bank::ACCOUNTS as i64, regions * bank::MONEY);
    if answers["bank"] != [bank.clone()] {
        return Some(format!("the bank has {:?} and not {bank}", answers["bank"]));
    }
    for region in Region::ALL {
        let counts = shared.events(region).counts();
        let prefix = format!("{region}|");
        let row = answers["counted"]
            .iter()
            .find_map(|row| row.strip_prefix(&prefix));
        let shown = row
            .and_then(|row| row.split('|').next()?.parse().ok())
            .unwrap_or(0);
        if shown < counts.acknowledged || shown > counts.most() {
            return Some(format!(
                "all show {shown} events of {region}, of which {counts:?}"
            ));
        }
    }
    None
}

/// The first row that is not the same, for people.
fn first_difference(one: Region, its: &[String], other: Region, others: &[String]) -> String {
    let rows = its.len().max(others.len());
    let differs = (0..rows).find(|row| its.get(*row) != others.get(*row));
    let at = differs.unwrap_or(0);
    format!(
        "row {at} is {:?} in {one} and {:?} in {other}",
        its.get(at),
        others.get(at)
    )
}

async fn answers(session: &mut Session) -> Result<Answers, Failure> {
    let mut answers = Answers::new();
    for (name, sql) in EVERYWHERE {
        answers.insert(name, texts(session.query(sql).await?));
    }
    Ok(answers)
}

/// The rows of an answer, columns separated by `|`.
pub fn texts(rows: Vec<Vec<Option<String>>>) -> Vec<String> {
    let text = |row: Vec<Option<String>>| {
        let columns: Vec<String> = row
            .into_iter()
            .map(|column| column.unwrap_or_else(|| "NULL".to_owned()))
            .collect();
        columns.join("|")
    };
    rows.into_iter().map(text).collect()
}
