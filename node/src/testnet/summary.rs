//! The description of a local network: `network.json` for scripts, text for people.

use std::env;

use anyhow::Context;
use ledger::address::encode_address;
use serde_json::json;

use super::layout::Layout;
use crate::files::write_atomic;

/// Writes `network.json` atomically. A node that does not run has no pid.
pub(super) fn write(layout: &Layout, pids: &[Option<u32>]) -> anyhow::Result<()> {
    let genesis = &layout.genesis;
    let nodes: Vec<_> = layout
        .nodes
        .iter()
        .zip(pids)
        .map(|(node, pid)| {
            json!({
                "name": node.name,
                "home": node.home.to_string_lossy(),
                "pid": pid,
                "rpc": node.rpc_url(),
                "p2p": node.p2p.to_string(),
                "validator": node.validator,
            })
        })
        .collect();
    let accounts: Vec<_> = genesis
        .accounts
        .iter()
        .map(|entry| {
            let address = encode_address(&genesis.address_prefix, &entry.account);
            json!({ "name": entry.name, "address": address, "balance": entry.balance.to_string() })
        })
        .collect();
    let network = json!({
        "chain_id": genesis.chain_id().to_string(),
        "genesis": layout.genesis_path().to_string_lossy(),
        "nodes": nodes,
        "accounts": accounts,
        "wallet_home": layout.wallet_home().to_string_lossy(),
    });
    let path = layout.network_path();
    write_atomic(&path, format!("{network:#}\n").as_bytes(), 0o644)
        .with_context(|| path.display().to_string())
}

/// The text that a user needs to begin.
pub(super) fn text(layout: &Layout) -> String {
    let genesis = &layout.genesis;
    let mut text = format!("chain {} in {}\n", genesis.chain_id(), layout.dir.display());
    if let Some(seed) = layout.seed() {
        text += &format!("its keys follow from --seed {seed}, so everybody knows them\n");
    }
    text.push('\n');
    for node in &layout.nodes {
        let role = if node.validator { "validator" } else { "full node" };
        text += &format!("{:8} {role}  RPC {}\n", node.name, node.rpc_url());
    }
    text.push('\n');
    for entry in &genesis.accounts {
        let address = encode_address(&genesis.address_prefix, &entry.account);
        text += &format!("{:8} {address}  {}\n", entry.name, genesis.coin.format(entry.balance));
    }
    if let (Some(node), [from, to, ..]) = (layout.nodes.first(), &genesis.accounts[..]) {
        let home = layout.wallet_home();
        let words = [
            program(&format!("cairn-wallet{}", env::consts::EXE_SUFFIX)),
            "--home".to_owned(),
            quote(&home.display().to_string()),
            "--rpc".to_owned(),
            node.rpc_url(),
            "send --from".to_owned(),
            quote(&from.name),
            "--to".to_owned(),
            quote(&to.name),
            format!("--amount \"1.5 {}\" --yes", genesis.coin.symbol),
        ];
        text += &format!("\nSend money from another terminal:\n  {}\n", words.join(" "));
    }
    if layout.nodes.len() > 1 {
        let command = command(layout);
        let halves = halves(layout.nodes.iter().map(|node| (&*node.name, node.validator)));
        text += &format!(
            "\nBreak the network and heal it:\n  {command} partition {halves}\n  {command} heal\n"
        );
    }
    text
}

/// Says how to stop the network: with Ctrl-C in its terminal, or by a command if it is detached.
pub(super) fn end(layout: &Layout, is_detached: bool) -> String {
    match is_detached {
        false => "Ctrl-C stops the network; the same command resumes it.".to_owned(),
        true => format!("Stop it:\n  {} stop", command(layout)),
    }
}

/// How to call this program for this network, from any folder.
fn command(layout: &Layout) -> String {
    let program = program(&format!("cairn-node{}", env::consts::EXE_SUFFIX));
    format!("{program} testnet --dir {}", quote(&layout.dir.display().to_string()))
}

/// The nodes in two groups, as `partition` reads them. Each group has half of the validators,
/// rounded up in the first one. So nothing becomes final if there are at least two validators.
/// `nodes` gives each node's name and whether it is a validator, with the validators first.
pub(super) fn halves<'a>(nodes: impl Iterator<Item = (&'a str, bool)>) -> String {
    let (names, roles): (Vec<&str>, Vec<bool>) = nodes.unzip();
    let validators = roles.into_iter().filter(|validator| *validator).count();
    let (first, second) = names.split_at(validators.div_ceil(2));
    format!("{}/{}", first.join(","), second.join(","))
}

/// How to call a program of ours: by its name if `PATH` leads to the one beside this program, else
/// by its path.
fn program(name: &str) -> String {
    let beside =
        env::current_exe().ok().map(|own| own.with_file_name(name)).filter(|path| path.is_file());
    let found = env::var_os("PATH").and_then(|path| {
        env::split_paths(&path).map(|folder| folder.join(name)).find(|path| path.is_file())
    });
    match (beside, found) {
        (Some(beside), Some(found)) if beside.canonicalize().ok() == found.canonicalize().ok() => {
            name.to_owned()
        }
        (Some(beside), _) => quote(&beside.display().to_string()),
        (None, _) => name.to_owned(),
    }
}

/// Quotes a word for a POSIX shell, if needed.
fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-:=+@%,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_only_when_they_must() {
        for (word, quoted) in [
            ("/a/b-c.d", "/a/b-c.d"),
            ("a b", "'a b'"),
            ("it's", r"'it'\''s'"),
            ("$HOME", "'$HOME'"),
            ("", "''"),
        ] {
            assert_eq!(quote(word), quoted);
        }
    }
}
