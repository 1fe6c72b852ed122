//! Low-priority threads for work on history and snapshots, which must not delay a vote or a chunk
//! for a peer.

use anyhow::Context;

/// The nice value of these threads (`nice(2)`). It gives them about a tenth of the CPU share of a
/// normal thread. With a smaller share they would stand still on a busy machine, and the node would
/// never catch up.
#[cfg(target_os = "linux")]
const NICENESS: i32 = 10;
/// The nice value of a thread that gives way to all others: the lowest priority there is.
#[cfg(target_os = "linux")]
const LAST: i32 = 19;

/// Starts threads of low priority.
///
/// The threads stay alive, because glibc keeps the memory of an ended thread for new threads and
/// does not return it to the system.
///
/// # Errors
/// The threads cannot be started.
pub(crate) fn patient_threads(
    name: &'static str,
    count: usize,
) -> anyhow::Result<rayon::ThreadPool> {
    let pool =
        rayon::ThreadPoolBuilder::new().num_threads(count).thread_name(move |_| name.to_owned());
    pool.start_handler(|_| give_way())
        .build()
        .with_context(|| format!("cannot start threads for {name}"))
}

/// Lowers the priority of this thread, on Linux only: elsewhere the call would slow down the whole
/// process. If the system refuses, the priority stays as it is.
pub(super) fn give_way() {
    #[cfg(target_os = "linux")]
    let _as_before = rustix::process::setpriority_process(None, NICENESS);
}

/// As [`give_way`], for work that nobody waits for.
pub(crate) fn give_way_to_all() {
    #[cfg(target_os = "linux")]
    let _as_before = rustix::process::setpriority_process(None, LAST);
}
