//! `testnet load`: starts, changes, ends or measures a load.

use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::{CommandError, Target};
use crate::testnet::action::Action;
use crate::testnet::load::pace::rate;
use crate::testnet::values::duration;

/// How long a measurement waits after its end for transfers that are not final.
const REST_MAX: Duration = Duration::from_secs(30);
/// Time between two looks at a measurement.
const POLL: Duration = Duration::from_millis(50);

/// Send transfers of the funded accounts at a steady rate, in the background until `load 0/s`
///
/// Each transfer is timed from when it was due until the node reports it final. While the network
/// is cut or the node is down, transfers wait; when 8,000 wait, further ones are skipped.
#[derive(Debug, Args)]
pub(crate) struct Load {
    /// Transfers a second: 50/s; 0/s ends the load
    #[arg(value_parser = rate)]
    rate: u32,
    /// Send for this long, wait up to 30 s until all transfers are final, and print the figures
    #[arg(long = "for", value_name = "DURATION", value_parser = duration)]
    time: Option<Duration>,
    /// Node to which transfers are sent and which reports them final; by default the last full
    /// node, or else the first validator
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
}

/// The figures of a load, as the network's socket tells them.
#[derive(Debug, Deserialize)]
pub(super) struct Figures {
    pub(super) sent: u64,
    #[serde(rename = "final")]
    pub(super) final_: u64,
    pub(super) p50_ms: Option<u64>,
    pub(super) p99_ms: Option<u64>,
    pub(super) max_ms: Option<u64>,
    /// Whether more transfers will become due.
    is_sending: bool,
    per_second: u32,
    /// URL of the node to which transfers are sent.
    pub(super) rpc: String,
    pub(super) skipped: u64,
    /// Transfers that are due or submitted, and not final.
    pub(super) waiting: u64,
    /// Why transfers are not accepted.
    pub(super) trouble: Option<String>,
    pub(super) next: Vec<Next>,
}

/// The nonce of the next transfer that an account will sign.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Next {
    /// Public key, hex.
    pub(super) account: String,
    pub(super) nonce: u64,
}

impl Figures {
    /// What the running load has done. `None` if no load runs.
    pub(super) async fn read(target: &Target) -> anyhow::Result<Option<Self>> {
        target.call("testnet_load_figures", json!({})).await
    }

    /// Ends the running load, and reads what it has done. `None` if no load runs.
    async fn end(target: &Target) -> anyhow::Result<Option<Self>> {
        let ended = target.act(&Action::Load { per_second: 0, node: None }).await?;
        serde_json::from_value(ended).context("the network tells no figures of the load")
    }

    /// The fields that users see.
    fn value(&self) -> Value {
        json!({
            "sent": self.sent,
            "final": self.final_,
            "p50_ms": self.p50_ms,
            "p99_ms": self.p99_ms,
            "max_ms": self.max_ms,
            "skipped": self.skipped,
        })
    }

    fn text(&self) -> String {
        let time = |ms: Option<u64>| ms.map_or_else(|| "-".to_owned(), |ms| format!("{ms} ms"));
        let mut text = format!(
            "{} sent, {} final; half within {}, 99% within {}, all within {}",
            self.sent,
            self.final_,
            time(self.p50_ms),
            time(self.p99_ms),
            time(self.max_ms)
        );
        if self.skipped > 0 {
            text += &format!("; {} skipped, since too many waited", self.skipped);
        }
        text
    }
}

impl Load {
    pub(super) async fn execute(self, target: &Target) -> anyhow::Result<()> {
        let action = Action::Load { per_second: self.rate, node: self.node.clone() };
        match self.time {
            None if self.rate == 0 => match Figures::end(target).await? {
                Some(figures) => target.print(&figures.value(), &figures.text()),
                None => target.print(&json!({}), "no load runs"),
            },
            None => {
                target.act(&action).await?;
                target.print(&json!({}), &format!("{action} runs until `load 0/s`"))
            }
            Some(_) if self.rate == 0 => {
                bail!(CommandError::Usage("--for needs a rate above 0/s".to_owned()))
            }
            Some(time) => self.measure(target, &action, time).await,
        }
    }

    async fn measure(
        &self,
        target: &Target,
        action: &Action,
        time: Duration,
    ) -> anyhow::Result<()> {
        if let Some(running) = Figures::read(target).await?
            && (running.is_sending || running.waiting > 0)
        {
            bail!("a load of {}/s runs: end it with `load 0/s` first", running.per_second);
        }
        target.act(action).await?;
        let start = Instant::now();
        // The network ends the sending, also if this command is killed.
        let after_ms = u64::try_from(time.as_millis()).context("a duration of many years")?;
        let _: Value = target.call("testnet_load_rest", json!({ "after_ms": after_ms })).await?;
        sleep(time).await;
        let ended = "the load was ended";
        while Figures::read(target).await?.context(ended)?.waiting > 0
            && start.elapsed() < time + REST_MAX
        {
            sleep(POLL).await;
        }
        let figures = Figures::end(target).await?.context(ended)?;
        target.print(&figures.value(), &figures.text())?;
        if figures.waiting > 0 {
            let trouble = figures.trouble.map(|text| format!(": {text}")).unwrap_or_default();
            bail!(CommandError::NotInTime(format!(
                "{} transfers are not final {} s after the last one was sent{trouble}",
                figures.waiting,
                REST_MAX.as_secs()
            )));
        }
        Ok(())
    }
}
