//! What is done to regions and to the network between them.
//!
//! | file | what it does |
//! |---|---|
//! | [kind] | the kinds of faults, and what each needs of the machine |
//! | [schedule] | which faults, where and when: a function of the seed |
//! | [inject] | does it, and undoes it |
//! | [strace], [disk] | the tools of single kinds |
//! | [abilities] | what this machine permits |

mod abilities;
mod disk;
mod inject;
mod kind;
mod schedule;
mod strace;

pub use abilities::{Abilities, Ability};
pub use disk::SmallDisk;
pub use inject::{Done, Injector, LinkFaults};
pub use kind::Kind;
pub use schedule::Schedule;
