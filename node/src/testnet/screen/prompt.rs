//! Prompts: the questions that keys open, and what the typed answers mean.

use ratatui_crossterm::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use crate::testnet::action::Action;
use crate::testnet::load::pace::rate;
use crate::testnet::overview::Overview;
use crate::testnet::summary::halves;
use crate::testnet::values::{self, Between, Groups};

/// Most characters of an answer: sixteen long names fit.
const TEXT_MAX: usize = 500;

/// A question with an answer that is being typed.
#[derive(Clone, Debug)]
pub(super) struct Prompt {
    pub(super) question: Question,
    pub(super) text: String,
    /// Characters before the cursor.
    pub(super) cursor: usize,
    /// The text is a proposal that nobody has touched: the first character replaces it.
    pub(super) is_proposal: bool,
    /// Why the last answer was refused.
    pub(super) refusal: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Question {
    Partition,
    Isolate,
    Latency,
    Kill,
    Restart,
    Load,
    Faucet,
    Find,
}

/// What an answer asks for.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Answer {
    Act(Action),
    Find(String),
}

/// What a key did to a prompt.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Outcome {
    Open,
    Left,
    Answered(Answer),
}

impl Question {
    /// The question in a few words.
    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::Partition => "Partition into groups",
            Self::Isolate => "Isolate node",
            Self::Latency => "Latency between",
            Self::Kill => "Kill node",
            Self::Restart => "Restart node",
            Self::Load => "Load, transfers per second",
            Self::Faucet => "Faucet pays",
            Self::Find => "Show log lines with",
        }
    }

    /// How to answer.
    pub(super) const fn hint(self) -> &'static str {
        match self {
            Self::Partition => {
                "Commas between names, slashes between groups; others keep all links."
            }
            Self::Isolate => "All links of this node are cut until you heal.",
            Self::Latency => "Two nodes or all, and a time each way: node1-node2 50ms, all 0ms.",
            Self::Kill => "The process ends at once, as by kill -9.",
            Self::Restart => {
                "A name, and if you like the path of another binary: node1 ./cairn-node"
            }
            Self::Load => {
                "A rate, and if you like the node that takes it: 50 node1. 0 ends the load."
            }
            Self::Faucet => "An address or the name of an account, and an amount: alice 10 CRN",
            Self::Find => "Capitals do not matter. An empty text shows all lines.",
        }
    }

    /// The answer that most users want.
    fn proposal(self, overview: &Overview, chosen: usize) -> String {
        let nodes = &overview.nodes;
        match self {
            Self::Partition => halves(nodes.iter().map(|node| (&*node.name, node.validator))),
            Self::Isolate | Self::Kill | Self::Restart => {
                nodes.get(chosen).map(|node| node.name.clone()).unwrap_or_default()
            }
            Self::Latency => "all 100ms".to_owned(),
            Self::Load if overview.load.is_some() => "0".to_owned(),
            Self::Load => "50".to_owned(),
            Self::Faucet => overview.accounts.first().map_or_else(String::new, |account| {
                let unit = account.balance.split_whitespace().nth(1).unwrap_or_default();
                format!("{} 10 {unit}", account.name).trim_end().to_owned()
            }),
            Self::Find => String::new(),
        }
    }

    /// The meaning of an answer, or what is wrong with it.
    fn read(self, text: &str, overview: &Overview) -> Result<Answer, String> {
        let text = text.trim();
        let (first, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        let rest = rest.trim();
        let action = match self {
            Self::Find => return Ok(Answer::Find(text.to_owned())),
            Self::Partition => {
                let Groups(groups) = values::groups(text)?;
                known(groups.iter().flatten(), overview)?;
                Action::Partition { groups }
            }
            Self::Isolate => Action::Isolate { node: node(text, overview)? },
            Self::Kill => Action::Kill { node: node(text, overview)? },
            Self::Restart => Action::Restart {
                node: node(first, overview)?,
                binary: (!rest.is_empty()).then(|| rest.into()),
            },
            Self::Latency => {
                let Between(between) = values::between(first)?;
                known(between.iter().flat_map(|(a, b)| [a, b]), overview)?;
                Action::Latency { between, ms: values::latency(rest)? }
            }
            Self::Load => Action::Load {
                // The question names the unit, so a number is enough.
                per_second: rate(&format!("{}/s", first.strip_suffix("/s").unwrap_or(first)))?,
                node: (!rest.is_empty()).then(|| node(rest, overview)).transpose()?,
            },
            Self::Faucet => {
                let account = overview.accounts.iter().find(|account| account.name == first);
                let address = account.map_or(first, |account| &account.address).to_owned();
                if address.is_empty() || rest.is_empty() {
                    return Err("an address and an amount are expected: alice 10 CRN".to_owned());
                }
                Action::Faucet { address, amount: rest.to_owned() }
            }
        };
        Ok(Answer::Act(action))
    }
}

