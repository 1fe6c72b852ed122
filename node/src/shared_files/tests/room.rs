//! Quota, reserve and a full disk.

use super::*;

#[test]
fn quota_and_reserve_are_checked_before_the_first_byte() {
    let source = Home::new(ROOMY);
    let id = source.share(&source.write("a", &bytes(129 * CHUNK))).unwrap();
    let head = source.files.read_head(&id, 0).unwrap().unwrap();
    let length = head.descriptor.length;
    let endless = Limits { quota: u64::MAX, reserve: u64::MAX };
    for (limits, part) in
        [(Limits { quota: length - 1, reserve: 0 }, "quota"), (endless, "reserve")]
    {
        let home = Home::new(limits);
        home.files.get(id, &[], "").unwrap();
        let error = home.files.begin_segment(&head).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
        let info = home.files.info(&id).unwrap();
        assert_eq!((info.state, info.reason), (FileState::Refused, Some(error)));
        assert_eq!(home.names(), [format!("{id}.json")], "no byte is on disk");
        let (_ours, theirs) = UnixStream::pair().unwrap();
        let reader = Cancel::default().reading();
        let error = home.files.receive(theirs, length, "", &reader).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
    // A part of the file may fit.
    let home = Home::new(Limits { quota: SEGMENT_BYTES, reserve: 0 });
    home.files.get(id, &[(0, 0)], "").unwrap();
    home.files.begin_segment(&head).unwrap();
    let error = home.files.get(id, &[(SEGMENT_BYTES, SEGMENT_BYTES)], "").unwrap_err();
    assert!(matches!(error, FilesError::Quota { needed: CHUNK_BYTES, .. }), "{error}");
    home.files.get(id, &[(5, 9)], "").unwrap();
}

/// Files on their way into the home take of the quota, too.
#[test]
fn the_quota_counts_files_that_are_being_hashed() {
    let home = Home::new(Limits { quota: 100, reserve: 0 });
    let (ours, theirs) = UnixStream::pair().unwrap();
    let cancel = Cancel::default();
    std::thread::scope(|scope| {
        let first = scope.spawn(|| home.files.receive(&theirs, 60, "", &cancel.reading()));
        while home.files.list().is_empty() {
            std::thread::yield_now();
        }
        let error = home.files.receive(io::empty(), 41, "", &cancel.reading()).unwrap_err();
        assert!(matches!(error, FilesError::Quota { used: 60, .. }), "{error}");
        // A file that is shared in place takes nothing of it.
        home.share(&home.write("a", &bytes(1_000))).unwrap();
        drop(ours);
        assert!(matches!(first.join().unwrap(), Err(FilesError::Changed)));
    });
    home.files.receive(&[7; 100][..], 100, "", &cancel.reading()).unwrap();
}

/// The hash list of a shared file leaves the reserve alone, as all other bytes in the home.
#[test]
fn a_full_disk_refuses_to_share() {
    let home = Home::new(Limits { quota: u64::MAX, reserve: u64::MAX });
    let error = home.share(&home.write("a", &bytes(1_000))).unwrap_err();
    assert!(matches!(error, FilesError::Reserve { .. }), "{error}");
    assert!(home.names().is_empty());
}

#[test]
fn a_full_disk_pauses_a_fetch() {
    let source = Home::new(ROOMY);
    let id = source.share(&source.write("a", &bytes(CHUNK))).unwrap();
    let home = Home::new(ROOMY);
    home.files.get(id, &[], "").unwrap();
    let head = source.files.read_head(&id, 0).unwrap().unwrap();
    home.files.begin_segment(&head).unwrap();
    let home = Home::open(home.folder, Limits { reserve: u64::MAX, ..ROOMY });
    let error = home.files.write_chunk(&id, 0, &bytes(CHUNK)).unwrap_err().to_string();
    assert!(error.contains("nearly full"), "{error}");
    let info = home.files.info(&id).unwrap();
    assert_eq!((info.state, info.have_bytes, info.reason), (FileState::Paused, 0, Some(error)));
    let home = Home::open(home.folder, ROOMY);
    home.files.write_chunk(&id, 0, &bytes(CHUNK)).unwrap();
    assert_eq!(home.state(&id), FileState::Kept);
    let wrong = home.files.write_chunk(&id, 0, &bytes(5)).unwrap_err().to_string();
    assert!(wrong.contains("another length"), "{wrong}");
}
