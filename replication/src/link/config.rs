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
    /// While no more bytes than this are under way a bundle may be cut at every tick, however far the peer is: at 1 Mbit/s they
    /// take an eighth of a second.
    pub small_bytes_max: usize,
    /// Changed keys that are remembered; past it they are forgotten and the runs are read instead.
    pub pending_keys_max: usize,
    /// About the most bytes of remembered keys, as above.
    pub pending_bytes_max: usize,
    /// The most bytes of one bundle; a larger one stops the link.
    pub message_bytes_max: usize,
    /// The most bytes of rows, unpacked, that are cut for one bundle; more goes as a stage.
    pub bundle_bytes_max: usize,
    /// About so many bytes of rows, unpacked, are in each chunk of a stage.
    pub chunk_bytes_max: usize,
    /// Chunks sent and not yet known to be durable.
    pub window_chunks_max: usize,
    /// How long a stage that is half sent is kept for a peer without a connection; it holds what was there when it
    /// began.
    pub stage_keep_ms: u64,
    /// The most bytes of chunks, encoded, that are held for all peers together; whose chunk is beyond it starts again.
    pub stage_bytes_max: u64,
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
            window_bundles_max: 32,
            window_bytes_max: MESSAGE_BYTES_MAX,
            small_bytes_max: 16 << 10,
            pending_keys_max: 1_000_000,
            pending_bytes_max: 64 << 20,
            message_bytes_max: MESSAGE_BYTES_MAX,
            bundle_bytes_max: 32 << 20,
            chunk_bytes_max: 1 << 20,
            window_chunks_max: 4,
            stage_keep_ms: 600_000,
            stage_bytes_max: 64 << 30,
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
