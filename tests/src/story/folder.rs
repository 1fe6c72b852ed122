//! What a story has for itself: a folder, and ports. A machine can run only a few networks at once,
//! so each story also waits for its turn.

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};

use tempfile::TempDir;

/// Most stories of one test program that run at the same time.
const TURNS: usize = 2;
/// Ports are taken in blocks from this one up: above the ports that `testnet --base-port auto`
/// takes, and below the ephemeral range. Nothing reserves a block before its nodes listen.
const FIRST_PORT: u16 = 26_000;
const BLOCK: u16 = 100;
const BLOCKS: u32 = 60;

/// A story's folder, removed with its content at the end.
pub struct Folder {
    dir: TempDir,
    _turn: Turn,
}

impl Folder {
    /// Waits until fewer than `TURNS` stories run, and makes a folder.
    ///
    /// # Panics
    /// When it cannot be made.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "it waits")]
    pub fn new() -> Self {
        let turn = Turn::wait();
        let dir = tempfile::Builder::new()
            .prefix("cairn-story-")
            .tempdir()
            .expect("the folder for temporary files");
        Self { dir, _turn: turn }
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// A path in it.
    #[must_use]
    pub fn join(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }
}

/// The first of 100 ports in a row that are free now. The next calls in this program get other
/// blocks, until all blocks have been tried.
///
/// # Panics
/// When no block is free.
pub fn free_ports() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // Test programs that run at the same time start their search at different ports.
    let start = process::id().wrapping_mul(17);
    for _ in 0..BLOCKS {
        let number = start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % BLOCKS;
        let base = FIRST_PORT + BLOCK * u16::try_from(number).expect("few blocks");
        let is_free = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
        if (base..base + BLOCK).all(is_free) {
            return base;
        }
    }
    panic!("no {BLOCK} free ports in a row from {FIRST_PORT} on");
}

/// Permission for one story to run its network. It ends when dropped.
struct Turn;

static TAKEN: Mutex<usize> = Mutex::new(0);
static GIVEN_BACK: Condvar = Condvar::new();

impl Turn {
    fn wait() -> Self {
        let taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
        let mut taken = GIVEN_BACK
            .wait_while(taken, |taken| *taken >= TURNS)
            .unwrap_or_else(PoisonError::into_inner);
        *taken += 1;
        Self
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *TAKEN.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        GIVEN_BACK.notify_one();
    }
}
