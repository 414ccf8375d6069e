//! Which values of one object to send.

use std::collections::BTreeSet;

use tributary_storage::Keys;

use crate::frontier::Epoch;

/// Keys as the bytes of [`tributary_storage::KeyEncoder`], valid in this process only.
pub type KeySet = BTreeSet<Box<[u8]>>;

/// What to send of one object for one origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Changes {
    /// The present values of these keys.
    Keys(KeySet),
    /// Everything stamped later than this epoch, found by reading the runs.
    Since(Epoch),
}

/// The set as encoded keys, in order.
pub(crate) fn to_keys(set: &KeySet) -> Keys {
    set.iter().map(|key| key.to_vec()).collect()
}
