//! The process that holds the lock of a directory: who it is, and how to have it end.

use std::fs::{File, TryLockError};
use std::io::{self, Read};
use std::path::Path;
use std::thread;
use std::time::Duration;

use serde_json::json;
use tokio::time::{sleep, timeout};

use crate::control::{Client, ControlError};
use crate::files::LOCK;

/// Time between two looks at a lock.
const PAUSE: Duration = Duration::from_millis(10);
/// How many times a lock is tried, each time after a [`PAUSE`], while other processes look who
/// holds it. A look takes less than a millisecond.
const TRIES: u32 = 1_000;
/// Longest time until a process has answered that it will stop.
const ANSWER_MAX: Duration = Duration::from_secs(30);

/// Locks a file for this process alone. Waits while other processes only look who holds it, for
/// which they take a shared lock.
pub(super) fn lock(file: &File) -> Result<(), TryLockError> {
    for _ in 0..TRIES {
        match file.try_lock() {
            Err(TryLockError::WouldBlock) if file.try_lock_shared().is_ok() => {
                file.unlock().map_err(TryLockError::Error)?;
                // The system tells nobody that a lock is free. A call that blocks until it is would
                // wait for a process that keeps the lock too.
                thread::sleep(PAUSE);
            }
            locked => return locked,
        }
    }
    file.try_lock()
}

/// The pid in a lock's file.
pub(super) fn pid_in(file: File) -> Option<u32> {
    let mut text = String::new();
    file.take(20).read_to_string(&mut text).ok().and_then(|_| text.trim().parse().ok())
}

/// The pid of the process that holds a directory. `None` if no process does, or if the holder has
/// not written its pid yet. Looking keeps no process from taking the lock: [`lock`] waits for the
/// end of a look.
///
/// # Errors
/// [`ControlError::Io`].
pub(crate) fn holder(root: &Path) -> Result<Option<u32>, ControlError> {
    let path = root.join(LOCK);
    let failed = |error| ControlError::Io { path: path.clone(), error };
    let file = match File::open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file.map_err(failed)?,
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(None),
        Err(TryLockError::WouldBlock) => Ok(pid_in(file)),
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}

/// Asks the process that holds a directory to stop, by a method of its socket, and waits until the
/// directory is free or another process has it.
///
/// # Errors
/// [`ControlError::Absent`] if no process answers there, [`ControlError::Slow`] if it does not
/// answer within [`ANSWER_MAX`] or has not ended within `patience` after its answer, and the errors
/// of a call.
pub(crate) async fn stop(
    root: &Path,
    method: &str,
    patience: Duration,
) -> Result<(), ControlError> {
    let slow = |what, time| ControlError::Slow { root: root.to_owned(), what, time };
    let asking = async {
        let mut client = Client::connect(root).await?;
        let pid = holder(root)?;
        match client.call::<()>(method, json!({})).await {
            // The connection broke, so the process is ending just now.
            Ok(()) | Err(ControlError::Io { .. }) => Ok((client, pid)),
            Err(error) => Err(error),
        }
    };
    let asked = timeout(ANSWER_MAX, asking).await;
    let (client, pid) = asked.map_err(|_| slow("does not answer", ANSWER_MAX))??;
    let ending = async {
        client.closed().await;
        while pid.is_some() && holder(root)? == pid {
            sleep(PAUSE).await;
        }
        Ok(())
    };
    timeout(patience, ending).await.map_err(|_| slow("still runs", patience))?
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs;
    use std::sync::Arc;

    use futures::FutureExt;
    use serde_json::Value;
    use tokio::sync::{mpsc, oneshot};

    use super::*;
    use crate::control::{Answer, Listener, Methods, serve};
    use crate::home::lock_dir;

    #[test]
    fn a_look_at_a_lock_leaves_no_trace_and_keeps_nobody_out() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        assert_eq!(holder(root).unwrap(), None);
        assert!(!root.join(LOCK).exists());
        fs::write(root.join(LOCK), "7\n").unwrap();
        assert_eq!(holder(root).unwrap(), None);
        assert_eq!(fs::read_to_string(root.join(LOCK)).unwrap(), "7\n");
        let held = lock_dir(root).unwrap();
        assert_eq!(holder(root).unwrap(), Some(std::process::id()));
        drop(held);

        // A process that wants the lock waits for the end of a look. A try that fails is no event
        // that the test could wait for, so it gives the thread time for one.
        let look = File::open(root.join(LOCK)).unwrap();
        look.try_lock_shared().unwrap();
        let own = root.to_owned();
        let starting = thread::spawn(move || lock_dir(&own).map(drop));
        thread::sleep(Duration::from_millis(100));
        drop(look);
        starting.join().unwrap().unwrap();
    }

    /// A process that can be told to stop, and tells each time that it was.
    struct Process(mpsc::Sender<()>);

    impl Methods for Process {
        fn call(&self, method: &str, _: Value) -> Answer {
            assert_eq!(method, "stop");
            self.0.try_send(()).unwrap();
            async { Ok(Value::Null) }.boxed()
        }
    }

    #[tokio::test]
    async fn a_process_has_stopped_once_its_directory_is_free() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().to_owned();
        let patience = Duration::from_secs(60);
        let absent = stop(&root, "stop", patience).await.unwrap_err();
        assert!(matches!(absent, ControlError::Absent { .. }), "{absent}");

        let held = lock_dir(&root).unwrap();
        let (end, ended) = oneshot::channel::<()>();
        let (process, mut asked) = mpsc::channel(2);
        let listener = Listener::bind(&root).unwrap();
        let serving = tokio::spawn(serve(listener, Arc::new(Process(process)), ended.map(drop)));
        let mut stops = Vec::new();
        for _ in 0..2 {
            let root = root.clone();
            stops.push(tokio::spawn(async move { stop(&root, "stop", patience).await }));
            asked.recv().await.unwrap();
        }
        drop(end);
        serving.await.unwrap();
        sleep(5 * PAUSE).await;
        assert!(stops.iter().all(|stop| !stop.is_finished()), "the directory is not free");
        // Another process may have it next.
        fs::write(root.join(LOCK), "1\n").unwrap();
        for stop in stops {
            stop.await.unwrap().unwrap();
        }
        drop(held);
    }

    /// The paused clock jumps ahead whenever all tasks wait.
    #[tokio::test(start_paused = true)]
    async fn a_process_that_does_not_answer_is_not_waited_for_without_end() {
        let folder = tempfile::tempdir().unwrap();
        let _silent = Listener::bind(folder.path()).unwrap();
        let error = stop(folder.path(), "stop", Duration::from_secs(90)).await.unwrap_err();
        assert_eq!(error.exit_code(), 5, "{error}");
    }
}
