//! The options of a network, and its start.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use ledger::chain::Chain;
use ledger::genesis::Genesis;
use tempfile::TempDir;

use crate::control::{Control, beside};
use crate::description::Description;
use crate::error::{Error, Logs};
use crate::process::Process;
use crate::program;
use crate::template::with_intervals;
use crate::testnet::{STOP_MAX, Testnet};
use crate::wait::poll;

/// Interval of empty blocks: shorter than that of `cairn-node testnet`, so that tests are short.
const EMPTY_BLOCK_INTERVAL: Duration = Duration::from_millis(400);
/// How long a step may take if the builder is not told otherwise: far more than it needs, as test
/// machines are busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// A network before its start. Made by [`Testnet::builder`].
#[derive(Clone, Debug)]
pub struct Builder {
    validators: Option<usize>,
    full_nodes: Option<usize>,
    genesis: Source,
    seed: Option<u64>,
    base_port: Ports,
    program: Option<PathBuf>,
    dir: Option<PathBuf>,
    under: Vec<String>,
    arguments: Vec<String>,
    patience: Duration,
}

/// Where the template of the genesis comes from.
#[derive(Clone, Debug)]
enum Source {
    /// The one that is built into the program, or that of the existing network.
    Program,
    Intervals {
        empty: Duration,
        least: Option<Duration>,
    },
    Given(Box<Genesis>),
}

/// The ports of the nodes.
#[derive(Clone, Copy, Debug)]
enum Ports {
    /// Any that are free.
    Free,
    From(u16),
    /// Those of the existing network.
    OfNetwork,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            validators: None,
            full_nodes: None,
            genesis: Source::Intervals { empty: EMPTY_BLOCK_INTERVAL, least: None },
            seed: None,
            base_port: Ports::Free,
            program: None,
            dir: None,
            under: Vec::new(),
            arguments: Vec::new(),
            patience: PATIENCE,
        }
    }
}

impl Testnet {
    /// Starts a network of this many validators, with a block each 400 ms while there is nothing
    /// to do. Returns once all nodes answer.
    ///
    /// # Errors
    /// See [`Builder::start`].
    pub fn start(validators: usize) -> Result<Self, Error> {
        Self::builder().validators(validators).start()
    }

    /// A builder, for a network with other options than those of [`Self::start`].
    #[must_use]
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Starts the network that exists in this directory.
    ///
    /// # Errors
    /// See [`Builder::start`].
    pub fn resume(dir: impl Into<PathBuf>) -> Result<Self, Error> {
        Self::builder().dir(dir).existing().start()
    }
}

impl Builder {
    /// Number of validators: 4 without a call of this.
    #[must_use]
    pub const fn validators(mut self, count: usize) -> Self {
        self.validators = Some(count);
        self
    }

    /// Number of full nodes, which follow the chain and do not sign: 0 without a call of this.
    #[must_use]
    pub const fn full_nodes(mut self, count: usize) -> Self {
        self.full_nodes = Some(count);
        self
    }

    /// Time between two blocks while there is nothing to do: 400 ms without a call of this.
    #[must_use]
    pub fn empty_block_interval(mut self, time: Duration) -> Self {
        let least = match self.genesis {
            Source::Intervals { least, .. } => least,
            Source::Program | Source::Given(_) => None,
        };
        self.genesis = Source::Intervals { empty: time, least };
        self
    }

    /// Least time between two blocks: 50 ms without a call of this. It may not be longer than
    /// [`Self::empty_block_interval`].
    #[must_use]
    pub fn block_interval(mut self, time: Duration) -> Self {
        let empty = match self.genesis {
            Source::Intervals { empty, .. } => empty,
            Source::Program | Source::Given(_) => EMPTY_BLOCK_INTERVAL,
        };
        self.genesis = Source::Intervals { empty, least: Some(time) };
        self
    }

    /// Takes accounts and limits from this genesis. Its validators and start time are replaced.
    #[must_use]
    pub fn genesis(mut self, genesis: Genesis) -> Self {
        self.genesis = Source::Given(Box::new(genesis));
        self
    }

    /// Takes the genesis that is built into the program, with a block each five seconds while
    /// there is nothing to do.
    #[must_use]
    pub fn default_genesis(mut self) -> Self {
        self.genesis = Source::Program;
        self
    }

    /// The same number gives the same keys and start time, and so the same chain id.
    #[must_use]
    pub const fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// First port. Without a call of this, free ports are taken.
    #[must_use]
    pub const fn base_port(mut self, port: u16) -> Self {
        self.base_port = Ports::From(port);
        self
    }

    /// The program `cairn-node`. Without a call of this, see [`crate::program::find`].
    #[must_use]
    pub fn program(mut self, path: impl Into<PathBuf>) -> Self {
        self.program = Some(path.into());
        self
    }

    /// Directory of the network, which stays after the end; its log is beside it, with the ending
    /// `.log`. A network that exists there is resumed, if its accounts and limits are those of this
    /// builder; [`Self::existing`] resumes any. Without a call of this, the directory is a
    /// temporary one.
    #[must_use]
    pub fn dir(mut self, path: impl Into<PathBuf>) -> Self {
        self.dir = Some(path.into());
        self
    }

