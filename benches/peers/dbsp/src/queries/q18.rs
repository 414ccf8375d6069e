//! The last bid of each bidder on each auction.

use dbsp::RootCircuit;
use dbsp::utils::{Tup2, Tup5};

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
        let (channel, url) = (events.texts("b_channel"), events.texts("b_url"));
        let (time, extra) = (events.times("b_date_time"), events.texts("b_extra"));
        let row = |row| {
            let bid = Tup5(
                time.ms(row),
                price[row],
                channel.at(row),
                url.at(row),
                extra.at(row),
            );
            (Tup2(bidder[row], auction[row]), bid)
        };
        events.rows(Kind::Bid).map(row).collect()
    });
    let last = bids.chain_aggregate(
        |bid, _| bid.clone(),
        |last, bid, _| match bid.0 > last.0 {
            true => bid.clone(),
            false => last,
        },
    );
    let take = output(
        &last,
        |Tup2(bidder, auction), Tup5(ms, price, channel, url, extra)| {
            vec![
                auction.to_string(),
                bidder.to_string(),
                price.to_string(),
                channel.to_string(),
                url.to_string(),
                timestamp(*ms),
                extra.to_string(),
            ]
        },
    );
    Query { prepare, take }
}
