//! The ten highest bids of each auction, with their rank.

use std::cmp::{Ordering, Reverse};

use dbsp::RootCircuit;
use dbsp::operator::CmpFunc;
use dbsp::utils::{Tup2, Tup6};

use super::{Query, input, output};
use crate::events::Kind;
use crate::text::Text;
use crate::view::timestamp;

/// Price, bidder, channel, url, time in milliseconds and extra.
type Bid = Tup6<i64, i64, Text, Text, i64, Text>;

/// The highest price first; the other columns decide between equal ones.
struct HighestFirst;

impl CmpFunc<Bid> for HighestFirst {
    fn cmp(left: &Bid, right: &Bid) -> Ordering {
        let key = |bid: &Bid| (Reverse(bid.0), bid.1);
        let rest = |bid: &Bid| (bid.2.clone(), bid.3.clone(), bid.4, bid.5.clone());
        key(left)
            .cmp(&key(right))
            .then_with(|| rest(left).cmp(&rest(right)))
    }
}

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
            let bid = Tup6(
                price[row],
                bidder[row],
                channel.at(row),
                url.at(row),
                time.ms(row),
                extra.at(row),
            );
            (auction[row], bid)
        };
        events.rows(Kind::Bid).map(row).collect()
    });
    let ranked =
        bids.topk_row_number_custom_order::<HighestFirst, _, _>(10, |rank, bid| Tup2(rank, bid.clone()));
    let take = output(
        &ranked,
        |auction, Tup2(rank, Tup6(price, bidder, channel, url, ms, extra))| {
            vec![
                auction.to_string(),
                bidder.to_string(),
                price.to_string(),
                channel.to_string(),
                url.to_string(),
                timestamp(*ms),
                extra.to_string(),
                rank.to_string(),
            ]
        },
    );
    Query { prepare, take }
}