/// The name, if it is a node's.
fn node(name: &str, overview: &Overview) -> Result<String, String> {
    let mut names = overview.nodes.iter().map(|node| &node.name);
    match names.find(|known| *known == name) {
        Some(name) => Ok(name.clone()),
        None if name.is_empty() => Err("the name of a node is expected".to_owned()),
        None => Err(format!("there is no node {name}")),
    }
}

/// The names, if all are nodes'.
fn known<'a>(
    names: impl IntoIterator<Item = &'a String>,
    overview: &Overview,
) -> Result<(), String> {
    names.into_iter().try_for_each(|name| node(name, overview).map(drop))
}

impl Prompt {
    pub(super) fn new(question: Question, overview: &Overview, chosen: usize) -> Self {
        let text = question.proposal(overview, chosen);
        let cursor = text.chars().count();
        Self { question, text, cursor, is_proposal: true, refusal: None }
    }

    /// Takes a key.
    pub(super) fn on_key(&mut self, key: KeyEvent, overview: &Overview) -> Outcome {
        let has_control = key.modifiers.contains(KeyModifiers::CONTROL);
        let length = self.text.chars().count();
        self.refusal = None;
        match key.code {
            KeyCode::Esc => return Outcome::Left,
            KeyCode::Enter => match self.question.read(&self.text, overview) {
                Ok(answer) => return Outcome::Answered(answer),
                Err(refusal) => self.refusal = Some(refusal),
            },
            KeyCode::Char('u') if has_control => self.clear(),
            KeyCode::Char('a') if has_control => self.cursor = 0,
            KeyCode::Char('e') if has_control => self.cursor = length,
            KeyCode::Char(c) if !has_control && !c.is_control() => self.insert(c),
            KeyCode::Backspace if self.is_proposal => self.clear(),
            KeyCode::Backspace if self.cursor > 0 => {
                self.cursor -= 1;
                self.remove();
            }
            KeyCode::Delete => self.remove(),
            KeyCode::Left => self.cursor = self.cursor.saturating_sub(1),
            KeyCode::Right => self.cursor = length.min(self.cursor + 1),
            KeyCode::Home => self.cursor = 0,
            KeyCode::End => self.cursor = length,
            _ => {}
        }
        self.is_proposal = false;
        Outcome::Open
    }

    fn clear(&mut self) {
        self.text.clear();
        self.cursor = 0;
    }

    fn insert(&mut self, c: char) {
        if self.is_proposal {
            self.clear();
        }
        if self.text.chars().count() < TEXT_MAX {
            self.text.insert(self.at_cursor(), c);
            self.cursor += 1;
        }
    }

    /// Removes the character after the cursor.
    fn remove(&mut self) {
        let at = self.at_cursor();
        if at < self.text.len() {
            self.text.remove(at);
        }
    }

