//! The program at a terminal: secrets are not echoed, and the terminal is restored.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, unreachable_pub)]

mod fake_node;
mod program;

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};

use program::{Setup, setup};
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{LocalModes, tcgetattr};

struct Terminal {
    program: File,
    person: File,
    child: Child,
    shown: String,
}

impl Terminal {
    /// Starts the program on a terminal of its own. Its home has no file with the password, so the
    /// program asks for it unless the arguments name a file.
    fn start(setup: &Setup, args: &[&str]) -> Self {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY;
        let person = openpt(flags).unwrap();
        grantpt(&person).unwrap();
        unlockpt(&person).unwrap();
        let program = File::from(ioctl_tiocgptpeer(&person, flags).unwrap());
        let end = || Stdio::from(program.try_clone().unwrap());
        let child = Command::new("setsid")
            .args(["--ctty", env!("CARGO_BIN_EXE_cairn-wallet")])
            .args(args)
            .env("CAIRN_WALLET_HOME", setup.home.path().join("own"))
            .env("CAIRN_WALLET_RPC", &setup.node.url)
            .stdin(end())
            .stdout(end())
            .stderr(end())
            .spawn()
            .unwrap();
        Self { program, person: person.into(), child, shown: String::new() }
    }

    fn type_in(&mut self, text: &str) {
        self.person.write_all(text.as_bytes()).unwrap();
    }

    fn await_text(&mut self, text: &str) {
        while !self.shown.contains(text) {
            let mut bytes = [0; 256];
            let got = self.person.read(&mut bytes).unwrap();
            self.shown.push_str(&String::from_utf8_lossy(&bytes[..got]));
        }
    }

    /// Waits for the program's end. The terminal must be as before, with no unread input left for a
    /// shell.
    fn end(&mut self) -> ExitStatus {
        let status = self.child.wait().unwrap();
        assert!(
            tcgetattr(&self.program)
                .unwrap()
                .local_modes
                .contains(LocalModes::ECHO | LocalModes::ICANON)
        );
        assert_eq!(
            rustix::io::ioctl_fionread(&self.program).unwrap(),
            0,
            "unread input: {}",
            self.shown
        );
        status
    }
}

const WORDS: &str = "abandon abandon abandon abandon abandon abandon";
const LAST: &str = "abandon abandon abandon abandon abandon art";

#[test]
fn numbered_lines_can_be_pasted_and_nothing_of_them_is_left() {
    let setup = setup();
    let password = setup.home.path().join("password");
    let import = ["import", "main", "--password-file", password.to_str().unwrap()];
    let bad =
        format!("   1  {WORDS}\n   7  {WORDS}\n  13  {WORDS}\n  19  {WORDS}\n\nmore\nof it\n");
    let good = format!("   1  {WORDS}\n7. {WORDS}\n  13) {WORDS}\n  19: {LAST}\n\nmore\nof it\n");
    for (pasted, code, said) in [(bad, 1, "the checksum does not fit"), (good, 0, "crn1")] {
        let mut terminal = Terminal::start(&setup, &import);
        terminal.await_text("(not shown");
        terminal.type_in(&pasted);
        terminal.await_text(said);
        assert_eq!(terminal.end().code(), Some(code), "{}", terminal.shown);
        assert!(!terminal.shown.contains("abandon"), "{}", terminal.shown);
    }
}

#[test]
fn every_way_out_of_a_question_restores_the_terminal() {
    let setup = setup();
    let password = setup.home.path().join("password");
    setup
        .run(&[
            "--home",
            setup.home.path().join("own").to_str().unwrap(),
            "new",
            "main",
            "--password-file",
            password.to_str().unwrap(),
        ])
        .expect(0, "");
    let mut terminal = Terminal::start(&setup, &["phrase"]);
    terminal.await_text("Password");
    terminal.type_in("\u{3}");
    assert_eq!(terminal.end().signal(), Some(2));
    let mut terminal = Terminal::start(&setup, &["phrase"]);
    terminal.await_text("Password");
    let pid = rustix::process::Pid::from_child(&terminal.child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(terminal.end().signal(), Some(15));
    let mut terminal = Terminal::start(&setup, &["phrase"]);
    terminal.await_text("Password");
    terminal.type_in("local\n");
    assert_eq!(terminal.end().code(), Some(0));
    terminal.await_text(" ");
}
