//! The server: everything that has a socket, a clock or a thread.
//!
//! ```text
//!   cli ─▶ node (one region: thread, disk) ◀── session ◀── pgwire ◀── psql
//!            ▲          ▲                        ├─ query (one-shot SELECT over a snapshot)
//!          links      source                     ├─ copy
//!         (peers)   (generators)                 └─ system (tables of schema `tributary`)
//! ```
//! The crates below are pure; what they may not have, time and threads and randomness, is allowed here and
//! handed to them as inputs. Nothing here decides what a row means.

// The shell is where wall time, threads and unordered maps belong; see clippy.toml.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod certs;
pub mod cli;
pub mod demo;
pub mod far;
pub mod http;
pub mod links;
pub mod node;
pub mod sink;
pub mod source;

pub mod copy;
pub mod pg_catalog;
pub mod pgwire;
pub mod query;
pub mod session;
pub mod system;
