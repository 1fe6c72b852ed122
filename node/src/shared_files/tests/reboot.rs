//! What a reboot may lose.

use super::*;

#[test]
fn after_the_end_of_the_system_what_is_here_is_hashed() {
    let source = Home::new(ROOMY);
    let id = source.share(&source.write("a", &bytes(130 * CHUNK))).unwrap();
    let home = Home::new(ROOMY);
    home.files.get(id, &[], "").unwrap();
    home.fetch(&source, &id, 0..130);
    // Some bytes did not reach the disk, although the bits of their chunks did.
    let folder = home.path("files");
    let file = File::options().write(true).open(folder.join(id.to_string())).unwrap();
    file.write_all_at(&[0; 4_096], 129 * CHUNK_BYTES).unwrap();
    let mut home = reboot(home, &id);
    assert_eq!((home.state(&id), home.files.begin()), (FileState::Checking, vec![]));
    assert!(home.files.read_chunk(&id, 0).unwrap().is_none(), "nothing is served unchecked");
    let cancel = Cancel::default();
    home.files.check(&cancel.reading()).unwrap();
    let info = home.files.info(&id).unwrap();
    assert_eq!((info.state, info.left_bytes), (FileState::Fetching, CHUNK_BYTES));
    assert!(matches!(&home.told()[..], [ToFiles::Fetch { held: Some(_), .. }]));
    home.fetch(&source, &id, 129..130);
    // What came after the check may be lost as well. What was checked is durable.
    let home = reboot(home, &id);
    assert_eq!(home.state(&id), FileState::Checking);
    home.files.check(&cancel.reading()).unwrap();
    assert_eq!(home.state(&id), FileState::Kept);
    assert_eq!(reboot(home, &id).state(&id), FileState::Kept);
}

/// Opens a home as after a reboot.
fn reboot(home: Home, id: &FileId) -> Home {
    let meta = home.path("files").join(format!("{id}.json"));
    let text = fs::read_to_string(&meta).unwrap();
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    fs::write(&meta, text.replace(boot.trim(), "another boot")).unwrap();
    home.restart()
}

/// A reboot may lose what is written last, so nothing is written before the home says so.
#[test]
fn no_chunk_counts_before_the_home_says_when_it_was_written() {
    let source = Home::new(ROOMY);
    let id = source.share(&source.write("a", &bytes(3 * CHUNK))).unwrap();
    let home = Home::new(ROOMY);
    home.files.get(id, &[], "").unwrap();
    home.fetch(&source, &id, 0..1);
    let home = reboot(home, &id);
    home.files.check(&Cancel::default().reading()).unwrap();
    let (path, aside) = (home.path("files").join(format!("{id}.json")), home.path("aside"));
    fs::rename(&path, &aside).unwrap();
    fs::create_dir(&path).unwrap();
    let chunk = source.files.read_chunk(&id, 1).unwrap().unwrap();
    for _ in 0..2 {
        home.files.write_chunk(&id, 1, &chunk).unwrap_err();
    }
    assert!(home.files.read_chunk(&id, 1).unwrap().is_none());
    fs::remove_dir(&path).unwrap();
    fs::rename(&aside, &path).unwrap();
    home.files.write_chunk(&id, 1, &chunk).unwrap();
    assert_eq!(reboot(home, &id).state(&id), FileState::Checking);
}

/// What cannot be read is lost, and keeps no other file from being checked.
#[test]
fn a_file_without_its_hash_list_is_fetched_again() {
    let source = Home::new(ROOMY);
    let ids = [5, 6].map(|count| source.share(&source.write("a", &bytes(count))).unwrap());
    let home = Home::new(ROOMY);
    for id in ids {
        source.share(&source.write("a", &bytes(if id == ids[0] { 5 } else { 6 }))).unwrap();
        home.files.get(id, &[], "").unwrap();
        home.fetch(&source, &id, 0..1);
    }
    let home = ids.iter().fold(home, reboot);
    fs::remove_file(home.path("files").join(format!("{}.heads", ids.iter().min().unwrap())))
        .unwrap();
    home.files.check(&Cancel::default().reading()).unwrap();
    let states = ids.map(|id| home.state(&id));
    assert!(states.contains(&FileState::Fetching) && states.contains(&FileState::Kept));
    for id in ids.into_iter().filter(|id| home.state(id) == FileState::Fetching) {
        source.share(&source.write("a", &bytes(if id == ids[0] { 5 } else { 6 }))).unwrap();
        home.fetch(&source, &id, 0..1);
        assert_eq!(home.state(&id), FileState::Kept);
    }
}
