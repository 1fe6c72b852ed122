//! Threads that work on the past: a chunk for a peer or a vote should not wait for them.

use anyhow::Context;

/// Threads that run when nothing else on the machine wants to (`SCHED_IDLE`, see `sched(7)`). A mere niceness would not do: a thread
/// that wakes up takes the processor from an idle one at once, from a nice one some milliseconds later.
///
/// They stay, as memory does that new threads take from the system: glibc gives it back to threads, not to the system.
///
/// # Errors
/// When they cannot be started.
pub(crate) fn idle_threads(name: &'static str, count: usize) -> anyhow::Result<rayon::ThreadPool> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(count).thread_name(move |_| name.to_owned());
    pool.start_handler(|_| give_way()).build().with_context(|| format!("cannot start threads for {name}"))
}

/// Elsewhere than on Linux, and if it is refused, all is as before.
fn give_way() {
    #[cfg(target_os = "linux")]
    {
        use thread_priority::unix::{
            NormalThreadSchedulePolicy, ThreadSchedulePolicy, set_thread_priority_and_policy, thread_native_id,
        };
        let idle = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle);
        let _as_before = set_thread_priority_and_policy(thread_native_id(), thread_priority::ThreadPriority::Min, idle);
    }
}
