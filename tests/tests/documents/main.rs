//! The documents agree with the code: the tables of `docs/protocol/` alone are enough to read every
//! frozen vector, and each file that a document names exists.
#![allow(clippy::unwrap_used)]

mod links;
mod tables;

use std::collections::{BTreeMap, BTreeSet};

use ledger::codec::{self, Decode, Encode};
use ledger::hash::{Domain, Hash};
use protocol::message::{
    Attempt, CertifiedHeader, ConsensusMessage, Evidence, LogEntry, Request, Response,
};
use protocol::swarm::message::{ChunkId, SyncMessage};
use tables::{Field, Reader, Table, Tables, Type, documented};

/// The bytes of a value, its type, and the known values of its fields.
#[derive(Debug)]
struct Vector {
    name: String,
    kind: String,
    bytes: Vec<u8>,
    fields: BTreeMap<String, String>,
}

/// The vectors of `tests/vectors/messages.json`.
fn messages() -> Vec<Vector> {
    let file: serde_json::Value =
        serde_json::from_str(include_str!("../../vectors/messages.json")).unwrap();
    let vector = |row: &serde_json::Value| Vector {
        name: row["name"].as_str().unwrap().to_owned(),
        kind: row["type"].as_str().unwrap().to_owned(),
        bytes: hex::decode(row["bytes"].as_str().unwrap()).unwrap(),
        fields: serde_json::from_value(row["fields"].clone()).unwrap(),
    };
    file.as_array().unwrap().iter().map(vector).collect()
}

/// The vectors of `tests/vectors/signatures.json` that are messages.
fn crafted() -> Vec<Vector> {
    let file: serde_json::Value =
        serde_json::from_str(include_str!("../../vectors/signatures.json")).unwrap();
    let lists = [
        ("votes", "SignedVote"),
        ("proposals", "SignedProposal"),
        ("certificates", "Certificate"),
        ("transfers", "Transaction"),
    ];
    let mut found = Vec::new();
    for (list, kind) in lists {
        for row in file[list].as_array().unwrap() {
            // A bad certificate need not say what it should prove, so its fields are not compared.
            let told = ["height", "block"].into_iter().filter(|_| row["valid"] == true);
            let told =
                told.filter_map(|name| Some((name.to_owned(), row[name].as_str()?.to_owned())));
            found.push(Vector {
                name: format!("{list}: {}", row["name"]),
                kind: kind.to_owned(),
                bytes: hex::decode(row["bytes"].as_str().unwrap()).unwrap(),
                fields: told.collect(),
            });
        }
    }
    found
}

/// Reads all vectors by the tables. Returns the errors, and the parts of the tables that were used.
fn read(tables: &Tables, vectors: &[Vector]) -> (Vec<String>, BTreeSet<String>) {
    let mut errors = Vec::new();
    let mut used = BTreeSet::new();
    for vector in vectors {
        let mut reader =
            Reader { tables, bytes: &vector.bytes, values: BTreeMap::new(), used: BTreeSet::new() };
        let result = reader.read(&Type::Table(vector.kind.clone()), "");
        let left = reader.bytes.len();
        let other =
            vector.fields.iter().find(|(path, value)| reader.values.get(*path) != Some(value));
        let problem = match (result, left, other) {
            (Err(error), ..) => Some(error),
            (Ok(()), 0, None) => None,
            (Ok(()), 0, Some((path, value))) => {
                Some(format!("{path} is {:?}, expected {value}", reader.values.get(path)))
            }
            (Ok(()), left, _) => Some(format!("{left} bytes follow the last field")),
        };
        errors.extend(problem.map(|problem| format!("{}: {problem}", vector.name)));
        used.append(&mut reader.used);
    }
    (errors, used)
}

/// Each table and each of its variants, as [`Reader::used`] names them.
fn parts(tables: &Tables) -> BTreeSet<String> {
    let mut parts = BTreeSet::new();
    for (name, table) in tables {
        parts.insert(name.clone());
        if let Table::Variants(_, variants) = table {
            parts.extend(variants.keys().map(|number| format!("{name} {number}")));
        }
    }
    parts
}

#[test]
fn every_vector_is_read_with_nothing_but_the_tables() {
    let tables = documented();
    let vectors: Vec<Vector> = messages().into_iter().chain(crafted()).collect();
    let (errors, used) = read(&tables, &vectors);
    assert!(errors.is_empty(), "{}", errors.join("\n"));
    let unused: Vec<_> = parts(&tables).difference(&used).cloned().collect();
    assert!(unused.is_empty(), "no vector has these, so nothing checks them: {unused:?}");
}

/// Every other type that a careless edit could put in place of this one.
fn mistaken(kind: &Type) -> Vec<Type> {
    match kind {
        Type::Number(width) => {
            [1, 2, 4, 8].into_iter().filter(|other| other != width).map(Type::Number).collect()
        }
        Type::Fixed(count) => vec![Type::Fixed(count + 1), Type::Fixed(count - 1), Type::Bytes],
        Type::Bool => vec![Type::Number(4), Type::Option(Box::new(Type::Number(1)))],
        Type::Bytes => vec![Type::Fixed(8), Type::Number(8)],
        Type::Text => vec![Type::Fixed(8), Type::Number(8)],
        Type::Rest => vec![Type::Bytes],
        Type::List(item) => vec![(**item).clone(), Type::Option(item.clone())],
        Type::Option(value) => vec![(**value).clone(), Type::List(value.clone())],
        Type::Table(_) => vec![Type::Number(1), Type::Fixed(32)],
    }
}

