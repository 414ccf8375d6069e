//! The named maxima and delays of a link.

use crate::bundle::MESSAGE_BYTES_MAX;
use crate::hlc::TICK_MS;

/// How a link behaves. The defaults suit links from a rack to across the world.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkConfig {
    /// The length of the base tick.
    pub tick_ms: u64,
    /// The coarsest tick, as a multiple of the base; a power of two.
    pub tick_multiple_max: u64,
    /// Bundles sent and not yet acknowledged; at the maximum nothing is cut, changes coalesce.
    pub window_bundles_max: usize,
    /// Their bytes; at the maximum nothing is cut.
    pub window_bytes_max: usize,
    /// Changed keys that are remembered; past it they are forgotten and the runs are read instead.
    pub pending_keys_max: usize,
    /// The most bytes of one bundle; a larger one stops the link.
    pub message_bytes_max: usize,
    /// The time between heartbeats.
    pub heartbeat_ms: u64,
    /// A peer that said nothing for so long is down.
    pub timeout_ms: u64,
    /// The time after which an unanswered hello is repeated.
    pub hello_retry_ms: u64,
    /// The least time after which a bundle without acknowledgement is sent again; it doubles each time.
    pub resend_ms_min: u64,
    /// How long a gap in a peer's own bundles may last before it is asked to send again.
    pub gap_ms: u64,
    /// How long another origin may be missing before its relay is asked for: its own bundle is probably
    /// under way.
    pub relay_ms: u64,
    /// The longest time between two requests for the same.
    pub lack_ms_max: u64,
}

impl Default for LinkConfig {
    fn default() -> Self {
        Self {
            tick_ms: TICK_MS,
            tick_multiple_max: 64,
            window_bundles_max: 8,
            window_bytes_max: MESSAGE_BYTES_MAX,
            pending_keys_max: 1_000_000,
            message_bytes_max: MESSAGE_BYTES_MAX,
            heartbeat_ms: 250,
            timeout_ms: 5_000,
            hello_retry_ms: 500,
            resend_ms_min: 1_000,
            gap_ms: 50,
            relay_ms: 500,
            lack_ms_max: 5_000,
        }
    }
}
