//! Regions reduced to what replication needs, talking over a network that can be told to misbehave.
//!
//! `world` holds the regions and the network, `transcripts` runs golden scripts that print every message,
//! `chaos` draws random worlds and checks that all regions end with the same state.

mod chaos;
mod region;
mod transcripts;
mod world;
