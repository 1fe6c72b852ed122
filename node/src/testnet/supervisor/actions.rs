//! What the supervisor does when it is called: each action, and the faults that the nodes are told.

use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context;
use futures::future::join_all;
use rustix::fs::{Access, access};
use serde_json::{Value, json};

use super::super::action::Action;
use super::super::faults::Pair;
use super::super::load::traffic::Chain;
use super::super::values::LATENCY_MAX;
use super::member::{Member, Reply};
use super::{Order, Request, Supervisor, payments};
use crate::control::{Failure, code};
use crate::run::STOP_MAX;

/// An action with the positions of its nodes.
enum Step {
    Partition(Vec<Vec<usize>>),
    Isolate(usize),
    Heal,
    Latency(Option<Pair>, u32),
    Kill(usize),
    Restart(usize, PathBuf),
    Add,
    Load(u32, Chain),
    Faucet(Chain, String, String),
    Stop,
}

impl Supervisor {
    pub(super) fn on_order(&mut self, Order { request, reply }: Order) -> anyhow::Result<()> {
        match request {
            Request::Note(text) => {
                self.note(&text);
                reply.send(Ok(Value::Null));
            }
            Request::List => {
                let list = self.notice_answers().and_then(|()| {
                    serde_json::to_value(self.list()).context("a list that is no JSON")
                });
                reply.send(list.map_err(|error| Failure::failed(format!("{error:#}"))));
            }
            Request::Load(question) => reply.send(self.answer(&question)),
            Request::Act(action) => {
                self.note(&action.to_string());
                match self.resolve(action) {
                    Ok(step) => self.perform(step, reply)?,
                    Err(failure) => reply.send(Err(failure)),
                }
            }
        }
        Ok(())
    }

    /// Finds the nodes that an action names.
    fn resolve(&self, action: Action) -> Result<Step, Failure> {
        Ok(match action {
            Action::Partition { groups } => {
                let group =
                    |names: &Vec<String>| names.iter().map(|name| self.find(name)).collect();
                let groups = groups.iter().map(group).collect::<Result<Vec<Vec<_>>, _>>()?;
                let named: Vec<usize> = groups.iter().flatten().copied().collect();
                let is_twice = |(at, node): (usize, &usize)| named[..at].contains(node);
                if groups.len() < 2 || named.iter().enumerate().any(is_twice) {
                    let text = "expected two or more groups, and each node in one group at most";
                    return Err(Failure::new(code::USAGE, text));
                }
                Step::Partition(groups)
            }
            Action::Isolate { node } => Step::Isolate(self.find(&node)?),
            Action::Heal => Step::Heal,
            Action::Latency { between, ms } => {
                let pair = match between {
                    Some((a, b)) => Some((self.find(&a)?, self.find(&b)?)),
                    None => None,
                };
                if pair.is_some_and(|(a, b)| a == b) || u128::from(ms) > LATENCY_MAX.as_millis() {
                    let text = format!(
                        "expected two nodes and a latency of at most {} s",
                        LATENCY_MAX.as_secs()
                    );
                    return Err(Failure::new(code::USAGE, text));
                }
                Step::Latency(pair, ms)
            }
            Action::Kill { node } => Step::Kill(self.find(&node)?),
            Action::Restart { node, binary } => {
                let index = self.find(&node)?;
                let program = binary.as_deref().map(program).transpose()?;
                Step::Restart(index, program.unwrap_or_else(|| self.options.program.clone()))
            }
            Action::Add => Step::Add,
            Action::Load { per_second, node } => {
                Step::Load(per_second, self.payable(node.as_deref())?)
            }
            Action::Faucet { address, amount } => {
                Step::Faucet(self.payable(None)?, address, amount)
            }
            Action::Stop => Step::Stop,
        })
    }

