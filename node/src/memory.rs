//! Memory that the process has no use for goes back to the system.

/// For glibc's allocator (`mallopt(3)`, docs/adr/0010).
///
/// - A buffer of 256 KiB or more goes back to the system once it is freed. Of itself glibc raises this to 32 MiB after a while.
/// - An arena keeps up to 2 MiB free at its end and grows by half a MiB: with the limits that come with the size above, 128 KiB
///   each, threads ask the system for the same pages again and again.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const TUNABLES: &str =
    "glibc.malloc.mmap_threshold=262144:glibc.malloc.trim_threshold=2097152:glibc.malloc.top_pad=524288";

/// Starts this program anew in the same process, with the same arguments and an allocator that gives back large buffers: glibc reads
/// how it is to behave only at the start. Returns if `GLIBC_TUNABLES` is set, by this or by somebody who knows better, if it cannot be done,
/// and with another C library.
pub(crate) fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        use std::os::unix::process::CommandExt;
        const NAME: &str = "GLIBC_TUNABLES";
        let mut arguments = std::env::args_os();
        let (None, Ok(program), Some(name)) = (std::env::var_os(NAME), std::env::current_exe(), arguments.next())
        else {
            return;
        };
        let error = std::process::Command::new(program).arg0(name).args(arguments).env(NAME, TUNABLES).exec();
        tracing::warn!("the program could not be started anew to take less memory: {error}");
    }
}
