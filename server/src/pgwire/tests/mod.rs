//! The protocol and everything behind it, over a real socket and a region in memory.

mod client;
mod conflicts;
mod copying;
mod extended;
mod late_snapshots;
mod lookups;
mod pipelines;
mod prompt;
mod queries;
mod transactions;
mod writes;
