//! The highest bids of every ten seconds. A bid at a window's end counts for both windows.

use dbsp::RootCircuit;
use dbsp::utils::{Tup2, Tup4};

use super::{Query, input, output};
use crate::events::Kind;
use crate::view::timestamp;

const WINDOW_MS: i64 = 10_000;

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
                price[row],
                Tup4(time.ms(row), auction[row], bidder[row], extra.at(row)),
            )
        };
        events.rows(Kind::Bid).map(row).collect()
    });
    let highest = bids
        .map_index(|(price, Tup4(ms, ..))| (ms.div_euclid(WINDOW_MS), *price))
        .chain_aggregate(|price, _| *price, |highest, price, _| highest.max(*price))
        .map_index(|(window, price)| (*price, *window));
    let found = bids.join_index(&highest, |price, bid, window| {
        let from = window * WINDOW_MS;
        (from <= bid.0 && bid.0 <= from + WINDOW_MS).then(|| (Tup2(*price, *window), bid.clone()))
    });
    let take = output(&found, |Tup2(price, _), Tup4(ms, auction, bidder, extra)| {
        vec![
            auction.to_string(),
            price.to_string(),
            bidder.to_string(),
            timestamp(*ms),
            extra.to_string(),
        ]
    });
    Query { prepare, take }
}
