//! The applicable set, against brute force over all subsets.

use proptest::prelude::*;
use tributary_storage::{ChainHash, RegionId};

use super::*;
use crate::bundle::{Chunk, Included};
use crate::frontier::ClusterId;

fn origin(region: u16) -> OriginId {
    OriginId::first(RegionId(region))
}

fn frontier(epochs: &[(u16, u64)]) -> Frontier {
    epochs
        .iter()
        .map(|(region, epoch)| (origin(*region), Epoch(*epoch)))
        .collect()
}

/// A bundle of `included` (region, from, to), the first being the sender, cut at a tick and a frontier.
fn bundle(tick: u64, included: &[(u16, u64, u64)], at: &[(u16, u64)]) -> Bundle {
    let included: Vec<Included> = included
        .iter()
        .map(|(region, from, to)| {
            let chain = ChainHash([0; 16]);
            Included {
                origin: origin(*region),
                from: Epoch(*from),
                to: Epoch(*to),
                chain,
            }
        })
        .collect();
    let mut frontier = frontier(at);
    included.iter().for_each(|included| {
        frontier.advance(included.origin, included.to);
    });
    Bundle {
        sender: included[0].origin,
        cluster: ClusterId([0; 16]),
        tick: Tick(tick),
        frontier,
        collected: Frontier::new(),
        included,
        chunk: Chunk::ONLY,
        sections: vec![],
    }
}

fn offer(inbox: &mut Inbox, peer: &str, bundle: &Bundle, at: &Frontier) -> Offered {
    inbox.offer(peer, bundle.encode(), at).expect("a bundle")
}

/// Applies what can be applied and tells it.
fn apply(inbox: &mut Inbox, at: &mut Frontier) -> Vec<String> {
    let taken = inbox.take_applicable(at);
    let mut told = Vec::new();
    for received in &taken {
        assert_eq!(received.bundle.encode(), received.bytes);
        for included in &received.bundle.included {
            assert!(included.from <= at.get(included.origin), "no gap");
            at.advance(included.origin, included.to);
            told.push(format!(
                "{}: {} to {}",
                received.peer, included.origin, included.to
            ));
        }
    }
    assert!(
        taken.iter().all(|received| at.covers(&received.bundle.frontier)),
        "no effect without its cause"
    );
    told
}

#[test]
fn what_was_cut_before_dropped_tombstones_is_thrown_out_unless_it_is_known() {
    let at = frontier(&[(1, 3), (2, 9)]);
    let mut inbox = Inbox::new();
    let behind = bundle(1, &[(1, 3, 5)], &[(2, 7)]);
    let level = bundle(1, &[(3, 0, 2)], &[(2, 8)]);
    offer(&mut inbox, "us", &behind, &at);
    offer(&mut inbox, "ap", &level, &at);
    let dropped = frontier(&[(2, 8)]);
    let later = frontier(&[(1, 5), (2, 9)]);
    assert_eq!(
        inbox.drop_behind(&later, &dropped),
        Vec::<String>::new(),
        "it brings nothing"
    );
    assert_eq!(inbox.drop_behind(&at, &dropped), ["us"]);
    assert_eq!(inbox.len(), 1);
}

#[test]
fn consecutive_bundles_are_applied_together_in_order() {
    let mut at = frontier(&[(1, 3)]);
    let mut inbox = Inbox::new();
    assert_eq!(
        offer(&mut inbox, "us", &bundle(2, &[(1, 5, 9)], &[]), &at),
        Offered::Waiting
    );
    assert_eq!(apply(&mut inbox, &mut at), Vec::<String>::new());
    assert_eq!(inbox.lacks(&at), [("us".to_string(), origin(1), Epoch(5))]);
    assert_eq!(
        offer(&mut inbox, "us", &bundle(1, &[(1, 3, 5)], &[]), &at),
        Offered::Waiting
    );
    assert_eq!(apply(&mut inbox, &mut at), ["us: r1.1 to 5", "us: r1.1 to 9"]);
    assert!(inbox.is_empty() && inbox.lacks(&at).is_empty());
    assert_eq!(
        offer(&mut inbox, "us", &bundle(3, &[(1, 5, 9)], &[]), &at),
        Offered::Stale
    );
}

#[test]
fn bundles_that_need_each_other_are_applied_together() {
    let mut at = frontier(&[(1, 7), (2, 3)]);
    let mut inbox = Inbox::new();
    offer(&mut inbox, "us", &bundle(5, &[(1, 7, 9)], &[(2, 4)]), &at);
    assert_eq!(apply(&mut inbox, &mut at), Vec::<String>::new());
    assert_eq!(inbox.lacks(&at), [("us".to_string(), origin(2), Epoch(4))]);
    offer(&mut inbox, "eu", &bundle(5, &[(2, 3, 4)], &[(1, 9)]), &at);
    assert_eq!(apply(&mut inbox, &mut at), ["eu: r2.1 to 4", "us: r1.1 to 9"]);
}

