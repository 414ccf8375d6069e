//! Which of several connections to a peer counts.
//!
//! Both regions of a pair may dial at once, and a peer that restarted dials while its old connection still looks
//! alive here. The rules, applied alike on both sides:
//!
//! 1. A connection dialled by the same side as the current one replaces it: that side would not dial if it
//!    still had one.
//! 2. Otherwise the one dialled by the region whose name sorts first stays or wins.
//!
//! Both sides then agree without a word: of two crossing connections both keep the same one.
//! A connection that was replaced learns it through its cancel signal. Generations go up with every claim, so
//! news of a replaced connection can be told from news of the current one.

use std::collections::BTreeMap;
use std::sync::Mutex;

use tokio::sync::watch;

/// The current connection to each peer.
pub struct Registry {
    region: String,
    inner: Mutex<Inner>,
    changed: watch::Sender<()>,
}

#[derive(Default)]
struct Inner {
    generation: u64,
    current: BTreeMap<String, Current>,
}

struct Current {
    generation: u64,
    dialled_by_us: bool,
    cancel: watch::Sender<bool>,
}

/// The right to be the connection to a peer.
pub struct Claim {
    /// Which connection this is.
    pub generation: u64,
    /// Turns true when another connection took over.
    pub cancelled: watch::Receiver<bool>,
}

impl Registry {
    /// For the region of this name.
    pub fn new(region: &str) -> Registry {
        Registry {
            region: region.to_owned(),
            inner: Mutex::new(Inner::default()),
            changed: watch::channel(()).0,
        }
    }

    /// Claims to be the connection to `peer`; `None` when the current one stays.
    pub fn claim(&self, peer: &str, dialled_by_us: bool) -> Option<Claim> {
        let mut inner = self.lock();
        if let Some(current) = inner.current.get(peer) {
            let dialler = if dialled_by_us { self.region.as_str() } else { peer };
            let other = if dialled_by_us { peer } else { self.region.as_str() };
            if current.dialled_by_us != dialled_by_us && dialler > other {
                return None;
            }
            let _ = current.cancel.send(true);
        }
        inner.generation += 1;
        let generation = inner.generation;
        let (cancel, cancelled) = watch::channel(false);
        inner.current.insert(
            peer.to_owned(),
            Current {
                generation,
                dialled_by_us,
                cancel,
            },
        );
        Some(Claim {
            generation,
            cancelled,
        })
    }

    /// Gives a claim back, if it still is the current one.
    pub fn release(&self, peer: &str, generation: u64) {
        let mut inner = self.lock();
        if inner
            .current
            .get(peer)
            .is_some_and(|current| current.generation == generation)
        {
            inner.current.remove(peer);
            self.changed.send_replace(());
        }
    }

    /// Returns when no connection to the peer is current.
    pub async fn absent(&self, peer: &str) {
        let mut changed = self.changed.subscribe();
        while self.lock().current.contains_key(peer) {
            if changed.changed().await.is_err() {
                return;
            }
        }
    }

    /// Whether a connection to the peer is current.
    pub fn is_present(&self, peer: &str) -> bool {
        self.lock().current.contains_key(peer)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner
            .lock()
            .expect("nothing panics while it holds this lock")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_crossing_connections_both_sides_keep_the_one_dialled_by_the_first_name() {
        // `ap` and `us` dial each other at once; each order of arrival at each side ends alike.
        for ap_sees_own_first in [false, true] {
            for us_sees_own_first in [false, true] {
                let (ap, us) = (Registry::new("ap"), Registry::new("us"));
                let claims = |registry: &Registry, peer: &str, own_first: bool| {
                    let first = registry.claim(peer, own_first);
                    let second = registry.claim(peer, !own_first);
                    let stays = |claim: Option<Claim>| claim.is_some_and(|claim| !*claim.cancelled.borrow());
                    let (first, second) = (stays(first), stays(second));
                    assert!(first != second, "exactly one connection is left");
                    if own_first { first } else { second }
                };
                let own_at_ap = claims(&ap, "us", ap_sees_own_first);
                let own_at_us = claims(&us, "ap", us_sees_own_first);
                assert!(own_at_ap && !own_at_us, "the one dialled by ap");
            }
        }
    }

    #[test]
    fn a_peer_that_dials_again_replaces_its_old_connection() {
        let registry = Registry::new("us");
        let old = registry.claim("ap", false).expect("there is none");
        let new = registry.claim("ap", false).expect("the same side dials anew");
        assert!(*old.cancelled.borrow());
        registry.release("ap", old.generation);
        assert!(registry.is_present("ap"), "an old claim does not free a new one");
        registry.release("ap", new.generation);
        assert!(!registry.is_present("ap"));
    }
}
