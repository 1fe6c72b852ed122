//! The task of a load: submits transfers, follows blocks, and connects again when the node was
//! gone.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use anyhow::{anyhow, ensure};
use ledger::api::{self, AccountInfo, Status, Submitted, TxStatus};
use ledger::hash::{ChainId, TxId};
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;
use tokio::time::{Instant, sleep, sleep_until};

use super::book::{Book, Nonces, Place, lock};
use super::link::{Link, News, Refusal};
use crate::clock::wall_ms;

/// Pause between two attempts to connect. A refused connection on this machine costs little.
const RECONNECT: Duration = Duration::from_millis(250);
/// Most calls without an answer at which a transfer is still submitted. A node takes 68 calls of a
/// connection before it reads no further.
const CALLS_MAX: usize = 48;
/// Pause between two questions about an account whose nonce is unknown, and the longest time
/// between two looks whether there is something to do.
const ASK_AGAIN: Duration = Duration::from_millis(100);
/// Pause between two questions about an account whose transfers do not become final.
const ASK_OVERDUE: Duration = Duration::from_secs(5);
/// Highest height that a node is believed, so that there is a next one.
const HEIGHT_MAX: u64 = u64::MAX - 1;
/// Most blocks that were reported final and not looked into yet. For a block beyond, the time when
/// it was read counts.
const REPORTED_MAX: usize = 4_096;
/// Pause after a refusal that names no time.
const PAUSE: Duration = Duration::from_secs(1);

/// What a load is to do.
pub(super) struct Course {
    pub(super) chain: ChainId,
    pub(super) url: String,
    pub(super) book: Arc<Mutex<Book>>,
}

/// Runs until it is aborted.
pub(super) async fn run(course: Course) {
    let mut next_height = 0;
    loop {
        let mut session = match Link::open(&course.url).await {
            Ok(link) => Session::new(&course, link, next_height),
            Err(error) => {
                course.on_failure(&error);
                sleep(RECONNECT).await;
                continue;
            }
        };
        let error = session.serve().await;
        next_height = session.next_height;
        course.on_failure(&error);
        sleep(RECONNECT).await;
    }
}

impl Course {
    fn book(&self) -> MutexGuard<'_, Book> {
        lock(&self.book)
    }

    fn on_failure(&self, error: &anyhow::Error) {
        let now = Instant::now();
        let mut book = self.book();
        book.take_due(now);
        book.on_disconnected(now);
        book.trouble = Some(format!("{}: {error:#}", self.url));
    }
}

/// What a call was for.
enum Call {
    Subscribe,
    Status,
    Nonces(usize, Instant),
    Submit(Place),
    Block(u64),
}

/// A block that was reported final.
struct Reported {
    at: Instant,
    is_empty: bool,
}

/// The ids of a block's transactions.
#[derive(Deserialize)]
struct Ids {
    transaction_list: Vec<OneId>,
}

#[derive(Deserialize)]
struct OneId {
    id: String,
}

/// A connection and what is known by it.
struct Session<'a> {
    course: &'a Course,
    link: Link,
    calls: HashMap<u64, Call>,
    /// The next block to look into; 0 before the first connection.
    next_height: u64,
    /// The last final block; `None` until the node tells it.
    tip: Option<u64>,
    reported: BTreeMap<u64, Reported>,
    /// Whether a block was asked for and has not arrived yet.
    is_reading: bool,
    /// When each payer's account was last asked for.
    asked: HashMap<usize, Instant>,
    /// Answers about accounts that the book has not been told yet, and when they were asked for.
    told: BTreeMap<usize, (AccountInfo, Instant)>,
    /// Nothing is submitted, and no block is read, before this time.
    pause: Instant,
}

impl<'a> Session<'a> {
    fn new(course: &'a Course, link: Link, next_height: u64) -> Self {
        Self {
            course,
            link,
            calls: HashMap::new(),
            next_height,
            tip: None,
            reported: BTreeMap::new(),
            is_reading: false,
            asked: HashMap::new(),
            told: BTreeMap::new(),
            pause: Instant::now(),
        }
    }

    /// Serves until the connection fails, and returns why.
    async fn serve(&mut self) -> anyhow::Error {
        let Err(error) = self.try_serve().await;
        error
    }

    async fn try_serve(&mut self) -> anyhow::Result<std::convert::Infallible> {
        self.subscribe().await?;
        loop {
            self.course.book().take_due(Instant::now());
            self.ask_nonces().await?;
            self.read_blocks().await?;
            self.submit().await?;
            let wake = self.wake();
            tokio::select! {
                news = self.link.next() => {
                    let news = news?;
                    self.on_news(news).await?;
                }
                () = sleep_until(wake) => {}
            }
        }
    }

    /// When there may be something to do without news.
    fn wake(&self) -> Instant {
        let now = Instant::now();
        let soon = now + ASK_AGAIN;
        let pause = Some(self.pause).filter(|pause| *pause > now);
        let due = self.course.book().pace.due();
        due.into_iter().chain(pause).fold(soon, Instant::min)
    }

