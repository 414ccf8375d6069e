//! Which events are whose: a fixed pattern over the event numbers.
//!
//! With shares `us=2, eu=1` events go us, us, eu, us, us, eu, … in the order of region ids. A region finds its
//! `k`-th event without counting, so it can go on anywhere.

use tributary_storage::RegionId;

const WEIGHT_MAX: u64 = 1_000_000;

/// One region's places in the pattern: `[first, first + width)` of every `period` events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    first: u64,
    width: u64,
    period: u64,
}

impl Share {
    /// The share of `region` among `regions` (ascending by id); `weights` like `us=2,eu=1`, where a region that
    /// is not named gets nothing.
    pub fn of(
        region: RegionId,
        regions: &[(RegionId, &str)],
        weights: Option<&str>,
    ) -> Result<Share, String> {
        let weight_of = |name: &str| match weights {
            None => Ok(1),
            Some(weights) => weight(weights, name),
        };
        if let Some(weights) = weights {
            check_names(weights, regions)?;
        }
        let mut share = Share {
            first: 0,
            width: 0,
            period: 0,
        };
        for (id, name) in regions {
            let weight = weight_of(name)?;
            if *id == region {
                (share.first, share.width) = (share.period, weight);
            }
            share.period += weight;
        }
        if share.period == 0 {
            return Err("option share gives nothing to anybody".to_owned());
        }
        Ok(share)
    }

    /// How many of the first `total` events are this region's.
    pub fn count(&self, total: u64) -> u64 {
        let rest = (total % self.period).saturating_sub(self.first).min(self.width);
        (total / self.period) * self.width + rest
    }

    /// The number of this region's event `own`, both from 0. The region has a share.
    pub fn event(&self, own: u64) -> u64 {
        (own / self.width) * self.period + self.first + own % self.width
    }

    /// This region's part of the whole.
    pub fn fraction(&self) -> f64 {
        self.width as f64 / self.period as f64
    }
}

fn pairs(weights: &str) -> impl Iterator<Item = Result<(&str, u64), String>> {
    weights
        .split(',')
        .map(str::trim)
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            pair.split_once('=')
                .and_then(|(name, weight)| Some((name.trim(), weight.trim().parse::<u64>().ok()?)))
                .filter(|(_, weight)| *weight <= WEIGHT_MAX)
                .ok_or_else(|| {
                    format!("option share: '{pair}' is not REGION=WEIGHT with a weight up to {WEIGHT_MAX}")
                })
        })
}

fn weight(weights: &str, region: &str) -> Result<u64, String> {
    let mut found = 0;
    for pair in pairs(weights) {
        let (name, weight) = pair?;
        if name == region {
            found = weight;
        }
    }
    Ok(found)
}

fn check_names(weights: &str, regions: &[(RegionId, &str)]) -> Result<(), String> {
    for pair in pairs(weights) {
        let (name, _) = pair?;
        if !regions.iter().any(|(_, known)| *known == name) {
            return Err(format!(
                "option share names region \"{name}\", which is not in the cluster"
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const REGIONS: [(RegionId, &str); 3] = [(RegionId(1), "us"), (RegionId(2), "eu"), (RegionId(3), "ap")];

    #[test]
    fn together_the_shares_are_every_event_once_whatever_the_weights() {
        for weights in [None, Some("us=1,eu=1,ap=1"), Some("us=5, eu=2"), Some("ap=3")] {
            for total in [0, 1, 2, 3, 7, 8, 100, 101] {
                let mut seen = BTreeSet::new();
                for (region, _) in REGIONS {
                    let share = Share::of(region, &REGIONS, weights).expect("good weights");
                    for own in 0..share.count(total) {
                        let event = share.event(own);
                        assert!(event < total, "{weights:?} {total} {event}");
                        assert!(seen.insert(event), "event {event} is made twice");
                    }
                }
                assert_eq!(seen.len() as u64, total, "{weights:?}");
            }
        }
    }

    #[test]
    fn an_endless_source_does_not_overflow() {
        let share = Share::of(RegionId(2), &REGIONS, None).expect("good weights");
        assert_eq!(share.count(u64::MAX), u64::MAX / 3);
    }

    #[test]
    fn bad_weights_are_refused() {
        for bad in ["us", "us=x", "us=-1", "us=1000001", "mars=1", "us=0"] {
            assert!(Share::of(RegionId(1), &REGIONS, Some(bad)).is_err(), "{bad}");
        }
    }
}
