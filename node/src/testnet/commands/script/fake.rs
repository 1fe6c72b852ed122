//! A network for tests: its socket gives prepared answers.

use std::future::pending;
use std::sync::Arc;

use serde_json::Value;
use tempfile::TempDir;

use crate::control::{Answer, Failure, Listener, Methods, serve};
use crate::testnet::commands::Target;

struct Fake<F>(F);

impl<F: Fn(&str) -> Result<Value, Failure> + Send + Sync + 'static> Methods for Fake<F> {
    fn call(&self, method: &str, _params: Value) -> Answer {
        let answer = (self.0)(method);
        Box::pin(async { answer })
    }
}

/// A network whose socket answers each method with `answer`. It ends with the test.
pub(super) fn network(
    answer: impl Fn(&str) -> Result<Value, Failure> + Send + Sync + 'static,
) -> (TempDir, Target) {
    let folder = tempfile::tempdir().unwrap();
    let listener = Listener::bind(folder.path()).unwrap();
    tokio::spawn(serve(listener, Arc::new(Fake(answer)), pending()));
    let target = Target::new(folder.path(), true).unwrap();
    (folder, target)
}