    async fn call(
        &mut self,
        call: Call,
        method: &str,
        params: serde_json::Value,
    ) -> anyhow::Result<()> {
        let number = self.link.call(method, params).await?;
        self.calls.insert(number, call);
        Ok(())
    }

    /// First subscribes, then asks for the tip, so that no block is missed between the two.
    async fn subscribe(&mut self) -> anyhow::Result<()> {
        self.call(Call::Subscribe, api::CHAIN_SUBSCRIBE, json!({})).await?;
        self.call(Call::Status, api::CHAIN_STATUS, json!({})).await
    }

    /// Asks for the nonces that are unknown, and for those of accounts whose transfers do not
    /// become final.
    async fn ask_nonces(&mut self) -> anyhow::Result<()> {
        let Some(tip) = self.tip else { return Ok(()) };
        let now = Instant::now();
        let (unknown, overdue) = {
            let book = self.course.book();
            (book.unknown(), book.overdue(now))
        };
        let is_due = |asked: &HashMap<usize, Instant>, payer: &usize, pause| {
            asked.get(payer).is_none_or(|at| now.duration_since(*at) >= pause)
        };
        let mut payers: Vec<usize> = overdue;
        payers.retain(|payer| is_due(&self.asked, payer, ASK_OVERDUE));
        payers.extend(unknown.into_iter().filter(|payer| is_due(&self.asked, payer, ASK_AGAIN)));
        for payer in payers {
            let Some(account) = self.course.book().account(payer) else { continue };
            self.asked.insert(payer, now);
            let params = json!({ "account": account.to_string() });
            self.call(Call::Nonces(payer, now), api::ACCOUNT_GET, params).await?;
        }
        // An answer is told to the book only once all blocks up to its height were looked into.
        // Otherwise transfers that are final in these blocks would be taken for lost.
        let next_height = self.next_height.max(1);
        let is_seen = |info: &AccountInfo| info.height < next_height;
        let seen: Vec<usize> = self
            .told
            .iter()
            .filter(|(_, (info, _))| is_seen(info))
            .map(|(payer, _)| *payer)
            .collect();
        for payer in seen {
            if let Some((info, asked)) = self.told.remove(&payer) {
                let nonces = Nonces { committed: info.nonce, pending: info.pending_nonce, asked };
                self.course.book().on_nonces(payer, nonces);
            }
        }
        // While no signed transfer waits, blocks hold none of ours and are skipped.
        self.next_height = next_height;
        if self.course.book().is_settled() && !self.is_reading {
            self.next_height = self.next_height.max(tip + 1);
        }
        Ok(())
    }

    /// Looks into the next block that is final.
    async fn read_blocks(&mut self) -> anyhow::Result<()> {
        let Some(tip) = self.tip else { return Ok(()) };
        self.reported = self.reported.split_off(&self.next_height);
        while !self.is_reading && self.next_height <= tip && Instant::now() >= self.pause {
            if self.reported.get(&self.next_height).is_some_and(|block| block.is_empty) {
                self.next_height += 1;
                continue;
            }
            self.is_reading = true;
            let height = self.next_height;
            let params = json!({ "height": height.to_string() });
            self.call(Call::Block(height), api::CHAIN_BLOCK, params).await?;
        }
        Ok(())
    }

    async fn submit(&mut self) -> anyhow::Result<()> {
        let now = Instant::now();
        while self.tip.is_some() && self.calls.len() < CALLS_MAX && now >= self.pause {
            let next = self
                .course
                .book()
                .next(now, wall_ms())
                .map(|(place, bytes)| (place, hex::encode(bytes)));
            let Some((place, transaction)) = next else { break };
            let params = json!({ "transaction": transaction });
            self.call(Call::Submit(place), api::TX_SUBMIT, params).await?;
        }
        Ok(())
    }

    async fn on_news(&mut self, news: News) -> anyhow::Result<()> {
        match news {
            News::Block(block) => {
                let reported = Reported { at: Instant::now(), is_empty: block.transactions == 0 };
                if self.reported.len() < REPORTED_MAX {
                    self.reported.insert(block.height, reported);
                }
                self.tip = self.tip.map(|tip| tip.max(block.height.min(HEIGHT_MAX)));
                Ok(())
            }
            News::Lagged => self.subscribe().await,
            News::Answer { call, result } => match self.calls.remove(&call) {
                Some(call) => self.on_answer(call, result),
                None => Ok(()),
            },
        }
    }

