#![allow(clippy::unwrap_used)]

use super::*;

fn contents<T>(use_them: impl FnOnce(&Contents<'_>) -> T) -> T {
    let genesis = Genesis::from_json(include_bytes!("../../../genesis.json")).unwrap();
    let (node_key, validator_key) = (Seed::random().unwrap(), Seed::random().unwrap());
    use_them(&Contents {
        genesis: &genesis,
        config: &Config::default(),
        node_key: &node_key,
        validator_key: Some(&validator_key),
    })
}

#[test]
fn a_home_is_made_once_and_reads_back() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("home");
    contents(|contents| {
        Home::create(&root, contents).unwrap();
        assert!(matches!(Home::create(&root, contents), Err(HomeError::Exists { .. })));
        let home = Home::open(&root).unwrap();
        assert_eq!(&home.genesis().unwrap(), contents.genesis);
        assert_eq!(home.config().unwrap(), Config::default());
        assert_eq!(home.node_key().unwrap().public(), contents.node_key.public());
        let validator_key = contents.validator_key.map(Seed::public);
        assert_eq!(home.validator_key().unwrap().map(|key| key.public()), validator_key);
    });
}

#[test]
fn an_unfinished_home_is_no_home() {
    let folder = tempfile::tempdir().unwrap();
    assert!(matches!(Home::open(&folder.path().join("none")), Err(HomeError::Missing { .. })));
    contents(|contents| Home::create(&folder.path().join("home"), contents).unwrap());
    fs::remove_file(folder.path().join("home/genesis.json")).unwrap();
    let error = Home::open(&folder.path().join("home")).unwrap_err().to_string();
    assert!(error.contains("has no genesis.json"), "{error}");
}

#[test]
fn what_a_killed_init_left_is_made_anew_and_nothing_else_is() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("home");
    let names = || names_in(&root).unwrap();
    let whole = |contents: &Contents<'_>| {
        Home::create(&root, contents).unwrap();
        assert_eq!(
            Home::open(&root).unwrap().node_key().unwrap().public(),
            contents.node_key.public()
        );
    };
    // The process may be killed at any point, with these files beside the mark.
    for left in [
        &[][..],
        &["node_key"],
        &["node_key", "validator_key.77.tmp"],
        &["node_key", "db.new"],
        &["node_key", "db", "config.toml"],
    ] {
        let _ = fs::remove_dir_all(&root);
        fs::create_dir_all(&root).unwrap();
        for name in left.iter().chain([&LOCK, &UNFINISHED]) {
            fs::write(root.join(name), "").unwrap();
        }
        assert!(Home::open(&root).unwrap_err().to_string().contains("before it was complete"));
        contents(whole);
        assert!(
            names().iter().all(|name| name != UNFINISHED && name != "validator_key.77.tmp"),
            "{:?}",
            names()
        );
    }
    // A home is complete once it has a genesis, even if the mark is still there.
    fs::write(root.join(UNFINISHED), "").unwrap();
    Home::open(&root).unwrap();
    contents(|contents| {
        assert!(matches!(Home::create(&root, contents), Err(HomeError::Exists { .. })))
    });
    // Foreign files are never removed.
    fs::remove_file(root.join(GENESIS)).unwrap();
    fs::write(root.join("notes"), "").unwrap();
    contents(|contents| {
        assert!(matches!(Home::create(&root, contents), Err(HomeError::Exists { .. })))
    });
    assert!(root.join("node_key").exists());
}

#[cfg(unix)]
#[test]
fn a_home_that_cannot_be_read_is_named_and_not_called_missing() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    std::os::unix::fs::symlink(root.join(GENESIS), root.join(GENESIS)).unwrap();
    match Home::open(root) {
        Err(HomeError::Io { path, .. }) => assert_eq!(path, root.join(GENESIS)),
        other => panic!("expected what the system answered, got {other:?}"),
    }
    let file = root.join("file");
    fs::write(&file, "").unwrap();
    let error = Home::open(&file).unwrap_err().to_string();
    assert!(error.contains("is not a directory"), "{error}");
}

#[test]
fn a_lock_names_its_holder_and_ends_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let lock = lock_dir(folder.path()).unwrap();
    match lock_dir(folder.path()) {
        Err(HomeError::Locked { pid, .. }) => assert_eq!(pid, Some(std::process::id())),
        other => panic!("expected a locked home, got {other:?}"),
    }
    drop(lock);
    // Whoever could open the file could hold its lock.
    let path = folder.path().join(LOCK);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let _lock = lock_dir(folder.path()).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}
