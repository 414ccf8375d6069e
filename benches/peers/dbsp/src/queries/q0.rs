//! All bids.

use dbsp::RootCircuit;
use dbsp::utils::Tup4;

use super::{Query, input, output};
use crate::events::Kind;
use crate::view::timestamp;

pub fn build(circuit: &mut RootCircuit) -> Query {
    let (bids, prepare) = input(circuit, |events| {
        let (auction, bidder, price) = (
            events.numbers("b_auction"),
            events.numbers("b_bidder"),
            events.numbers("b_price"),
        );
        let (time, extra) = (events.times("b_date_time"), events.texts("b_extra"));
        let row = |row| {
            (
                auction[row],
                Tup4(bidder[row], price[row], time.ms(row), extra.at(row)),
            )
        };
        events.rows(Kind::Bid).map(row).collect()
    });
    let take = output(&bids, |auction, Tup4(bidder, price, ms, extra)| {
        vec![
            auction.to_string(),
            bidder.to_string(),
            price.to_string(),
            timestamp(*ms),
            extra.to_string(),
        ]
    });
    Query { prepare, take }
}
