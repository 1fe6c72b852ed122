//! Moves the configurations of a local network to other ports. Everything else in these files stays
//! as the user wrote it: settings, comments, the order of lines. A file that is a link stays one.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use anyhow::Context;
use toml_edit::{DocumentMut, Item, Value};

use super::homes::{loopback, node_keys};
use super::plan::Plan;
use crate::config::{P2pAddress, without_mark};
use crate::files::write_atomic;
use crate::home::Home;

/// The address suffix and the ports of a node.
pub(super) struct Place {
    /// `/p2p/` and the peer id.
    suffix: String,
    p2p: u16,
    rpc: u16,
}

/// Writes the ports of the plan into the configuration of each home that names other ports.
pub(super) fn move_to(dir: &Path, plan: &Plan, ports: &[(u16, u16)]) -> anyhow::Result<()> {
    let keys = node_keys(dir, plan)?;
    let place = |(key, (p2p, rpc)): (&crate::keys::Seed, &(u16, u16))| Place {
        suffix: format!("/p2p/{}", key.identity().public().to_peer_id()),
        p2p: *p2p,
        rpc: *rpc,
    };
    let places: Vec<Place> = keys.iter().zip(ports).map(place).collect();
    for (home, own) in plan.homes(dir).iter().zip(&places) {
        let path = Home::open(home)?.config_path();
        let name = || path.display().to_string();
        // If the file is a link, its target.
        let file = fs::canonicalize(&path).with_context(name)?;
        let old = fs::read_to_string(&file).with_context(name)?;
        let new = moved(&old, own, &places).with_context(name)?;
        if new != without_mark(&old) {
            write_atomic(&file, new.as_bytes(), mode(&file)).with_context(name)?;
        }
    }
    Ok(())
}

#[cfg(unix)]
fn mode(file: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt;
    fs::metadata(file).map_or(0o644, |found| found.permissions().mode() & 0o777)
}

#[cfg(not(unix))]
fn mode(_file: &Path) -> u32 {
    0o644
}

/// The text of a configuration with its own node's ports, and with the ports of the others in its
/// list of peers.
fn moved(text: &str, own: &Place, all: &[Place]) -> anyhow::Result<String> {
    let mut document: DocumentMut = without_mark(text).parse()?;
    let listen = item(&mut document, "p2p");
    put(listen, |listen: Option<P2pAddress>| match listen {
        Some(listen) => listen.with_port(own.p2p),
        None => loopback(own.p2p).into(),
    });
    let listen = item(&mut document, "rpc");
    put(listen, |listen: Option<SocketAddr>| match listen {
        Some(listen) => SocketAddr::new(listen.ip(), own.rpc),
        None => loopback(own.rpc),
    });
    if let Some(peers) =
        document.get_mut("p2p").and_then(|p2p| p2p.get_mut("peers")).and_then(Item::as_array_mut)
    {
        for peer in peers.iter_mut() {
            let Some(address) = peer.as_str().and_then(|text| text.parse::<P2pAddress>().ok())
            else {
                continue;
            };
            let text = address.to_string();
            if let Some(place) = all.iter().find(|place| text.ends_with(&place.suffix)) {
                replace(peer, &address.with_port(place.p2p).to_string());
            }
        }
    }
    Ok(document.to_string())
}

/// The item `listen` of a section.
fn item<'a>(document: &'a mut DocumentMut, section: &str) -> &'a mut Item {
    &mut document[section]["listen"]
}

/// Sets an address, if that changes it. A value that is not an address is left for the node to
/// report.
fn put<T: std::str::FromStr + ToString + PartialEq + Clone>(
    item: &mut Item,
    change: impl Fn(Option<T>) -> T,
) {
    if item.is_none() {
        *item = toml_edit::value(change(None).to_string());
        return;
    }
    let Some(old) = item.as_str().and_then(|text| text.parse::<T>().ok()) else { return };
    let new = change(Some(old.clone()));
    if new != old
        && let Some(value) = item.as_value_mut()
    {
        replace(value, &new.to_string());
    }
}

/// Replaces a string, and keeps the spaces and comments around it.
fn replace(value: &mut Value, text: &str) {
    if value.as_str() == Some(text) {
        return;
    }
    let decor = value.decor().clone();
    *value = text.into();
    *value.decor_mut() = decor;
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const ONE: &str = "/p2p/12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN";
    const TWO: &str = "/p2p/12D3KooWPjceQrSwdWXPyLLeABRXmuqt69Rg3sBYbU1Nft9HyQ6X";

    #[test]
    fn only_ports_change() {
        let places = [(ONE, 1_000), (TWO, 1_010)].map(|(suffix, p2p)| Place {
            suffix: suffix.to_owned(),
            p2p,
            rpc: p2p + 1,
        });
        let before = format!(
            "# mine\n[log]\nlevel = \"debug\" # all of it\n\n[rpc]\n\
             \x20 listen = '127.0.0.1:7701'   # here\n\
             [p2p]\nlisten = \"0.0.0.0:7700\" # all\nprivate = true\npeers = [\n\
             \x20 # the other one\n\
             \x20 \"/ip4/10.0.0.7/tcp/7710{TWO}\", # far\n  \"/dns/node.example/tcp/7700\",\n]\n"
        );
        let after = format!(
            "# mine\n[log]\nlevel = \"debug\" # all of it\n\n[rpc]\n\
             \x20 listen = \"127.0.0.1:1001\"   # here\n\
             [p2p]\nlisten = \"/ip4/0.0.0.0/tcp/1000\" # all\nprivate = true\npeers = [\n\
             \x20 # the other one\n\
             \x20 \"/ip4/10.0.0.7/tcp/1010{TWO}\", # far\n  \"/dns/node.example/tcp/7700\",\n]\n"
        );
        assert_eq!(moved(&before, &places[0], &places).unwrap(), after);
        assert_eq!(
            moved(&after, &places[0], &places).unwrap(),
            after,
            "a second time nothing changes"
        );
        // Addresses in another form stay as they are if they have the right ports.
        let same = "[p2p]\nlisten = '0.0.0.0:1000'\n[rpc]\nlisten='127.0.0.1:1001'\n";
        assert_eq!(moved(same, &places[0], &places).unwrap(), same);
        let filled = moved("", &places[1], &places).unwrap();
        assert!(
            filled.contains("/ip4/127.0.0.1/tcp/1010") && filled.contains("127.0.0.1:1011"),
            "{filled}"
        );
        assert!(moved("[p2p\n", &places[0], &places).is_err());
    }
}
