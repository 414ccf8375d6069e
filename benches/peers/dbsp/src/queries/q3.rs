//! Who sells in category 10 in three states.

use dbsp::RootCircuit;
use dbsp::utils::{Tup2, Tup3};

use super::{Query, both, input, output};
use crate::events::Kind;

pub fn build(circuit: &mut RootCircuit) -> Query {
    let (persons, some) = input(circuit, |events| {
        let (id, name) = (events.numbers("p_id"), events.texts("p_name"));
        let (city, state) = (events.texts("p_city"), events.texts("p_state"));
        let row = |row| (id[row], Tup3(name.at(row), city.at(row), state.at(row)));
        events.rows(Kind::Person).map(row).collect()
    });
    let (auctions, others) = input(circuit, |events| {
        let (id, seller, category) = (
            events.numbers("a_id"),
            events.numbers("a_seller"),
            events.numbers("a_category"),
        );
        events
            .rows(Kind::Auction)
            .map(|row| (seller[row], Tup2(id[row], category[row])))
            .collect()
    });
    let persons = persons.filter(|(_, Tup3(_, _, state))| matches!(&**state, "or" | "id" | "ca"));
    let auctions = auctions.filter(|(_, Tup2(_, category))| *category == 10);
    let sold = auctions.join_index(&persons, |_, Tup2(id, _), Tup3(name, city, state)| {
        Some((*id, Tup3(name.clone(), city.clone(), state.clone())))
    });
    let take = output(&sold, |id, Tup3(name, city, state)| {
        vec![
            name.to_string(),
            city.to_string(),
            state.to_string(),
            id.to_string(),
        ]
    });
    Query {
        prepare: both(some, others),
        take,
    }
}
