//! Defects that can be switched on, so that the simulator's checker can be seen to fail.
//!
//! **For tests only.** A region never sets any of these. They are run-time switches rather than features so
//! that the binary under test is the binary that ships.

/// Named defects; all off by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Defects {
    /// Values with an older stamp overwrite newer ones.
    pub skip_duplicate_check: bool,
    /// The inbox applies any bundle, whether or not its causes have arrived.
    pub ignore_causes: bool,
    /// A stage is applied whatever is missing of it.
    pub torn_stages: bool,
}