    /// Resumes the network that exists in the directory as it is: with its genesis and on its
    /// ports.
    #[must_use]
    pub fn existing(mut self) -> Self {
        self.genesis = Source::Program;
        self.base_port = Ports::OfNetwork;
        self
    }

    /// Starts the program under another one, such as `strace` or `ip netns exec NAME`.
    #[must_use]
    pub fn under<W: Into<String>>(mut self, words: impl IntoIterator<Item = W>) -> Self {
        self.under = words.into_iter().map(Into::into).collect();
        self
    }

    /// Further arguments of `cairn-node testnet`, such as `--history 10000`.
    #[must_use]
    pub fn arguments<W: Into<String>>(mut self, words: impl IntoIterator<Item = W>) -> Self {
        self.arguments.extend(words.into_iter().map(Into::into));
        self
    }

    /// How long a step may take before it fails: a minute without a call of this.
    #[must_use]
    pub const fn patience(mut self, time: Duration) -> Self {
        self.patience = time;
        self
    }

    /// Starts the network, and returns once all nodes answer.
    ///
    /// # Errors
    /// [`Error::NoProgram`]; [`Error::Ended`] with the log of a network that refuses to start;
    /// [`Error::NotInTime`].
    pub fn start(self) -> Result<Testnet, Error> {
        let program = program::find(self.program.as_deref())?;
        let (folder, dir) = self.place()?;
        let control = Control { program, log: beside(&dir, "log"), dir };
        let mut command = self.command(&control)?;
        // The file of an earlier run names other processes. It is removed when this one starts.
        let old = fs::read(control.description()).ok();
        let mut process = Process::start(&mut command, &control.log)
            .map_err(Error::system(control.program.display()))?;
        let found = poll(self.patience, || {
            if let Some(status) = process.ended() {
                return Some(Err(Error::Ended {
                    status: status.to_string(),
                    waited_for: "all nodes answer".to_owned(),
                    logs: Logs::read(control.log_paths()),
                }));
            }
            let path = control.description();
            let text = fs::read(&path).ok().filter(|text| Some(text) != old.as_ref())?;
            Some(serde_json::from_slice(&text).map_err(|error| Error::System {
                what: path.display().to_string(),
                error: error.into(),
            }))
        });
        let found = found.unwrap_or_else(|| {
            Err(control.not_in_time("all nodes answer", self.patience, "no network.json"))
        });
        let read = |found: Description| Ok((read_genesis(&found.genesis)?, found));
        match found.and_then(read) {
            Ok((genesis, found)) => {
                let chain = Chain::new(genesis);
                Ok(Testnet::new(process, control, found, chain, self.patience, folder))
            }
            Err(error) => {
                // The network is stopped in order, so that no node outlives its folder.
                process.end_stdin();
                process.wait_for(STOP_MAX);
                Err(error)
            }
        }
    }

    /// The network's directory, and the temporary folder around it.
    fn place(&self) -> Result<(Option<TempDir>, PathBuf), Error> {
        if let Some(dir) = &self.dir {
            let dir = std::path::absolute(dir).map_err(Error::system(dir.display()))?;
            return Ok((None, dir));
        }
        let folder = tempfile::Builder::new()
            .prefix("cairn-testkit-")
            .tempdir()
            .map_err(Error::system("the folder for temporary files"))?;
        let dir = folder.path().join("network");
        Ok((Some(folder), dir))
    }

    fn command(&self, control: &Control) -> Result<Command, Error> {
        let mut command = match self.under.split_first() {
            Some((program, words)) => {
                let mut command = program::command(program.as_ref());
                command.args(words).arg(&control.program);
                command
            }
            None => program::command(&control.program),
        };
        command
            .arg("testnet")
            .arg("--dir")
            .arg(&control.dir)
            .args(["--plain", "--exit-with-parent"]);
        let number = |count: Option<usize>| count.map(|count| count.to_string());
        let port = match self.base_port {
            Ports::Free => Some("auto".to_owned()),
            Ports::From(port) => Some(port.to_string()),
            Ports::OfNetwork => None,
        };
        for (flag, value) in [
            ("--nodes", number(self.validators)),
            ("--full-nodes", number(self.full_nodes)),
            ("--base-port", port),
            ("--seed", self.seed.map(|seed| seed.to_string())),
        ] {
            if let Some(value) = value {
                command.args([flag, &value]);
            }
        }
        let genesis = match &self.genesis {
            Source::Program => None,
            Source::Intervals { empty, least } => Some(with_intervals(*empty, *least)),
            Source::Given(genesis) => Some(Genesis::clone(genesis)),
        };
        if let Some(genesis) = genesis {
            let path = beside(&control.dir, "genesis.json");
            fs::write(&path, genesis.to_json()).map_err(Error::system(path.display()))?;
            command.arg("--genesis").arg(path);
        }
        command.args(&self.arguments);
        Ok(command)
    }
}

fn read_genesis(path: &PathBuf) -> Result<Genesis, Error> {
    let text = fs::read(path).map_err(Error::system(path.display()))?;
    Genesis::from_json(&text).map_err(|error| Error::System {
        what: path.display().to_string(),
        error: std::io::Error::other(error),
    })
}
