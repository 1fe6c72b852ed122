//! Returns unused memory to the system.

/// Settings of glibc's allocator (`mallopt(3)`, docs/adr/0010).
///
/// - A buffer of 256 KiB or more goes back to the system once it is freed. By default glibc raises
///   this threshold over time, up to 32 MiB.
/// - An arena keeps up to 2 MiB free at its end and grows by half a MiB at a time. The first
///   setting stops glibc from adjusting these two values. Unless set here, both would stay at 128
///   KiB, and threads would ask the system for the same pages again and again.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const TUNABLES: &str = "glibc.malloc.mmap_threshold=262144:\
                        glibc.malloc.trim_threshold=2097152:\
                        glibc.malloc.top_pad=524288";

/// Environment variable that marks the second start. `GLIBC_TUNABLES` cannot serve as the mark,
/// because glibc removes it from setuid programs.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const MARK: &str = "CAIRN_NODE_STARTED_ANEW";

/// Executes this program again in the same process, with the same arguments and an allocator that
/// returns large buffers. This is needed because glibc reads its settings only at the start of a
/// program. Does nothing on the second start, if the operator has set `GLIBC_TUNABLES`, or with
/// another C library.
///
/// # Errors
/// The program cannot be executed again. The process must then end, because it no longer ignores
/// SIGPIPE.
pub(crate) fn give_back() -> anyhow::Result<()> {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        use std::env;
        use std::os::unix::process::CommandExt;

        use anyhow::Context;

        const NAME: &str = "GLIBC_TUNABLES";
        if env::var_os(NAME).is_some() || env::var_os(MARK).is_some() {
            return Ok(());
        }
        let mut command =
            std::process::Command::new(env::current_exe().context("this program has no path")?);
        let mut arguments = env::args_os();
        if let Some(name) = arguments.next() {
            command.arg0(name);
        }
        let error = command.args(arguments).env(NAME, TUNABLES).env(MARK, "1").exec();
        Err(error).with_context(|| {
            format!(
                "cannot restart itself with settings that save memory (set {NAME} to run \
                 without them)"
            )
        })
    }
    #[cfg(not(all(target_os = "linux", target_env = "gnu")))]
    Ok(())
}
