//! The tasks and threads of a node. The end of one ends all, and the first cause is reported.
//!
//! One failure ends several parts within moments: when the disk refuses the driver, the verifier
//! ends as well, since nobody takes its results. The runtime may see them end in any order. An
//! *error* is the cause; an end without an error only follows from one.

use std::any::Any;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::time::Duration;

use anyhow::{Context, anyhow};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// Gets the result of a thread when it ends.
pub(crate) type ThreadEnd = oneshot::Receiver<anyhow::Result<()>>;

/// The name of a part, and how it ended.
struct End {
    part: &'static str,
    result: anyhow::Result<()>,
}

/// All parts that run, and those that have ended.
#[derive(Default)]
pub(crate) struct Tasks {
    running: FuturesUnordered<Pin<Box<dyn Future<Output = End> + Send>>>,
    ended: Vec<End>,
}

impl Tasks {
    /// Adds a task of the runtime.
    pub(crate) fn add(&mut self, part: &'static str, task: JoinHandle<()>) {
        self.running.push(Box::pin(async move {
            let result = task.await.map_err(|error| match error.try_into_panic() {
                Ok(payload) => panicked(payload.as_ref()),
                Err(error) => error.into(),
            });
            End { part, result }
        }));
    }

    /// Adds a thread that reports its end.
    pub(crate) fn add_thread(&mut self, part: &'static str, end: ThreadEnd) {
        self.running.push(Box::pin(async move {
            let result = end.await.unwrap_or_else(|_| Err(anyhow!("panicked")));
            End { part, result }
        }));
    }

    /// Waits until some part has ended.
    pub(crate) async fn any_end(&mut self) {
        if let Some(end) = self.running.next().await {
            self.ended.push(end);
        }
    }

    /// Waits until these parts have ended, or no part is left.
    pub(crate) async fn await_ends(&mut self, parts: &[&str]) {
        while parts.iter().any(|part| !self.ended.iter().any(|end| end.part == *part)) {
            let Some(end) = self.running.next().await else { return };
            self.ended.push(end);
        }
    }

    /// Waits up to `patience` for all other parts to end, and returns the first cause: the first
    /// error, or else the part that ended first, unless the node was asked to stop.
    ///
    /// # Errors
    /// The cause.
    pub(crate) async fn outcome(
        mut self,
        was_asked: bool,
        patience: Duration,
    ) -> anyhow::Result<()> {
        let all = async {
            while let Some(end) = self.running.next().await {
                self.ended.push(end);
            }
        };
        // Parts that still run after that are not waited for.
        let _out_of_time = tokio::time::timeout(patience, all).await;
        let first = self.ended.first().map(|end| end.part);
        let mut errors =
            self.ended.into_iter().filter_map(|end| Some((end.part, end.result.err()?)));
        let cause = errors.next();
        for (part, error) in errors {
            tracing::warn!("{part}: {error:#}");
        }
        match (cause, first) {
            (Some((part, error)), _) => Err(error.context(part)),
            (None, Some(part)) if !was_asked => Err(anyhow!("{part} ended unexpectedly")),
            (None, _) => Ok(()),
        }
    }
}

/// Runs a future to its end on its own thread. The receiver gets its result.
///
/// # Errors
/// The thread cannot be started.
pub(crate) fn spawn_thread<F: Future<Output = anyhow::Result<()>>>(
    name: &'static str,
    work: impl FnOnce() -> F + Send + 'static,
) -> anyhow::Result<ThreadEnd> {
    let (sender, receiver) = oneshot::channel();
    let runtime = tokio::runtime::Handle::current();
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            // A panic's message goes to stderr, which may be lost. So it is also returned as an
            // error.
            let result = catch_unwind(AssertUnwindSafe(|| runtime.block_on(work())));
            let _nobody_waits =
                sender.send(result.unwrap_or_else(|payload| Err(panicked(payload.as_ref()))));
        })
        .with_context(|| format!("cannot start the thread {name}"))?;
    Ok(receiver)
}

fn panicked(payload: &(dyn Any + Send)) -> anyhow::Error {
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    anyhow!("panicked: {}", text.unwrap_or("without a message"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(5);

    async fn outcome(tasks: Tasks, was_asked: bool) -> String {
        tasks
            .outcome(was_asked, PATIENCE)
            .await
            .map_or_else(|error| format!("{error:#}"), |()| "well".to_owned())
    }

    #[tokio::test]
    async fn an_error_is_the_cause_also_when_a_task_was_seen_to_end_before() {
        let mut tasks = Tasks::default();
        let (disk, end) = oneshot::channel();
        tasks.add("the verifier", tokio::spawn(async {}));
        tasks.any_end().await;
        tasks.add_thread("the driver", end);
        disk.send(Err(anyhow!("disk full"))).unwrap();
        assert_eq!(outcome(tasks, false).await, "the driver: disk full");
    }

    #[tokio::test]
    async fn of_two_errors_the_first_is_the_cause() {
        let mut tasks = Tasks::default();
        let [(first, first_end), (second, second_end)] = [oneshot::channel(), oneshot::channel()];
        tasks.add_thread("the driver", first_end);
        tasks.add_thread("sync", second_end);
        second.send(Err(anyhow!("disk full"))).unwrap();
        tasks.any_end().await;
        first.send(Err(anyhow!("sync has gone"))).unwrap();
        assert_eq!(outcome(tasks, false).await, "sync: disk full");
    }

    #[tokio::test]
    async fn ends_without_an_error_and_panics_have_names() {
        let mut tasks = Tasks::default();
        tasks.add("the verifier", tokio::spawn(async {}));
        assert_eq!(outcome(tasks, false).await, "the verifier ended unexpectedly");

        let mut tasks = Tasks::default();
        tasks.add("the verifier", tokio::spawn(async {}));
        assert_eq!(outcome(tasks, true).await, "well");

        let mut tasks = Tasks::default();
        tasks.add("the RPC server", tokio::spawn(async { panic!("index {}", 7) }));
        assert_eq!(outcome(tasks, true).await, "the RPC server: panicked: index 7");

        let mut tasks = Tasks::default();
        tasks.add_thread("the driver", spawn_thread("driver", || async { panic!("no") }).unwrap());
        tasks.await_ends(&["the driver"]).await;
        assert_eq!(outcome(tasks, true).await, "the driver: panicked: no");
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_goes_on_holds_up_nobody() {
        let mut tasks = Tasks::default();
        tasks.add("the RPC server", tokio::spawn(std::future::pending()));
        tasks.add("the verifier", tokio::spawn(async {}));
        tasks.any_end().await;
        assert_eq!(outcome(tasks, true).await, "well");
    }
}
