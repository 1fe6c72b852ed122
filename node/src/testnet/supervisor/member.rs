//! One node under the supervisor: its process, its state, and the calls that wait for it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use super::super::children::Child;
use super::super::faults::OfNode;
use super::super::layout::Node;
use super::super::overview::State;
use super::polls::Report;
use super::teller::{Teller, Unconfirmed};
use crate::control::Failure;

/// Where the answer to a call goes. A caller that has gone is ignored.
pub(super) struct Reply(oneshot::Sender<Result<Value, Failure>>);

impl Reply {
    pub(super) fn channel() -> (Self, oneshot::Receiver<Result<Value, Failure>>) {
        let (sender, receiver) = oneshot::channel();
        (Self(sender), receiver)
    }

    pub(super) fn send(self, answer: Result<Value, Failure>) {
        let _gone = self.0.send(answer);
    }
}

/// A node, running or not.
pub(super) struct Member {
    pub(super) node: Node,
    pub(super) child: Option<Child>,
    pub(super) state: State,
    pub(super) report: watch::Receiver<Report>,
    pub(super) teller: Teller,
    /// The faults that the process was told.
    pub(super) faults: OfNode,
    /// The faults that the process was told last and may not have confirmed. `None` if it was told
    /// none since its start.
    pub(super) unconfirmed: Option<Unconfirmed>,
    /// When the process was started last.
    pub(super) started: Instant,
    /// Calls that wait until the node answers.
    pub(super) starting: Vec<(Value, Reply)>,
    /// What happens when the process ends.
    pub(super) end: End,
}

/// What happens when a process ends.
pub(super) enum End {
    /// Nobody asked for it: the node has failed.
    Unasked,
    /// `kill` asked for it.
    Killed(Vec<Reply>),
    /// It is started again. At the deadline, a node that is slow to stop is killed.
    Restart { program: PathBuf, deadline: Instant, replies: Vec<Reply> },
}

impl Member {
    pub(super) fn new(node: Node, report: watch::Receiver<Report>) -> Self {
        let teller = Teller::start(&node.home);
        Self {
            node,
            child: None,
            state: State::Ended,
            report,
            teller,
            faults: OfNode::default(),
            unconfirmed: None,
            started: Instant::now(),
            starting: Vec::new(),
            end: End::Unasked,
        }
    }

    /// Starts the process.
    pub(super) fn start(&mut self, program: &Path, log_level: Option<&str>) -> anyhow::Result<()> {
        self.child = Some(Child::spawn(&self.node, program, log_level)?);
        self.state = State::Starting;
        self.started = Instant::now();
        self.end = End::Unasked;
        (self.faults, self.unconfirmed) = (OfNode::default(), None);
        Ok(())
    }

    /// Ends the process at once, as `kill -9` does.
    pub(super) fn kill(&mut self, reply: Reply) {
        let Some(child) = &mut self.child else {
            // The node is down, as asked.
            self.state = State::Killed;
            return reply.send(Ok(Value::Null));
        };
        child.kill();
        match std::mem::replace(&mut self.end, End::Unasked) {
            End::Unasked => self.end = End::Killed(vec![reply]),
            End::Killed(mut replies) => {
                replies.push(reply);
                self.end = End::Killed(replies);
            }
            End::Restart { replies, .. } => {
                let failure = || Err(Failure::failed("the node was killed meanwhile"));
                replies.into_iter().for_each(|restart| restart.send(failure()));
                self.end = End::Killed(vec![reply]);
            }
        }
    }

    /// Asks the running process to stop. Once it has ended, this program is started.
    pub(super) fn restart(&mut self, program: PathBuf, reply: Reply, patience: Duration) {
        if let Some(child) = &mut self.child {
            child.ask_to_stop();
        }
        let mut replies = vec![reply];
        match std::mem::replace(&mut self.end, End::Unasked) {
            End::Unasked => {}
            // The node is going down, as the kill asked. Then it comes up again.
            End::Killed(killed) => killed.into_iter().for_each(|kill| kill.send(Ok(Value::Null))),
            End::Restart { replies: before, .. } => replies.extend(before),
        }
        self.end = End::Restart { program, deadline: Instant::now() + patience, replies };
    }

    /// Whether the process runs, or is about to.
    pub(super) fn is_up(&self) -> bool {
        matches!(self.state, State::Starting | State::Running)
    }

    /// Kills a process that was asked to stop and did not in time.
    pub(super) fn enforce_deadline(&mut self, now: Instant) {
        if let (End::Restart { deadline, .. }, Some(child)) = (&self.end, &mut self.child)
            && now >= *deadline
        {
            child.kill();
        }
    }

    /// Notices that a started node answers, and answers the calls that waited for it. Returns
    /// whether the node was noticed by this call.
    pub(super) fn notice_answer(&mut self) -> bool {
        let answers = self.report.borrow().since(self.started).is_some();
        if self.state != State::Starting || !answers {
            return false;
        }
        self.state = State::Running;
        for (answer, reply) in self.starting.drain(..).collect::<Vec<_>>() {
            let confirmation = self.confirmation();
            tokio::spawn(async move {
                let failed = match confirmation {
                    Some(confirmation) => confirmation.await,
                    None => None,
                };
                reply.send(failed.map_or(Ok(answer), |failed| Err(Failure::failed(failed))));
            });
        }
        true
    }

    /// Waits until the running node has confirmed its faults. The result is the reason if it has
    /// not. `None` if there is nothing to confirm. A node that starts is told its faults too, and
    /// the call that starts it waits for them.
    pub(super) fn confirmation(&self) -> Option<impl Future<Output = Option<String>> + use<>> {
        let name = self.node.name.clone();
        let unconfirmed = self.unconfirmed.clone().filter(|_| self.state == State::Running)?;
        let failed = move |error| {
            format!(
                "{name} has not confirmed its faults: {error}; the change stays in force, and the \
                 node is told again"
            )
        };
        Some(async move { unconfirmed.confirmed().await.err().map(failed) })
    }

    /// Answers all calls that wait for the node: those that start it with this failure, those that
    /// kill it with success.
    pub(super) fn fail(&mut self, message: &str) {
        let failure = || Err(Failure::failed(message));
        self.starting.drain(..).for_each(|(_, reply)| reply.send(failure()));
        match std::mem::replace(&mut self.end, End::Unasked) {
            End::Unasked => {}
            End::Killed(replies) => replies.into_iter().for_each(|kill| kill.send(Ok(Value::Null))),
            End::Restart { replies, .. } => replies.into_iter().for_each(|r| r.send(failure())),
        }
    }
}
