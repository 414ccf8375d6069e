//! The winning bid of each auction: found with the few columns that decide, then joined with the wide auction.

use dbsp::RootCircuit;
use dbsp::utils::{Tup2, Tup4, Tup9};

use super::{Query, both, input, output};
use crate::events::Kind;
use crate::view::timestamp;

pub fn build(circuit: &mut RootCircuit) -> Query {
    let (auctions, some) = input(circuit, |events| {
        let (id, name, description) = (
            events.numbers("a_id"),
            events.texts("a_item_name"),
            events.texts("a_description"),
        );
        let (first, reserve) = (events.numbers("a_initial_bid"), events.numbers("a_reserve"));
        let (from, until) = (events.times("a_date_time"), events.times("a_expires"));
        let (seller, category, extra) = (
            events.numbers("a_seller"),
            events.numbers("a_category"),
            events.texts("a_extra"),
        );
        let row = |row| {
            let times = (from.ms(row), until.ms(row));
            let texts = (name.at(row), description.at(row), extra.at(row));
            let numbers = (first[row], reserve[row], seller[row], category[row]);
            let (first, reserve, seller, category) = numbers;
            (
                id[row],
                Tup9(
                    times.0, times.1, texts.0, texts.1, first, reserve, seller, category, texts.2,
                ),
            )
        };
        events.rows(Kind::Auction).map(row).collect()
    });
    let (bids, others) = input(circuit, |events| {
        let (auction, bidder, price) = (
            events.numbers("b_auction"),
            events.numbers("b_bidder"),
            events.numbers("b_price"),
        );
        let (time, extra) = (events.times("b_date_time"), events.texts("b_extra"));
        let row = |row| {
            (
                auction[row],
                Tup4(price[row], time.ms(row), bidder[row], extra.at(row)),
            )
        };
        events.rows(Kind::Bid).map(row).collect()
    });
    let winners = auctions
        .map_index(|(id, auction)| (*id, Tup2(auction.0, auction.1)))
        .join_index(&bids, |id, Tup2(from, until), bid| {
            (*from <= bid.1 && bid.1 <= *until).then(|| (*id, bid.clone()))
        })
        .chain_aggregate(
            |bid, _| bid.clone(),
            |best, bid, _| match (bid.0, -bid.1) > (best.0, -best.1) {
                true => bid.clone(),
                false => best,
            },
        );
    let found = auctions.join_index(&winners, |id, auction, bid| {
        Some((*id, Tup2(auction.clone(), bid.clone())))
    });
    let take = output(&found, |id, Tup2(auction, bid)| {
        let Tup9(from, until, name, description, first, reserve, seller, category, extra) = auction;
        let Tup4(price, ms, bidder, bid_extra) = bid;
        vec![
            id.to_string(),
            name.to_string(),
            description.to_string(),
            first.to_string(),
            reserve.to_string(),
            timestamp(*from),
            timestamp(*until),
            seller.to_string(),
            category.to_string(),
            extra.to_string(),
            id.to_string(),
            bidder.to_string(),
            price.to_string(),
            timestamp(*ms),
            bid_extra.to_string(),
        ]
    });
    Query {
        prepare: both(some, others),
        take,
    }
}
