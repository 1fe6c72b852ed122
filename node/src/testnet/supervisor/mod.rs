//! The owner of a running network: one loop that holds the nodes' processes and the state of
//! faults, performs actions, and tells how the network is doing.

mod actions;
mod blocks;
mod member;
mod methods;
mod payments;
mod polls;
mod teller;
mod view;

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, interval};

use super::action::Action;
use super::children::{self, Child};
use super::faults::Faults;
use super::layout::{Layout, Node};
use super::list::{List, Listed};
use super::load::traffic::Traffic;
use super::overview::{Overview, State};
use super::progress::Progress;
use super::summary;
use crate::control::Failure;
use crate::output::print;
use member::{End, Member, Reply};
use payments::Question;
use view::View;

pub(super) use methods::{perform, serve};

/// Longest time until all nodes answer: on a busy machine, opening a chain takes a while.
const START_MAX: Duration = Duration::from_secs(120);
/// Time between two looks at the nodes.
const TICK: Duration = Duration::from_millis(200);
/// Most calls that wait for the supervisor: enough for all connections of the socket and for the
/// keys that a user presses at once. Beyond it, a sender waits.
const ORDERS_MAX: usize = 32;

/// A call to the supervisor, and where its answer goes.
pub(super) struct Order {
    request: Request,
    reply: Reply,
}

/// What a call asks for.
enum Request {
    Act(Action),
    List,
    Load(Question),
    /// Show a line.
    Note(String),
}

/// How the network runs.
pub(super) struct Options {
    /// The program of its nodes.
    pub(super) program: PathBuf,
    /// The nodes' log level.
    pub(super) log: Option<String>,
    /// A node that fails ends the network.
    pub(super) fail_fast: bool,
    /// Whether a screen shows the network.
    pub(super) is_watched: bool,
    /// Whether the network runs without a terminal.
    pub(super) is_detached: bool,
}

/// How long [`Supervisor::run`] runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Until {
    /// Until all nodes have answered.
    Started,
    /// Until the network ends.
    Stopped,
}

/// The owner of a network.
pub(super) struct Supervisor {
    layout: Layout,
    members: Vec<Member>,
    faults: Faults,
    options: Options,
    orders: mpsc::Receiver<Order>,
    sender: mpsc::Sender<Order>,
    view: Option<View>,
    /// The load that runs.
    traffic: Option<Traffic>,
    progress: Progress,
    start: Instant,
    /// Whether all nodes have answered once.
    is_started: bool,
    is_stopping: bool,
}

impl Supervisor {
    /// Starts all nodes.
    pub(super) fn start(mut layout: Layout, options: Options) -> anyhow::Result<Self> {
        let (sender, orders) = mpsc::channel(ORDERS_MAX);
        let view = options.is_watched.then(|| View::new(&layout)).transpose()?;
        let nodes = layout.nodes.clone();
        let mut held = std::mem::take(&mut layout.held);
        let (program, log) = (options.program.clone(), options.log.clone());
        let mut network = Self {
            layout,
            members: Vec::new(),
            faults: Faults::default(),
            orders,
            sender,
            view,
            traffic: None,
            progress: Progress::new(false),
            start: Instant::now(),
            is_started: false,
            is_stopping: false,
            options,
        };
        for (index, node) in nodes.into_iter().enumerate() {
            held.release(index);
            let member = network.join(node)?;
            member.start(&program, log.as_deref())?;
        }
        network.layout.held = held;
        network.tell_faults();
        Ok(network)
    }

    /// Where calls are sent.
    pub(super) fn orders(&self) -> mpsc::Sender<Order> {
        self.sender.clone()
    }

    /// What a screen shows. `None` if the network is not watched.
    pub(super) fn overview(&self) -> Option<watch::Receiver<Arc<Overview>>> {
        self.view.as_ref().map(View::subscribe)
    }

    /// Shows lines from now on. If `is_drawable`, one line of heights is redrawn in place.
    pub(super) fn show_lines(&mut self, is_drawable: bool) {
        self.progress = Progress::new(is_drawable);
    }

    /// Takes a node into the network. Its process is yet to be started.
    fn join(&mut self, node: Node) -> anyhow::Result<&mut Member> {
        let chain_id = self.layout.genesis.chain_id().to_string();
        let report = polls::poll(&node, &chain_id, self.options.is_watched)?;
        if let Some(view) = &mut self.view {
            view.add(&node);
        }
        self.members.push(Member::new(node, report));
        self.members.last_mut().context("a member")
    }

    /// Runs until `stop` resolves, an action ends the network, or it fails. Returns whether the
    /// network goes on.
    pub(super) async fn run(
        &mut self,
        mut stop: Pin<&mut impl Future<Output = ()>>,
        until: Until,
    ) -> anyhow::Result<bool> {
        let mut tick = interval(TICK);
        while !self.is_stopping {
            if self.is_started && until == Until::Started {
                return Ok(true);
            }
            let children = self.members.iter_mut().enumerate();
            let children =
                children.filter_map(|(index, member)| Some((index, member.child.as_mut()?)));
            tokio::select! {
                () = &mut stop => self.is_stopping = true,
                (index, how) = children::first_end(children) => self.on_end(index, &how)?,
                order = self.orders.recv() => {
                    if let Some(order) = order {
                        self.on_order(order)?;
                    }
                }
                _ = tick.tick() => self.on_tick()?,
            }
        }
        if self.is_started {
            self.note("stopping");
        }
        Ok(false)
    }

