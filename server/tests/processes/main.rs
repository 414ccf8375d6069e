//! Real processes of the real binary: started, stopped, killed, cut off from one another.
//!
//! Everything here goes through the command line, SQL and HTTP, as a user would. What one process can test, its own
//! modules test; here is what only processes show: exit codes, locks, signals, and what is left on a disk.

// The tests wait for real processes.
#![allow(clippy::disallowed_methods)]

mod backpressure;
mod far;
mod far_aggregates;
mod far_copy;
mod file_source;
mod members;
mod one_region;
mod peer_port;
mod peer_tls;
mod residency;
mod running;
mod sink;
mod stages;
mod three_regions;
mod twins;
