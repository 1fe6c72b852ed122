//! Rules that the compiler does not check: which crate may know what, and what no file may contain.
#![allow(clippy::unwrap_used)]

use tests::source::{Crate, Order, code_of, files, functions, root};

/// All crates of the workspace.
const CRATES: [&str; 6] = ["ledger", "protocol", "node", "wallet-cli", "tests/testkit", "tests"];

/// Checks that no line of code contains one of these words, outside of the allowed places. Comments
/// may contain them.
fn absent(words: &[&str], below: &str, allowed: &[&str]) {
    let mut offences = Vec::new();
    for (path, text) in files(below, ".rs") {
        if allowed.iter().any(|place| path.starts_with(place)) {
            continue;
        }
        for (number, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            if words.iter().any(|word| code.contains(word)) {
                offences.push(format!("{path}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    assert!(offences.is_empty(), "{words:?} must be absent from {below}:\n{}", offences.join("\n"));
}

/// Checks each claim of ARCHITECTURE.md's table of who must not know what.
#[test]
fn each_room_knows_only_its_own() {
    let table = std::fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    for room in
        ["ledger", "protocol", "node/src/network", "node/src/rpc", "wallet-cli", "tests/testkit"]
    {
        assert!(table.contains(&format!("| `{room}` |")), "{room} has no row in the table");
    }

    unlisted("ledger", &["tokio", "futures", "libp2p", "ureq"]);
    absent(&["std::net", "async fn", "async move", "tokio::"], "ledger/src", &[]);
    absent(&["sled::", "use sled"], "ledger/src", &["ledger/src/store"]);

    unlisted("protocol", &["tokio", "futures", "libp2p", "sled"]);
    absent(&["std::fs", "std::net", "std::thread", "async fn", "tokio::"], "protocol/src", &[]);
    absent(&["ledger::store", "store::Store"], "protocol/src", &[]);
    absent(&["malachite"], "protocol/src", &["protocol/src/live/consensus"]);

    let tests = ["node/src/network/crowd_tests.rs"];
    absent(&["ledger::", "protocol::"], "node/src/network", &tests);
    absent(&["libp2p::", "use libp2p"], "node/src", &["node/src/network"]);

    // A `View` reads snapshots and sends queries. These words are of code that changes the chain.
    let changes = ["crate::driver", "network::Network", "consensus_log", "ChainState", "commit("];
    absent(&changes, "node/src/rpc", &["node/src/rpc/tests"]);
    let server = std::fs::read_to_string(root().join("node/src/rpc/methods.rs")).unwrap();
    assert!(server.contains("struct Methods {\n    view: View,\n"), "the methods hold a `View`");

    unlisted("wallet-cli", &["protocol", "node", "sled", "libp2p"]);
    absent(&["ledger::store", "store::Store"], "wallet-cli/src", &[]);
    // Only one file turns what a node claims about accounts and transactions into facts.
    absent(&["ledger::light"], "wallet-cli/src", &["wallet-cli/src/trust.rs"]);

    // Tests of other projects depend on this crate, so it depends on little.
    unlisted("tests/testkit", &["protocol", "node", "wallet", "tokio", "libp2p", "rustix"]);
}

/// Asserts that a crate has none of these dependencies, except for its tests.
fn unlisted(room: &str, dependencies: &[&str]) {
    let manifest = std::fs::read_to_string(root().join(room).join("Cargo.toml")).unwrap();
    let own = manifest.split_once("\n[dependencies]\n").unwrap().1;
    let own = own.split("\n[").next().unwrap();
    for dependency in dependencies {
        let is_listed = |line: &str| {
            line.strip_prefix(dependency).is_some_and(|rest| rest.starts_with(['.', ' ']))
        };
        assert!(!own.lines().any(is_listed), "{room}/Cargo.toml has {dependency}");
    }
}

/// A file imports what its `use` lines and paths name in another file of the crate. What a
/// submodule takes from a module that contains it does not count. The modules of each `lib.rs` are
/// in reading order. In `ledger` and `wallet-cli` the foundations come first, so imports run up the
/// list. In the other crates what the crate is for comes first, so imports run down. Modules
/// without a blank line between them have no order.
#[test]
fn no_circle_and_no_import_against_the_order() {
    for room in CRATES {
        let sources = Crate::read(&format!("{room}/src"));
        let circles = sources.circles();
        assert!(circles.is_empty(), "circles in {room}:\n{}", circles.join("\n"));
        let order = match room {
            "ledger" | "wallet-cli" => Order::Upward,
            _ => Order::Downward,
        };
        let against = sources.against(order);
        assert!(against.is_empty(), "{order:?} in {room}:\n{}", against.join("\n"));
    }
}

/// Most lines of a file. A file is split where it has two subjects, never to reach a number.
const FILE_LINES_MAX: usize = 500;
/// Most lines of a function. A function around a single `match`, such as one over effects, may be
/// longer if it has at most [`AROUND_MATCH_MAX`] other lines.
const FUNCTION_LINES_MAX: usize = 80;
const AROUND_MATCH_MAX: usize = 12;

#[test]
fn files_and_functions_can_be_read_at_once() {
    let mut long = Vec::new();
    for (path, text) in CRATES.iter().flat_map(|room| files(room, ".rs")) {
        let lines = text.lines().count();
        if lines > FILE_LINES_MAX {
            long.push(format!("{path} has {lines} lines"));
        }
        for function in functions(&code_of(&text)) {
            if function.lines > FUNCTION_LINES_MAX && function.besides_match > AROUND_MATCH_MAX {
                let (name, line, lines) = (function.name, function.line, function.lines);
                long.push(format!("{path}:{line}: {name} has {lines} lines"));
            }
        }
    }
    assert!(long.is_empty(), "split where there are two subjects:\n{}", long.join("\n"));
}

/// Most characters of a line of code, comment or prose.
const COLUMNS_MAX: usize = 100;

/// Tables, links and code in documents may be wider.
#[test]
fn no_line_is_wider_than_a_screen() {
    let mut wide = Vec::new();
    for ending in [".rs", ".md", ".py", ".toml", "Makefile", "run"] {
        for (path, text) in files("", ending) {
            let is_prose = ending == ".md";
            let mut is_quoted = false;
            for (number, line) in text.lines().enumerate() {
                is_quoted ^= is_prose && line.trim_start().starts_with("```");
                let is_table = line.starts_with('|');
                let is_link = line.contains("](") || line.contains("://");
                let is_free = is_prose && (is_quoted || is_table || is_link);
                if line.chars().count() > COLUMNS_MAX && !is_free {
                    wide.push(format!("{path}:{}: {line}", number + 1));
                }
            }
        }
    }
    assert!(wide.is_empty(), "more than {COLUMNS_MAX} columns:\n{}", wide.join("\n"));
}

#[test]
fn nodes_agree_so_no_clock_float_or_hash_order() {
    for room in ["ledger/src", "protocol/src"] {
        absent(
            &["SystemTime", "Instant::now"],
            room,
            &["ledger/src/store/disk.rs", "ledger/src/store/tests"],
        );
        absent(&["HashMap", "HashSet", "f32", "f64"], room, &["ledger/src/store/tests"]);
    }
}

#[test]
fn nothing_is_left_undone_or_unbounded() {
    // These words are put together from parts, so that this file does not contain them.
    let stub = ["to", "do!("].concat();
    let missing = ["unimple", "mented!("].concat();
    let skipped = ["#[ig", "nore"].concat();
    let unbounded = ["unbounded_", "channel"].concat();
    for room in CRATES {
        absent(&[&stub, &missing, &skipped, &unbounded], room, &[]);
    }
}

#[test]
fn no_file_holds_a_path_of_some_machine() {
    let homes = [
        ["/ro", "ot/"].concat(),
        ["/ho", "me/"].concat(),
        ["/Us", "ers/"].concat(),
        ["/wo", "rk/"].concat(),
    ];
    for ending in [".rs", ".md", ".toml", ".json", "Makefile", "run"] {
        for (path, text) in files("", ending) {
            for (number, line) in text.lines().enumerate() {
                let found = homes.iter().find(|home| line.contains(home.as_str()));
                assert!(found.is_none(), "{path}:{}: {line}", number + 1);
            }
        }
    }
}

#[test]
fn crates_say_what_they_are_and_the_readme_says_how_to_begin() {
    for room in CRATES {
        let text = std::fs::read_to_string(root().join(room).join("src/lib.rs")).unwrap();
        assert!(text.starts_with("//! "), "{room}/src/lib.rs says nothing of the crate");
    }
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let screen: Vec<&str> = readme.lines().take(40).collect();
    for command in
        ["cargo build --release && cargo run --release -- testnet", "cargo test --workspace"]
    {
        assert!(screen.iter().any(|line| line.starts_with(command)), "{command}");
    }
    let ci = std::fs::read_to_string(root().join(".ci/run")).unwrap();
    assert!(ci.contains("cargo test --workspace"));
}