    /// Stops all nodes, and kills those that still run when the time is up. Returns the names of
    /// the killed ones.
    pub(super) async fn stop(mut self, time: impl Future<Output = ()>) -> Vec<String> {
        let mut nodes: Vec<Child> = Vec::new();
        for member in &mut self.members {
            member.fail("the network stops");
            nodes.extend(member.child.take());
        }
        children::stop(nodes, time).await
    }

    fn on_tick(&mut self) -> anyhow::Result<()> {
        let now = Instant::now();
        self.members.iter_mut().for_each(|member| member.enforce_deadline(now));
        self.notice_answers()?;
        if !self.is_started {
            let patience = now.duration_since(self.start) < START_MAX;
            ensure!(
                patience,
                "not all nodes answer after {} s; see their node.log",
                START_MAX.as_secs()
            );
            return Ok(());
        }
        match &mut self.view {
            Some(view) => {
                let uptime = now.duration_since(self.start);
                let load = self.traffic.as_ref().map(Traffic::view);
                view.publish(uptime, &self.members, &self.faults, load);
            }
            None => {
                let height = |member: &Member| {
                    let report = member.report.borrow();
                    report.status.as_ref().filter(|_| member.is_up()).map(|status| status.height)
                };
                let heights: Vec<_> = self.members.iter().map(height).collect();
                self.progress.show(&heights, now);
            }
        }
        Ok(())
    }

    /// Notices nodes that have begun to answer since the last call.
    fn notice_answers(&mut self) -> anyhow::Result<()> {
        let mut came_up = false;
        for member in &mut self.members {
            came_up |= member.notice_answer();
        }
        if !self.is_started && self.members.iter().all(|member| member.state != State::Starting) {
            self.is_started = true;
            self.describe()?;
            // The reader of stdout may have gone. The network goes on.
            let end = summary::end(&self.layout, self.options.is_detached);
            let _lost = print(&format!("{}\n{end}\n", summary::text(&self.layout)));
        } else if self.is_started && came_up {
            self.describe()?;
        }
        Ok(())
    }

    /// Writes `network.json`.
    fn describe(&self) -> anyhow::Result<()> {
        let pid = |member: &Member| member.child.as_ref().map(Child::pid);
        summary::write(&self.layout, &self.members.iter().map(pid).collect::<Vec<_>>())
    }

    fn on_end(&mut self, index: usize, how: &str) -> anyhow::Result<()> {
        let Some(member) = self.members.get_mut(index) else { return Ok(()) };
        let epitaph = member.child.take().map(|child| child.epitaph(how)).unwrap_or_default();
        member.teller.pause();
        match std::mem::replace(&mut member.end, End::Unasked) {
            End::Restart { program, replies, .. } => {
                replies.into_iter().try_for_each(|reply| self.begin(index, &program, reply))?;
            }
            End::Killed(replies) => {
                member.state = State::Killed;
                member.fail("the node was killed");
                replies.into_iter().for_each(|reply| reply.send(Ok(Value::Null)));
            }
            End::Unasked => return self.on_failure(index, &epitaph),
        }
        if self.is_started { self.describe() } else { Ok(()) }
    }

    /// A node does not run although nobody asked for that.
    fn on_failure(&mut self, index: usize, reason: &str) -> anyhow::Result<()> {
        let Some(member) = self.members.get_mut(index) else { return Ok(()) };
        member.state = State::Ended;
        member.fail(reason);
        ensure!(self.is_started && !self.options.fail_fast, "{reason}");
        self.note(reason);
        let is_left = |member: &Member| member.state != State::Ended;
        ensure!(self.members.iter().any(is_left), "all nodes have ended");
        self.describe()
    }

    /// Starts a node, unless another call has just started it. The reply comes once the node
    /// answers and, if links of it are cut or delayed, has confirmed these faults.
    fn begin(&mut self, index: usize, program: &Path, reply: Reply) -> anyhow::Result<()> {
        let Some(member) = self.members.get_mut(index) else { return Ok(()) };
        if member.child.is_none()
            && let Err(error) = member.start(program, self.options.log.as_deref())
        {
            let reason = format!("{error:#}");
            reply.send(Err(Failure::failed(&reason)));
            return self.on_failure(index, &reason);
        }
        let answer = json!({
            "node": member.node.name,
            "pid": member.child.as_ref().map(Child::pid),
            "rpc": member.node.rpc_url(),
        });
        member.starting.push((answer, reply));
        self.tell_faults();
        Ok(())
    }

    /// The network as `ls` tells it.
    fn list(&self) -> List {
        let count = self.members.len();
        let name = |index: usize| self.members[index].node.name.clone();
        let node = |member: &Member| {
            let report = member.report.borrow();
            let status = report.since(member.started).filter(|_| member.is_up());
            Listed {
                name: member.node.name.clone(),
                validator: member.node.validator,
                state: match member.state {
                    State::Starting => "starting",
                    State::Running => "running",
                    State::Killed => "killed",
                    State::Ended => "ended",
                }
                .to_owned(),
                height: status.map(|status| status.height),
                time: status.map(|status| status.time),
                peers: status.map(|status| status.peers),
                pid: member.child.as_ref().map(Child::pid),
                rpc: member.node.rpc_url(),
                home: member.node.home.clone(),
            }
        };
        let latencies = self.faults.latencies(count).into_iter();
        List {
            nodes: self.members.iter().map(node).collect(),
            cut: self.faults.cuts(count).into_iter().map(|(a, b)| [name(a), name(b)]).collect(),
            latency_ms: latencies.map(|(a, b, ms)| (name(a), name(b), ms)).collect(),
        }
    }

    /// Tells the user something.
    fn note(&mut self, text: &str) {
        match &mut self.view {
            Some(view) => view.note(text),
            None => self.progress.note(text),
        }
    }
}

#[cfg(test)]
mod tests;