/// The same fields with one of them missing, of another type, or in its neighbour's place.
fn spoiled(fields: &[Field]) -> Vec<(String, Vec<Field>)> {
    let mut all = Vec::new();
    for (index, (name, kind)) in fields.iter().enumerate() {
        let mut missing = fields.to_vec();
        missing.remove(index);
        all.push((format!("without {name}"), missing));
        for other in mistaken(kind) {
            let mut changed = fields.to_vec();
            changed[index].1 = other.clone();
            all.push((format!("{name} as {other:?}"), changed));
        }
        if index > 0 {
            let mut swapped = fields.to_vec();
            swapped.swap(index - 1, index);
            all.push((format!("{name} before {}", fields[index - 1].0), swapped));
        }
    }
    all
}

#[test]
fn a_field_that_is_missing_misplaced_or_of_another_type_is_noticed() {
    let tables = documented();
    let vectors = messages();
    let mut unnoticed = Vec::new();
    let mut tried = 0;
    let mut try_out = |name: &str, change: String, table: Table| {
        let mut wrong = tables.clone();
        wrong.insert(name.to_owned(), table);
        tried += 1;
        if read(&wrong, &vectors).0.is_empty() {
            unnoticed.push(format!("{name}: {change}"));
        }
    };
    for (name, table) in &tables {
        match table {
            Table::Fields(fields) => {
                for (change, fields) in spoiled(fields) {
                    try_out(name, change, Table::Fields(fields));
                }
            }
            Table::Variants(width, variants) => {
                try_out(
                    name,
                    "another width".to_owned(),
                    Table::Variants(width + 1, variants.clone()),
                );
                for (number, (variant, fields)) in variants {
                    let mut fewer = variants.clone();
                    fewer.remove(number);
                    try_out(name, format!("without {variant}"), Table::Variants(*width, fewer));
                    for (change, fields) in spoiled(fields) {
                        let mut changed = variants.clone();
                        changed.insert(*number, (variant.clone(), fields));
                        let change = format!("{variant} {change}");
                        try_out(name, change, Table::Variants(*width, changed));
                    }
                }
            }
        }
    }
    assert!(tried > 500, "{tried}");
    assert!(unnoticed.is_empty(), "of {tried}: {}", unnoticed.join("\n"));
}

/// The vectors have the bytes of the code: they decode as their type, and encode to the same bytes.
#[test]
fn the_code_reads_and_writes_the_same_bytes() {
    fn same<T: Encode + Decode<()>>(vector: &Vector) {
        let value: T = codec::decode(&vector.bytes, codec::VALUE_BYTES_MAX)
            .unwrap_or_else(|error| panic!("{}: {error}", vector.name));
        assert_eq!(codec::encode(&value), vector.bytes, "{}", vector.name);
    }
    for vector in messages() {
        match vector.kind.as_str() {
            "Genesis" => same::<ledger::genesis::Genesis>(&vector),
            "Transaction" => same::<ledger::transaction::Transaction>(&vector),
            "Header" => same::<ledger::block::Header>(&vector),
            "Block" => same::<ledger::block::Block>(&vector),
            "Certificate" => same::<ledger::certificate::Certificate>(&vector),
            "ValidatorSet" => same::<ledger::validators::ValidatorSet>(&vector),
            "MerkleProof" => same::<ledger::merkle::MerkleProof>(&vector),
            "AccountProof" => same::<ledger::state::AccountProof>(&vector),
            "Frontier" => same::<Vec<ledger::snapshot::SubtreeDescriptor>>(&vector),
            "SnapshotChunk" => same::<Vec<ledger::state::Entry>>(&vector),
            "ConsensusGossip" => same::<Attempt<ConsensusMessage>>(&vector),
            "HeaderGossip" => same::<Attempt<CertifiedHeader>>(&vector),
            "TransactionGossip" => same::<Attempt<Vec<ledger::transaction::Transaction>>>(&vector),
            "Request" => same::<Request>(&vector),
            "Response" => same::<Response>(&vector),
            "Object" => same::<protocol::find::Object>(&vector),
            "SyncMessage" => same::<SyncMessage>(&vector),
            "LogEntry" => same::<LogEntry>(&vector),
            "Evidence" => same::<Evidence>(&vector),
            "ChunkFrame" => {
                let (id, chunk) = ChunkId::parse(&vector.bytes).unwrap();
                assert_eq!(id.frame(chunk), vector.bytes);
            }
            other => panic!("{}: no type of the code is named {other}", vector.name),
        }
    }
}

/// `tests/vectors.rs` freezes a format by the length of its bytes and by the start of their hash.
#[test]
fn every_format_that_is_frozen_is_among_the_vectors() {
    let frozen: BTreeSet<&str> = include_str!("../vectors.rs")
        .split('"')
        .filter(|text| {
            text.split_once(' ').is_some_and(|(length, hash)| {
                length.parse::<usize>().is_ok()
                    && hash.len() == 16
                    && hash.bytes().all(|byte| byte.is_ascii_hexdigit())
            })
        })
        .collect();
    assert!(frozen.len() >= 21, "{frozen:?}");
    let prints: BTreeSet<String> = messages()
        .iter()
        .map(|vector| {
            let hash = Hash::of(Domain::StoreValue, &[&vector.bytes]).to_string();
            format!("{} {}", vector.bytes.len(), &hash[..16])
        })
        .collect();
    let missing: Vec<_> = frozen.iter().filter(|print| !prints.contains(**print)).collect();
    assert!(missing.is_empty(), "no vector has these bytes: {missing:?}");
}
