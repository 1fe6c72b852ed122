//! Eras: 16 segments in a folder, with a filter once the era is whole.

use super::*;
use crate::store::pages::{ERA_SEGMENTS, Name};

/// A store with two whole eras and a part of a third one. Some blocks seal a segment alone.
fn filled() -> (Place, Store, Maker, Vec<Committed>) {
    let limits = Limits { segment_blocks: 3, ..genesis(0).limits };
    let mut maker = Maker::new(Genesis { limits, ..genesis(0) });
    let (place, opened) = created(&maker);
    let mut blocks = Vec::new();
    for count in [0, 1, 7, 30, 2].into_iter().cycle().take(110) {
        blocks.push(maker.next(count));
        if blocks.len().is_multiple_of(5) {
            opened.store.commit(&blocks[blocks.len() - 5..]).unwrap();
            opened.store.maintain().unwrap();
        }
    }
    (place, opened.store, maker, blocks)
}

#[test]
fn whole_eras_have_filters_and_everything_is_found() {
    let (place, store, maker, blocks) = filled();
    let history = place.path.join("history");
    let names = |era: &str| {
        let entries = fs::read_dir(history.join(era)).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    assert_eq!(fs::read_dir(&history).unwrap().count(), 3);
    assert_eq!(names("0").len() as u64, 2 * ERA_SEGMENTS + 1);
    assert!(names("1").contains(&"1.filter".to_owned()));
    assert_eq!(
        names("2"),
        [
            "32.blocks",
            "32.index",
            "33.blocks",
            "33.index",
            "34.blocks",
            "34.index",
            "35.blocks",
            "35.index",
            "36.blocks"
        ]
    );
    check_readers(&store, &maker.chain, &blocks);
    drop(store);
    let opened = Store::open(&place.path, &maker.chain).unwrap();
    same_state(&opened.state, &maker.state);
    check_readers(&opened.store, &maker.chain, &blocks);
    drop(opened);
    let report = verified(&place.path, &maker.chain);
    assert_eq!((report.problems, report.segments), (vec![], 36));
}

/// A look-up opens no index of an era whose filter says no.
#[test]
fn a_look_up_opens_only_eras_that_may_have_the_id() {
    let (place, store, _, blocks) = filled();
    let history = place.path.join("history");
    for segment in 0..ERA_SEGMENTS {
        fs::remove_file(Name::Index(segment).path(&history)).unwrap();
    }
    let absent = (0u64..200)
        .map(|number| TxId(Hash([number.to_le_bytes(); 4].concat().try_into().unwrap())));
    let failed = absent.filter(|id| store.find_transaction(id).is_err()).count();
    assert!(failed <= 5, "{failed} of 200");
    let first = blocks[1].block.block().transactions[0].id();
    assert!(store.find_transaction(&first).is_err());
    let newest = blocks[109].block.block().transactions[0].id();
    assert_eq!(store.find_transaction(&newest).unwrap(), Kept::Here((Height(110), 0)));
}

#[test]
fn a_damaged_segment_does_not_end_the_chain_at_the_end_of_its_era() {
    let limits = Limits { segment_blocks: 1, ..genesis(0).limits };
    let mut maker = Maker::new(Genesis { limits, ..genesis(0) });
    let (place, opened) = created(&maker);
    let blocks: Vec<_> = (0..20).map(|_| maker.next(3)).collect();
    opened.store.commit(&blocks[..15]).unwrap();
    let history = place.path.join("history");
    let path = Name::Index(4).path(&history);
    let good = fs::read(&path).unwrap();
    fs::write(&path, &good[1..]).unwrap();
    // An earlier try to end the era may have left a part of a filter.
    fs::write(Name::Filter(0).path(&history), "torn").unwrap();
    opened.store.commit(&blocks[15..]).unwrap();
    assert!(!Name::Filter(0).path(&history).exists());
    let id = |block: usize| blocks[block].block.block().transactions[0].id();
    assert_eq!(opened.store.find_transaction(&id(10)).unwrap(), Kept::Here((Height(11), 0)));
    assert!(opened.store.find_transaction(&id(4)).is_err());
    fs::write(&path, good).unwrap();
    check_readers(&opened.store, &maker.chain, &blocks);
    drop(opened);
    let problems = verified(&place.path, &maker.chain).problems;
    assert_eq!(problems.len(), 1);
    assert_eq!(problems[0].to_string(), "filter of era 0: missing");
}

#[test]
fn verify_finds_a_filter_that_is_damaged_or_of_other_ids() {
    let (place, store, maker, _) = filled();
    drop(store);
    let write = |history: &Path, starts: &[u64]| filter::write(history, 1, starts).unwrap();
    for (name, damage) in [
        (
            "filter of era 1: missing",
            (&|history: &Path| {
                fs::remove_file(Name::Filter(1).path(history)).unwrap();
            }) as &dyn Fn(&Path),
        ),
        ("filter of era 1, page 0: checksum", &|history| {
            let path = Name::Filter(1).path(history);
            let mut bytes = fs::read(&path).unwrap();
            bytes[300] ^= 1;
            fs::write(path, bytes).unwrap();
        }),
        ("filter of era 1: is not the one", &|history| write(history, &[1, 2, 3])),
    ] {
        let damaged = crashed(&place.path);
        damage(&damaged.path.join("history"));
        let report = verified(&damaged.path, &maker.chain);
        let named = report.problems.iter().any(|problem| problem.to_string().contains(name));
        assert!(named, "{name}: {:?}", report.problems);
    }
}

#[test]
fn a_damaged_filter_hides_nothing() {
    let (place, store, maker, blocks) = filled();
    let path = Name::Filter(0).path(&place.path.join("history"));
    let length = fs::metadata(&path).unwrap().len() as usize;
    for bytes in [vec![0; length], vec![0; length + 1], vec![]] {
        fs::write(&path, bytes).unwrap();
        check_readers(&store, &maker.chain, &blocks);
    }
}

#[test]
fn verify_names_all_damaged_files_at_once() {
    let (place, store, maker, _) = filled();
    drop(store);
    let damaged = [Name::Blocks(0), Name::Index(7), Name::Blocks(30), Name::Filter(1)];
    for name in damaged {
        let path = name.path(&place.path.join("history"));
        let mut bytes = fs::read(&path).unwrap();
        bytes[9] ^= 1;
        fs::write(path, bytes).unwrap();
    }
    let problems = verified(&place.path, &maker.chain).problems;
    for name in damaged {
        let is_named = problems.iter().any(|problem| problem.what.contains(&name.to_string()));
        assert!(is_named, "{name}: {problems:?}");
    }
}
