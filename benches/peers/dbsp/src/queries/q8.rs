//! Who registered and sold within the same ten seconds.

use dbsp::RootCircuit;
use dbsp::utils::Tup2;

use super::{Query, both, input, output};
use crate::events::Kind;
use crate::view::timestamp;

const WINDOW_MS: i64 = 10_000;

pub fn build(circuit: &mut RootCircuit) -> Query {
    let (persons, some) = input(circuit, |events| {
        let (id, name, time) = (
            events.numbers("p_id"),
            events.texts("p_name"),
            events.times("p_date_time"),
        );
        let row = |row| (Tup2(id[row], time.ms(row).div_euclid(WINDOW_MS)), name.at(row));
        events.rows(Kind::Person).map(row).collect()
    });
    let (sellers, others) = input(circuit, |events| {
        let (seller, time) = (events.numbers("a_seller"), events.times("a_date_time"));
        let row = |row| (Tup2(seller[row], time.ms(row).div_euclid(WINDOW_MS)), ());
        events.rows(Kind::Auction).map(row).collect()
    });
    let found = persons
        .distinct()
        .join_index(&sellers.distinct(), |key, name, ()| Some((*key, name.clone())));
    let take = output(&found, |Tup2(id, window), name| {
        vec![id.to_string(), name.to_string(), timestamp(window * WINDOW_MS)]
    });
    Query {
        prepare: both(some, others),
        take,
    }
}
