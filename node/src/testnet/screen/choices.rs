//! What the user has chosen to see, and what each key does.

use ratatui_crossterm::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use tracing::Level;

use super::filter::Filter;
use super::layout::Pane;
use super::prompt::{Answer, Outcome, Prompt, Question};
use crate::testnet::action::Action;
use crate::testnet::overview::{LogLine, Overview};

/// Rows that a page key moves.
const PAGE: usize = 10;

/// What the program does for a key, besides drawing.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Command {
    Act(Action),
    Quit,
    /// Stops this process as Ctrl-Z does elsewhere.
    Suspend,
    /// Draws all again, after something else wrote to the terminal.
    Redraw,
}

/// What the user has chosen.
#[derive(Clone, Debug)]
pub(super) struct Choices {
    /// Position of the chosen node.
    pub(super) node: usize,
    pub(super) pane: Pane,
    /// Whether the chosen pane has the room of all panes.
    pub(super) is_zoomed: bool,
    pub(super) shows_help: bool,
    pub(super) prompt: Option<Prompt>,
    pub(super) filter: Filter,
    /// Rows above the first one in sight, while the blocks or the accounts are the chosen pane.
    pub(super) scrolled: usize,
    /// Lines of the log below the last one in sight.
    pub(super) log_back: usize,
    /// The log as it was when the user scrolled back, so that it does not move.
    pub(super) held_log: Option<Vec<LogLine>>,
    /// What this screen has to say, until the next key.
    pub(super) note: Option<String>,
    /// Milliseconds since 1970.
    pub(super) now_ms: u64,
    pub(super) has_colours: bool,
}

impl Choices {
    pub(super) fn new(has_colours: bool) -> Self {
        Self {
            node: 0,
            pane: Pane::Nodes,
            is_zoomed: false,
            shows_help: false,
            prompt: None,
            filter: Filter::default(),
            scrolled: 0,
            log_back: 0,
            held_log: None,
            note: None,
            now_ms: 0,
            has_colours,
        }
    }

