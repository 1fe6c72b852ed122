//! The lines of a script: commands, expectations and pauses.

use std::time::Duration;

use clap::Parser;

use super::words::words;
use crate::testnet::commands::{Command, Line};
use crate::testnet::values::duration;

/// How long `expect agree` waits by default for nodes that do not answer or have no block yet.
const AGREE: Duration = Duration::from_secs(10);
/// The expectations, for messages.
const EXPECTED: &str = "expected one of: expect final within 2s, expect no-final for 3s, expect \
                        agree [within 10s], expect height 100 within 30s";

/// What a line asks for.
#[derive(Debug)]
pub(super) enum Step {
    Command(Command),
    Expect(Expect),
    Sleep(Duration),
}

/// What must be seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expect {
    Final { within: Duration },
    NoFinal { time: Duration },
    Agree { within: Duration },
    Height { height: u64, within: Duration },
}

/// A line that asks for something.
#[derive(Debug)]
pub(super) struct Numbered {
    /// From 1.
    pub(super) number: usize,
    /// As it was written, without spaces around.
    pub(super) text: String,
    pub(super) step: Step,
}

/// A line that cannot be read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mistake {
    pub(super) number: usize,
    pub(super) text: String,
    pub(super) reason: String,
}

/// Reads a script.
///
/// # Errors
/// All lines that cannot be read.
pub(super) fn parse(script: &str) -> Result<Vec<Numbered>, Vec<Mistake>> {
    let (mut steps, mut mistakes) = (Vec::new(), Vec::new());
    for (index, line) in script.trim_start_matches('\u{feff}').lines().enumerate() {
        let (number, text) = (index + 1, line.trim().to_owned());
        match words(line).and_then(|words| step(&words)) {
            Ok(Some(step)) => steps.push(Numbered { number, text, step }),
            Ok(None) => {}
            Err(reason) => mistakes.push(Mistake { number, text, reason }),
        }
    }
    if mistakes.is_empty() { Ok(steps) } else { Err(mistakes) }
}

/// Reads the words of a line. `None` without words.
fn step(words: &[String]) -> Result<Option<Step>, String> {
    let texts: Vec<&str> = words.iter().map(String::as_str).collect();
    Ok(Some(match texts.as_slice() {
        [] => return Ok(None),
        ["expect", rest @ ..] => Step::Expect(expect(rest)?),
        ["sleep", time] => Step::Sleep(duration(time)?),
        ["sleep", ..] => return Err("expected one duration, as in sleep 5s".to_owned()),
        _ => match Line::try_parse_from(words) {
            Ok(Line { command: Command::Script(_), .. }) => {
                return Err("a script runs no other script".to_owned());
            }
            Ok(Line { command: Command::Logs(_), .. }) => {
                return Err("logs is for people: call it outside of the script".to_owned());
            }
            Ok(line) => Step::Command(line.command),
            Err(error) => return Err(short(&error.to_string())),
        },
    }))
}

fn expect(words: &[&str]) -> Result<Expect, String> {
    let height = |text: &str| {
        let wrong = || format!("{text:?} is no height: expected a whole number");
        text.parse().map_err(|_| wrong())
    };
    Ok(match words {
        ["final", "within", time] => Expect::Final { within: duration(time)? },
        ["no-final", "for", time] => Expect::NoFinal { time: duration(time)? },
        ["agree"] => Expect::Agree { within: AGREE },
        ["agree", "within", time] => Expect::Agree { within: duration(time)? },
        ["height", number, "within", time] => {
            Expect::Height { height: height(number)?, within: duration(time)? }
        }
        _ => return Err(EXPECTED.to_owned()),
    })
}

/// Puts an error of the command-line parser into one line, without the advice to give `--help`.
fn short(message: &str) -> String {
    let lines = message.lines().map(str::trim);
    let said = lines.filter(|line| !line.is_empty() && !line.starts_with("For more information"));
    let text = said.collect::<Vec<_>>().join("; ");
    text.strip_prefix("error: ").unwrap_or(&text).to_owned()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_read_whole() {
        let script = "# two halves\nload 50/s\n\npartition node1,node2/node3,node4 # cut\n\
                      expect no-final for 3s\n  heal\r\nexpect final within 2s\nexpect agree\n\
                      expect height 100 within 0.5m\nsleep 5s\nfaucet crn1x '10 CRN' --json\n";
        let steps = parse(script).unwrap();
        let numbers: Vec<usize> = steps.iter().map(|step| step.number).collect();
        assert_eq!(numbers, [2, 4, 5, 6, 7, 8, 9, 10, 11]);
        assert_eq!(steps[1].text, "partition node1,node2/node3,node4 # cut");
        let seconds = Duration::from_secs;
        let expected: Vec<Expect> = steps
            .iter()
            .filter_map(|line| match line.step {
                Step::Expect(expect) => Some(expect),
                _ => None,
            })
            .collect();
        assert_eq!(
            expected,
            [
                Expect::NoFinal { time: seconds(3) },
                Expect::Final { within: seconds(2) },
                Expect::Agree { within: AGREE },
                Expect::Height { height: 100, within: seconds(30) },
            ]
        );
        assert!(matches!(steps[3].step, Step::Command(Command::Heal)));
        assert!(matches!(steps[7].step, Step::Sleep(time) if time == seconds(5)));
        assert!(parse("").unwrap().is_empty() && parse("\u{feff}heal").unwrap().len() == 1);
    }

    #[test]
    fn each_mistake_is_named_with_what_was_expected() {
        for (line, expected) in [
            ("expect finl within 2s", "expect final within 2s"),
            ("expect final", "expect final within 2s"),
            ("expect final within 2", "expected a number and ms, s or m"),
            ("expect height x within 2s", "expected a whole number"),
            ("sleep", "sleep 5s"),
            ("sleep 5", "expected a number and ms, s or m"),
            ("faucet crn1x \"10 CRN", "expected a closing \""),
            ("partitoin a/b", "partitoin"),
            ("partition a", "expected two or more groups"),
            ("load 50", "as in 50/s"),
            ("kill", "NODE"),
            ("script other.txt", "no other script"),
            ("logs -f", "outside of the script"),
        ] {
            let mistakes = parse(&format!("heal\n{line}\n")).unwrap_err();
            assert_eq!((mistakes.len(), mistakes[0].number), (1, 2), "{line}");
            assert_eq!(mistakes[0].text, line);
            let reason = &mistakes[0].reason;
            assert!(reason.contains(expected) && !reason.contains('\n'), "{line}: {reason}");
        }
        let all = parse("hea\nheal\nexpect\n").unwrap_err();
        assert_eq!(all.iter().map(|mistake| mistake.number).collect::<Vec<_>>(), [1, 3]);
    }
}
