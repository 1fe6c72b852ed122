//! A steady load: transfers of template accounts through one node, each timed from when it was due
//! until that node reports it final.
//!
//! A transfer that waits is kept while the network is cut or the node is down, and is submitted
//! again if the node has lost it. What waits is bounded; beyond that, transfers are skipped and
//! counted.

mod book;
mod latencies;
mod link;
pub(super) mod pace;
mod session;
pub(super) mod traffic;
