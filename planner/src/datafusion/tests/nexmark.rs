//! The queries of the benchmark Nexmark, as they stand in `benches/nexmark`: each can be a materialized view.
//!
//! `testscripts/nexmark/qN.txt` holds the plan over plain views of one source. BLESS=1 rewrites them.

use std::path::PathBuf;

use super::Session;
use crate::catalog::TableLocality;
use crate::explain::explain_view;
use crate::plan::{Boundary, ViewPlan};

/// All of Nexmark.
const QUERIES: [u32; 23] = [
    0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22,
];

/// The columns of a source's records: those of each kind of event are null in the others.
const EVENTS: &str = "event_type int, \
    p_id bigint, p_name text, p_email_address text, p_credit_card text, p_city text, p_state text, \
    p_date_time timestamp, p_extra text, \
    a_id bigint, a_item_name text, a_description text, a_initial_bid bigint, a_reserve bigint, \
    a_date_time timestamp, a_expires timestamp, a_seller bigint, a_category bigint, a_extra text, \
    b_auction bigint, b_bidder bigint, b_price bigint, b_channel text, b_url text, b_date_time timestamp, \
    b_extra text";

const SIDE_INPUT: &str = "create table side_input (key bigint, value text)";

fn query(number: u32) -> String {
    let path = format!("../benches/nexmark/q{number}.sql");
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Plain views over one source, as in the benchmark.
fn views() -> Session {
    let mut session = Session::default();
    session.create_source(&format!(
        "create table events ({EVENTS}, tributary_time timestamptz)"
    ));
    for (prefix, name, number) in [("p_", "person", 0), ("a_", "auction", 1), ("b_", "bid", 2)] {
        let own = EVENTS.split(',').filter_map(|column| {
            let column = column.trim().split(' ').next()?;
            let name = column.strip_prefix(prefix)?;
            Some(format!("{column} as {name}"))
        });
        let own = own.collect::<Vec<_>>().join(", ");
        let view = format!(
            "create view {name} as select {own}, tributary_time, tributary_region from events where event_type = {number}"
        );
        session.execute(&view).expect("a view over a source");
    }
    session.create_table(SIDE_INPUT, TableLocality::Global);
    session
}

/// Regional tables.
fn tables() -> Session {
    let mut session = Session::default();
    for (prefix, name) in [("p_", "person"), ("a_", "auction"), ("b_", "bid")] {
        let own = EVENTS
            .split(',')
            .filter_map(|column| column.trim().strip_prefix(prefix));
        let own = own.collect::<Vec<_>>().join(", ");
        let table = format!("create table {name} ({own})");
        session.create_table(&table, TableLocality::RegionalByRow);
    }
    session.create_table(SIDE_INPUT, TableLocality::Global);
    session
}

fn plan(session: &Session, number: u32) -> ViewPlan {
    let query = super::query_of(&query(number)).expect("a query");
    let planned = super::plan_view(&query, &session.catalog, &session.settings);
    planned.unwrap_or_else(|error| panic!("q{number}: {error}")).plan
}

#[test]
fn every_query_is_a_view_over_views_of_a_source() {
    let session = views();
    let bless = std::env::var_os("BLESS").is_some();
    for number in QUERIES {
        let plan = plan(&session, number);
        let actual = explain_view(&format!("q{number}"), &plan).join("\n") + "\n";
        let path = PathBuf::from(format!("testscripts/nexmark/q{number}.txt"));
        if bless {
            std::fs::write(&path, actual).expect("writable");
            continue;
        }
        let expected = std::fs::read_to_string(&path).expect("BLESS=1 writes it");
        assert_eq!(actual, expected, "q{number}: BLESS=1 accepts the change");
    }
}

#[test]
fn every_query_is_a_view_over_regional_tables() {
    let session = tables();
    // The time of a record in the log is a column of sources only.
    for number in QUERIES.into_iter().filter(|number| *number != 12) {
        plan(&session, number);
    }
}

#[test]
fn equal_aggregates_below_a_join_are_one_fragment() {
    assert_eq!(plan(&views(), 5).fragments.len(), 1);
}

#[test]
fn rows_of_a_source_are_only_appended() {
    let boundary = |number| plan(&views(), number).fragments[0].boundary.clone();
    for appended in [0, 1, 14, 22] {
        assert_eq!(boundary(appended), Boundary::AppendRows, "q{appended}");
    }
    for retracted in [3, 9, 13, 18, 20] {
        assert_eq!(boundary(retracted), Boundary::MergeRows, "q{retracted}");
    }
}

#[test]
fn distinct_aggregates_read_one_projection() {
    for number in [15, 16] {
        let plan = plan(&views(), number);
        assert_eq!(plan.fragments.len(), 3, "bidders, auctions and the ordinary ones");
        for fragment in &plan.fragments {
            assert_eq!(fragment.root, plan.fragments[0].root, "q{number}");
        }
    }
}
