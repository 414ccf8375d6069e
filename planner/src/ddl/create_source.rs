//! CREATE SOURCE … WITH (connector = 'nexmark', …); those of other connectors are passed on.
//!
//! A source is an object with tables of its own, which the server fills from a generator; users read
//! them. The options are checked and completed here, so that the catalog says everything that the generator
//! needs: which events, from which time on, in which shares of the regions.

use std::collections::BTreeMap;

use tributary_storage::ObjectId;

use super::create_table::with_key;
use super::{DdlPlan, check_name, create_file_source, new_object};
use crate::catalog::{
    Catalog, CatalogChange, ColumnDef, FILE_CONNECTOR, ObjectKind, SourceDef, TableDef, TableLocality,
};
use crate::error::{PlanError, PlanErrorKind};
use crate::parse::CreateSource;
use crate::types::SqlType::{self, Int8, Text, Timestamp};

pub(super) const TAG: &str = "CREATE SOURCE";

/// Events per second over all regions, unless said otherwise.
pub const NEXMARK_RATE_DEFAULT: u64 = 10_000;

/// The tables of a nexmark source: name, columns, number of the key's column.
pub const NEXMARK_TABLES: [(&str, &[(&str, SqlType)], Option<usize>); 3] = [
    (
        "person",
        &[
            ("id", Int8),
            ("name", Text),
            ("email_address", Text),
            ("credit_card", Text),
            ("city", Text),
            ("state", Text),
            ("date_time", Timestamp),
            ("extra", Text),
        ],
        Some(0),
    ),
    (
        "auction",
        &[
            ("id", Int8),
            ("item_name", Text),
            ("description", Text),
            ("initial_bid", Int8),
            ("reserve", Int8),
            ("date_time", Timestamp),
            ("expires", Timestamp),
            ("seller", Int8),
            ("category", Int8),
            ("extra", Text),
        ],
        Some(0),
    ),
    (
        "bid",
        &[
            ("auction", Int8),
            ("bidder", Int8),
            ("price", Int8),
            ("channel", Text),
            ("url", Text),
            ("date_time", Timestamp),
            ("extra", Text),
        ],
        None,
    ),
];

pub(super) fn plan(create: &CreateSource, catalog: &Catalog, now_ms: u64) -> Result<DdlPlan, PlanError> {
    if let Some(notice) = check_name(catalog, &create.name, create.if_not_exists)? {
        return Ok(DdlPlan::unchanged(TAG, notice));
    }
    if create.options.get("connector").map(String::as_str) == Some(FILE_CONNECTOR) {
        return create_file_source::plan(create, catalog);
    }
    if create.columns.is_some() {
        return Err(PlanError::unsupported(
            "a column list of a nexmark source",
            "Leave it out; the tables person, auction and bid have the generator's columns.",
        ));
    }
    let mut options = create.options.clone();
    match options.remove("connector").as_deref() {
        Some("nexmark") => {}
        Some(other) => {
            return Err(PlanError::unsupported(
                format_args!("connector \"{other}\""),
                "Use connector = 'file' or connector = 'nexmark'.",
            ));
        }
        None => {
            return Err(invalid("option \"connector\" is missing")
                .with_hint("Use connector = 'file' or connector = 'nexmark'."));
        }
    }
    let prefix = options.remove("prefix").unwrap_or_default().to_lowercase();
    let base_time_ms = base_time(options.remove("base_time").as_deref(), now_ms)?;
    let options = complete(options, catalog)?;

    let mut changes = Vec::new();
    let mut tables: Vec<ObjectId> = Vec::new();
    for (number, (name, columns, key)) in (0..).zip(NEXMARK_TABLES) {
        let name = format!("{prefix}{name}");
        check_name(catalog, &name, false).map_err(|error| {
            error.with_hint("Choose other names for the source's tables: prefix = 'nexmark_'.")
        })?;
        if name == create.name {
            return Err(
                invalid(format!("the source and its table \"{name}\" have the same name"))
                    .with_hint("Give the source another name."),
            );
        }
        let object = new_object(catalog, number, &name, ObjectKind::Table(table(columns, key)))?;
        tables.push(object.id);
        changes.push(CatalogChange::Create(object));
    }
    let source = SourceDef {
        connector: "nexmark".to_owned(),
        options,
        tables,
        base_time_ms,
        columns: Vec::new(),
    };
    let number = u32::try_from(NEXMARK_TABLES.len()).expect("three tables");
    let object = new_object(catalog, number, &create.name, ObjectKind::Source(source))?;
    changes.push(CatalogChange::Create(object));
    Ok(DdlPlan {
        changes,
        notices: Vec::new(),
        tag: TAG.to_owned(),
    })
}

