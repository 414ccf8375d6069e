//! Reading the files again: when they change, and on SIGHUP.
//!
//! A new certificate and its key come as two files, so there is a moment at which they do not fit. What cannot be
//! used is said once, what was in use stays in use, and the files are looked at again until they can be used.

use std::time::Duration;

use tokio::signal::unix::Signal;
use tokio::time::MissedTickBehavior;

use super::PeerTls;
use super::files::Stamp;

const LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// What was read last, and how it went.
pub(super) struct Reloader {
    tls: PeerTls,
    seen: [Option<Stamp>; 3],
    /// The reason for which the newest files are not in use.
    refused: Option<String>,
}

impl Reloader {
    /// After [`PeerTls::load`].
    pub(super) fn new(tls: PeerTls) -> Reloader {
        let seen = tls.stamps();
        Reloader {
            tls,
            seen,
            refused: None,
        }
    }

    /// Reads the files if there is a reason to; says whether they are in use now.
    pub(super) fn look(&mut self, asked: bool) -> bool {
        // Before the reading: what changes meanwhile is seen next time.
        let stamps = self.tls.stamps();
        if stamps == self.seen && self.refused.is_none() && !asked {
            return true;
        }
        self.seen = stamps;
        match self.tls.read_again() {
            Ok(()) => {
                metrics::counter!("tributary_peer_certificate_reloads_total", "outcome" => "used")
                    .increment(1);
                tracing::info!("the files of --peer-cert, --peer-key and --peer-ca were read again");
                self.refused = None;
            }
            Err(error) => {
                let reason = error.to_string();
                if asked || self.refused.as_ref() != Some(&reason) {
                    metrics::counter!("tributary_peer_certificate_reloads_total", "outcome" => "refused")
                        .increment(1);
                    tracing::error!(
                        reason,
                        "the changed files cannot be used; what was read before stays"
                    );
                }
                self.refused = Some(reason);
            }
        }
        self.refused.is_none()
    }
}

/// Looks every few seconds, and whenever `hangup` comes. Runs until it is dropped.
pub async fn keep_fresh(tls: PeerTls, mut hangup: Signal) {
    let mut reloader = Reloader::new(tls);
    let mut interval = tokio::time::interval(LOOK_INTERVAL);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let asked = tokio::select! {
            _ = interval.tick() => false,
            told = hangup.recv() => told.is_some(),
        };
        let looked = tokio::task::spawn_blocking(move || {
            reloader.look(asked);
            reloader
        });
        reloader = match looked.await {
            Ok(reloader) => reloader,
            Err(error) => {
                tracing::error!(%error, "certificates are no longer looked at");
                return;
            }
        };
    }
}
