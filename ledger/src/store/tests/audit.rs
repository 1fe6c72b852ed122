//! The audit of a store that began with a snapshot.

use super::archive::segments;
use super::partial::{adopted, chain};
use super::*;
use crate::state::{Account, State, StateKey};
use crate::store::schema::Joined;
use crate::transaction::assume_verified;

/// The store of a chain whose node has executed no block up to `snapshot`, but has all of them.
fn joined(maker: &Maker, blocks: &[Committed], snapshot: Height) -> (Place, Store) {
    let (place, opened) = created(maker);
    opened.store.commit(blocks).unwrap();
    // Opening then executes no block.
    opened.store.write(|writer| opened.store.checkpoint(writer)).unwrap();
    let mut batch = crate::store::disk::Batch::default();
    batch.put_value(Key::Joined, &Joined { height: snapshot, executed: Height(0) });
    opened.store.shared.disk.apply(batch).unwrap();
    opened.store.shared.disk.sync().unwrap();
    drop(opened);
    let store = Store::open(&place.path, &maker.chain).unwrap().store;
    (place, store)
}

/// Blocks until this many segments are sealed, and two more. Returns the height at which the last
/// segment ends.
fn blocks(maker: &mut Maker, segments: u64, blocks: &mut Vec<Committed>) -> Height {
    while maker.state.history().segments() < segments {
        blocks.push(maker.next(60));
    }
    let snapshot = maker.state.tip().height;
    blocks.extend([maker.next(3), maker.next(3)]);
    snapshot
}

/// Runs an audit to its end, or to its error.
fn run(audit: &mut Audit) -> Result<(), AuditError> {
    loop {
        match audit.step()? {
            AuditStep::Executed { bytes } => assert!(bytes > 0),
            AuditStep::Waits => panic!("all blocks are here"),
            AuditStep::Done => return Ok(()),
        }
    }
}

#[test]
fn the_blocks_before_a_snapshot_lead_to_its_state() {
    let mut maker = Maker::new(genesis(10));
    let mut all = Vec::new();
    let snapshot = blocks(&mut maker, 3, &mut all);
    let (place, store) = joined(&maker, &all, snapshot);
    assert_eq!((store.executed_to(), store.tip().0), (Height(0), snapshot.next().next()));
    let mut audit = Audit::begin(&store, None).unwrap().unwrap();
    run(&mut audit).unwrap();
    assert_eq!(audit.height(), snapshot);
    store.set_executed_to(snapshot).unwrap();
    assert_eq!(store.executed_to(), store.tip().0);
    assert!(Audit::begin(&store, None).unwrap().is_none(), "nothing is left to execute");
    drop((audit, store));
    let store = Store::open(&place.path, &maker.chain).unwrap().store;
    assert!(Audit::begin(&store, None).unwrap().is_none(), "also after a restart");
}

#[test]
fn an_audit_goes_on_from_the_end_of_a_segment() {
    let mut maker = Maker::new(genesis(10));
    let mut all = Vec::new();
    let snapshot = blocks(&mut maker, 3, &mut all);
    let (_place, store) = joined(&maker, &all, snapshot);
    let mut audit = Audit::begin(&store, None).unwrap().unwrap();
    assert!(audit.checkpoint().unwrap().is_none(), "nothing was executed");
    audit.step().unwrap();
    let (header, certificate, state) = audit.checkpoint().unwrap().unwrap();
    let first = store.descriptors(0, snapshot, 1)[0];
    assert_eq!((header.hash(), certificate.block), (first.last_block, first.last_block));
    // If the saved progress of an audit is lost, the audit starts again from the first block. The
    // height up to which blocks were executed must not go down then.
    store.set_executed_to(first.last).unwrap();
    store.set_executed_to(Height(1)).unwrap();
    assert_eq!(store.executed_to(), first.last);

    let begin = |header: &Header, state: &State| {
        Audit::begin(&store, Some((header, state.clone()))).unwrap().unwrap()
    };
    let mut resumed = begin(&header, &state);
    assert_eq!(resumed.height(), first.last);
    run(&mut resumed).unwrap();
    // A checkpoint with other accounts, of another block, and of no end of a segment.
    let other = Header { time: Timestamp(1), ..header.clone() };
    let inside = all[0].block.header();
    for (header, state) in
        [(&header, &State::default()), (&other, &state), (inside, all[0].block.state())]
    {
        assert_eq!(begin(header, state).height(), Height(0));
    }
}