    /// The cursor in bytes.
    fn at_cursor(&self) -> usize {
        self.text.char_indices().nth(self.cursor).map_or(self.text.len(), |(at, _)| at)
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    fn answer(question: Question, text: &str) -> Result<Answer, String> {
        question.read(text, &sample::four())
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn answers_become_actions() {
        let four = sample::four();
        let alice = four.accounts[0].address.clone();
        let node2 = || "node2".to_owned();
        let act = |question, text: &str, action| {
            assert_eq!(answer(question, text), Ok(Answer::Act(action)), "{text}");
        };
        let groups = vec![names(&["node1", "node2"]), names(&["node3"])];
        act(Question::Partition, " node1, node2 / node3 ", Action::Partition { groups });
        act(Question::Isolate, "node2", Action::Isolate { node: node2() });
        act(Question::Kill, " node2 ", Action::Kill { node: node2() });
        let binary = Some("/a b/cairn-node".into());
        act(Question::Restart, "node2", Action::Restart { node: node2(), binary: None });
        act(Question::Restart, "node2  /a b/cairn-node", Action::Restart { node: node2(), binary });
        let pair = Some(("node1".to_owned(), node2()));
        act(Question::Latency, "all 100ms", Action::Latency { between: None, ms: 100 });
        act(Question::Latency, "node1-node2 2s", Action::Latency { between: pair, ms: 2_000 });
        act(Question::Load, "0", Action::Load { per_second: 0, node: None });
        act(Question::Load, "50/s node2", Action::Load { per_second: 50, node: Some(node2()) });
        let amount = || "1.5 CRN".to_owned();
        act(Question::Faucet, "alice 1.5 CRN", Action::Faucet { address: alice, amount: amount() });
        let address = "crn1other".to_owned();
        act(Question::Faucet, "crn1other 1.5 CRN", Action::Faucet { address, amount: amount() });
        assert_eq!(answer(Question::Find, " Sync "), Ok(Answer::Find("Sync".to_owned())));
        assert_eq!(answer(Question::Find, ""), Ok(Answer::Find(String::new())));
    }

    #[test]
    fn wrong_answers_say_what_is_wrong() {
        for (question, text, refusal) in [
            (Question::Partition, "", "two or more groups"),
            (Question::Partition, "node1,node2", "two or more groups"),
            (Question::Partition, "node1/node1", "node1 is named twice"),
            (Question::Partition, "node1/node9", "there is no node node9"),
            (Question::Partition, "node1/", "two or more groups"),
            (Question::Isolate, "node1 node2", "there is no node node1 node2"),
            (Question::Kill, "", "the name of a node is expected"),
            (Question::Restart, "  ", "the name of a node is expected"),
            (Question::Latency, "node1 100ms", "expected node1-node2, or all"),
            (Question::Latency, "node1-node1 100ms", "expected two nodes"),
            (Question::Latency, "node1-node9 100ms", "there is no node node9"),
            (Question::Latency, "all", "expected a number and ms"),
            (Question::Latency, "all -1ms", "expected a number and ms"),
            (Question::Latency, "all 9999s", "expected at most 10 s"),
            (Question::Load, "", "expected transfers a second"),
            (Question::Load, "50 node9", "there is no node node9"),
            (Question::Load, "-5", "expected transfers a second"),
            (Question::Load, "4000000000", "at most 5000/s"),
            (Question::Faucet, "alice", "an address and an amount are expected"),
        ] {
            let refused = answer(question, text).map_err(|why| why.contains(refusal));
            assert_eq!(refused, Err(true), "{question:?} {text:?}");
        }
    }

    #[test]
    fn a_proposal_is_taken_by_enter_and_replaced_by_typing() {
        let overview = sample::four();
        let key = |code| KeyEvent::new(code, KeyModifiers::NONE);
        let mut prompt = Prompt::new(Question::Partition, &overview, 0);
        assert_eq!(prompt.text, "node1,node2/node3,node4");
        let taken = prompt.on_key(key(KeyCode::Enter), &overview);
        let groups = vec![names(&["node1", "node2"]), names(&["node3", "node4"])];
        assert_eq!(taken, Outcome::Answered(Answer::Act(Action::Partition { groups })));

        // Full nodes do not vote, so half of the nodes may have all votes.
        let mut with_full = sample::many(6);
        with_full.nodes[2..].iter_mut().for_each(|node| node.validator = false);
        let prompt = Prompt::new(Question::Partition, &with_full, 0);
        assert_eq!(prompt.text, "node1/node2,node3,node4,node5,node6");

        let mut prompt = Prompt::new(Question::Kill, &overview, 2);
        assert_eq!(prompt.text, "node3");
        for c in "nope".chars() {
            assert_eq!(prompt.on_key(key(KeyCode::Char(c)), &overview), Outcome::Open);
        }
        assert_eq!(prompt.text, "nope");
        assert_eq!(prompt.on_key(key(KeyCode::Enter), &overview), Outcome::Open);
        assert_eq!(prompt.refusal.as_deref(), Some("there is no node nope"));
        for code in [KeyCode::Home, KeyCode::Delete, KeyCode::Right, KeyCode::Backspace] {
            prompt.on_key(key(code), &overview);
        }
        assert_eq!((&*prompt.text, prompt.cursor), ("pe", 0));
        for c in ['ä', '\u{1b}', '語'] {
            prompt.on_key(key(KeyCode::Char(c)), &overview);
        }
        prompt.on_key(key(KeyCode::End), &overview);
        prompt.on_key(key(KeyCode::Backspace), &overview);
        assert_eq!((&*prompt.text, prompt.cursor), ("ä語p", 3));
        let control = |c| KeyEvent::new(KeyCode::Char(c), KeyModifiers::CONTROL);
        prompt.on_key(control('u'), &overview);
        assert!(prompt.text.is_empty());
        for _ in 0..2 * TEXT_MAX {
            prompt.on_key(key(KeyCode::Char('x')), &overview);
        }
        assert_eq!(prompt.text.len(), TEXT_MAX);
        assert_eq!(prompt.on_key(key(KeyCode::Esc), &overview), Outcome::Left);

        // One key removes a whole proposal.
        let mut prompt = Prompt::new(Question::Faucet, &overview, 0);
        assert_eq!(prompt.text, "alice 10 CRN");
        prompt.on_key(key(KeyCode::Backspace), &overview);
        assert!(prompt.text.is_empty());
    }
}
