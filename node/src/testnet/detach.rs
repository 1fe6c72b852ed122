//! `--detach`: the network goes on in a process of its own, without a terminal.

use std::fs::OpenOptions;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

use super::commands::{CommandError, Target, all_final};
use super::layout::{Layout, refuse_foreign};
use super::plan::LOG;
use super::summary;
use super::tail::Tail;
use crate::clock::wall_ms;
use crate::files::{create_private_dir, open_in_place};
use crate::home::holder;
use crate::output::{print, print_json};
use crate::signals::StopSignals;

/// The option that tells the process that it is the one in the background.
pub(super) const BACKGROUND: &str = "--in-background";
/// Longest time from the first answer of the network's process until the network is final. The
/// process answers only when it has made the network, which takes a while with a long history.
const FINAL_MAX: Duration = Duration::from_secs(180);
/// Time between two looks at the network.
const LOOK: Duration = Duration::from_millis(50);

/// Starts this program again with the same options, in the background, and waits until each node of
/// the network has a final block that was made after this start.
///
/// # Errors
/// What the process reported, if it has ended. `NotInTime` if the network is not final after
/// [`FINAL_MAX`]. Also fails if a signal stops the wait. In the last two cases the process is
/// ended.
pub(super) async fn start(target: &Target, stop: &mut StopSignals) -> anyhow::Result<()> {
    refuse_foreign(&target.dir)?;
    create_private_dir(&target.dir).with_context(|| target.dir.display().to_string())?;
    let path = target.dir.join(LOG);
    let log = open_in_place(OpenOptions::new().create(true).append(true), &path)
        .with_context(|| path.display().to_string())?;
    let mut said = Tail::from(path, log.metadata()?.len());
    let program = std::env::current_exe().context("this program's own path")?;
    let options = std::env::args_os().skip(1).filter(|option| option != "--detach");
    let mut child = Command::new(program)
        .args(options)
        .arg(BACKGROUND)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .context("this program does not start in the background")?;
    let (pid, start, mut answered) = (child.id(), wall_ms(), None);
    loop {
        let look = async {
            sleep(LOOK).await;
            // If another network runs in the directory, our process fails and reports that.
            let is_ours = holder(&target.dir).is_ok_and(|holder| holder.is_some() && holder == pid);
            if is_ours { target.list().await.ok() } else { None }
        };
        let list = tokio::select! {
            _ = stop.next() => {
                end(&mut child, stop).await;
                bail!("stopped before the network was final");
            }
            status = child.wait() => bail!("{}", failure(&mut said, status?)),
            list = look => list,
        };
        let now = Instant::now();
        answered = answered.or(list.is_some().then_some(now));
        if list.is_some_and(|list| all_final(&list, start)) {
            break;
        }
        if answered.is_some_and(|answered| now.duration_since(answered) > FINAL_MAX) {
            end(&mut child, stop).await;
            let text = format!("the network is not final after {} s", FINAL_MAX.as_secs());
            return Err(CommandError::NotInTime(text).into());
        }
    }
    show(target)
}

/// Prints how to use the network.
fn show(target: &Target) -> anyhow::Result<()> {
    let layout = Layout::open(&target.dir)?.context("the network is gone")?;
    if target.json {
        let text = std::fs::read_to_string(layout.network_path()).context("network.json")?;
        let network: serde_json::Value = serde_json::from_str(&text).context("network.json")?;
        return print_json(&network);
    }
    let end = summary::end(&layout, true);
    Ok(print(&format!("{}\n{end}\n", summary::text(&layout)))?)
}

/// Sends SIGTERM to the process, and waits until it has stopped its nodes and ended. If this
/// process gets another signal meanwhile, it kills the other one at once.
async fn end(child: &mut Child, stop: &mut StopSignals) {
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
    // An error means that the process has ended by now.
    let _ended = pid.map(|pid| kill_process(pid, Signal::TERM));
    tokio::select! {
        _ = child.wait() => {}
        _ = stop.next() => {
            let _ended = child.kill().await;
        }
    }
}

/// Why the process ended: the error that it wrote to its log.
fn failure(said: &mut Tail, status: ExitStatus) -> String {
    let lines = said.read().unwrap_or_default();
    let error = lines.iter().rev().find_map(|line| line.strip_prefix("error: "));
    match error.or(lines.last().map(String::as_str)) {
        Some(error) => error.to_owned(),
        None => format!("the network has ended ({status}); see {LOG} in its directory"),
    }
}

/// Makes this process the leader of a session of its own, so that the end of a terminal or of the
/// shell that started it does not end it.
pub(super) fn leave_session() -> anyhow::Result<()> {
    rustix::process::setsid().context("cannot begin a session").map(drop)
}