    /// Takes a key, and returns what is to be done.
    pub(super) fn on_key(&mut self, key: KeyEvent, overview: &Overview) -> Option<Command> {
        if key.kind == KeyEventKind::Release {
            return None;
        }
        self.note = None;
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            match key.code {
                KeyCode::Char('c') => return Some(Command::Quit),
                KeyCode::Char('z') => return Some(Command::Suspend),
                KeyCode::Char('l') => return Some(Command::Redraw),
                _ if self.prompt.is_none() => return None,
                _ => {}
            }
        }
        if let Some(prompt) = &mut self.prompt {
            return match prompt.on_key(key, overview) {
                Outcome::Open => None,
                Outcome::Left => {
                    self.prompt = None;
                    None
                }
                Outcome::Answered(answer) => {
                    self.prompt = None;
                    self.on_answer(answer)
                }
            };
        }
        if self.shows_help {
            // Any key ends the help; `q` still quits.
            self.shows_help = false;
            return (key.code == KeyCode::Char('q')).then_some(Command::Quit);
        }
        self.on_command_key(key.code, overview)
    }

    fn on_answer(&mut self, answer: Answer) -> Option<Command> {
        match answer {
            Answer::Act(action) => Some(Command::Act(action)),
            Answer::Find(text) => {
                self.filter.text = text;
                self.follow_log();
                None
            }
        }
    }

    fn on_command_key(&mut self, code: KeyCode, overview: &Overview) -> Option<Command> {
        let question = match code {
            KeyCode::Char('q') => return Some(Command::Quit),
            KeyCode::Char('h') => return Some(Command::Act(Action::Heal)),
            KeyCode::Char('a') => return Some(Command::Act(Action::Add)),
            KeyCode::Char('p') => Question::Partition,
            KeyCode::Char('i') => Question::Isolate,
            KeyCode::Char('t') => Question::Latency,
            KeyCode::Char('k') => Question::Kill,
            KeyCode::Char('r') => Question::Restart,
            KeyCode::Char('l') => Question::Load,
            KeyCode::Char('f') => Question::Faucet,
            KeyCode::Char('/') => Question::Find,
            _ => {
                self.on_view_key(code, overview);
                return None;
            }
        };
        if question == Question::Partition && overview.nodes.len() < 2 {
            self.note = Some("a partition needs two nodes".to_owned());
            return None;
        }
        self.prompt = Some(Prompt::new(question, overview, self.chosen(overview)));
        None
    }

    /// Keys that change only what is shown.
    fn on_view_key(&mut self, code: KeyCode, overview: &Overview) {
        match code {
            KeyCode::Char('?') => self.shows_help = true,
            KeyCode::Tab | KeyCode::Right => self.choose_pane(1),
            KeyCode::BackTab | KeyCode::Left => self.choose_pane(Pane::ALL.len() - 1),
            KeyCode::Enter => self.is_zoomed = !self.is_zoomed,
            KeyCode::Esc => self.is_zoomed = false,
            KeyCode::Char('n') => {
                let chosen = self.chosen(overview);
                self.filter.node = match self.filter.node {
                    Some(node) if node == chosen => None,
                    _ => Some(chosen),
                };
                self.follow_log();
            }
            KeyCode::Char('v') => {
                self.filter.least = match self.filter.least {
                    Level::TRACE | Level::DEBUG => Level::INFO,
                    Level::INFO => Level::WARN,
                    Level::WARN => Level::ERROR,
                    Level::ERROR => Level::TRACE,
                };
                self.follow_log();
            }
            KeyCode::Char('c') => {
                self.filter = Filter::default();
                self.follow_log();
            }
            KeyCode::Up => self.step(overview, 1, true),
            KeyCode::Down => self.step(overview, 1, false),
            KeyCode::PageUp => self.step(overview, PAGE, true),
            KeyCode::PageDown => self.step(overview, PAGE, false),
            KeyCode::Home => self.step(overview, usize::MAX, true),
            KeyCode::End => self.step(overview, usize::MAX, false),
            _ => {}
        }
    }

    /// The position of the chosen node.
    pub(super) fn chosen(&self, overview: &Overview) -> usize {
        self.node.min(overview.nodes.len().saturating_sub(1))
    }

    fn choose_pane(&mut self, steps: usize) {
        self.pane = self.pane.step(steps);
        self.scrolled = 0;
    }

    fn follow_log(&mut self) {
        self.log_back = 0;
        self.held_log = None;
    }

    /// Moves in the chosen pane: to another node, or over rows.
    fn step(&mut self, overview: &Overview, by: usize, is_up: bool) {
        let moved = |at: usize, count: usize| match is_up {
            true => at.saturating_sub(by),
            false => at.saturating_add(by).min(count.saturating_sub(1)),
        };
        match self.pane {
            Pane::Nodes | Pane::Links | Pane::History => {
                self.node = moved(self.chosen(overview), overview.nodes.len());
            }
            Pane::Blocks => self.scrolled = moved(self.scrolled, overview.blocks.len()),
            Pane::Accounts => self.scrolled = moved(self.scrolled, overview.accounts.len()),
            Pane::Log => self.step_log(overview, by, is_up),
        }
    }

    fn step_log(&mut self, overview: &Overview, by: usize, is_up: bool) {
        if !is_up {
            self.log_back = self.log_back.saturating_sub(by);
            if self.log_back == 0 {
                self.follow_log();
            }
            return;
        }
        let held = self.held_log.get_or_insert_with(|| overview.log.iter().cloned().collect());
        let lines = held.iter().filter(|line| self.filter.admits(line)).count();
        self.log_back = self.log_back.saturating_add(by).min(lines.saturating_sub(1));
        if self.log_back == 0 {
            self.follow_log();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    fn press(choices: &mut Choices, code: KeyCode, overview: &Overview) -> Option<Command> {
        choices.on_key(KeyEvent::new(code, KeyModifiers::NONE), overview)
    }

    fn typed(choices: &mut Choices, text: &str, overview: &Overview) -> Option<Command> {
        text.chars().fold(None, |_, c| match c {
            '\n' => press(choices, KeyCode::Enter, overview),
            c => press(choices, KeyCode::Char(c), overview),
        })
    }

    #[test]
    fn each_key_asks_for_its_action() {
        let overview = sample::four();
        let node = || "node2".to_owned();
        let alice = overview.accounts[0].address.clone();
        for (keys, command) in [
            ("a", Command::Act(Action::Add)),
            ("h", Command::Act(Action::Heal)),
            ("q", Command::Quit),
            ("?q", Command::Quit),
            ("i\n", Command::Act(Action::Isolate { node: node() })),
            ("k\n", Command::Act(Action::Kill { node: node() })),
            ("r\n", Command::Act(Action::Restart { node: node(), binary: None })),
            ("knode2\n", Command::Act(Action::Kill { node: node() })),
            ("t\n", Command::Act(Action::Latency { between: None, ms: 100 })),
            ("l\n", Command::Act(Action::Load { per_second: 50, node: None })),
            ("l7/s\n", Command::Act(Action::Load { per_second: 7, node: None })),
            ("f\n", Command::Act(Action::Faucet { address: alice, amount: "10 CRN".to_owned() })),
        ] {
            let mut choices = Choices::new(true);
            press(&mut choices, KeyCode::Down, &overview);
            assert_eq!(typed(&mut choices, keys, &overview), Some(command), "{keys:?}");
            assert!(choices.prompt.is_none(), "{keys:?}");
        }
        // A key alone does no harm.
        for key in "piktrlf/".chars() {
            let mut choices = Choices::new(true);
            assert_eq!(press(&mut choices, KeyCode::Char(key), &overview), None);
            assert!(choices.prompt.is_some(), "{key}");
            // Other letters are text now, even `q`.
            assert_eq!(press(&mut choices, KeyCode::Char('q'), &overview), None);
            assert_eq!(press(&mut choices, KeyCode::Esc, &overview), None);
            assert!(choices.prompt.is_none());
        }
        for (c, command) in [('c', Command::Quit), ('z', Command::Suspend), ('l', Command::Redraw)]
        {
            for keys in ["", "p", "?"] {
                let mut choices = Choices::new(true);
                typed(&mut choices, keys, &overview);
                let key = KeyEvent::new(KeyCode::Char(c), KeyModifiers::CONTROL);
                assert_eq!(choices.on_key(key, &overview), Some(command.clone()));
            }
        }
    }

    #[test]
    fn a_key_that_is_let_go_does_nothing() {
        let overview = sample::four();
        let mut choices = Choices::new(true);
        let mut key = KeyEvent::new(KeyCode::Char('q'), KeyModifiers::NONE);
        key.kind = KeyEventKind::Release;
        assert_eq!(choices.on_key(key, &overview), None);
    }

    #[test]
    fn nothing_breaks_without_nodes_blocks_or_accounts() {
        let empty = Overview::default();
        let codes = [
            KeyCode::Up,
            KeyCode::Down,
            KeyCode::PageUp,
            KeyCode::PageDown,
            KeyCode::Home,
            KeyCode::End,
        ];
        let mut choices = Choices::new(true);
        for _ in Pane::ALL {
            for code in codes {
                assert_eq!(press(&mut choices, code, &empty), None);
            }
            press(&mut choices, KeyCode::Tab, &empty);
        }
        assert_eq!((choices.node, choices.pane), (0, Pane::Nodes));
        press(&mut choices, KeyCode::Char('p'), &empty);
        assert!(choices.prompt.is_none());
        assert_eq!(choices.note.as_deref(), Some("a partition needs two nodes"));
        assert_eq!(typed(&mut choices, "k\n", &empty), None);
        assert!(choices.prompt.is_some(), "there is no node to kill");
    }

    #[test]
    fn arrows_choose_nodes_and_panes() {
        let overview = sample::four();
        let mut choices = Choices::new(true);
        for (code, node) in
            [(KeyCode::Up, 0), (KeyCode::Down, 1), (KeyCode::End, 3), (KeyCode::Down, 3)]
        {
            press(&mut choices, code, &overview);
            assert_eq!(choices.node, node, "{code:?}");
        }
        for (code, pane) in [
            (KeyCode::Tab, Pane::Links),
            (KeyCode::Right, Pane::Blocks),
            (KeyCode::BackTab, Pane::Links),
            (KeyCode::Left, Pane::Nodes),
            (KeyCode::Left, Pane::Log),
            (KeyCode::Tab, Pane::Nodes),
        ] {
            press(&mut choices, code, &overview);
            assert_eq!(choices.pane, pane, "{code:?}");
        }
        press(&mut choices, KeyCode::Enter, &overview);
        assert!(choices.is_zoomed);
        press(&mut choices, KeyCode::Esc, &overview);
        assert!(!choices.is_zoomed);
        // A node that is gone from the list is not chosen.
        assert_eq!(choices.chosen(&Overview::default()), 0);
    }

    #[test]
    fn the_log_stands_still_while_one_reads_back() {
        let mut overview = sample::four();
        let mut choices = Choices::new(true);
        choices.pane = Pane::Log;
        press(&mut choices, KeyCode::Up, &overview);
        let held = choices.held_log.clone().map(|lines| lines.len());
        assert_eq!((choices.log_back, held), (1, Some(overview.log.len())));
        overview.log.clear();
        press(&mut choices, KeyCode::Home, &overview);
        assert_eq!(choices.log_back, held.unwrap_or_default() - 1);
        press(&mut choices, KeyCode::End, &overview);
        assert!(choices.log_back == 0 && choices.held_log.is_none(), "it follows again");

        let overview = sample::four();
        for (key, node, least) in [
            ('n', Some(0), Level::TRACE),
            ('v', Some(0), Level::INFO),
            ('v', Some(0), Level::WARN),
            ('n', None, Level::WARN),
            ('v', None, Level::ERROR),
            ('v', None, Level::TRACE),
        ] {
            press(&mut choices, KeyCode::Up, &overview);
            press(&mut choices, KeyCode::Char(key), &overview);
            assert_eq!((choices.filter.node, choices.filter.least), (node, least));
            assert!(choices.held_log.is_none(), "a new filter shows the end");
        }
        typed(&mut choices, "/Sync\n", &overview);
        assert_eq!(choices.filter.text, "Sync");
        press(&mut choices, KeyCode::Char('c'), &overview);
        assert_eq!(choices.filter, Filter::default());
    }
}
