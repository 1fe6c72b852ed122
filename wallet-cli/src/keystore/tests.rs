#![allow(clippy::unwrap_used)]

use std::fs;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;

const CHEAP: KdfParams = KdfParams { memory_kib: 8, passes: 1, lanes: 1 };
const SEED: [u8; 32] = [9; 32];

fn password() -> Password {
    Password::new("correct horse".into())
}

fn name(text: &str) -> KeyName {
    text.parse().unwrap()
}

/// A keystore of the phrase of 32 zero bytes with keys `main` and `second` (derived) and `old`
/// (imported).
fn store() -> (TempDir, Unlocked) {
    let dir = tempfile::tempdir().unwrap();
    let mut store =
        Keystore::create(dir.path(), &password(), Mnemonic::from_entropy(&[0; 32]), CHEAP).unwrap();
    store.derive(name("main")).unwrap();
    store.import_seed(name("old"), &SEED).unwrap();
    store.derive(name("second")).unwrap();
    (dir, store)
}

fn unlock(dir: &Path) -> Result<Unlocked, KeystoreError> {
    Keystore::open(dir)?.unlock(&password())
}

fn edit(dir: &Path, edit: impl FnOnce(&mut Value)) {
    let mut value = serde_json::from_slice(&fs::read(file::path(dir)).unwrap()).unwrap();
    edit(&mut value);
    fs::write(file::path(dir), value.to_string()).unwrap();
}

#[test]
fn what_goes_in_comes_out_after_reopening() {
    let (dir, before) = store();
    let listed: Vec<Key> = Keystore::open(dir.path()).unwrap().keys().collect();
    let names: Vec<_> = listed.iter().map(|key| (key.name.as_str(), key.origin)).collect();
    assert_eq!(
        names,
        [
            ("main", Origin::Derived { account: 0 }),
            ("old", Origin::Imported),
            ("second", Origin::Derived { account: 1 })
        ]
    );
    let after = unlock(dir.path()).unwrap();
    assert!(after.keys().eq(listed.iter().cloned()));
    assert!(after.phrase().starts_with("abandon ") && after.phrase().ends_with(" art"));
    for key in listed {
        let seed = after.signing_seed(key.name.as_str()).unwrap();
        assert_eq!(seed, before.signing_seed(key.name.as_str()).unwrap());
        assert_eq!(public_key(&seed), key.public_key);
    }
    assert_eq!(*after.signing_seed("old").unwrap(), SEED);
    assert!(matches!(after.signing_seed("nobody"), Err(KeystoreError::NoSuchKey)));
}

#[test]
fn no_secret_is_on_disk_in_clear() {
    let (dir, store) = store();
    let text = fs::read_to_string(file::path(dir.path())).unwrap();
    for secret in [[0; 32], SEED, *store.signing_seed("main").unwrap()] {
        assert!(!text.contains(&hex::encode(secret)));
    }
    assert!(!text.contains("abandon") && !text.contains("horse"));
}

/// This file was written once, in format 1. Every later version must read it.
#[test]
fn format_1_is_frozen() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(file::path(dir.path()), include_bytes!("../../tests/vectors/keystore-format-1.json"))
        .unwrap();
    let store = unlock(dir.path()).unwrap();
    let got: Vec<_> = store
        .keys()
        .map(|key| {
            (key.name.to_string(), hex::encode(*store.signing_seed(key.name.as_str()).unwrap()))
        })
        .collect();
    let expected = [
        ("main", "6662642da489f4835f09f419a3801cb0bfeaa27db99f8882135b96a716eaf3ee"),
        ("old", "0909090909090909090909090909090909090909090909090909090909090909"),
        ("second", "336cac5eb3878221a547c803225778252ceb874efef5c67d1c3de4d08b558b76"),
    ];
    assert_eq!(got, expected.map(|(name, seed)| (name.to_owned(), seed.to_owned())));
}

#[test]
fn a_wrong_password_is_called_that() {
    let (dir, _) = store();
    for wrong in ["", "correct hors", "Correct horse", "correct horse "] {
        let got = Keystore::open(dir.path()).unwrap().unlock(&Password::new(wrong.into()));
        assert!(matches!(got, Err(KeystoreError::BadPassword)), "{wrong:?}");
    }
}