/// The operator lowers `keep` in the middle of an audit, so that eras are dropped, and raises it
/// again. The audit waits where it was, until they are back.
#[test]
fn an_audit_goes_on_when_dropped_eras_are_back() {
    let (maker, all) = chain(113, 100);
    let (place, store) = adopted(&maker, &all, 105);
    let segments = segments(&all);
    let keep = |store: &Store, range: std::ops::Range<usize>| {
        let some = &segments[range];
        some.iter().for_each(|(head, bytes)| store.keep_segment(head, bytes).unwrap());
    };
    /// Executes what is here. Returns whether all is executed.
    fn go_on(audit: &mut Audit) -> bool {
        loop {
            match audit.step().unwrap() {
                AuditStep::Executed { .. } => {}
                outcome => return outcome == AuditStep::Done,
            }
        }
    }
    // Segments of three blocks, eras of 48.
    keep(&store, 0..20);
    let mut audit = Audit::begin(&store, None).unwrap().unwrap();
    assert!(!go_on(&mut audit));
    assert_eq!(audit.height(), Height(60));
    let (header, _, state) = audit.checkpoint().unwrap().unwrap();
    store.set_executed_to(audit.height()).unwrap();
    store.drop_era(0).unwrap();
    store.drop_era(1).unwrap();
    drop((audit, store));

    let store = Store::open(&place.path, &maker.chain).unwrap().store;
    assert_eq!((store.executed_to(), store.checked_by_hash_to()), (Height(60), Height(60)));
    let mut resumed = Audit::begin(&store, Some((&header, state))).unwrap().unwrap();
    let mut anew = Audit::begin(&store, None).unwrap().unwrap();
    for audit in [&mut resumed, &mut anew] {
        assert_eq!(audit.step().unwrap(), AuditStep::Waits);
    }
    keep(&store, 20..35);
    assert!(go_on(&mut resumed), "what is executed already need not be here");
    assert!(!go_on(&mut anew));
    keep(&store, 0..20);
    assert!(go_on(&mut anew));
}

/// A third of the power and more lies: validators certify a state that no block made.
#[test]
fn money_that_no_block_made_ends_the_audit() {
    let mut maker = Maker::new(genesis(10));
    let mut all = vec![maker.next(5)];
    let rich = StateKey::account(key(0).public());
    let mut account = *maker.state.state().get(&rich).unwrap();
    account.balance = Amount(account.balance.0 + 1);
    replace(&mut maker, &BTreeMap::from([(rich, account)]));
    let snapshot = blocks(&mut maker, 2, &mut all);
    let (_place, store) = joined(&maker, &all, snapshot);
    let mut audit = Audit::begin(&store, None).unwrap().unwrap();
    let error = run(&mut audit).unwrap_err().to_string();
    assert!(error.starts_with("block 2 is certified, but breaks the rules: "), "{error}");
    assert!(error.contains("state_root") && error.contains("more than a third"), "{error}");
    assert_eq!(audit.height(), Height(1));
}

#[test]
fn a_forged_signature_ends_the_audit() {
    let mut maker = Maker::new(genesis(10));
    let mut all = vec![maker.next(5)];
    let mut transfers = maker.transfers(3, 0);
    let mut forged = transfers[1].transaction().clone();
    forged.signature = transfers[0].transaction().signature;
    transfers[1] = Arc::new(assume_verified(maker.chain.id(), forged));
    all.push(maker.block(transfers));
    let snapshot = blocks(&mut maker, 2, &mut all);
    let (_place, store) = joined(&maker, &all, snapshot);
    let error = run(&mut Audit::begin(&store, None).unwrap().unwrap()).unwrap_err().to_string();
    let part = "block 2 is certified, but breaks the rules: the signature of transaction 1 does";
    assert!(error.starts_with(part), "{error}");
}

#[test]
fn another_state_or_history_at_the_height_of_the_snapshot_ends_the_audit() {
    let mut maker = Maker::new(genesis(10));
    let mut all = Vec::new();
    let snapshot = blocks(&mut maker, 2, &mut all);
    let (_place, store) = joined(&maker, &all, snapshot);
    let mut audit = Audit::begin(&store, None).unwrap().unwrap();
    while audit.height() < snapshot {
        audit.step().unwrap();
    }
    let right = audit.state.clone();
    let (chain, tip) = (Arc::clone(&maker.chain), right.tip().clone());
    let other = right.state().with(&BTreeMap::from([(
        StateKey::account(stranger(77)),
        Account { balance: Amount(1), ..Account::default() },
    )]));
    let empty = ChainState::genesis(Arc::clone(&chain));
    let restored = |state: &State, history: &crate::history::History| {
        ChainState::restored(Arc::clone(&chain), tip.clone(), state.clone(), history.clone())
    };
    for (state, is_same) in [
        (restored(&other, right.history()), false),
        (restored(right.state(), empty.history()), false),
        (restored(right.state(), right.history()), true),
    ] {
        audit.state = state;
        assert_eq!(audit.step().is_ok(), is_same);
    }
}

/// Puts other accounts under a chain, as validators that lie could.
fn replace(maker: &mut Maker, changes: &BTreeMap<StateKey, Account>) {
    maker.state = ChainState::restored(
        Arc::clone(&maker.chain),
        maker.state.tip().clone(),
        maker.state.state().with(changes),
        maker.state.history().clone(),
    );
}