fn table(columns: &[(&str, SqlType)], key: Option<usize>) -> TableDef {
    let column = |(name, sql_type): &(&str, SqlType)| ColumnDef {
        name: (*name).to_owned(),
        sql_type: *sql_type,
        nullable: false,
        default: None,
        hidden: false,
    };
    with_key(
        columns.iter().map(column).collect(),
        key.map(|key| vec![key]),
        TableLocality::RegionalByRow,
    )
}

pub(super) fn invalid(message: impl Into<String>) -> PlanError {
    PlanError::new(PlanErrorKind::InvalidDefinition, message)
}

/// The options with defaults: `events` (absent: without end), `rate`, `seed`, `share`.
fn complete(
    given: BTreeMap<String, String>,
    catalog: &Catalog,
) -> Result<BTreeMap<String, String>, PlanError> {
    let mut complete = BTreeMap::new();
    complete.insert("rate".to_owned(), NEXMARK_RATE_DEFAULT.to_string());
    complete.insert("seed".to_owned(), "0".to_owned());
    let equal: Vec<String> = catalog
        .members()
        .map(|(_, region)| format!("{}=1", region.name))
        .collect();
    complete.insert("share".to_owned(), equal.join(","));
    for (name, value) in given {
        let value = match name.as_str() {
            "events" | "rate" => number(&name, &value, 1)?,
            "seed" => number(&name, &value, 0)?,
            "share" => share(&value, catalog)?,
            _ => {
                return Err(invalid(format!("option \"{name}\" not recognized")).with_hint(
                    "The options of a nexmark source are: events, rate, share, seed, base_time, prefix.",
                ));
            }
        };
        complete.insert(name, value);
    }
    Ok(complete)
}

pub(super) fn number(name: &str, value: &str, minimum: u64) -> Result<String, PlanError> {
    // The generator counts in `usize` and adds to it; half of the range of i64 is never reached.
    let maximum = u64::MAX >> 2;
    match value.replace('_', "").parse::<u64>() {
        Ok(number) if (minimum..=maximum).contains(&number) => Ok(number.to_string()),
        _ => Err(invalid(format!(
            "option \"{name}\" must be a whole number of at least {minimum}, not \"{value}\""
        ))),
    }
}

/// `us=2,eu=1`: regions and weights. Regions that are not named make no events.
fn share(value: &str, catalog: &Catalog) -> Result<String, PlanError> {
    let mut shares: BTreeMap<&str, u32> = BTreeMap::new();
    for part in value.split(',') {
        let (region, weight) = part.split_once('=').ok_or_else(|| {
            invalid(format!(
                "\"{part}\" in option \"share\" is not of the form region=weight"
            ))
        })?;
        let region = region.trim();
        if catalog.region_named(region).is_none() {
            return Err(invalid(format!(
                "region \"{region}\" in option \"share\" does not exist"
            )));
        }
        let weight = weight.trim().parse().ok().filter(|weight| *weight <= 1_000_000);
        let weight = weight.ok_or_else(|| {
            invalid(format!(
                "the weight of region \"{region}\" is no number up to 1000000"
            ))
        })?;
        if shares.insert(region, weight).is_some() {
            return Err(invalid(format!(
                "region \"{region}\" occurs twice in option \"share\""
            )));
        }
    }
    if shares.values().all(|weight| *weight == 0) {
        return Err(invalid("option \"share\" gives no region any events"));
    }
    let shares: Vec<String> = shares
        .iter()
        .map(|(region, weight)| format!("{region}={weight}"))
        .collect();
    Ok(shares.join(","))
}

/// Milliseconds since 1970, or a timestamp (in UTC unless it says otherwise).
fn base_time(value: Option<&str>, now_ms: u64) -> Result<u64, PlanError> {
    let Some(value) = value else {
        return Ok(now_ms);
    };
    if let Ok(ms) = value.parse::<u64>()
        && i64::try_from(ms).is_ok_and(|ms| ms < i64::MAX / 2_000)
    {
        return Ok(ms);
    }
    let literal = SqlType::TimestampTz
        .literal(value, "UTC")
        .ok()
        .and_then(|literal| literal.value);
    match literal {
        Some(crate::plan::LiteralValue::Integer(micros)) if micros >= 0 => {
            u64::try_from(micros / 1_000).map_err(|_| invalid("option \"base_time\" is out of range"))
        }
        _ => Err(
            invalid(format!("option \"base_time\" is no time since 1970: \"{value}\""))
                .with_hint("Write milliseconds since 1970, or '2024-01-01 00:00:00'."),
        ),
    }
}