#[test]
fn tampering_with_what_is_in_clear_is_refused() {
    let check = |what: &str, change: &dyn Fn(&mut Value)| {
        let (dir, mut open_before) = store();
        edit(dir.path(), change);
        let got = unlock(dir.path());
        assert!(matches!(got, Err(KeystoreError::Tampered { .. })), "{what}: {got:?}");
        // A keystore that was unlocked before the change refuses to seal the changed file too.
        let got = open_before.derive(name("third"));
        assert!(matches!(got, Err(KeystoreError::Tampered { .. })), "{what}: {got:?}");
    };
    check("name", &|file| file["keys"][0]["name"] = json!("mine"));
    check("public key", &|file| file["keys"][0]["public_key"] = json!(hex::encode([3; 32])));
    check("account", &|file| file["keys"][0]["origin"]["derived"]["account"] = json!(7));
    check("origin", &|file| file["keys"][1]["origin"] = json!({ "derived": { "account": 5 } }));
    check("removed", &|file| drop(file["keys"].as_array_mut().unwrap().pop()));
    check("order", &|file| file["keys"].as_array_mut().unwrap().swap(0, 2));
    check("imported secret", &|file| {
        file["keys"][1]["origin"]["imported"]["secret"] = file["phrase"].clone()
    });
    check("seal", &|file| file["seal"] = file["phrase"].clone());
    check("two names swapped", &|file| {
        let first = file["keys"][0]["name"].take();
        file["keys"][0]["name"] = file["keys"][2]["name"].take();
        file["keys"][2]["name"] = first;
    });
}

#[test]
fn tampering_with_the_derivation_only_locks() {
    let check = |change: &dyn Fn(&mut Value)| {
        let (dir, _) = store();
        edit(dir.path(), change);
        let got = unlock(dir.path());
        assert!(matches!(got, Err(KeystoreError::BadPassword)), "{got:?}");
    };
    check(&|file| file["salt"] = json!(hex::encode([3; 16])));
    check(&|file| file["argon2id"]["passes"] = json!(2));
    check(&|file| file["phrase"] = file["seal"].clone());
}

#[test]
fn damage_is_named_with_its_file() {
    let check = |content: &[u8], reason: &str| {
        let dir = tempfile::tempdir().unwrap();
        fs::write(file::path(dir.path()), content).unwrap();
        let error = Keystore::open(dir.path()).unwrap_err();
        assert!(matches!(error, KeystoreError::Damaged { .. }), "{error}");
        assert!(error.to_string().contains("keystore.json is damaged: "), "{error}");
        assert!(error.to_string().contains(reason), "{error}");
        assert!(error.to_string().len() < 400 && !error.to_string().contains('\u{1b}'));
    };
    let (dir, _store) = store();
    let good = fs::read(file::path(dir.path())).unwrap();
    for end in 0..good.len() - 2 {
        check(&good[..end], "EOF");
    }
    let edited = |change: &dyn Fn(&mut Value)| {
        let mut value: Value = serde_json::from_slice(&good).unwrap();
        change(&mut value);
        value.to_string().into_bytes()
    };
    let key = |index: usize| serde_json::from_slice::<Value>(&good).unwrap()["keys"][index].clone();
    check(b"\xff\xfe", "line 1");
    check(&[&good[..], b"x"].concat(), "trailing");
    check(&vec![b' '; 2 << 20], "longer than 1 MiB");
    check("[".repeat(100_000).as_bytes(), "invalid type");
    check(
        &edited(&|file| file["argon2id"]["memory_kib"] = json!(2 << 20)),
        "memory_kib of 2097152, expected 8 to 1048576",
    );
    check(&edited(&|file| file["argon2id"]["passes"] = json!(4_000_000)), "passes of 4000000");
    check(
        &edited(&|file| file["salt"] = json!("00")),
        "1 bytes, which is not the length of this field",
    );
    check(&edited(&|file| file["salt"] = json!("zz")), "Invalid character");
    check(&edited(&|file| file["keys"][0]["name"] = json!("../x")), "a key name has");
    check(&edited(&|file| file["keys"][1] = key(0)), "key main is there twice");
    check(
        &edited(&|file| file["keys"][0]["origin"]["derived"]["account"] = json!(1u32 << 31)),
        "too large",
    );
    check(&edited(&|file| file["\u{1b}[2J".repeat(1000)] = json!(1)), "unknown field");
    check(
        &edited(&|file| drop(file.as_object_mut().unwrap().remove("seal"))),
        "missing field `seal`",
    );
    check(
        &edited(&|file| file["keys"] = json!(vec![key(0); KEYS_MAX + 1])),
        "1025 keys, at most 1024",
    );
}

