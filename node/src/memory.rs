//! Memory that the process has no use for goes back to the system.

/// For glibc's allocator: a buffer of so many bytes, or more, goes back to the system once it is freed. Of itself it raises this to
/// 32 MiB after a while, and keeps what each thread once had (see `mallopt(3)`, `M_MMAP_THRESHOLD`, and docs/adr/0010).
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const TUNABLES: &str = "glibc.malloc.mmap_threshold=262144";

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
