//! The Postgres protocol's bytes: messages of clients, values in text and binary form, the data of COPY, and the errors
//! that they are answered with.
//!
//! ```text
//!   bytes ─▶ frame (messages) ─▶ types::input (values) ─▶ Arrow columns ─▶ types::output ─▶ bytes
//!                            └─▶ copy (rows) ────────────▲
//! ```
//! It knows no session and no table: a crate of its own because it is what runs per row of a client, and is optimised
//! in every build, while the server, which runs per statement and takes minutes to optimise, is not.

pub mod copy;
pub mod error;
pub mod frame;
pub mod sqlstate;
pub mod types;