#[test]
fn no_single_changed_byte_goes_unnoticed() {
    let (dir, before) = store();
    let path = file::path(dir.path());
    let good = fs::read(&path).unwrap();
    for i in 0..good.len() {
        for bit in [0x01, 0x20, 0x80] {
            let mut bytes = good.clone();
            bytes[i] ^= bit;
            fs::write(&path, &bytes).unwrap();
            // A file that still opens differs only in spelling: upper-case hex or other white
            // space.
            if let Ok(store) = unlock(dir.path()) {
                assert!(store.keys().eq(before.keys()), "byte {i}");
                assert_eq!(store.signing_seed("old").unwrap(), before.signing_seed("old").unwrap());
            }
        }
    }
}

#[test]
fn a_later_format_is_not_called_damage() {
    let (dir, _) = store();
    edit(dir.path(), |file| *file = json!({ "format": 2, "unknown": true }));
    assert!(matches!(Keystore::open(dir.path()), Err(KeystoreError::Format { got: 2, .. })));
}

#[test]
fn create_overwrites_nothing() {
    let (dir, _) = store();
    let before = fs::read(file::path(dir.path())).unwrap();
    let create = |dir: &Path, password: &str, argon2id| {
        Keystore::create(
            dir,
            &Password::new(password.into()),
            Mnemonic::from_entropy(&[1; 32]),
            argon2id,
        )
    };
    assert!(matches!(create(dir.path(), "other", CHEAP), Err(KeystoreError::Exists { .. })));
    assert_eq!(fs::read(file::path(dir.path())).unwrap(), before);

    let dir = tempfile::tempdir().unwrap();
    file::prepare(dir.path()).unwrap();
    fs::write(file::path(dir.path()), "garbage").unwrap();
    assert!(matches!(create(dir.path(), "other", CHEAP), Err(KeystoreError::Exists { .. })));

    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(create(dir.path(), "", CHEAP), Err(KeystoreError::EmptyPassword)));
    let weak = KdfParams { passes: 0, ..CHEAP };
    assert!(matches!(create(dir.path(), "p", weak), Err(KeystoreError::KdfParams(_))));
    assert!(matches!(Keystore::open(dir.path()), Err(KeystoreError::NoKeystore { .. })));
    assert!(matches!(
        Keystore::open(&dir.path().join("absent")),
        Err(KeystoreError::NoKeystore { .. })
    ));
}

#[test]
fn one_name_and_one_key_only_once() {
    let (dir, mut store) = store();
    let before = fs::read(file::path(dir.path())).unwrap();
    assert!(matches!(
        store.derive(name("main")),
        Err(KeystoreError::NameTaken(taken)) if taken == name("main")
    ));
    assert!(matches!(store.import_seed(name("old"), &[1; 32]), Err(KeystoreError::NameTaken(_))));
    assert!(matches!(
        store.import_seed(name("new"), &SEED),
        Err(KeystoreError::KeyExists(other)) if other == name("old")
    ));
    let derived = store.signing_seed("main").unwrap();
    assert!(matches!(store.import_seed(name("new"), &derived), Err(KeystoreError::KeyExists(_))));
    assert_eq!(fs::read(file::path(dir.path())).unwrap(), before);
}

#[test]
fn two_writers_lose_nothing() {
    let (dir, _) = store();
    std::thread::scope(|scope| {
        for writer in ["a", "b"] {
            let mut store = unlock(dir.path()).unwrap();
            scope.spawn(move || {
                for i in 0..10 {
                    store.derive(name(&format!("{writer}{i}"))).unwrap();
                }
            });
        }
    });
    let store = unlock(dir.path()).unwrap();
    let mut accounts: Vec<u32> = store
        .keys()
        .filter_map(|key| match key.origin {
            Origin::Derived { account } => Some(account),
            Origin::Imported => None,
        })
        .collect();
    accounts.sort_unstable();
    assert_eq!(accounts, (0..22).collect::<Vec<u32>>());
    for key in store.keys() {
        store.signing_seed(key.name.as_str()).unwrap();
    }
}

