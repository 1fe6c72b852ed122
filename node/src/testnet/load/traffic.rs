//! A load that runs, and its figures.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use anyhow::ensure;
use ledger::genesis::Genesis;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::book::{Book, lock};
use super::pace::Pace;
use super::session::{self, Course};
use crate::testnet::overview::LoadView;
use crate::testnet::payers::Payers;

/// A chain, and the nodes that can take transfers for it.
#[derive(Clone)]
pub(in crate::testnet) struct Chain {
    pub(in crate::testnet) genesis: Arc<Genesis>,
    /// URLs of RPC, the best choice first.
    pub(in crate::testnet) rpc: Vec<String>,
}

/// A load. It ends when it is dropped.
pub(in crate::testnet) struct Traffic {
    per_second: u32,
    rpc: String,
    book: Arc<Mutex<Book>>,
    task: JoinHandle<()>,
}

impl Traffic {
    /// Starts to pay through the first node of the list, and through no other: while it is down,
    /// transfers wait.
    ///
    /// # Errors
    /// No account has a known key, or the list is empty.
    pub(in crate::testnet) fn start(chain: Chain, per_second: u32) -> anyhow::Result<Self> {
        let Chain { genesis, rpc } = chain;
        let keys = Payers::of(&genesis)?.load;
        ensure!(!rpc.is_empty(), "no node runs through which transfers could be sent");
        let rpc = rpc.into_iter().next().unwrap_or_default();
        let id = genesis.chain_id();
        let pace = Pace::new(Instant::now(), per_second);
        let book = Arc::new(Mutex::new(Book::new(pace, id, genesis.limits.clone(), &keys)));
        let course = Course { chain: id, url: rpc.clone(), book: Arc::clone(&book) };
        let task = tokio::spawn(session::run(course));
        Ok(Self { per_second, rpc, book, task })
    }

    /// Lets no transfer become due from this long after the start on. Transfers that were sent are
    /// still watched.
    pub(in crate::testnet) fn rest(&self, after: Duration) {
        self.book().pace.rest(after);
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        lock(&self.book)
    }

    /// What the screen shows.
    pub(in crate::testnet) fn view(&self) -> LoadView {
        let counts = &self.book().counts;
        let percentile = |percent| counts.latencies.percentile(percent).unwrap_or_default();
        LoadView {
            per_second: self.per_second,
            sent: counts.sent,
            final_: counts.final_,
            p50_ms: percentile(50),
            p99_ms: percentile(99),
        }
    }

    /// The figures so far. Times are null before the first transfer is final. `next` is the nonce
    /// of each account's next transfer that will be signed: a node on which an account has a higher
    /// nonce has made a transfer final that was submitted after this call.
    pub(in crate::testnet) fn figures(&self) -> Value {
        let mut book = self.book();
        // The session takes due transfers late if its node is slow to answer.
        book.take_due(Instant::now());
        let (counts, latencies) = (&book.counts, &book.counts.latencies);
        let next: Vec<Value> = book
            .next_nonces()
            .iter()
            .map(|(account, nonce)| json!({ "account": account.to_string(), "nonce": nonce }))
            .collect();
        json!({
            "sent": counts.sent,
            "final": counts.final_,
            "p50_ms": latencies.percentile(50),
            "p99_ms": latencies.percentile(99),
            "max_ms": latencies.max(),
            "is_sending": book.pace.due().is_some(),
            "per_second": self.per_second,
            "rpc": self.rpc,
            "skipped": counts.skipped,
            "waiting": book.waiting(),
            "trouble": book.trouble,
            "next": next,
        })
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// A measurement ends when nothing waits.
    #[tokio::test]
    async fn due_transfers_are_counted_before_the_node_answers() {
        let genesis = Genesis::from_json(crate::testnet::TEMPLATE.as_bytes()).unwrap();
        let chain = Chain { genesis: Arc::new(genesis), rpc: vec!["http://silent".to_owned()] };
        // Nothing is awaited here, so the session does not run.
        let traffic = Traffic::start(chain, 50).unwrap();
        traffic.rest(Duration::from_millis(20));
        let figures = traffic.figures();
        assert_eq!((&figures["waiting"], &figures["is_sending"]), (&json!(1), &json!(false)));
    }
}
