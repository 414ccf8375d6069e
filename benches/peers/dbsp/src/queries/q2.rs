//! Bids on every 123rd auction.

use dbsp::RootCircuit;

use super::{Query, input, output};
use crate::events::Kind;

pub fn build(circuit: &mut RootCircuit) -> Query {
    let (bids, prepare) = input(circuit, |events| {
        let (auction, price) = (events.numbers("b_auction"), events.numbers("b_price"));
        events
            .rows(Kind::Bid)
            .map(|row| (auction[row], price[row]))
            .collect()
    });
    let some = bids.filter(|(auction, _)| *auction % 123 == 0);
    let take = output(&some, |auction, price| {
        vec![auction.to_string(), price.to_string()]
    });
    Query { prepare, take }
}