#[test]
fn two_creators_make_one_store() {
    let parent = tempfile::tempdir().unwrap();
    let dir = &parent.path().join("home/keys");
    let made: usize = std::thread::scope(|scope| {
        let create = |byte| {
            move || {
                Keystore::create(dir, &password(), Mnemonic::from_entropy(&[byte; 32]), CHEAP)
                    .is_ok()
            }
        };
        let threads: Vec<_> = (0..8).map(|byte| scope.spawn(create(byte))).collect();
        threads.into_iter().map(|thread| usize::from(thread.join().unwrap())).sum()
    });
    assert_eq!(made, 1);
    unlock(dir).unwrap();
}

#[test]
fn the_remains_of_a_crash_are_harmless() {
    let (dir, mut store) = store();
    let temporary = dir.path().join(".keystore.json.new");
    fs::write(&temporary, "{\"format\": 1, \"arg").unwrap();
    assert_eq!(unlock(dir.path()).unwrap().keys().count(), 3);
    store.derive(name("after")).unwrap();
    assert_eq!(unlock(dir.path()).unwrap().keys().count(), 4);
    assert!(!temporary.exists());
}

#[test]
fn a_failed_write_changes_nothing() {
    let (dir, mut store) = store();
    let before = fs::read(file::path(dir.path())).unwrap();
    // A directory cannot be removed as a file, so the write fails.
    let obstacle = dir.path().join(".keystore.json.new");
    fs::create_dir(&obstacle).unwrap();
    assert!(matches!(store.derive(name("after")), Err(KeystoreError::Io { action: "write", .. })));
    assert_eq!(fs::read(file::path(dir.path())).unwrap(), before);
    assert_eq!(store.keys().count(), 3);
    fs::remove_dir(&obstacle).unwrap();
    store.derive(name("after")).unwrap();
}

#[test]
fn a_full_store_fits_its_file() {
    let (dir, store) = store();
    let mut document = store.store.document.clone();
    let imported = document.keys[1].clone();
    document.keys.clear();
    for i in 0..KEYS_MAX {
        let mut entry = imported.clone();
        entry.name = name(&format!("{i:0>32}"));
        entry.public_key.0[..8].copy_from_slice(&i.to_be_bytes());
        document.keys.push(entry);
    }
    document.seal = store.key.seal(&[], &seal_data(&document)).unwrap();
    Lock::take(dir.path()).unwrap().write(&document).unwrap();
    let mut store = unlock(dir.path()).unwrap();
    assert_eq!(store.keys().count(), KEYS_MAX);
    assert!(matches!(store.derive(name("more")), Err(KeystoreError::Full { max: KEYS_MAX })));
}

#[cfg(unix)]
#[test]
fn only_the_owner_may_look() {
    use std::os::unix::fs::PermissionsExt;
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("home/keys");
    let create = || Keystore::create(&dir, &password(), Mnemonic::from_entropy(&[0; 32]), CHEAP);
    let mut store = create().unwrap();
    for _ in 0..2 {
        assert_eq!(mode(&dir), 0o700);
        assert_eq!(mode(&parent.path().join("home")), 0o700);
        assert_eq!(mode(&file::path(&dir)), 0o600);
        assert_eq!(mode(&dir.join("keystore.lock")), 0o600);
        // A restored copy with wider permissions gets narrow ones at the next change.
        fs::set_permissions(file::path(&dir), fs::Permissions::from_mode(0o644)).unwrap();
        store.derive(name(&format!("k{}", store.keys().count()))).unwrap();
    }
    let empty = tempfile::tempdir().unwrap();
    fs::set_permissions(empty.path(), fs::Permissions::from_mode(0o755)).unwrap();
    Keystore::create(empty.path(), &password(), Mnemonic::from_entropy(&[0; 32]), CHEAP).unwrap();
    assert_eq!(mode(empty.path()), 0o700);
    for open in [0o750, 0o701, 0o777] {
        fs::set_permissions(&dir, fs::Permissions::from_mode(open)).unwrap();
        assert!(matches!(create(), Err(KeystoreError::Exposed { mode, .. }) if mode == open));
    }
}

#[test]
fn debug_shows_no_secret() {
    let (dir, store) = store();
    let shown = format!("{store:?} {:?} {:?}", password(), Keystore::open(dir.path()).unwrap());
    assert!(!shown.contains("horse") && !shown.contains("abandon"));
}
