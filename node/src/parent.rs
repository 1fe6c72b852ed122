//! Notices the end of the process that started this one.

use std::io::{self, Read};

use tokio::sync::oneshot;

/// Resolves at the end of stdin. It uses its own thread, because a blocking read would hold up the
/// end of the runtime.
pub(crate) fn stdin_end() -> io::Result<oneshot::Receiver<()>> {
    let (sender, receiver) = oneshot::channel();
    std::thread::Builder::new().name("stdin".to_owned()).spawn(move || {
        let mut stdin = io::stdin().lock();
        let mut buffer = [0; 256];
        loop {
            match stdin.read(&mut buffer) {
                Ok(1..) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(0) | Err(_) => break,
            }
        }
        // The receiver is gone if the node is already stopping.
        let _ = sender.send(());
    })?;
    Ok(receiver)
}
