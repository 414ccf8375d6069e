//! The auctions with the most bids in ten seconds, every two: bids are counted by pane of two seconds, and a window is
//! five panes.

use dbsp::RootCircuit;
use dbsp::operator::Max;
use dbsp::utils::Tup2;

use super::{Query, input, output};
use crate::events::Kind;

const PANE_MS: i64 = 2000;
const PANES: i64 = 5;

pub fn build(circuit: &mut RootCircuit) -> Query {
    let (bids, prepare) = input(circuit, |events| {
        let (auction, time) = (events.numbers("b_auction"), events.times("b_date_time"));
        let row = |row| (Tup2(time.ms(row).div_euclid(PANE_MS), auction[row]), ());
        events.rows(Kind::Bid).map(row).collect()
    });
    let counts = bids
        .weighted_count()
        .flat_map_index(|(Tup2(pane, auction), count)| {
            let (pane, auction, count) = (*pane, *auction, *count);
            (0..PANES).map(move |back| (Tup2(pane - back, auction), count))
        })
        .aggregate_linear_postprocess(|count| *count, |count| count);
    let most = counts
        .map_index(|(Tup2(window, _), count)| (*window, *count))
        .aggregate(Max);
    let hottest = counts
        .map_index(|(Tup2(window, auction), count)| (Tup2(*window, *count), *auction))
        .join_index(
            &most.map_index(|(window, count)| (Tup2(*window, *count), ())),
            |Tup2(_, count), auction, ()| Some((*auction, *count)),
        );
    let take = output(&hottest, |auction, count| {
        vec![auction.to_string(), count.to_string()]
    });
    Query { prepare, take }
}
