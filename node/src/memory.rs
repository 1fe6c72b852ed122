//! Memory that the process has no use for goes back to the system.

/// For glibc's allocator (`mallopt(3)`, docs/adr/0010).
///
/// - A buffer of 256 KiB or more goes back to the system once it is freed. Of itself glibc raises this to 32 MiB after a while.
/// - An arena keeps up to 2 MiB free at its end and grows by half a MiB: with the limits that come with the size above, 128 KiB
///   each, threads ask the system for the same pages again and again.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const TUNABLES: &str =
    "glibc.malloc.mmap_threshold=262144:glibc.malloc.trim_threshold=2097152:glibc.malloc.top_pad=524288";

/// Set for the second start. `GLIBC_TUNABLES` alone could not tell: glibc removes it from programs with privileges of their own.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const MARK: &str = "CAIRN_NODE_STARTED_ANEW";

/// Starts this program anew in the same process, with the same arguments and an allocator that gives back large buffers: glibc reads
/// how it is to behave only at the start. Does nothing if that was done, if `GLIBC_TUNABLES` is set by somebody who knows better, and with
/// another C library.
///
/// # Errors
/// When the program cannot be started anew. The process is then of no use: it no longer ignores SIGPIPE.
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
        let mut command = std::process::Command::new(env::current_exe().context("this program has no path")?);
        let mut arguments = env::args_os();
        if let Some(name) = arguments.next() {
            command.arg0(name);
        }
        let error = command.args(arguments).env(NAME, TUNABLES).env(MARK, "1").exec();
        Err(error).with_context(|| format!("cannot start anew to take less memory (set {NAME} to go without)"))
    }
    #[cfg(not(all(target_os = "linux", target_env = "gnu")))]
    Ok(())
}
