//! Tests of a whole server, by requests as clients send them.
#![allow(clippy::unwrap_used)]

mod client;
mod costs;
mod fixture;
mod http;
mod methods;
mod partial;
mod socket;
mod sync;
mod unruly;
