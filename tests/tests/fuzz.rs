//! Runs the fuzz targets on their corpora, and checks that all places that list the targets agree.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use tests::fuzz::{TARGETS, samples};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

/// Name and bytes of each file of a corpus, by name.
fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let files = std::fs::read_dir(folder().join("corpus").join(target))
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let name = |path: &Path| path.file_name().unwrap().to_string_lossy().into_owned();
    let mut corpus: Vec<_> =
        files.map(|path| (name(&path), std::fs::read(&path).unwrap())).collect();
    corpus.sort();
    corpus
}

/// Runs one target on its corpus. A file of the corpus that is not a sample was found by fuzzing.
fn replay(target: &str) {
    let (_, run) = TARGETS.into_iter().find(|(name, _)| *name == target).unwrap();
    let corpus = corpus(target);
    for (name, bytes) in samples(target) {
        let stored = corpus.iter().find(|(other, _)| *other == name).map(|(_, bytes)| bytes);
        assert_eq!(
            stored,
            Some(&bytes),
            "{target}/{name}: cargo run -p tests --example fuzz_corpus"
        );
    }
    let accepted: Vec<bool> = corpus.iter().map(|(_, bytes)| run(bytes)).collect();
    assert!(accepted.iter().any(|accepted| *accepted), "{target} accepts nothing of its corpus");
    // The same bytes cut off, lengthened and changed must not break a rule either.
    for (name, bytes) in corpus {
        run(&[&bytes[..], &[0]].concat());
        let step = (bytes.len() / 16).max(1);
        for at in (0..bytes.len()).step_by(step) {
            run(&bytes[..at]);
            let mut changed = bytes.clone();
            changed[at] ^= 0x41;
            run(&changed);
        }
        assert!(bytes.len() <= 8 << 10, "{target}/{name}: a corpus is small");
    }
}

macro_rules! replays {
    ($($target:ident)*) => {
        $(#[test] fn $target() { replay(stringify!($target)); })*

        #[test]
        fn every_target_is_replayed_here() {
            assert_eq!(TARGETS.map(|(name, _)| name).as_slice(), [$(stringify!($target)),*]);
        }
    };
}

replays! {
    transaction block certificate proof exchange consensus_gossip sync_message archive
    consensus_log genesis snapshot file live_machine swarm_machine file_machine
}

/// A target accepts bytes that decode in its format, even if they break a rule beyond the format.
#[test]
fn samples_are_accepted_unless_their_name_says_otherwise() {
    for (target, run) in TARGETS.into_iter().filter(|(name, _)| !name.ends_with("machine")) {
        for (name, bytes) in samples(target) {
            assert_eq!(run(&bytes), !name.starts_with("refused"), "{target}/{name}");
        }
    }
}

#[test]
fn the_programs_the_makefile_and_the_corpora_name_the_same_targets() {
    let expected: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    let manifest = std::fs::read_to_string(folder().join("Cargo.toml")).unwrap();
    let programs = manifest.split("[[bin]]").skip(1);
    let programs = programs.map(|program| {
        let name = program
            .lines()
            .find_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"'))
            .unwrap();
        assert!(program.contains(&format!("path = \"targets/{name}.rs\"")), "{program}");
        let text = std::fs::read_to_string(folder().join(format!("targets/{name}.rs"))).unwrap();
        assert!(text.contains(&format!("tests::fuzz::{name}(data)")), "{text}");
        name.to_owned()
    });
    assert_eq!(programs.collect::<BTreeSet<_>>(), expected);

    let makefile = std::fs::read_to_string(folder().join("../../Makefile")).unwrap();
    let list = makefile.replace("\\\n", " ");
    let list = list.lines().find_map(|line| line.strip_prefix("FUZZ_TARGETS = ")).unwrap();
    assert_eq!(list.split_whitespace().map(str::to_owned).collect::<BTreeSet<_>>(), expected);

    let corpora = std::fs::read_dir(folder().join("corpus")).unwrap();
    let corpora = corpora.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned());
    assert_eq!(corpora.collect::<BTreeSet<_>>(), expected);
}
