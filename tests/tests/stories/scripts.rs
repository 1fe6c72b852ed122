//! Scripts, loads and the faucet of a local network.

use std::fs;
use std::thread;

use ledger::address::encode_address;
use ledger::signature::SigningKey;
use serde_json::{Value, json};
use tests::story::{Folder, Rpc, call_operator, until};

use super::json_of;
use super::started::{Started, run};

/// Runs a script that must succeed, and returns what it prints for each line.
fn script(network: &Started, text: &str) -> Vec<Value> {
    let file = network.dir.join("script.txt");
    fs::write(&file, text).unwrap();
    let done = network.run(&["script", file.to_str().unwrap(), "--json"]);
    assert_eq!(done.code, Some(0), "{done:?}");
    done.stdout.lines().map(json_of).collect()
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("no number: {value}"))
}

#[test]
fn a_script_cuts_a_network_under_load_and_sees_it_heal() {
    let folder = Folder::new();
    let network = Started::new(&folder, "network", &["--nodes", "4"]);
    let lines = script(
        &network,
        "load 50/s --node node1\nexpect final within 60s\n\n# two halves\n\
         partition node1,node2/node3,node4\nexpect no-final for 5s\nheal\n\
         expect final within 60s\nexpect agree\nexpect height 3 within 60s\n\
         isolate 'node4'   # the others go on\nexpect final within 60s\nheal\n\
         expect final within 60s\nload 0/s\n",
    );
    let numbers: Vec<u64> = lines.iter().map(|line| number(&line["line"])).collect();
    assert_eq!(numbers, [1, 2, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]);
    assert_eq!(lines[0]["text"], "load 50/s --node node1");
    let all = ["node1", "node2", "node3", "node4"].map(Value::from);
    assert_eq!(lines[5]["result"]["nodes"], Value::from(all.to_vec()), "all have it");
    assert_eq!(lines[9]["result"]["nodes"], Value::from(all[..3].to_vec()), "node4 is cut off");
    assert!(number(&lines[3]["ms"]) >= 5_000);
    let load = &lines[12]["result"];
    assert!(
        number(&load["sent"]) >= number(&load["final"]) && number(&load["final"]) > 0,
        "{load}"
    );

    // Scripts with an expectation that is not met, or with a line that cannot be carried out.
    for (text, code, says) in [
        ("load 50/s\nexpect no-final for 60s\nkill node1\n", 5, "script.txt:2: expect no-final"),
        ("load 0/s\nexpect final within 1s\n", 1, "script.txt:2: expect final within 1s: no load"),
        ("heal\n\nkill node9\nkill node1\n", 1, "script.txt:3: kill node9"),
        ("heal\nexpect height 1000000 within 100ms", 5, "is at height"),
        ("kill node1\npartitoin a/b\nsleep 5\n", 2, "script.txt:3: sleep 5: "),
    ] {
        let file = network.dir.join("script.txt");
        fs::write(&file, text).unwrap();
        let done = network.run(&["script", file.to_str().unwrap()]);
        assert_eq!(done.code, Some(code), "{text:?}: {done:?}");
        assert!(done.stderr.contains(says), "{says:?}: {done:?}");
    }
    let nodes = network.json(&["ls"])["nodes"].as_array().unwrap().clone();
    assert!(nodes.iter().all(|node| node["state"] == "running"), "no line after a failure ran");

    let file = network.dir.join("script.txt");
    fs::write(&file, "sleep 1ms").unwrap();
    let nowhere = run(&folder.join("nowhere"), &["script", file.to_str().unwrap()]);
    assert_eq!(nowhere.code, Some(3), "{nowhere:?}");
}

#[test]
fn a_load_is_measured_and_outlives_its_node() {
    let folder = Folder::new();
    let network = Started::new(&folder, "network", &["--nodes", "4", "--full-nodes", "1"]);
    let figures = network.json(&["load", "20/s", "--for", "3s"]);
    assert_eq!((number(&figures["sent"]), number(&figures["final"])), (60, 60), "{figures}");
    let [p50, p99, max] = ["p50_ms", "p99_ms", "max_ms"].map(|name| number(&figures[name]));
    assert!(p50 <= p99 && p99 <= max, "{figures}");
    let names: Vec<&String> = figures.as_object().unwrap().keys().collect();
    assert_eq!(names, ["sent", "final", "p50_ms", "p99_ms", "max_ms", "skipped"]);
    assert_eq!(network.json(&["load", "0/s"]), Value::Object(Default::default()), "none runs");

    script(
        &network,
        "load 50/s --node node2\nexpect final within 60s\nkill node2\nsleep 1s\n\
         restart node2\nexpect final within 60s\nkill node2\nrestart node2\n\
         expect final within 60s\nexpect agree within 60s",
    );
    let ask = |method, params| call_operator(&network.dir, method, params)["result"].take();
    ask("testnet_load_rest", json!({ "after_ms": 0 }));
    until("no transfer waits", || {
        (number(&ask("testnet_load_figures", json!({}))["waiting"]) == 0).then_some(())
    });
    let load = network.json(&["load", "0/s"]);
    let (sent, final_) = (number(&load["sent"]), number(&load["final"]));
    assert!(sent >= 50 && sent == final_, "what was sent to a killed node is not lost: {load}");
    assert!(number(&load["max_ms"]) >= 1_000, "timed from when it was due: {load}");

    // A node that does not exist is refused, and the error names the nodes that exist.
    let error = network.run(&["load", "10/s", "--node", "node9"]);
    assert!(error.code == Some(2) && error.stderr.contains("node5"), "{error:?}");
}

#[test]
fn the_faucet_pays_and_has_it_proved() {
    let folder = Folder::new();
    let network = Started::new(&folder, "network", &["--nodes", "4"]);
    let address = |seed: u8| {
        let key = SigningKey::from_seed(&[seed; 32]).public();
        encode_address("crn", &key)
    };
    let paid = network.json(&["faucet", &address(1), "10 CRN"]);
    let names: Vec<&String> = paid.as_object().unwrap().keys().collect();
    assert_eq!(names, ["id", "height", "status"], "as the wallet says it");
    assert_eq!(paid["status"], "final");
    let height: u64 = paid["height"].as_str().unwrap().parse().unwrap();
    let rpc = network.rpc();
    let block = Rpc::new(&rpc[0]).block(height).unwrap();
    assert!(block.transaction_list.iter().any(|one| one.id == paid["id"].as_str().unwrap()));

    // Several payments at once, beside a load.
    network.json(&["load", "50/s"]);
    thread::scope(|scope| {
        for seed in [1, 2, 3, 4] {
            let (network, address) = (&network, &address);
            scope.spawn(move || network.json(&["faucet", &address(seed), "0.5 CRN"]));
        }
    });
    let balance = |seed: u8| Rpc::new(&rpc[0]).account(&address(seed)).unwrap().balance;
    assert_eq!((balance(1), balance(4)), (10_500_000_000, 500_000_000));
    network.json(&["load", "0/s"]);

    for (address, amount, code, says) in [
        ("crn1nobody", "1 CRN", 2, "crn1nobody: not an address"),
        (&address(1), "1", 2, "the unit is missing"),
        (&address(1), "0 CRN", 2, "expected more"),
        (&address(1), "2000000 CRN", 1, "the faucet has"),
    ] {
        let done = network.run(&["faucet", address, amount]);
        assert_eq!((done.code, done.stdout.as_str()), (Some(code), ""), "{done:?}");
        assert!(done.stderr.contains(says), "{says:?}: {done:?}");
    }
}
