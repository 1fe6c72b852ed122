//! Threads that work on the past: a chunk for a peer or a vote should not wait for them.

/// Lets this thread run when nothing else on the machine wants to, to its end (`SCHED_IDLE`, see `sched(7)`). A mere niceness would not
/// do: a thread that wakes up takes the processor from an idle one at once, from a nice one some milliseconds later.
pub(crate) fn give_way() {
    // Elsewhere than on Linux, and if it is refused, all is as before.
    #[cfg(target_os = "linux")]
    {
        use thread_priority::unix::{
            NormalThreadSchedulePolicy, ThreadSchedulePolicy, set_thread_priority_and_policy, thread_native_id,
        };
        let idle = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle);
        let _as_before = set_thread_priority_and_policy(thread_native_id(), thread_priority::ThreadPriority::Min, idle);
    }
}
