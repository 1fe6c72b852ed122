//! The node's metrics, for Prometheus. They are read from the view at each request.

pub(crate) mod exposition;
mod process;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use self::process::Process;
use crate::view::{ArchiveWork, View};

/// Adds the node's metrics to the registry, which already has the network's. `disk` names the parts
/// of the home and their paths.
pub fn register(registry: &mut Registry, view: View, disk: Vec<(&'static str, PathBuf)>) {
    registry.register_collector(Box::new(NodeMetrics { view, process: Process::new(disk) }));
}

struct NodeMetrics {
    view: View,
    process: Process,
}

impl fmt::Debug for NodeMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NodeMetrics")
    }
}

impl Collector for NodeMetrics {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut out = Output(encoder);
        self.chain(&mut out)?;
        self.quorum(&mut out)?;
        self.since_start(&mut out)?;
        self.sync(&mut out)?;
        self.archive(&mut out)?;
        self.files(&mut out)?;
        self.process(&mut out)
    }
}

/// Writes one metric after the other.
struct Output<'a>(DescriptorEncoder<'a>);

impl Output<'_> {
    fn put(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<Unit>,
        metric: &dyn EncodeMetric,
    ) -> fmt::Result {
        // The registry itself adds this full stop to the help of all other metrics.
        let help = format!("{help}.");
        metric.encode(self.0.encode_descriptor(name, &help, unit.as_ref(), metric.metric_type())?)
    }
}

fn gauge(value: u64) -> ConstGauge<u64> {
    ConstGauge::new(value)
}

fn counter(value: u64) -> ConstCounter<u64> {
    ConstCounter::new(value)
}

impl NodeMetrics {
    /// The node and its chain, as they are now.
    fn chain(&self, out: &mut Output<'_>) -> fmt::Result {
        let view = &self.view;
        let activity = *view.activity.borrow();
        let tip = view.tip.borrow().state.tip().clone();
        let info = Info::new(vec![
            ("version", env!("CARGO_PKG_VERSION").to_owned()),
            ("network", view.chain.genesis().network.clone()),
            ("chain_id", view.chain.id().to_string()),
        ]);
        out.put("cairn_node", "The node and its chain", None, &info)?;

        out.put("cairn_height", "Height of the last final block", None, &gauge(tip.height.0))?;
        let seconds = Some(Unit::Seconds);
        let time = ConstGauge::new(tip.time.0 as f64 / 1_000.0);
        out.put("cairn_block_time", "Time of the last final block since 1970", seconds, &time)?;
        let best = activity.best_peer_height.0;
        out.put(
            "cairn_best_peer_height",
            "Highest height that a peer has proved",
            None,
            &gauge(best),
        )?;
        let syncing = u64::from(activity.syncing);
        out.put(
            "cairn_syncing",
            "1 while a peer has proved a height not reached here",
            None,
            &gauge(syncing),
        )?;
        let round = u64::from(activity.round.0);
        out.put("cairn_round", "Round of the height being decided", None, &gauge(round))?;
        let validator = u64::from(view.validator.is_some());
        out.put("cairn_validator", "1 if this node has a consensus key", None, &gauge(validator))?;
        let peers = view.peers.borrow().len() as u64;
        out.put("cairn_peers", "Connected peers", None, &gauge(peers))?;
        let waiting = activity.mempool_transactions as u64;
        out.put(
            "cairn_mempool_transactions",
            "Transactions that wait for a block",
            None,
            &gauge(waiting),
        )?;
        let bytes = activity.mempool_bytes as u64;
        out.put(
            "cairn_mempool",
            "Bytes of transactions that wait for a block",
            Some(Unit::Bytes),
            &gauge(bytes),
        )?;
        Ok(())
    }

    fn quorum(&self, out: &mut Output<'_>) -> fmt::Result {
        let view = &self.view;
        let activity = *view.activity.borrow();
        let (quorum, missing) = {
            let quorum = view.quorum.borrow();
            (u64::from(quorum.ok), quorum.missing.len() as u64)
        };
        out.put(
            "cairn_quorum",
            "1 while votes of a quorum of validators are heard",
            None,
            &gauge(quorum),
        )?;
        out.put(
            "cairn_validators_missing",
            "Validators that are not heard while there is no quorum",
            None,
            &gauge(missing),
        )?;
        if let Some(offset) = activity.clock_offset_ms {
            let offset = ConstGauge::new(offset as f64 / 1_000.0);
            let help = "How far this machine's clock is ahead of most peers' clocks";
            out.put("cairn_clock_offset", help, Some(Unit::Seconds), &offset)?;
        }
        Ok(())
    }

    fn since_start(&self, out: &mut Output<'_>) -> fmt::Result {
        let activity = *self.view.activity.borrow();
        out.put(
            "cairn_blocks",
            "Blocks made final since start",
            None,
            &counter(activity.blocks_committed),
        )?;
        let transactions = counter(activity.transactions_committed);
        out.put("cairn_transactions", "Transactions made final since start", None, &transactions)?;
        let extra = counter(activity.extra_rounds);
        out.put(
            "cairn_extra_rounds",
            "Rounds beyond the first of a height since start",
            None,
            &extra,
        )?;
        let equivocations = counter(activity.equivocations);
        out.put(
            "cairn_equivocations",
            "Validators caught signing twice since start",
            None,
            &equivocations,
        )?;
        Ok(())
    }

