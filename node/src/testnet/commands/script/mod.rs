//! `testnet script`: commands and expectations, one a line.

mod expect;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod fake;
mod step;
mod words;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, anyhow, ensure};
use clap::Args;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::{CommandError, Target};
use crate::control::{ControlError, code};
use step::{Mistake, Numbered, Step};

/// Most bytes of a script.
const BYTES_MAX: u64 = 1 << 20;

/// Run commands and expectations from a file, one a line
///
/// A line is a command as on the command line (partition, isolate, heal, latency, kill, restart,
/// add, load, faucet, wait, ls, stop), a pause or an expectation. Words are quoted as in a shell,
/// and # begins a comment.
///
///   sleep 5s
///   expect final within 2s       needs a load; a transfer that the load submitted after the line
///                                began is final at each node that the load's node reaches: by way
///                                of nodes that are up and links that are not cut
///   expect no-final for 3s       needs a load; during this time no transfer that the load
///                                submitted after the line began is final at any node, and in the
///                                end all nodes that are up answer
///   expect agree [within 10s]    all nodes that are up have the same block at the lowest height
///                                that one of them has
///   expect height 100 within 30s all nodes that are up have reached the height
///
/// All lines are checked before the first one runs. The first line that fails ends the script.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
#[command(after_help = "Exit codes: 0 ok, 1 a line failed, 2 a line cannot be read, 3 no network \
                        runs, 5 not in time. With --json each line that was done \
                        prints an object with line, text, ms and result.")]
pub(crate) struct Script {
    /// The script; - reads it from stdin
    file: PathBuf,
}

impl Script {
    pub(super) async fn execute(self, target: &Target) -> anyhow::Result<()> {
        let name = match self.is_stdin() {
            true => "stdin".to_owned(),
            false => self.file.display().to_string(),
        };
        let script = self.read().with_context(|| name.clone())?;
        let lines = step::parse(&script).map_err(|mistakes| told(&name, &mistakes))?;
        // Without a network nothing runs, not even a pause.
        target.list().await?;
        for line in lines {
            let Numbered { number, text, step } = line;
            let start = Instant::now();
            let result = run(step, target).await.map_err(|error| {
                let says = format!("{name}:{number}: {text}: {error:#}");
                match is_late(&error) {
                    true => CommandError::NotInTime(says).into(),
                    // Any other failure of a line has exit code 1.
                    false => anyhow!(says),
                }
            })?;
            let ms = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
            let object = json!({ "line": number, "text": text, "ms": ms, "result": result });
            target.print(&object, &format!("{number:>4}  {text}  ({ms} ms)"))?;
        }
        Ok(())
    }

    fn is_stdin(&self) -> bool {
        self.file == Path::new("-")
    }

    fn read(&self) -> anyhow::Result<String> {
        let mut bytes = Vec::new();
        if self.is_stdin() {
            std::io::stdin().lock().take(BYTES_MAX + 1).read_to_end(&mut bytes)?;
        } else {
            File::open(&self.file)?.take(BYTES_MAX + 1).read_to_end(&mut bytes)?;
        }
        ensure!(bytes.len() as u64 <= BYTES_MAX, "a script has at most {BYTES_MAX} bytes");
        String::from_utf8(bytes).context("a script is UTF-8 text")
    }
}

/// Does what a line asks for, and returns the result.
async fn run(step: Step, target: &Target) -> anyhow::Result<Value> {
    match step {
        Step::Sleep(time) => {
            sleep(time).await;
            Ok(json!({}))
        }
        Step::Expect(expect) => expect::check(expect, target).await,
        Step::Command(command) => {
            let (target, kept) = target.keeping();
            // Boxed, since this command runs commands itself.
            Box::pin(command.execute(&target)).await?;
            Ok(kept.take())
        }
    }
}

/// Whether a line was not in time, by its own clock or by that of the network.
fn is_late(error: &anyhow::Error) -> bool {
    let own = error.downcast_ref().map(CommandError::exit_code);
    let of_network = error.downcast_ref().map(ControlError::exit_code);
    own.or(of_network).is_some_and(|code| i32::from(code) == code::NOT_IN_TIME)
}

fn told(name: &str, mistakes: &[Mistake]) -> CommandError {
    let line =
        |Mistake { number, text, reason }: &Mistake| format!("{name}:{number}: {text}: {reason}");
    CommandError::Usage(mistakes.iter().map(line).collect::<Vec<_>>().join("\n"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::control::Failure;

    #[tokio::test]
    async fn a_line_that_is_not_in_time_has_its_own_exit_code() {
        for (code, is_late) in [(code::NOT_IN_TIME, true), (code::FAILED, false)] {
            let (folder, target) = fake::network(move |method| match method {
                "testnet_ls" => Ok(json!({ "nodes": [], "cut": [], "latency_ms": [] })),
                _ => Err(Failure::new(code, "not final")),
            });
            let file = folder.path().join("script.txt");
            std::fs::write(&file, "faucet crn1x '1 CRN'").unwrap();
            let error = Script { file }.execute(&target).await.unwrap_err();
            assert!(error.to_string().ends_with(":1: faucet crn1x '1 CRN': not final"), "{error}");
            let is_not_in_time = matches!(error.downcast(), Ok(CommandError::NotInTime(_)));
            assert_eq!(is_not_in_time, is_late);
        }
    }

    /// If the figures were read before the load is ended, they might lack transfers.
    #[tokio::test]
    async fn the_call_that_ends_a_load_tells_its_figures() {
        let figures = json!({
            "sent": 3, "final": 3, "p50_ms": 1, "p99_ms": 1, "max_ms": 1, "is_sending": true,
            "per_second": 1, "rpc": "", "skipped": 0, "waiting": 0, "trouble": null, "next": [],
        });
        for ended in [figures, Value::Null] {
            let sent = ended.get("sent").cloned();
            let (_folder, target) = fake::network(move |method| match method {
                "testnet_load" => Ok(ended.clone()),
                _ => Err(Failure::failed("asked for more")),
            });
            let line = step::parse("load 0/s").unwrap().remove(0);
            assert_eq!(run(line.step, &target).await.unwrap().get("sent").cloned(), sent);
        }
    }
}