    fn on_answer(
        &mut self,
        call: Call,
        result: Result<Box<RawValue>, Refusal>,
    ) -> anyhow::Result<()> {
        let result = match result {
            Ok(result) => result,
            Err(refusal) => return self.on_refusal(&call, &refusal),
        };
        match call {
            Call::Subscribe => {}
            Call::Status => {
                let status: Status = serde_json::from_str(result.get())?;
                let (got, expected) = (status.chain_id, self.course.chain);
                ensure!(got == expected.to_string(), "a node of the chain {got} is there");
                let highest = self.reported.last_key_value().map_or(0, |(height, _)| *height);
                let tip = status.height.max(highest).min(HEIGHT_MAX);
                self.tip = Some(tip);
                // What answered before may have been another program at the port of a node that was
                // down. A node itself never tells a lower tip than it did before.
                self.next_height = self.next_height.min(tip + 1);
                self.course.book().trouble = None;
            }
            Call::Nonces(payer, asked) => {
                self.told.insert(payer, (serde_json::from_str(result.get())?, asked));
            }
            Call::Submit(place) => {
                let submitted: Submitted = serde_json::from_str(result.get())?;
                let mut book = self.course.book();
                book.trouble = None;
                if submitted.status == TxStatus::Final {
                    book.on_final(place, Instant::now());
                }
            }
            Call::Block(height) => {
                self.is_reading = false;
                let ids: Ids = serde_json::from_str(result.get())?;
                let at = self.reported.get(&height).map_or_else(Instant::now, |block| block.at);
                let ids = ids.transaction_list.iter();
                let ids = ids.filter_map(|one| one.id.parse::<TxId>().ok());
                self.course.book().on_block(ids, at);
                self.next_height = height + 1;
            }
        }
        Ok(())
    }

    fn on_refusal(&mut self, call: &Call, refusal: &Refusal) -> anyhow::Result<()> {
        let named = refusal.data.as_ref().and_then(|data| data.retry_after_ms);
        let pause = named.map_or(PAUSE, |ms| Duration::from_millis(ms.into()));
        match *call {
            Call::Subscribe | Call::Status => return Err(anyhow!("{}", refusal.message)),
            // The account is asked for again.
            Call::Nonces(..) => return Ok(()),
            Call::Block(_) => self.is_reading = false,
            Call::Submit(place) => match refusal.reason() {
                // Another program pays from this account.
                "nonce_used" | "underpriced" => {
                    self.course.book().on_refused(place);
                    return Ok(());
                }
                "expired" | "expires_soon" | "expiry_too_far" => {
                    self.course.book().on_refused(place);
                }
                _ => self.course.book().on_busy(place),
            },
        }
        self.course.book().trouble = Some(refusal.message.clone());
        self.pause = Instant::now() + pause;
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use ledger::genesis::{Limits, template_key};
    use ledger::hash::Hash;
    use serde_json::Value;
    use tokio::net::TcpListener;
    use tokio_tungstenite::accept_async;
    use tokio_tungstenite::tungstenite::Message;

    use super::super::pace::Pace;
    use super::*;

    /// Answers as a node with this tip, until a call with the method `last`, and returns that call.
    async fn answer(listener: &TcpListener, tip: u64, last: &str) -> Value {
        use futures::{SinkExt, StreamExt};

        let (stream, _) = listener.accept().await.unwrap();
        let mut socket = accept_async(stream).await.unwrap();
        for _ in 0..100 {
            let message = socket.next().await.unwrap().unwrap();
            let call: Value = serde_json::from_str(message.to_text().unwrap()).unwrap();
            let method = call["method"].as_str().unwrap();
            if method == last {
                return call;
            }
            let chain = ChainId(Hash::ZERO).to_string();
            let status = Status { chain_id: chain, height: tip, ..Status::default() };
            let account = AccountInfo {
                address: String::new(),
                balance: 1_000,
                nonce: 0,
                pending_nonce: 0,
                height: tip,
            };
            let result = match method {
                api::CHAIN_SUBSCRIBE => json!(1),
                api::CHAIN_STATUS => json!(status),
                api::ACCOUNT_GET => json!(account),
                api::TX_SUBMIT => json!({ "id": "", "status": "pending", "height": null }),
                other => panic!("{other} was not expected"),
            };
            let mut answers = vec![json!({ "id": call["id"], "result": result })];
            if method == api::TX_SUBMIT {
                let block = json!({
                    "height": (tip + 1).to_string(), "hash": "", "time": "0", "proposer": "",
                    "transactions": 1, "bytes": "0",
                });
                answers.push(json!({ "params": { "result": block } }));
            }
            for answer in answers {
                socket.send(Message::text(answer.to_string())).await.unwrap();
            }
        }
        panic!("{last} was not called")
    }

    #[tokio::test]
    async fn a_program_at_the_port_of_a_node_that_is_down_does_not_hide_later_blocks() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let keys = ["bob", "carol"].map(|name| template_key(name).unwrap());
        let pace = Pace::new(Instant::now(), 100);
        let book = Book::new(pace, ChainId(Hash::ZERO), Limits::default(), &keys);
        let course = Course {
            chain: ChainId(Hash::ZERO),
            url: format!("http://{}", listener.local_addr().unwrap()),
            book: Arc::new(Mutex::new(book)),
        };
        let load = tokio::spawn(run(course));
        answer(&listener, u64::MAX, api::ACCOUNT_GET).await;
        let call = answer(&listener, 5, api::CHAIN_BLOCK).await;
        assert_eq!(call["params"]["height"], "6");
        load.abort();
    }
}
