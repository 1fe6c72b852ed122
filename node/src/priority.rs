//! Threads that work on the past: a chunk for a peer or a vote should not wait for them.

use anyhow::Context;

/// How much they give way to others of this machine (see `nice(2)`): to a tenth. With less they would stand still on a machine that is
/// busy with other things, and the node would never catch up.
#[cfg(target_os = "linux")]
const NICENESS: i32 = 10;

/// Threads that give way to all others.
///
/// They stay, as memory does that new threads take from the system: glibc gives it back to threads, not to the system.
///
/// # Errors
/// When they cannot be started.
pub(crate) fn patient_threads(name: &'static str, count: usize) -> anyhow::Result<rayon::ThreadPool> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(count).thread_name(move |_| name.to_owned());
    pool.start_handler(|_| give_way()).build().with_context(|| format!("cannot start threads for {name}"))
}

/// Elsewhere than on Linux it would slow down the whole process. If it is refused, all is as before.
fn give_way() {
    #[cfg(target_os = "linux")]
    let _as_before = rustix::process::setpriority_process(None, NICENESS);
}
