//! The average final price of each category.

use dbsp::RootCircuit;
use dbsp::utils::{Tup2, Tup3};

use super::{Query, both, input, output};
use crate::events::Kind;

pub fn build(circuit: &mut RootCircuit) -> Query {
    let (auctions, some) = input(circuit, |events| {
        let (id, category) = (events.numbers("a_id"), events.numbers("a_category"));
        let (from, until) = (events.times("a_date_time"), events.times("a_expires"));
        let row = |row| (id[row], Tup3(category[row], from.ms(row), until.ms(row)));
        events.rows(Kind::Auction).map(row).collect()
    });
    let (bids, others) = input(circuit, |events| {
        let (auction, price) = (events.numbers("b_auction"), events.numbers("b_price"));
        let time = events.times("b_date_time");
        events
            .rows(Kind::Bid)
            .map(|row| (auction[row], Tup2(price[row], time.ms(row))))
            .collect()
    });
    let finals = auctions
        .join_index(&bids, |id, Tup3(category, from, until), Tup2(price, ms)| {
            (from <= ms && ms <= until).then_some((Tup2(*id, *category), *price))
        })
        .chain_aggregate(|price, _| *price, |highest, price, _| highest.max(*price));
    let averages = finals
        .map_index(|(Tup2(_, category), price)| (*category, *price))
        .aggregate_linear_postprocess(|price| Tup2(*price, 1_i64), |sum_and_count| sum_and_count);
    let take = output(&averages, |category, Tup2(sum, count)| {
        vec![category.to_string(), (*sum as f64 / *count as f64).to_string()]
    });
    Query {
        prepare: both(some, others),
        take,
    }
}
