//! Counts and prices by auction and day. The day stays a number until it is shown.

use dbsp::RootCircuit;
use dbsp::utils::{Tup2, Tup7};

use super::{Query, input, output};
use crate::events::Kind;
use crate::view::day;

const DAY_MS: i64 = 86_400_000;

pub fn build(circuit: &mut RootCircuit) -> Query {
    let (bids, prepare) = input(circuit, |events| {
        let (auction, price) = (events.numbers("b_auction"), events.numbers("b_price"));
        let time = events.times("b_date_time");
        let row = |row| (Tup2(auction[row], time.ms(row).div_euclid(DAY_MS)), price[row]);
        events.rows(Kind::Bid).map(row).collect()
    });
    let statistics = bids.chain_aggregate(
        |price, weight| of_bids(*price, weight),
        |all, price, weight| {
            let more = of_bids(*price, weight);
            Tup7(
                all.0 + more.0,
                all.1 + more.1,
                all.2 + more.2,
                all.3 + more.3,
                all.4.min(more.4),
                all.5.max(more.5),
                all.6 + more.6,
            )
        },
    );
    let take = output(&statistics, |Tup2(auction, days), all| {
        let average = all.6 as f64 / all.0 as f64;
        let numbers = [all.0, all.1, all.2, all.3, all.4, all.5].map(|number| number.to_string());
        let mut row = vec![auction.to_string(), day(*days)];
        row.extend(numbers);
        row.extend([average.to_string(), all.6.to_string()]);
        row
    });
    Query { prepare, take }
}

/// Bids in all and of each rank, the least, the highest and the sum of the price, of `count` bids of one price.
fn of_bids(price: i64, count: i64) -> Tup7<i64, i64, i64, i64, i64, i64, i64> {
    let of_rank = |rank: bool| if rank { count } else { 0 };
    let middle = (10_000..1_000_000).contains(&price);
    Tup7(
        count,
        of_rank(price < 10_000),
        of_rank(middle),
        of_rank(price >= 1_000_000),
        price,
        price,
        price * count,
    )
}