#[test]
fn what_does_not_fit_falls_out_and_takes_its_effects_along() {
    let mut at = frontier(&[]);
    let mut inbox = Inbox::new();
    offer(&mut inbox, "us", &bundle(1, &[(1, 0, 1)], &[]), &at);
    offer(&mut inbox, "us", &bundle(2, &[(1, 1, 2)], &[(3, 8)]), &at);
    offer(&mut inbox, "us", &bundle(3, &[(1, 2, 3)], &[(3, 8)]), &at);
    offer(&mut inbox, "eu", &bundle(3, &[(2, 0, 5)], &[(1, 3)]), &at);
    assert_eq!(apply(&mut inbox, &mut at), ["us: r1.1 to 1"]);
    assert_eq!(inbox.len(), 3);
    assert_eq!(
        inbox.lacks(&at),
        [("us".to_string(), origin(3), Epoch(8))],
        "eu waits for us only"
    );
    // us passes on what it was asked for.
    offer(&mut inbox, "us", &bundle(4, &[(3, 0, 8)], &[(1, 3)]), &at);
    assert_eq!(apply(&mut inbox, &mut at).len(), 4);
    assert_eq!(at, frontier(&[(1, 3), (2, 5), (3, 8)]));
}

#[test]
fn a_full_inbox_drops_what_is_of_no_use_and_asks_for_it_again() {
    let mut at = frontier(&[]);
    let mut inbox = Inbox::new();
    for i in 1..=WAITING_BUNDLES_MAX as u64 {
        let waiting = bundle(i, &[(1, i, i + 1)], &[]);
        assert_eq!(offer(&mut inbox, "us", &waiting, &at), Offered::Waiting);
        assert_eq!(
            offer(&mut inbox, "us", &waiting, &at),
            Offered::Stale,
            "it waits already"
        );
    }
    assert_eq!(
        offer(&mut inbox, "us", &bundle(200, &[(1, 200, 201)], &[]), &at),
        Offered::Dropped
    );
    assert_eq!(inbox.len(), WAITING_BUNDLES_MAX);
    assert_eq!(inbox.lacks(&at), [("us".to_string(), origin(1), Epoch(201))]);
    assert_eq!(
        offer(&mut inbox, "eu", &bundle(1, &[(2, 0, 1)], &[]), &at),
        Offered::Waiting,
        "eu has room"
    );
    // Sent again from our frontier: it replaces everything that waited from there.
    assert_eq!(
        offer(&mut inbox, "us", &bundle(201, &[(1, 0, 202)], &[]), &at),
        Offered::Waiting
    );
    assert_eq!(apply(&mut inbox, &mut at), ["eu: r2.1 to 1", "us: r1.1 to 202"]);
    assert!(inbox.is_empty() && inbox.lacks(&at).is_empty());
}

#[test]
fn a_peer_can_be_dropped_and_damage_is_refused() {
    let at = frontier(&[]);
    let mut inbox = Inbox::new();
    offer(&mut inbox, "us", &bundle(1, &[(1, 4, 5)], &[]), &at);
    assert!(inbox.bytes() > 0);
    inbox.drop_peer("us");
    assert!(inbox.is_empty() && inbox.lacks(&at).is_empty());
    assert!(
        inbox
            .offer("us", Bytes::from_static(b"TRIBnot really"), &at)
            .is_err()
    );
    assert!(inbox.is_empty());
}

#[test]
fn the_defect_applies_effects_without_their_causes() {
    let at = frontier(&[]);
    let mut inbox = Inbox::new().with_defects(Defects {
        ignore_causes: true,
        ..Defects::default()
    });
    offer(&mut inbox, "us", &bundle(1, &[(1, 4, 5)], &[(2, 9)]), &at);
    assert_eq!(inbox.take_applicable(&at).len(), 1);
}

/// The greatest applicable set by trying all sets.
fn largest_by_force(bundles: &[Bundle], at: &Frontier) -> usize {
    let fits = |set: &[&Bundle]| {
        let mut reached = at.clone();
        let mut left: Vec<&Bundle> = set.to_vec();
        while let Some(next) = left
            .iter()
            .position(|b| b.included.iter().all(|i| i.from <= reached.get(i.origin)))
        {
            left.remove(next).included.iter().for_each(|i| {
                reached.advance(i.origin, i.to);
            });
        }
        left.is_empty() && set.iter().all(|bundle| reached.covers(&bundle.frontier))
    };
    (0..1usize << bundles.len())
        .map(|mask| {
            (0..bundles.len())
                .filter(|i| mask >> i & 1 == 1)
                .map(|i| &bundles[i])
                .collect::<Vec<_>>()
        })
        .filter(|set| fits(set))
        .map(|set| set.len())
        .max()
        .unwrap_or(0)
}

proptest! {
    #[test]
    fn the_set_is_applicable_and_the_greatest(
        drawn in prop::collection::vec((0u64..4, 1u16..4, 0u64..4, 1u64..3, prop::collection::vec((1u16..4, 0u64..5), 0..3)), 0..8),
    ) {
        let mut at = frontier(&[(1, 1), (2, 1)]);
        let mut inbox = Inbox::new();
        let mut waiting = Vec::new();
        for (tick, region, from, length, cut_at) in drawn {
            let bundle = bundle(tick, &[(region, from, from + length)], &cut_at);
            let peer = ["us", "eu", "ap"][region as usize - 1];
            if offer(&mut inbox, peer, &bundle, &at) == Offered::Waiting {
                waiting.push(bundle);
            }
        }
        let expected = largest_by_force(&waiting, &at);
        let told = apply(&mut inbox, &mut at);
        prop_assert_eq!(told.len(), expected);
        prop_assert_eq!(inbox.len(), waiting.len() - expected);
        // What is left waits for something that can be named, or has become known.
        let left = inbox.take_applicable(&at).len() + inbox.len();
        prop_assert!(left == 0 || !inbox.lacks(&at).is_empty() || inbox.is_empty());
    }
}