    fn perform(&mut self, step: Step, reply: Reply) -> anyhow::Result<()> {
        match step {
            Step::Partition(groups) => {
                self.faults.partition(&groups);
                self.confirm_faults(reply);
            }
            Step::Isolate(node) => {
                self.faults.isolate(node);
                self.confirm_faults(reply);
            }
            Step::Heal => {
                self.faults.heal();
                self.confirm_faults(reply);
            }
            Step::Latency(pair, ms) => {
                self.faults.delay(pair, ms);
                self.confirm_faults(reply);
            }
            Step::Kill(index) => self.members[index].kill(reply),
            Step::Restart(index, program) if self.members[index].child.is_none() => {
                self.begin(index, &program, reply)?;
            }
            Step::Restart(index, program) => {
                self.members[index].restart(program, reply, STOP_MAX);
            }
            Step::Add => self.add(reply)?,
            Step::Load(per_second, chain) => reply.send(self.load(per_second, chain)),
            Step::Faucet(chain, address, amount) => payments::pay(chain, address, amount, reply),
            Step::Stop => {
                self.is_stopping = true;
                reply.send(Ok(Value::Null));
            }
        }
        Ok(())
    }

    fn add(&mut self, reply: Reply) -> anyhow::Result<()> {
        if let Err(error) = self.layout.add().and_then(|node| self.join(node).map(drop)) {
            reply.send(Err(Failure::failed(format!("{error:#}"))));
            return Ok(());
        }
        let program = self.options.program.clone();
        self.begin(self.members.len().saturating_sub(1), &program, reply)
    }

    pub(super) fn find(&self, name: &str) -> Result<usize, Failure> {
        let is_named = |member: &Member| member.node.name == name;
        self.members.iter().position(is_named).ok_or_else(|| {
            let names: Vec<&str> =
                self.members.iter().map(|member| member.node.name.as_str()).collect();
            let known = names.join(", ");
            Failure::new(code::USAGE, format!("there is no node {name:?}; there are {known}"))
        })
    }

    /// Tells each node that has a process its faults, if they have changed.
    pub(super) fn tell_faults(&mut self) {
        let peers: Vec<String> =
            self.members.iter().map(|member| member.node.peer_id.clone()).collect();
        for (index, member) in self.members.iter_mut().enumerate() {
            let faults = self.faults.of_node(index, peers.len());
            if member.child.is_none() || faults == member.faults {
                continue;
            }
            let cut: Vec<&str> = faults.cut.iter().map(|peer| peers[*peer].as_str()).collect();
            let latency: Vec<(&str, u32)> =
                faults.latency_ms.iter().map(|(peer, ms)| (peers[*peer].as_str(), *ms)).collect();
            member.unconfirmed = Some(member.teller.tell(&cut, &latency));
            member.faults = faults;
        }
    }

    /// Tells the nodes their faults, and answers once all running ones have confirmed them.
    fn confirm_faults(&mut self, reply: Reply) {
        self.tell_faults();
        let list = self.list();
        let answer = json!({ "cut": list.cut, "latency_ms": list.latency_ms });
        let waits: Vec<_> = self.members.iter().filter_map(Member::confirmation).collect();
        tokio::spawn(async move {
            let failed: Vec<String> = join_all(waits).await.into_iter().flatten().collect();
            reply.send(match failed.is_empty() {
                true => Ok(answer),
                false => Err(Failure::failed(failed.join("; "))),
            });
        });
    }
}

/// Makes the path of a program absolute, and checks that it can be executed. The check comes early,
/// because a node is stopped before its new program is started.
fn program(path: &Path) -> Result<PathBuf, Failure> {
    let checked = || {
        // A bare name would be searched for in `PATH`.
        let path = std::path::absolute(path)?;
        if !std::fs::metadata(&path)?.is_file() {
            return Err(io::Error::other("it is no file"));
        }
        access(&path, Access::EXEC_OK)?;
        Ok(path)
    };
    checked().map_err(|error: io::Error| {
        let shown = path.display();
        Failure::new(code::USAGE, format!("{shown} is no program that can run: {error}"))
    })
}
