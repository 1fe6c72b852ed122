#![allow(clippy::unwrap_used)]

use super::*;

fn seen(height: u64, hash: &str) -> Seen {
    let head = api::Head { header: format!("{height}"), certificate: hash.to_owned() };
    Seen { height, hash: hash.to_owned(), head }
}

fn read_back(head: api::Head) -> Result<Seen, HomeError> {
    Ok(seen(head.header.parse().unwrap(), &head.certificate))
}

#[test]
fn the_highest_head_stays() {
    let dir = tempfile::tempdir().unwrap();
    let home = Home::new(dir.path().to_owned());
    let check = |height, hash, fork: bool, stays: u64| {
        let kept = home.keep(&seen(height, hash), read_back).unwrap();
        assert_eq!(matches!(kept, Kept::Fork(path) if path.is_file()), fork, "{height} {hash}");
        assert_eq!(home.head().unwrap().unwrap().header, stays.to_string());
    };
    check(5, "a", false, 5);
    check(5, "a", false, 5);
    check(4, "b", false, 5);
    check(5, "b", true, 5);
    check(6, "c", false, 6);
    assert_eq!(home.head().unwrap().unwrap().certificate, "c");
}

#[test]
fn damage_and_absence_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let home = Home::new(dir.path().join("absent"));
    assert!(home.head().unwrap().is_none() && home.genesis().unwrap().is_none());
    let home = Home::new(dir.path().to_owned());
    std::fs::write(dir.path().join(HEAD), "{").unwrap();
    assert!(matches!(home.head(), Err(HomeError::Damaged { .. })));
    std::fs::write(dir.path().join(HEAD), " ".repeat(SMALL_FILE_BYTES_MAX + 1)).unwrap();
    assert!(matches!(home.head(), Err(HomeError::Damaged { .. })));
    std::fs::write(dir.path().join(GENESIS), "{").unwrap();
    assert!(matches!(home.genesis(), Err(HomeError::Genesis { .. })));
    assert!(matches!(read_genesis(&dir.path().join("absent")), Err(HomeError::Io { .. })));
}
