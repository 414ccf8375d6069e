//! Which values of one object to send.

use std::collections::BTreeSet;

use tributary_storage::Keys;

use crate::frontier::Epoch;

/// Keys as the bytes of [`tributary_storage::KeyEncoder`], valid in this process only.
pub type KeySet = BTreeSet<Box<[u8]>>;

/// What changed of one object.
#[derive(Clone, Debug, PartialEq)]
pub enum Changed {
    /// The values of these keys.
    Keys(Keys),
    /// Values that are kept in the order of their stamps, so that nobody needs to remember their keys.
    Stamped,
}

impl Changed {
    /// Adds what changed later.
    pub fn join(&mut self, later: Changed) {
        *self = match (&*self, later) {
            (Self::Keys(mine), Self::Keys(theirs)) => {
                Self::Keys(mine.iter().chain(theirs.iter()).map(<[u8]>::to_vec).collect())
            }
            _ => Self::Stamped,
        };
    }
}

/// What to send of one object for one origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Changes {
    /// The present values of these keys.
    Keys(KeySet),
    /// Everything stamped later than this epoch.
    Since(Epoch),
}

/// The set as encoded keys, in order.
pub(crate) fn to_keys(set: &KeySet) -> Keys {
    set.iter().map(|key| key.to_vec()).collect()
}
