//! Threads that work on the past: a chunk for a peer or a vote should not wait for them.

/// How much they give way to others of this machine: as much as there is (see `nice(2)`).
#[cfg(target_os = "linux")]
const NICENESS: i32 = 19;

/// Lets this thread run when hardly anything else wants to, to its end.
pub(crate) fn give_way() {
    // Elsewhere than on Linux it would slow down the whole process. If it is refused, all is as before.
    #[cfg(target_os = "linux")]
    let _as_before = rustix::process::setpriority_process(None, NICENESS);
}
