//! A whole server, spoken to as clients do.
#![allow(clippy::unwrap_used)]

mod client;
mod fixture;
mod http;
mod methods;
mod socket;
mod sync;
mod unruly;