    /// Progress of sync.
    fn sync(&self, out: &mut Output<'_>) -> fmt::Result {
        let view = &self.view;
        let sync = &view.sync.borrow().report;
        out.put("cairn_sync_segments", "Segments of history applied", None, &gauge(sync.sealed))?;
        out.put(
            "cairn_sync_segments_known",
            "Segments of history known",
            None,
            &gauge(sync.segments_total),
        )?;
        let (known, verified) = (gauge(sync.chunks_total), gauge(sync.chunks_verified));
        out.put(
            "cairn_sync_chunks_known",
            "Chunks known since start, fetched or still missing",
            None,
            &known,
        )?;
        out.put(
            "cairn_sync_chunks_verified",
            "Chunks fetched and verified since start",
            None,
            &verified,
        )?;
        for (name, help, bytes) in [
            (
                "cairn_sync_fetched",
                "Bytes of chunks received from peers since start",
                sync.fetched_bytes,
            ),
            (
                "cairn_sync_duplicate",
                "Bytes of received chunks that this node had already",
                sync.duplicate_bytes,
            ),
            ("cairn_sync_served", "Bytes of chunks sent to peers since start", sync.served_bytes),
        ] {
            out.put(name, help, Some(Unit::Bytes), &counter(bytes))?;
        }
        out.put(
            "cairn_sync_bans",
            "Peers banned for the history they sent",
            None,
            &counter(sync.bans),
        )?;
        Ok(())
    }

    /// The history that is kept, and what was done to keep it.
    fn archive(&self, out: &mut Output<'_>) -> fmt::Result {
        let archive = Arc::clone(&self.view.archive.borrow());
        let eras = archive.own.ranges().map(|range| range.last.0 - range.first.0 + 1).sum();
        out.put("cairn_history_eras", "Whole eras of history kept", None, &gauge(eras))?;
        let bytes = gauge(self.view.disk.borrow().history);
        let help = "Bytes on disk of the files of history, measured every 20 s";
        out.put("cairn_history", help, Some(Unit::Bytes), &bytes)?;
        let ArchiveWork { audits_passed, audits_failed, audits_unanswered, .. } = archive.work;
        for (name, help, count) in [
            ("cairn_audits_passed", "Audits that holders passed since start", audits_passed),
            ("cairn_audits_failed", "Audits that holders failed since start", audits_failed),
            (
                "cairn_audits_unanswered",
                "Audits that holders did not answer since start",
                audits_unanswered,
            ),
            (
                "cairn_history_eras_fetched",
                "Eras of history fetched since start, to repair copies or to fill the budget",
                archive.work.eras_fetched,
            ),
            (
                "cairn_history_eras_dropped",
                "Eras of history dropped since start",
                archive.work.eras_dropped,
            ),
        ] {
            out.put(name, help, None, &counter(count))?;
        }
        Ok(())
    }

    /// The files that are shared and fetched.
    fn files(&self, out: &mut Output<'_>) -> fmt::Result {
        let sync = &self.view.sync.borrow().report;
        let here = sync.files.iter().filter(|file| file.is_here()).count() as u64;
        out.put("cairn_files", "Files of which a part is here and shared", None, &gauge(here))?;
        let bytes = gauge(sync.files.iter().map(|file| file.here_bytes).sum());
        out.put("cairn_files_here", "Bytes of these files", Some(Unit::Bytes), &bytes)?;
        for (name, help, bytes) in [
            (
                "cairn_files_fetched",
                "Bytes of chunks of files received from peers since start",
                sync.fetched_file_bytes,
            ),
            (
                "cairn_files_served",
                "Bytes of chunks of files sent to peers since start",
                sync.served_file_bytes,
            ),
        ] {
            out.put(name, help, Some(Unit::Bytes), &counter(bytes))?;
        }
        Ok(())
    }

    /// Finality, disk and the process.
    fn process(&self, out: &mut Output<'_>) -> fmt::Result {
        let view = &self.view;
        let finality = &view.journal.finality;
        let help = "Time from the mempool to a durable block, for transactions received while the \
                    node followed the chain";
        out.put("cairn_finality", help, Some(Unit::Seconds), finality)?;
        for (part, bytes) in self.process.disk_bytes() {
            let help = format!("Bytes on disk: {part}");
            out.put(&format!("cairn_disk_{part}"), &help, Some(Unit::Bytes), &gauge(bytes))?;
        }

        let cpu = ConstCounter::new(process::cpu_seconds());
        out.put("process_cpu", "CPU time that all threads have used", Some(Unit::Seconds), &cpu)?;
        let started = ConstGauge::new(self.process.started);
        out.put(
            "process_start_time",
            "When the process began, since 1970",
            Some(Unit::Seconds),
            &started,
        )?;
        for (name, help, unit, value) in [
            (
                "process_resident_memory",
                "Memory that the process holds",
                Some(Unit::Bytes),
                process::resident_bytes(),
            ),
            ("process_open_fds", "Files that are open", None, process::open_files()),
            ("process_max_fds", "Files that may be open", None, process::files_max()),
        ] {
            // Not every system has this value.
            if let Some(value) = value {
                out.put(name, help, unit, &gauge(value))?;
            }
        }
        Ok(())
    }
}
