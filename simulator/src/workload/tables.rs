//! Random tables.
//!
//! All have the same columns in random order, so that views can join any two of them on something:
//!
//! ```text
//! k int (key) | k2 text (sometimes part of the key) | g text | r int | a int | b bigint | d numeric | e double | f bool | t timestamp
//! ```

use crate::rng::Rng;

/// A CREATE TABLE of this name, in a cluster of these regions.
pub(super) fn draw(rng: &mut Rng, regions: &[&str], name: &str) -> String {
    let mut columns = vec![
        "g text".to_owned(),
        "r integer".to_owned(),
        "a integer".to_owned(),
        "b bigint".to_owned(),
        "d numeric(12, 2)".to_owned(),
        "e double precision".to_owned(),
        "f boolean".to_owned(),
        "t timestamp".to_owned(),
    ];
    for column in &mut columns {
        if rng.percent(30) {
            column.push_str(" NOT NULL");
        }
    }
    let mut key = "k";
    columns.push("k integer".to_owned());
    if rng.percent(30) {
        columns.push("k2 text".to_owned());
        key = "k, k2";
    }
    rng.shuffle(&mut columns);
    let locality = match rng.below(10) {
        0..=3 => "GLOBAL".to_owned(),
        4 => format!("REGIONAL BY TABLE IN \"{}\"", rng.pick(regions)),
        _ => "REGIONAL BY ROW".to_owned(),
    };
    format!(
        "CREATE TABLE {name} ({}, PRIMARY KEY ({key})) LOCALITY {locality}",
        columns.join(", ")
    )
}
