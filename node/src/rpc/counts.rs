//! Counts calls by method and outcome.

use ledger::api;
use ledger::api::code;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

type Labels = [(&'static str, &'static str); 2];

/// Calls by method and code. Both labels are from fixed lists, so callers cannot create others.
#[derive(Clone, Default)]
pub(super) struct Counts(Family<Labels, Counter>);

impl Counts {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let counts = Self::default();
        registry.register(
            "cairn_rpc_requests",
            "RPC calls by method and code, ok or that of the error",
            counts.0.clone(),
        );
        counts
    }

    pub(super) fn count(&self, method: &str, code: Option<i32>) {
        let method = api::METHODS
            .iter()
            .find(|known| known.name == method)
            .map_or("none", |known| known.name);
        self.0.get_or_create(&[("method", method), ("code", code_name(code))]).inc();
    }
}

const fn code_name(code: Option<i32>) -> &'static str {
    match code {
        None => "ok",
        Some(-32_700) => "-32700",
        Some(-32_600) => "-32600",
        Some(-32_601) => "-32601",
        Some(-32_602) => "-32602",
        Some(-32_603) => "-32603",
        Some(code::REJECTED) => "-32000",
        Some(code::NOT_FOUND) => "-32001",
        Some(code::MEMPOOL_FULL) => "-32002",
        Some(code::UNAVAILABLE) => "-32003",
        Some(code::OVER_BUDGET) => "-32004",
        Some(_) => "other",
    }
}
